"""Files written whole, for their owner only, and the lock of a directory. I/O: talks to the file system.

Whoever reads a file finds the old content or the new one, also after a crash or a power failure.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from natproxy.durable import sync_directory
from natproxy.errors import PkiError

LOCK_SECONDS = 10.0
"""How long a command waits for another one to end; none takes that long."""
_POLL_SECONDS = 0.05


def read(path: Path) -> bytes:
    """Return the content of a file. Raises PkiError."""
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"cannot read {path}: {error.strerror or error}"
        raise PkiError(message) from error


def write(contents: Mapping[Path, bytes]) -> None:
    """Replace files of one directory, one after the other, once all of the contents are on the disk.

    Raises PkiError where that fails: then each file is as it was before, or (only where a rename fails) new and whole.
    """
    temporaries = {path.with_name(f".{path.name}.new"): path for path in contents}
    path = next(iter(contents))
    try:
        for temporary, path in temporaries.items():
            _write_through(temporary, contents[path])
        for temporary, path in temporaries.items():
            temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        message = f"cannot write {path}: {error.strerror or error}"
        raise PkiError(message) from error
    finally:
        for temporary in temporaries:
            with contextlib.suppress(OSError):
                temporary.unlink()


def make_directory(path: Path) -> None:
    """Make a directory for its owner only, unless it is there. Raises PkiError."""
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        message = f"cannot make the directory {path}: {error.strerror or error}"
        raise PkiError(message) from error


def make_own_directory(path: Path) -> None:
    """Make a directory, or take up one that a crash left. Raises PkiError where others could reach into that."""
    make_directory(path)
    status = path.lstat()
    if (
        not stat.S_ISDIR(status.st_mode)
        or status.st_uid != os.geteuid()
        or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ):
        message = f"{path} is in the way, and others could reach into it: remove it"
        raise PkiError(message)


def rename(source: Path, target: Path) -> None:
    """Give a directory another name beside it. Raises PkiError."""
    try:
        source.rename(target)
        sync_directory(target.parent)
    except OSError as error:
        message = f"cannot rename {source} to {target}: {error.strerror or error}"
        raise PkiError(message) from error


@contextlib.contextmanager
def locked(path: Path, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock file; it stays where it is. Raises PkiError where another process holds it for too long."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"cannot open {path}: {error.strerror or error}"
        raise PkiError(message) from error
    try:
        _lock(descriptor, path, time.monotonic() + seconds)
        yield
    finally:
        os.close(descriptor)


def _write_through(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # left by a crash; O_EXCL refuses whatever else may lie there
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                message = f"another `natproxy pki` is at work: it holds {path}"
                raise PkiError(message) from None
            time.sleep(_POLL_SECONDS)
        except OSError as error:
            message = f"cannot lock {path}: {error.strerror or error}"
            raise PkiError(message) from error
        else:
            return
