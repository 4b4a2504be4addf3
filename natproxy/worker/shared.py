"""Counts that all workers see, so that a limit holds for the whole. I/O: shares memory with the other workers.

Theory. Each worker has a table of its own in one piece of shared memory and is the only one who writes to it; the
others read it. So there is no lock, and what a dead worker leaves behind is wiped with its table. An entry is a 64-bit
keyed hash (the key is the controller's secret of this run: nobody outside can choose addresses that collide) and a
count, in one of the ``WINDOW`` slots after the place that the hash names. A reader looks at the whole window, so that
entries may come and go without marks. Should a window be full, that key is counted by its worker alone.
"""

from __future__ import annotations

import mmap
import os
import struct
from hashlib import blake2b

SLOTS = 16384
WINDOW = 8
_HASHES = struct.Struct(f"={WINDOW}Q")
_COUNTS = struct.Struct(f"={WINDOW}I")
_HASH = struct.Struct("=Q")
_COUNT = struct.Struct("=I")
_PLACES = SLOTS + WINDOW
_COUNTS_OFFSET = _PLACES * _HASH.size
TABLE_BYTES = _PLACES * (_HASH.size + _COUNT.size)
SECRET_BYTES = 16


def create_shared_counts(workers: int) -> int:
    """Return a descriptor of memory for so many workers' tables, after a fresh secret; the caller closes it."""
    fd = os.memfd_create("natproxy-counts", os.MFD_CLOEXEC)
    os.ftruncate(fd, SECRET_BYTES + workers * TABLE_BYTES)
    os.pwrite(fd, os.urandom(SECRET_BYTES), 0)
    return fd


def wipe(fd: int, row: int) -> None:
    """Forget what the worker of this row counted."""
    os.pwrite(fd, bytes(TABLE_BYTES), SECRET_BYTES + row * TABLE_BYTES)


class SharedCounts:
    """The tables as the worker of ``row`` sees them."""

    def __init__(self, fd: int, row: int) -> None:
        size = os.fstat(fd).st_size
        self._memory = mmap.mmap(fd, size)
        self._secret = self._memory[:SECRET_BYTES]
        tables = [SECRET_BYTES + number * TABLE_BYTES for number in range((size - SECRET_BYTES) // TABLE_BYTES)]
        self._own = tables.pop(row)
        self._others = tuple(tables)

    def elsewhere(self, key: str) -> int:
        """Return the sum of the other workers' counts for ``key``."""
        hashed = self._hash(key)
        place = hashed % SLOTS
        total = 0
        for table in self._others:
            hashes = _HASHES.unpack_from(self._memory, table + place * _HASH.size)
            if hashed in hashes:
                counts = _COUNTS.unpack_from(self._memory, table + _COUNTS_OFFSET + place * _COUNT.size)
                total += counts[hashes.index(hashed)]
        return total

    def tell(self, key: str, count: int) -> None:
        """Let the others know this worker's count for ``key``."""
        hashed = self._hash(key)
        place = hashed % SLOTS
        hashes = _HASHES.unpack_from(self._memory, self._own + place * _HASH.size)
        if hashed in hashes:
            slot = place + hashes.index(hashed)
        else:
            counts = _COUNTS.unpack_from(self._memory, self._own + _COUNTS_OFFSET + place * _COUNT.size)
            if 0 not in counts:
                return
            slot = place + counts.index(0)
            _HASH.pack_into(self._memory, self._own + slot * _HASH.size, hashed)
        _COUNT.pack_into(self._memory, self._own + _COUNTS_OFFSET + slot * _COUNT.size, count)

    def _hash(self, key: str) -> int:
        return int.from_bytes(blake2b(key.encode(), digest_size=8, key=self._secret).digest(), "little") or 1

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
