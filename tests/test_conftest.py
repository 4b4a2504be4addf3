"""A test run that skips under CI's eye, or leaves a process behind, fails and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")

SKIPS = """
import pytest
def test_it():
    pytest.skip("no moon tonight")
"""

SKIPS_MODULE = """
import pytest
pytest.skip("no sun today", allow_module_level=True)
"""

LEAVES_CHILD = """
import subprocess
kept = []
def test_it():
    kept.append(subprocess.Popen(["sleep", "600"]))
"""

# Before it is sleep it has no environment to be known by.
LEAVES_ORPHAN = """
import subprocess
def test_it():
    start = "sleep 600 </dev/null >/dev/null 2>&1 &"
    until_so = 'until [ "$(cat /proc/$!/comm)" = sleep ]; do :; done'
    subprocess.run(["sh", "-c", f"{start} {until_so}"], check=True)
"""

LEAVES_ONE_THAT_ENDS = """
import subprocess
kept = []
def test_it():
    kept.append(subprocess.Popen(["sleep", "0.2"]))
"""


spread = pytest.mark.parametrize("flags", [(), ("-n2",)], ids=["in one process", "in two"])


def run_pytest(directory: Path, test: str, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(CONFTEST, directory)
    (directory / "pytest.ini").write_text("[pytest]\nmarkers = root\n", encoding="utf-8")
    (directory / "test_it.py").write_text(test, encoding="utf-8")
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *flags, str(directory)]
    env = {key: value for key, value in os.environ.items() if not key.startswith(("NATPROXY_", "PYTEST_"))}
    return subprocess.run(
        argv, cwd=directory, env={**env, **environment}, capture_output=True, text=True, timeout=60, check=False
    )


def pid_left(done: subprocess.CompletedProcess[str]) -> int:
    line = next(line for line in done.stdout.splitlines() if line.startswith("left running, now killed:"))
    assert line.endswith("sleep 600")
    return int(line.split()[4])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@spread
@pytest.mark.parametrize("test", [SKIPS, SKIPS_MODULE], ids=["a test", "a module"])
def test_a_skip_fails_the_run_where_ci_says_so(tmp_path: Path, test: str, flags: tuple[str, ...]) -> None:
    done = run_pytest(tmp_path, test, *flags, NATPROXY_FAIL_ON_SKIP="1")
    assert done.returncode == 1
    assert "skipped, and NATPROXY_FAIL_ON_SKIP=1: test_it.py" in done.stdout
    assert "1 skipped" in done.stdout.splitlines()[-1]


def test_a_skip_elsewhere_is_a_skip(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, SKIPS)
    assert done.returncode == 0
    assert "FAILED" not in done.stdout


@spread
@pytest.mark.parametrize("test", [LEAVES_CHILD, LEAVES_ORPHAN], ids=["a child", "an orphan"])
def test_a_process_left_over_fails_the_run_and_is_ended(tmp_path: Path, test: str, flags: tuple[str, ...]) -> None:
    done = run_pytest(tmp_path, test, *flags)
    assert done.returncode == 1
    assert not is_alive(pid_left(done))
    assert "1 passed" in done.stdout.splitlines()[-1]


@spread
def test_a_process_that_is_about_to_end_is_waited_for(tmp_path: Path, flags: tuple[str, ...]) -> None:
    done = run_pytest(tmp_path, LEAVES_ONE_THAT_ENDS, *flags)
    assert done.returncode == 0, done.stdout
