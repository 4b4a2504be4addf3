"""The state file: port map, last good snapshot and addresses, kept over restarts. I/O: talks to the file system.

Written whole: a temporary file beside it, fsync, rename, fsync of the directory; whoever reads it finds the old state
or the new one. What the file looks like, and how it becomes ``State``, is in stateformat.py.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from natproxy.controller.stateformat import DamagedError, State, decode_state, encode_state
from natproxy.durable import sync_directory
from natproxy.errors import StateError

__all__ = ["LoadResult", "State", "StateFile", "make_directory"]

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_directory(path: Path) -> None:
    """Make the directory of the state file, for its owner only, unless it is there already.

    Raises StateError where it cannot be made, or where another user could put files of his own into it: a state file
    says where ports lead, and the control socket there is obeyed.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except OSError as error:
        message = f"cannot make the state_dir {path}: {error.strerror or error}"
        raise StateError(message) from error
    if status.st_uid not in (0, os.geteuid()):
        message = f"the state_dir {path} belongs to another user (uid {status.st_uid}): it must be natproxy's own"
        raise StateError(message)
    if status.st_mode & _OTHERS_WRITE:
        message = f"other users may write to the state_dir {path}: take that from them (chmod go-w), or choose another"
        raise StateError(message)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What ``StateFile.load`` found."""

    state: State
    """Empty where there was no file, or a damaged one."""
    warning: str | None = None
    """Set where a damaged file was put aside: what was wrong and where the file is now."""


class StateFile:
    """The file at ``path``, which only this process writes. ``now`` gives the Unix time."""

    def __init__(self, path: Path, *, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._now = now
        self._saved: State | None = None

    def load(self) -> LoadResult:
        """Read the file; put a damaged one aside under another name.

        Raises StateError where the file cannot be read, or was written by a newer natproxy.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return LoadResult(State())
        except OSError as error:
            message = f"cannot read the state file {self.path}: {error.strerror or error}"
            raise StateError(message) from error
        try:
            state = decode_state(content)
        except DamagedError as error:
            return LoadResult(State(), self._put_aside(str(error)))
        except StateError as error:
            message = f"state file {self.path}: {error}"
            raise StateError(message) from error
        self._saved = state
        return LoadResult(state)

    def save(self, state: State) -> bool:
        """Make ``state`` what the next ``load`` returns; return False where it already was, and nothing was written.

        Raises StateError where that fails; then the file is as it was before (only where the very last step fails,
        the directory's fsync, the new file stands but may not survive a power failure). Blocks for as long as the
        disk takes.
        """
        if state == self._saved and self.path.exists():
            return False
        self._saved = None
        try:
            self._replace(encode_state(state))
        except OSError as error:
            message = f"cannot write the state file {self.path}: {error.strerror or error}"
            raise StateError(message) from error
        self._saved = state
        return True

    def _replace(self, content: bytes) -> None:
        temporary = self.path.with_name(f".{self.path.name}.new")
        temporary.unlink(missing_ok=True)  # left by a crash; O_EXCL below refuses whatever else may lie there
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_directory(self.path.parent)

    def _put_aside(self, what: str) -> str:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        number = 1
        while aside.exists():
            number += 1
            aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}-{number}")
        try:
            self.path.rename(aside)
        except OSError as error:
            return f"the state file {self.path} is damaged ({what}) and cannot be renamed: {error.strerror or error}"
        return f"the state file {self.path} is damaged ({what}); it was put aside as {aside.name}"
