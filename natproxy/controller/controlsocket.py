"""Opens the control socket, and makes sure that one daemon only has it. I/O: talks to the file system.

Whoever opens the socket holds a lock on its directory meanwhile, so that two daemons that start at once cannot both
find it stale. Its mode is set before it has a name (Linux gives the file the socket's own mode, less the umask), so
that it is never open to others, and no process-wide umask is touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from natproxy.errors import NatproxyError

MAX_PATH_BYTES = 107
"""sun_path of unix(7), less the closing zero."""
LOCK_SECONDS = 5.0
"""Longer than any daemon needs to open its socket; but whoever may read the directory can lock it, and sit on it."""
_LOCK_PAUSE_SECONDS = 0.02


class ControlSocket:
    """A listening, non-blocking Unix socket at ``path``, mode 0600; a stale one is replaced.

    Raises NatproxyError where another process answers there, something else is in the way, the path is too long for
    a socket, or the file system refuses.
    """

    def __init__(self, path: Path) -> None:
        if (length := len(os.fsencode(path))) > MAX_PATH_BYTES:
            message = (
                f"the path of the control socket {path} is too long: {length} bytes where the system allows "
                f"{MAX_PATH_BYTES}; choose a shorter state_dir"
            )
            raise NatproxyError(message)
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._identity = _open(self.listener, path)
        except BaseException as error:
            self.listener.close()
            if isinstance(error, OSError):
                message = f"cannot open the control socket {path}: {error.strerror or error}"
                raise NatproxyError(message) from error
            raise

    def remove(self) -> None:
        """Remove the name, where it still is this socket's, and the disk lets it; else the next start replaces it."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._identity:
                self.path.unlink()


def _open(listener: socket.socket, path: Path) -> tuple[int, int]:
    """Give ``listener`` its name and return which file that is. Raises OSError or NatproxyError."""
    with _locked(path.parent):
        _remove_stale(path)
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(str(path))
        listener.listen(64)
        identity = _identity(path)
    listener.setblocking(False)
    return identity


def _identity(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens on."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        message = f"cannot open the control socket {path}: a file that is no socket is in the way"
        raise NatproxyError(message)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):  # nobody listens; its owner may be removing it just now
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # somebody listens, too busy to accept
    message = f"another natproxy runs with this state_dir: it answers on {path}"
    raise NatproxyError(message)


def _lock(descriptor: int, directory: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                message = f"another process keeps {directory} locked (flock): end it, or choose another state_dir"
                raise NatproxyError(message) from None
            time.sleep(_LOCK_PAUSE_SECONDS)
        else:
            return


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, directory)
        yield
    finally:
        os.close(descriptor)
