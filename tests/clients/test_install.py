"""How packages of Node.js get where tests look for them: by .ci/node."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.programs import ROOT

NO_PACKAGES = '{"name": "none", "version": "1.0.0", "lockfileVersion": 3, "packages": {"": {"name": "none"}}}'
WHAT = "the clients of Node.js"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A package that needs nothing, so that no registry is asked."""
    (tmp_path / "package.json").write_text('{"name": "none", "version": "1.0.0"}', encoding="utf-8")
    (tmp_path / "package-lock.json").write_text(NO_PACKAGES, encoding="utf-8")
    return tmp_path


def install(directory: Path, **environ: str) -> str:
    argv = ["/bin/sh", str(ROOT / ".ci/node"), str(directory), WHAT]
    done = subprocess.run(argv, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def only(directory: Path, *programs: str) -> str:
    """Return a PATH with nothing but these."""
    directory.mkdir()
    for program in programs:
        (directory / program).symlink_to(str(shutil.which(program)))
    return str(directory)


def test_without_node_it_says_what_follows(directory: Path) -> None:
    said = install(directory, PATH=only(directory / "bin", "cat", "cksum"))
    assert said == f"Tests will be skipped: not installed: {WHAT}: there is no node, or no npm\n"


def test_where_npm_fails_it_says_so_and_tries_again_the_next_time(directory: Path) -> None:
    path = only(directory / "bin", "cat", "cksum")
    for program, status in (("node", 0), ("npm", 1)):
        (directory / "bin" / program).write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
        (directory / "bin" / program).chmod(0o755)
    for _ in range(2):
        assert install(directory, PATH=path).splitlines() == [
            f"Installing {WHAT}",
            f"Tests will be skipped: not installed: {WHAT}: npm could not",
        ]


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_it_installs_once_and_again_where_the_lock_has_changed(directory: Path) -> None:
    (directory / "node_modules").mkdir()
    installed = directory / "node_modules/.installed"
    assert install(directory) == f"Installing {WHAT}\n"
    assert installed.is_file()
    assert install(directory) == ""
    (directory / "package-lock.json").write_text(NO_PACKAGES + "\n", encoding="utf-8")
    assert install(directory) == f"Installing {WHAT}\n"
