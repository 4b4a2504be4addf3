"""A disk that a test can fill up or make read-only, which only the daemon sees. I/O: a mount namespace; needs root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.scenarios.daemon import Daemon

_SCRIPT = 'mount -t tmpfs -o mode=0700,size=256k,nr_inodes=64 natproxy-test "$1" && echo mounted && exec cat'


class Disk:
    """A small file system in place of a daemon's state_dir, until this is left. The daemon must not run yet."""

    def __init__(self, daemon: Daemon) -> None:
        self._directory = daemon.state_dir
        self._directory.mkdir(mode=0o700)
        # The namespace lives as long as this process, which ends when nobody holds its standard input any more.
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh", str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"mounted\n"
        daemon.prefix = (*self._inside, *daemon.prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.communicate(timeout=20)

    @property
    def _inside(self) -> tuple[str, ...]:
        return ("nsenter", "--mount", "--target", str(self._holder.pid), "--wd=/", "--")

    @property
    def path(self) -> Path:
        """The state_dir, as it is seen from here."""
        return Path(f"/proc/{self._holder.pid}/root{self._directory}")

    def fill(self) -> Callable[[], None]:
        """Leave no byte; return what makes room again."""
        filler = self.path / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        return lambda: filler.unlink(missing_ok=True)

    def use_up_names(self) -> Callable[[], None]:
        """Leave no inode; return what makes room again."""
        made: list[Path] = []
        try:
            while True:
                path = self.path / f"filler-{len(made)}"
                path.touch()
                made.append(path)
        except OSError:
            pass

        def make_room() -> None:
            for path in made:
                path.unlink(missing_ok=True)

        return make_room

    def make_read_only(self) -> Callable[[], None]:
        """Refuse to write; return what allows it again."""
        self._remount("ro")
        return lambda: self._remount("rw")

    def _remount(self, mode: str) -> None:
        subprocess.run(
            [*self._inside, "mount", "-o", f"remount,{mode}", os.fspath(self._directory)], check=True, timeout=20
        )
