"""Pipes through which large values pass from socket to socket without being copied. I/O: pipes.

Theory. splice(2) moves references to the pages in which the kernel keeps a socket's bytes, not the bytes: two copies
less for each value. It costs two system calls as ``read`` and ``write`` do, and some work for each page, and so pays
from tens of kilobytes on. The pipe in between holds what the other socket has no room for: it is then kept, as bytes
would be, until that has been written; any other pipe is empty, and free for whoever comes next.

A pipe holds a number of references (256 here), not of bytes. So a splice that took less than it was allowed to has not
necessarily emptied the socket, and it never takes urgent data: whether anything is left has to be asked.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import termios

MOST_PIPES = 16
"""In a worker; where more connections are stalled at once, their bytes are copied. Two descriptors each."""
_ROOM_BYTES = 1024 * 1024
"""Pages that a pipe can refer to, times 4 KiB: what an unprivileged user may ask for (/proc/sys/fs/pipe-max-size)."""
_CAN_SPLICE = hasattr(os, "splice")
"""False on macOS, which has nothing like it."""
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK if _CAN_SPLICE else 0
_COUNT = array.array("i", [0])
_UNSUPPORTED = frozenset({errno.EPERM, errno.ENOSYS, errno.EINVAL})


def unread_bytes(fd: int) -> int:
    """Return how much a socket holds that has not been read (FIONREAD, tcp(7))."""
    fcntl.ioctl(fd, termios.FIONREAD, _COUNT)
    return _COUNT[0]


class Pipe:
    """Bytes on their way from one socket to another. ``len()`` tells how many."""

    __slots__ = ("_held", "_reader", "_writer")

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._held = 0
        # Where the user has too many already it stays small, and holds less at once.
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._writer, fcntl.F_SETPIPE_SZ, _ROOM_BYTES)

    def __len__(self) -> int:
        return self._held

    def fill(self, fd: int, most: int) -> int:
        """Take up to ``most`` bytes from a socket; return how many (0 = its end). Raises BlockingIOError, OSError."""
        count = os.splice(fd, self._writer, most, flags=_FLAGS)
        self._held += count
        return count

    def empty(self, fd: int) -> bool:
        """Write to a socket what is held; False where it has no more room. Raises OSError."""
        while self._held:
            try:
                self._held -= os.splice(self._reader, fd, self._held, flags=_FLAGS)
            except BlockingIOError:
                return False
        return True

    def close(self) -> None:
        """Forget what is held."""
        os.close(self._reader)
        os.close(self._writer)


class Pipes:
    """Those of a worker."""

    def __init__(self) -> None:
        self._free: list[Pipe] = []
        self._left = MOST_PIPES
        self._is_impossible = not _CAN_SPLICE

    def take(self) -> Pipe | None:
        """Return an empty pipe, to be given back; None where there is none."""
        if self._free:
            return self._free.pop()
        if self._is_impossible or not self._left:
            return None
        try:
            pipe = Pipe()
        except OSError:
            return None
        self._left -= 1
        return pipe

    def give_back(self, pipe: Pipe) -> None:
        """Let others use a pipe. What it still holds is lost."""
        if len(pipe) or self._is_impossible:
            pipe.close()
            self._left += 1
        else:
            self._free.append(pipe)

    def give_up(self, error: OSError) -> bool:
        """Say whether ``error`` means that there is no splicing here at all; if so, there are no pipes any more."""
        if error.errno not in _UNSUPPORTED:
            return False
        self._is_impossible = True
        self.close()
        return True

    def close(self) -> None:
        """Close those that nobody uses."""
        for pipe in self._free:
            pipe.close()
        self._free.clear()


PIPES = Pipes()
"""Those of this process."""
