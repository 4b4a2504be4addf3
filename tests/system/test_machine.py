"""The machine itself: it boots, it is where it should be, and nothing of it is left."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.network.guide import LAPTOP, NAT, PUBLIC_IP, GuideNetwork
from tests.scenarios.waiting import eventually
from tests.system.image import ROOT, debian_root
from tests.system.machine import Machine, groups_mount
from tests.system.site import Site


def test_it_runs_systemd_in_the_nat_instances_network_and_nowhere_else(site: Site) -> None:
    network, machine = site.network, site.machine
    assert machine.run("systemctl", "is-system-running") == "running\n"
    assert machine.run("readlink", "/proc/1/ns/net") == network.run(NAT, ["readlink", "/proc/self/ns/net"]).stdout
    for kind in ("mnt", "pid", "uts", "ipc", "cgroup"):
        assert machine.run("readlink", f"/proc/1/ns/{kind}").strip() != str(Path(f"/proc/self/ns/{kind}").readlink())
    assert machine.run("stat", "--file-system", "--format=%T", "/sys/fs/cgroup") == "cgroup2fs\n"
    assert f"inet {PUBLIC_IP}/32" in machine.run("ip", "address", "show", "dev", "eth0")
    with network.connect(LAPTOP, PUBLIC_IP, 22) as ssh:
        assert ssh.recv(4) == b"SSH-"


def test_its_root_stays_as_it_was(site: Site) -> None:
    machine = site.machine
    machine.put("/etc/mark", "x", mode="0640", owner="root:daemon")
    assert machine.run("stat", "--format=%a %U:%G", "/etc/mark") == "640 root:daemon\n"
    assert machine.read("/etc/mark") == "x"
    assert not (debian_root() / "etc/mark").exists()
    machine.run("rm", "/etc/mark")


def test_a_command_that_fails_says_so(site: Site) -> None:
    machine = site.machine
    with pytest.raises(RuntimeError, match=r"ls /nowhere ended with 2: .*No such file"):
        machine.run("ls", "/nowhere")
    assert machine.attempt("false").returncode == 1


def test_a_process_is_known_by_both_its_numbers(site: Site) -> None:
    machine = site.machine
    machine.run("systemd-run", "--unit=sleeper", "sleep", "infinity")
    pid = int(machine.run("systemctl", "show", "--value", "--property=MainPID", "sleeper"))
    assert Path(f"/proc/{machine.outside(pid)}/cmdline").read_bytes() == b"/usr/bin/sleep\0infinity\0"
    machine.run("systemctl", "stop", "sleeper")
    with pytest.raises(ProcessLookupError):
        machine.outside(pid)


def left_of(name: str) -> list[Path]:
    """Return the groups and directories that there are of a machine; ``name`` is a pattern."""
    mount = groups_mount()
    assert mount is not None
    return sorted({*mount.glob(name), *mount.parent.glob(f"*/{name}"), *Path("/run/systemd/nspawn").glob(f"*/{name}")})


@pytest.mark.usefixtures("possible")
def test_nothing_is_left_of_a_machine() -> None:
    with GuideNetwork() as another, Machine(another, debian_root()) as machine:
        machine.run("true")
        assert left_of(machine.name)
    assert not machine.is_running
    assert left_of(machine.name) == []
    assert "nspawn" not in Path("/proc/self/mounts").read_text(encoding="utf-8")
    with pytest.raises(RuntimeError, match="does not run"):
        machine.run("true")


def test_one_that_cannot_boot_says_why_and_leaves_nothing(site: Site, tmp_path: Path) -> None:
    before = left_of("natproxy-test-*")
    with pytest.raises(RuntimeError, match=r"systemd-nspawn has ended: .*doesn't look like an OS root directory"):
        Machine(site.network, tmp_path)
    assert left_of("natproxy-test-*") == before


KILLED = """
import os, signal, sys
from tests.network.guide import GuideNetwork
from tests.system.image import debian_root
from tests.system.machine import Machine
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
machine = Machine(GuideNetwork(), debian_root())
print(machine.name, flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("possible")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_the_test_run_is_killed(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    ) as run:  # fmt: skip
        assert run.stdout is not None
        name = run.stdout.readline().strip()
        assert left_of(name)
        run.send_signal(number)
        run.wait()
    eventually(lambda: left_of(name) == [], f"{name} is gone")
