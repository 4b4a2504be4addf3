"""natproxy's commands as processes of their own, which say what they do into a file. I/O: processes, files."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 10.0


def start(words: list[str], log_path: Path, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Run ``natproxy WORDS``; ``log_path`` takes all that it says."""
    with log_path.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "natproxy", *words],
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in this terminal is for the demonstration, which then stops natproxy
        )


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to stop, and see to it that it does."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
