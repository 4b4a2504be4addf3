"""The unit is what systemd understands, as tight as it can be, and fits what natproxy does."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from natproxy.cli.daemon import DEFAULT_CONFIG
from natproxy.cli.output import USAGE
from natproxy.config import DEFAULT_STATE_DIR
from natproxy.config.values import duration
from natproxy.controller.daemon import TICK_SECONDS
from natproxy.controller.metrics import Metrics
from natproxy.controller.sockets import kept_name

SYSTEMD = Path(__file__).parents[1] / "systemd"
UNIT = SYSTEMD / "natproxy.service"
LOW_PORTS = SYSTEMD / "low-ports.conf"
BINARY = "/opt/natproxy/current/bin/natproxy"
MOST_EXPOSED = 15
"""Tenths: 1.5 as ``systemd-analyze security`` shows it."""
MAX_VARIABLE_BYTES = 128 * 1024
"""MAX_ARG_STRLEN of execve(2)."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def read(path: Path) -> dict[str, dict[str, list[str]]]:
    """Return section -> key -> values in the order they are written."""
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


def one(key: str, section: str = "Service") -> str:
    (value,) = read(UNIT)[section][key]
    return value


@pytest.fixture(params=[(), (LOW_PORTS,)], ids=["as it is", "low ports"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A root directory in which natproxy is installed, with or without the drop-in."""
    units = tmp_path / "etc/systemd/system"
    drop_ins = units / "natproxy.service.d"
    drop_ins.mkdir(parents=True)
    shutil.copy(UNIT, units)
    for drop_in in request.param:
        shutil.copy(drop_in, drop_ins)
    binary = tmp_path / BINARY.lstrip("/")
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    return tmp_path


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    argv: Sequence[str] = ["systemd-analyze", "--no-pager", *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
def test_systemd_understands_all_of_it(root: Path) -> None:
    done = analyze("verify", "--recursive-errors=no", "--man=no", f"--root={root}", "natproxy.service")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_a_mistake_in_it_would_be_found(root: Path) -> None:
    unit = root / "etc/systemd/system/natproxy.service"
    unit.write_text(unit.read_text(encoding="utf-8").replace("[Service]", "[Service]\nRestartSecs=1"), encoding="utf-8")
    done = analyze("verify", "--recursive-errors=no", "--man=no", f"--root={root}", "natproxy.service")
    assert "RestartSecs" in done.stderr


@needs_systemd
def test_it_is_exposed_as_little_as_can_be(root: Path) -> None:
    words = ("security", "--offline=yes", f"--root={root}", "natproxy.service")
    done = analyze(*words, f"--threshold={MOST_EXPOSED}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert analyze(*words, "--threshold=1").returncode != 0, "it is the exposure that is judged"


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers is not installed")
def test_the_user_is_made_as_the_unit_wants_it(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    place = tmp_path / "usr/lib/sysusers.d/natproxy.conf"
    place.parent.mkdir(parents=True)
    shutil.copy(SYSTEMD / "natproxy.sysusers", place)
    argv = ["systemd-sysusers", f"--root={tmp_path}", place.name]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (entry,) = [line for line in (tmp_path / "etc/passwd").read_text().splitlines() if line.startswith("natproxy:")]
    assert entry.split(":")[5:] == [str(DEFAULT_STATE_DIR), "/usr/sbin/nologin"]
    assert f"\n{one('Group')}:" in "\n" + (tmp_path / "etc/group").read_text()
    assert one("User") == "natproxy"


def test_commands_and_places_are_natproxy_s_own() -> None:
    assert one("ExecStart") == f"{BINARY} run -c {DEFAULT_CONFIG}"
    assert one("ExecReload") == f"{BINARY} reload -c {DEFAULT_CONFIG}"
    assert Path("/var/lib", one("StateDirectory")) == DEFAULT_STATE_DIR
    assert one("RestartPreventExitStatus") == str(USAGE)


def test_the_watchdog_is_slower_than_what_feeds_it_and_a_stop_has_time() -> None:
    seconds = {key: duration()(one(key)) for key in ("WatchdogSec", "TimeoutStopSec")}
    assert seconds["WatchdogSec"] > 10 * TICK_SECONDS
    assert seconds["TimeoutStopSec"] > duration()("5s")


def test_the_names_of_all_kept_sockets_fit_into_one_variable() -> None:
    longest = kept_name("2001:db8:1111:2222:3333:4444:5555:6666", 65535, "my-redis-0001/my-redis-0001-001")
    assert int(one("FileDescriptorStoreMax")) * (len(longest) + 1) < MAX_VARIABLE_BYTES


def test_without_the_drop_in_there_is_no_capability_and_with_it_exactly_one() -> None:
    assert (one("CapabilityBoundingSet"), one("AmbientCapabilities"), one("NoNewPrivileges")) == ("", "", "yes")
    assert read(LOW_PORTS) == {
        "Service": {
            "CapabilityBoundingSet": ["CAP_NET_BIND_SERVICE"],
            "AmbientCapabilities": ["CAP_NET_BIND_SERVICE"],
            "PrivateUsers": ["no"],
        }
    }


def test_what_the_operator_s_page_names_is_what_natproxy_says() -> None:
    page = (SYSTEMD.parent / "docs/operations.md").read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in (SYSTEMD.parent / "natproxy").rglob("*.py"))
    metrics = Metrics("1", CollectorRegistry()).render()[0].decode()
    named = re.findall(r"`(natproxy_[a-z_]+)", page)
    assert len(named) > 8
    assert [name for name in named if not re.search(rf"^# TYPE {name} ", metrics, re.MULTILINE)] == []
    events = re.findall(r"`(?!natproxy |systemctl )([A-Za-z]+(?:,? [a-z]+){2,})`", page)
    assert len(events) > 8
    assert [event for event in events if f'"{event}"' not in source] == []


def test_what_the_operator_s_page_says_of_the_unit_is_so() -> None:
    page = (SYSTEMD.parent / "docs/operations.md").read_text(encoding="utf-8")
    for key in ("LimitNOFILE", "WatchdogSec", "RestartSec", "TimeoutStopSec", "FileDescriptorStoreMax", "OOMPolicy"):
        assert f"`{key}={one(key)}" in page
    assert one("StartLimitIntervalSec", "Unit") == "0"
