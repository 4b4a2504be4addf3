"""Wheels of natproxy as a maker of releases builds them, with any version number. I/O: files, hatchling."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from natproxy import __version__
from tests.system.image import ROOT

SOURCES = ("natproxy", "pyproject.toml", "README.md", "LICENSE")
NEXT_VERSION = f"{__version__}.post1"
"""A version that differs in nothing but its number."""


def build_wheel(version: str, directory: Path, *, broken: bool = False) -> Path:
    """Build a wheel of this tree into a directory; a ``broken`` one does all but serve."""
    tree = directory / f"tree-{version}"
    tree.mkdir(parents=True)
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tree / name)
    package = tree / "natproxy/__init__.py"
    numbered = package.read_text(encoding="utf-8").replace(
        f'__version__ = "{__version__}"', f'__version__ = "{version}"'
    )
    assert f'"{version}"' in numbered
    package.write_text(numbered, encoding="utf-8")
    if broken:
        with (tree / "natproxy/controller/daemon.py").open("a", encoding="utf-8") as daemon:
            daemon.write("\n\ndef run(*_: object) -> int:\n    print('this version is broken')\n    return 1\n")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    subprocess.run(argv, cwd=tree, check=True, capture_output=True, timeout=120)
    (wheel,) = (tree / "dist").glob("*.whl")
    return wheel
