from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from natproxy.durable import sync_directory


def test_a_directory_is_synced_and_no_descriptor_stays(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    sync_directory(tmp_path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_is_no_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "missing"):
        with pytest.raises(OSError, match=name):
            sync_directory(tmp_path / name)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_that_cannot_is_forgiven_and_one_that_fails_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output error"):
            sync_directory(tmp_path)
    else:
        sync_directory(tmp_path)
