"""Counts that all workers see, so that a limit holds for the whole. I/O: shares memory with the other workers.

Theory. Each worker has a row of its own in one piece of shared memory and is the only one who writes to it; the others
read it. So there is no lock, and what a dead worker leaves behind is wiped with its row. A row is two things:

- a *load*: how many connections the worker has, and who it is (``Loads``, for spread.py);
- a *table* of counts by key (``SharedCounts``, for access.py). An entry is a 64-bit keyed hash (the key is the
  controller's secret of this run: nobody outside can choose addresses that collide) and a count, in one of the
  ``WINDOW`` slots after the place that the hash names. A reader looks at the whole window, so that entries may come and
  go without marks. Should a window be full, that key is counted by its worker alone.

The memory: a head (secret, number of rows), the loads of all rows, their process ids, a matrix of how many connections
each row has taken over from each other one, then the tables.
"""

from __future__ import annotations

import mmap
import os
import struct
from functools import lru_cache
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
_HEAD = struct.Struct(f"={SECRET_BYTES}sQ")
_HASHES_KEPT = 4096
NOBODY = 0xFFFFFFFF
"""The load of a row whose worker is not there, or takes no more connections."""


def create_shared_counts(workers: int) -> int:
    """Return a descriptor of memory for so many workers' rows, after a fresh secret; the caller closes it."""
    fd = os.memfd_create("natproxy-counts", os.MFD_CLOEXEC)
    os.ftruncate(fd, _tables_offset(workers) + workers * TABLE_BYTES)
    os.pwrite(fd, _HEAD.pack(os.urandom(SECRET_BYTES), workers), 0)
    for row in range(workers):
        wipe(fd, row)
    return fd


def wipe(fd: int, row: int) -> None:
    """Forget what the worker of this row counted, and that it was there. What it took over stays told."""
    workers = _HEAD.unpack(os.pread(fd, _HEAD.size, 0))[1]
    os.pwrite(fd, _COUNT.pack(NOBODY), _HEAD.size + row * _COUNT.size)
    os.pwrite(fd, bytes(TABLE_BYTES), _tables_offset(workers) + row * TABLE_BYTES)


def _tables_offset(workers: int) -> int:
    return -(-(_HEAD.size + workers * (2 + workers) * _COUNT.size) // _HASH.size) * _HASH.size


class SharedCounts:
    """The tables as the worker of ``row`` sees them."""

    def __init__(self, fd: int, row: int) -> None:
        self._memory = mmap.mmap(fd, os.fstat(fd).st_size)
        self._secret, workers = _HEAD.unpack_from(self._memory)
        tables = [_tables_offset(workers) + number * TABLE_BYTES for number in range(workers)]
        self._own = tables.pop(row)
        self._others = tuple(tables)
        # A client's key is looked up six times in the life of one connection.
        self._hashed = lru_cache(_HASHES_KEPT)(self._hash)

    def elsewhere(self, key: str) -> int:
        """Return the sum of the other workers' counts for ``key``."""
        hashed = self._hashed(key)
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
        hashed = self._hashed(key)
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


class Loads:
    """How many connections each worker has, as the worker of ``row`` sees it."""

    def __init__(self, fd: int, row: int) -> None:
        self._memory = mmap.mmap(fd, os.fstat(fd).st_size)
        self.workers = _HEAD.unpack_from(self._memory)[1]
        self._row = row
        self._all = struct.Struct(f"={self.workers}I")
        self._pids_at = _HEAD.size + self._all.size
        self._taken_at = _HEAD.size + 2 * self._all.size

    def tell(self, count: int) -> None:
        """Let the others know how many connections this worker has; NOBODY = it takes no more."""
        _COUNT.pack_into(self._memory, _HEAD.size + self._row * _COUNT.size, count)

    def come(self) -> None:
        """Let the others know that this worker is there, with no connection yet."""
        _COUNT.pack_into(self._memory, self._pids_at + self._row * _COUNT.size, os.getpid())
        self.tell(0)

    def all(self) -> tuple[int, ...]:
        """Return each row's connections; NOBODY where no worker is."""
        return self._all.unpack_from(self._memory, _HEAD.size)

    def pids(self) -> tuple[int, ...]:
        """Return each row's worker, also of those that are gone."""
        return self._all.unpack_from(self._memory, self._pids_at)

    def taken(self) -> tuple[int, ...]:
        """Return how many connections each row has ever taken over from this one (modulo 2**32)."""
        return self._all.unpack_from(self._memory, self._taken_at + self._row * self._all.size)

    def take_over(self, row: int) -> None:
        """Let ``row`` know that one more connection has come from there."""
        place = self._taken_at + row * self._all.size + self._row * _COUNT.size
        (count,) = _COUNT.unpack_from(self._memory, place)
        _COUNT.pack_into(self._memory, place, (count + 1) & 0xFFFFFFFF)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
