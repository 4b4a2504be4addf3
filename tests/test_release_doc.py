"""What docs/release.md has people do before they publish, done. I/O: git, make, files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from natproxy import __version__
from tests.scenarios.docblocks import read_blocks

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/release.md").read_text(encoding="utf-8")
SOURCES = ("natproxy", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "requirements.lock")
COMMITTED = "@1790000000 +0000"
"""2026-09-21, UTC."""
NOT_IN_ANCHORS = r"[^\w\- ]"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with one commit, and a virtual environment whose programs are those of this one."""
    clone = tmp_path / "clone"
    clone.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, clone / name)
    shutil.copy(ROOT / ".gitignore", clone)
    (clone / "requirements-dev.lock").touch()
    git(clone, "init", "--quiet")
    git(clone, "add", ".")
    git(clone, "-c", "user.name=dev1", "-c", "user.email=dev1@example.com", "commit", "--quiet", "-m", "natproxy")
    venv = clone / ".venv"
    venv.mkdir()
    for name in ("bin", "lib"):
        (venv / name).symlink_to(Path(sys.prefix) / name)
    shutil.copy(Path(sys.prefix) / "pyvenv.cfg", venv)
    (venv / ".installed").write_text(f"{clone}\n", encoding="utf-8")
    return clone


def git(directory: Path, *words: str) -> None:
    environ = {**os.environ, "GIT_AUTHOR_DATE": COMMITTED, "GIT_COMMITTER_DATE": COMMITTED}
    subprocess.run(["git", *words], cwd=directory, env=environ, check=True, capture_output=True, timeout=60)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_lines_that_build_a_release_do(clone: Path) -> None:
    (block,) = [block for block in read_blocks(PAGE) if block.title == "Build"]
    argv = ["/bin/sh", "-eu", "-c", block.code]
    environ = {"PATH": os.environ["PATH"], "HOME": str(clone)}
    done = subprocess.run(argv, cwd=clone, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    wheel = clone / f"dist/natproxy-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert {info.date_time[:3] for info in archive.infolist()} == {(2026, 9, 21)}
        assert all(name in done.stdout for name in archive.namelist())
    sums = [line.split()[1] for line in (clone / "dist/SHA256SUMS").read_text(encoding="utf-8").splitlines()]
    assert sums == [f"dist/{wheel.name}", "requirements.lock"]


def test_its_links_lead_somewhere() -> None:
    for place, anchor in re.findall(r"\]\(([\w./]*)#?([\w-]*)\)", PAGE):
        page = ROOT / "docs" / place if place else ROOT / "docs/release.md"
        assert page.exists(), place
        if anchor:
            titles = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
            assert anchor in {re.sub(NOT_IN_ANCHORS, "", title.lower()).replace(" ", "-") for title in titles}


def test_the_variables_of_the_role_that_it_names_exist() -> None:
    defaults = (ROOT / "ansible/roles/natproxy/defaults/main.yml").read_text(encoding="utf-8")
    for name in set(re.findall(r"natproxy_[a-z_]+", PAGE)):
        assert re.search(rf"(?m)^{name}:", defaults), name


def test_the_targets_of_make_that_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"\bmake ([a-z-]+)(?=[`\n ])", PAGE)):
        assert re.search(rf"(?m)^{target}:", makefile), target
