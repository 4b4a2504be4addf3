from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.running import process
from tests.controller.source import Source, serving


@pytest.mark.parametrize("command", [["--help"], ["--version"], ["routes"], ["routes", "--json"], ["ports", "list"]])
@pytest.mark.parametrize("end", ["closed pipe", "full disk"])
def test_output_that_nobody_takes_is_no_traceback(tmp_path: Path, command: list[str], end: str) -> None:
    if end == "closed pipe":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open("/dev/full", os.O_WRONLY)
    place = [] if command[0].startswith("-") else ["--state-dir", tmp_path]
    with serving(Source(), tmp_path):
        done = process(*command, *place, stdout=writing)
    os.close(writing)
    assert done.code == 1
    assert done.err in ("", "natproxy: [Errno 28] No space left on device\n")
