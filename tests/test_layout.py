"""The house stays as its plan says: mirrored tests, imports that go down only, a map that names every module."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "natproxy"

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
"""Every module, as a path below natproxy/."""

# module -> (the test file that covers it, why it has none of its own)
COVERED_ELSEWHERE: dict[str, tuple[str, str]] = {
    "__main__.py": ("tests/cli/test_main.py", "one call of cli.main; the CLI's tests start it with python -m natproxy"),
    "errors.py": ("tests/cli/test_main.py", "names and texts only; the CLI shows them"),
    "messages.py": ("tests/test_channel.py", "data only; the channel's tests send every message through it"),
    "wire/rewriter.py": ("tests/wire/test_redis.py", "a contract and lists of words; the rewriters' tests fulfil it"),
    "worker/leg.py": ("tests/worker/test_relay.py", "a leg moves nothing without its relay and its peer"),
    "model.py": ("tests/plan/test_routes.py", "data only; the plan's tests are made of it"),
}

FOREIGN_TO_WORKERS = frozenset(
    ("aiodns", "aiohttp", "asyncio", "boto3", "botocore", "prometheus_client", "pydantic", "rich", "typer", "uvloop")
)

NOT_OURS = {".git", ".venv", "__pycache__", "node_modules"}
TEXT_SUFFIXES = frozenset(
    (
        "",
        ".css",
        ".html",
        ".j2",
        ".js",
        ".json",
        ".lock",
        ".md",
        ".mjs",
        ".py",
        ".service",
        ".sh",
        ".socket",
        ".toml",
        ".yaml",
    )
)
"""Files without a suffix (Makefile, LICENSE, scripts) are text too."""

WAY_UP = re.compile(r"(?<![\w./])(?:\.\./)+\w[\w./-]*")


def text_files() -> list[Path]:
    """Return every text file of the repository that is written by hand or locked."""
    return [
        path
        for path in sorted(ROOT.rglob("*"))
        if path.suffix in TEXT_SUFFIXES
        and path.is_file()
        and not NOT_OURS.intersection(path.relative_to(ROOT).parts)
        and not any(part.endswith("_cache") or part == ".hypothesis" for part in path.relative_to(ROOT).parts)
    ]


def ways_out(path: Path, text: str) -> list[str]:
    """Return the relative ways up in a file's text that do not lead to something inside the repository."""
    meant = [(name, (path.parent / name).resolve()) for name in WAY_UP.findall(text)]
    return [f"{path.relative_to(ROOT)}: {name}" for name, to in meant if ROOT not in to.parents or not to.exists()]


def run_python(code: str) -> str:
    """Run code in a fresh interpreter in the repository's root and return what it printed."""
    argv = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def modules_on_the_map(text: str) -> set[str]:
    """Return the modules that the map of docs/architecture.md names, as paths below natproxy/.

    The map is the indented tree under the line ``natproxy/``: a line begins with a directory (``plan/``) or with one or
    more modules, and goes on in prose; modules of a directory are indented deeper than it.
    """
    lines = iter(text.splitlines())
    found: set[str] = set()
    if not any(line.startswith("natproxy/") for line in lines):
        return found
    directory, directory_indent = "", 0
    for line in lines:
        if line.startswith("```") or (line and not line.startswith(" ")):
            break
        indent = len(line) - len(line.lstrip())
        if indent <= directory_indent:
            directory, directory_indent = "", 0
        if opening := re.match(r" +(\w+/)", line):
            directory, directory_indent = opening[1], indent
        if leading := re.match(r" +(?:\w+/ +)?((?:\w+\.py[,·]? *)+)", line):
            found.update(directory + name for name in re.findall(r"\w+\.py", leading[1]))
    return found


def test_there_are_modules() -> None:
    assert "plan/ports.py" in MODULES


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_its_test_file(module: str) -> None:
    mirrored = ROOT / "tests" / Path(module).parent / f"test_{Path(module).name}"
    if module not in COVERED_ELSEWHERE:
        assert mirrored.is_file(), f"{mirrored.relative_to(ROOT)} is missing"
        return
    covering, reason = COVERED_ELSEWHERE[module]
    assert not mirrored.exists(), f"{module} has a test file of its own: take it off the list"
    assert (ROOT / covering).is_file()
    assert reason


def test_the_list_of_modules_covered_elsewhere_names_only_modules() -> None:
    assert set(COVERED_ELSEWHERE) <= set(MODULES)


def test_imports_go_down_only() -> None:
    code = "from importlinter.cli import lint_imports_command as main; main()"
    argv = [sys.executable, "-c", code, "--no-logo", "--no-cache"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_worker_loads_nothing_that_it_does_not_need() -> None:
    code = "import json, sys, natproxy.worker.process; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.partition(".")[0] for name in json.loads(run_python(code))}
    assert loaded & FOREIGN_TO_WORKERS == set()
    rooms = set(json.loads(run_python(code))) & {
        "natproxy.config",
        "natproxy.discover",
        "natproxy.controller",
        "natproxy.plan",
    }
    assert rooms == set()


def test_the_command_line_answers_help_without_the_daemon_s_libraries() -> None:
    code = "import json, sys, natproxy.cli; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.partition(".")[0] for name in json.loads(run_python(code))}
    assert loaded & {"aiodns", "boto3", "botocore"} == set()


def test_the_map_names_every_module_and_no_other() -> None:
    assert modules_on_the_map((ROOT / "docs/architecture.md").read_text(encoding="utf-8")) == set(MODULES)


def test_the_map_is_read_as_it_is_written() -> None:
    text = """
Words.

```
natproxy/
  cli.py       the commands; not daemon.py
  errors.py  model.py   pure data
  plan/        what should be
    ports.py     sticky
    routes.py, changes.py   read ports.py first
  tasks.py
```

natproxy/
  late.py
"""
    assert modules_on_the_map(text) == {
        "cli.py", "errors.py", "model.py", "plan/ports.py", "plan/routes.py", "plan/changes.py", "tasks.py",
    }  # fmt: skip


def test_no_file_leads_out_of_the_repository() -> None:
    files = text_files()
    assert ROOT / "Makefile" in files
    assert [way for path in files for way in ways_out(path, path.read_text(encoding="utf-8"))] == []


def test_a_way_out_of_the_repository_is_found() -> None:
    up = ".." + "/"
    assert ways_out(ROOT / "README.md", f"see {up}elsewhere") == [f"README.md: {up}elsewhere"]
    assert ways_out(ROOT / "tests/x.md", f"`{up}missing.md`, `{up}Makefile`") == [f"tests/x.md: {up}missing.md"]


def test_the_lock_files_name_no_registry() -> None:
    for name in (
        "requirements.lock",
        "requirements-dev.lock",
        "requirements-clients.lock",
        "requirements-ansible.lock",
    ):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "--hash=sha256:" in text
        assert "://" not in text
        assert "index" not in re.findall(r"^--?(\w+)", text, flags=re.MULTILINE)
    for directory in ("tests/clients", "tests/browser"):
        locked = json.loads((ROOT / directory / "package-lock.json").read_text(encoding="utf-8"))["packages"]
        assert all("integrity" in package and "resolved" not in package for name, package in locked.items() if name)
