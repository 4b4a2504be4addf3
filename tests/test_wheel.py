"""The wheel: all that a laptop or an instance needs, the same whoever builds it. I/O: hatchling, pip, processes."""

from __future__ import annotations

import base64
import csv
import email.message
import email.parser
import hashlib
import io
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from natproxy import __version__
from tests.scenarios.conftest import Natproxies, some_natproxies

ROOT = Path(__file__).parents[1]
INFO = f"natproxy-{__version__}.dist-info"
SOURCES = ("natproxy", "tests/test_wheel.py", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", ".gitignore")
"""What stands in a tree that a wheel is built from, tests among it: none of them may get in."""


def build(tree: Path, out: Path, **environ: str) -> Path:
    """Build the wheel of a tree as `make wheel` does, into another directory."""
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(argv, cwd=tree, env={**os.environ, **environ}, check=True, capture_output=True, timeout=120)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(content: dict[str, bytes]) -> email.message.Message:
    return email.parser.BytesParser().parsebytes(content[f"{INFO}/METADATA"])


@pytest.fixture(scope="module")
def laptop(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a virtual environment with the wheel and what it declares to need: all that `pipx install` puts there.

    pip installs the wheel. The others come from this environment, as links: so no index is asked, and nothing is there
    that the wheel does not name.
    """
    venv = tmp_path_factory.mktemp("laptop") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True, timeout=60)
    (packages,) = venv.glob("lib/python*/site-packages")
    for needed in needs_of_the_wheel(wheel):
        for top in {file.parts[0] for file in needed.files or () if file.parts[0] not in {"..", "__pycache__"}}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(needed.locate_file(top))))
    pip(venv, "install", "--no-index", "--no-compile", str(wheel))
    return venv


def needs_of_the_wheel(wheel: Path) -> list[Distribution]:
    """Return the distributions that pip would install with it, as they are installed here."""
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.parser.BytesParser().parsebytes(archive.read(f"{INFO}/METADATA"))
    found: dict[str, Distribution] = {}
    waiting = list(needs(metadata.get_all("Requires-Dist") or []))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = distribution(name)
            waiting += needs(found[name].requires or [])
    return list(found.values())


def needs(requirements: list[str]) -> Iterator[str]:
    """Yield what is needed here without any extra, by name."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonicalize_name(requirement.name)


def pip(venv: Path, *words: str) -> str:
    """Run this environment's pip for another one."""
    argv = [sys.executable, "-m", "pip", "--python", str(venv / "bin/python"), "--disable-pip-version-check", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(venv: Path, *words: str) -> str:
    """Run a program of the environment where nothing but it can be found."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(venv.parent), "PYTHONWARNINGS": "error", "COLUMNS": "120"}
    argv = [str(venv / "bin" / words[0]), *words[1:]]
    done = subprocess.run(argv, cwd=venv, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# what is in it


def test_it_holds_every_file_of_the_package_and_nothing_else(content: dict[str, bytes]) -> None:
    package = {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for path in (ROOT / "natproxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = {f"{INFO}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert set(content) == set(package) | info
    assert {name: content[name] for name in package} == package
    assert content[f"{INFO}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("suffix", [".html", ".css", ".js"])
def test_the_pages_are_in_it(content: dict[str, bytes], suffix: str) -> None:
    assert any(name.startswith("natproxy/pages/") and name.endswith(suffix) for name in content)


def test_its_files_can_be_read_by_everybody_and_run_by_nobody(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        modes = {info.filename: stat.S_IMODE(info.external_attr >> 16) for info in archive.infolist()}
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o644} == {}


def test_its_record_is_true(content: dict[str, bytes]) -> None:
    record = {path: digest for path, digest, _ in csv.reader(io.StringIO(content[f"{INFO}/RECORD"].decode()))}
    assert record.pop(f"{INFO}/RECORD") == ""
    for name, digest in record.items():
        kind, _, value = digest.partition("=")
        assert base64.urlsafe_b64encode(hashlib.new(kind, content[name]).digest()).rstrip(b"=").decode() == value
    assert set(record) == set(content) - {f"{INFO}/RECORD"}


# what it says of itself


def test_it_is_for_every_python_that_natproxy_supports_and_any_platform(
    wheel: Path, metadata: email.message.Message
) -> None:
    assert wheel.name == f"natproxy-{__version__}-py3-none-any.whl"
    assert (metadata["Name"], metadata["Version"]) == ("natproxy", __version__)
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    classifiers = set(metadata.get_all("Classifier") or [])
    systems = {"Operating System :: POSIX :: Linux", "Operating System :: MacOS"}
    pythons = {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)}
    assert systems | pythons <= classifiers
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_it_has_one_command(content: dict[str, bytes]) -> None:
    assert content[f"{INFO}/entry_points.txt"].decode() == "[console_scripts]\nnatproxy = natproxy.cli:main\n"


def test_it_needs_what_pyproject_says_all_of_it_locked(metadata: email.message.Message) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [Requirement(line) for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert set(map(str, declared)) == {str(Requirement(line)) for line in project["dependencies"]}
    lock = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8")))
    for each in declared:
        assert each.specifier.contains(lock[canonicalize_name(each.name)]), each


def test_every_installed_need_is_in_the_lock_in_this_version(wheel: Path) -> None:
    lock = dict(re.findall(r"(?m)^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8")))
    assert {canonicalize_name(each.name): each.version for each in needs_of_the_wheel(wheel)}.items() <= lock.items()


def test_the_changelog_begins_with_its_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first = re.search(r"(?m)^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$", changelog)
    assert first is not None
    assert first[1] == __version__


# the same, whoever builds it


def test_another_tree_of_the_same_content_gives_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    tree = tmp_path / "elsewhere"
    for name in SOURCES:
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, copy_function=shutil.copyfile)  # with the time of now
        else:
            shutil.copyfile(ROOT / name, target)
    for path in tree.rglob("*.py"):
        path.chmod(0o660)  # another umask
    (tree / "natproxy/__pycache__").mkdir(exist_ok=True)
    (tree / "natproxy/__pycache__/left.cpython-311.pyc").write_bytes(b"of somebody's last run")
    assert build(tree, tmp_path / "out", TZ="Asia/Tokyo").read_bytes() == wheel.read_bytes()


def test_the_time_of_its_files_can_be_chosen(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(ROOT, tmp_path, SOURCE_DATE_EPOCH="1790000000")) as archive:
        assert {info.date_time[:3] for info in archive.infolist()} == {(2026, 9, 21)}


# it is all that is needed


def test_what_it_declares_to_need_fits_together(laptop: Path) -> None:
    assert pip(laptop, "check") == "No broken requirements found.\n"


def test_its_command_runs_from_there_alone(laptop: Path) -> None:
    assert run(laptop, "natproxy", "--version") == f"natproxy {__version__}\n"
    found = run(laptop, "python", "-c", "import natproxy; print(natproxy.__file__)").strip()
    assert Path(found).is_relative_to(laptop)


@pytest.mark.parametrize("command", ["connect", "snippets", "doctor", "run", "pki"])
def test_its_commands_explain_themselves(laptop: Path, command: str) -> None:
    assert f"natproxy {command}" in run(laptop, "natproxy", command, "--help")


def test_every_module_of_it_can_be_imported(laptop: Path) -> None:
    code = """
import importlib, pkgutil, natproxy
names = [module.name for module in pkgutil.walk_packages(natproxy.__path__, "natproxy.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""
    assert int(run(laptop, "python", "-c", code)) > 100


@pytest.fixture
def natproxies() -> Iterator[Natproxies]:
    with some_natproxies() as made:
        yield made


def test_the_daemon_serves_its_pages_from_it(
    laptop: Path, natproxies: Natproxies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(laptop / "bin/python"))
    safe = {"PYTHONSAFEPATH": "1"}  # else the directory of this test, which has a natproxy too, comes first
    static = {"name": "legacy", "port": 25001, "target": "127.0.0.1:6379"}
    daemon = natproxies.prepare(environ=safe, static=[static], clients={"allow": ["127.0.0.0/8"]}).start()
    status, page = daemon.get("/")
    assert status == 200
    assets = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert assets
    assert {name: daemon.get(name)[0] for name in assets} == dict.fromkeys(assets, 200)
