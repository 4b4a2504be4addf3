"""Runs playbooks with the role on this host: in check mode, or parts of the role on a scratch directory.

One run can be that of many hosts, each with variables and facts of its own: all of them are this one.

I/O: starts ansible-playbook.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ANSIBLE = ROOT / ".venv/ansible"
ROLE = ROOT / "ansible/roles/natproxy"
PLAYBOOK = ROOT / "ansible/playbook.yml"
HERE = Path(__file__).parent
PLAY_SECONDS = 110.0
CHECK = ("--check", "--diff")

CONFIG = {
    "public_host": "203.0.113.73",
    "clients": {"allow": ["198.51.100.27/32"]},
    "static": [{"name": "legacy", "port": 6490, "target": "10.0.1.230:6379"}],
}


@dataclass(frozen=True)
class Task:
    """What became of one task on one host."""

    host: str
    name: str
    outcome: str
    """ok | failed | ignored | skipped"""
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Played:
    """One run of a playbook, over, as far as one host goes."""

    output: str
    tasks: tuple[Task, ...]

    def task(self, name: str) -> Task:
        """Return the one task that was reached under this name."""
        found = [task for task in self.tasks if task.name == name]
        assert len(found) == 1, self.output
        return found[0]

    @property
    def changed(self) -> list[str]:
        """The names of the tasks that changed something, or would have."""
        return [task.name for task in self.tasks if task.result.get("changed")]

    @property
    def failed(self) -> list[Task]:
        """What failed."""
        return [task for task in self.tasks if task.outcome == "failed"]

    @property
    def complaint(self) -> str:
        """What the last task says, which failed."""
        assert self.failed, self.output
        message = self.failed[-1].result["msg"]
        return message if isinstance(message, str) else "\n".join(message)

    def succeeded(self) -> Played:
        """Return itself; AssertionError with all that was said where it failed."""
        assert self.tasks, self.output
        assert not self.failed, self.output
        return self


@dataclass(frozen=True)
class Host:
    """What Ansible is told of one host."""

    variables: Mapping[str, Any]
    facts: Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """A scratch directory to run Ansible in."""

    directory: Path

    def play(
        self,
        hosts: Mapping[str, Host],
        *options: str,
        playbook: Path = PLAYBOOK,
        prefix: Sequence[str] = (),
        forced: Mapping[str, Any] | None = None,
    ) -> dict[str, Played]:
        """Run the playbook with ``options``, such as CHECK, under ``prefix``; return what became of each host.

        ``forced`` are values even of what the role itself sets.
        """
        record = self.directory / "record"
        record.unlink(missing_ok=True)
        inventory = self.directory / "inventory.json"
        inventory.write_text(json.dumps({"natproxy": {"hosts": {name: _told(host) for name, host in hosts.items()}}}))
        done = subprocess.run(
            [
                *prefix,
                *(str(ANSIBLE / "bin/ansible-playbook"), "-i", str(inventory)),
                *("-e", json.dumps({"given_playbook": str(playbook), **(forced or {})})),
                *(*options, str(HERE / "given.yml")),
            ],
            cwd=self.directory,
            env=self._environ(record),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PLAY_SECONDS,
            check=False,
        )
        lines = record.read_text(encoding="utf-8").splitlines() if record.exists() else []
        tasks = [Task(**json.loads(line)) for line in lines]
        output = done.stdout + done.stderr
        return {name: Played(output, tuple(task for task in tasks if task.host == name)) for name in hosts}

    def _environ(self, record: Path) -> dict[str, str]:
        mine = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        return mine | {
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.directory),
            "NATPROXY_RECORD": str(record),
            "ANSIBLE_HOME": str(self.directory / "ansible"),
            "ANSIBLE_ROLES_PATH": str(ROLE.parent),
            "ANSIBLE_GATHERING": "explicit",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_LIBRARY": str(HERE / "library"),
            "ANSIBLE_CALLBACK_PLUGINS": str(HERE / "plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "record",
            "ANSIBLE_NOCOLOR": "1",
        }


def _told(host: Host) -> dict[str, Any]:
    return {
        "ansible_connection": "local",
        "ansible_python_interpreter": str(ANSIBLE / "bin/python"),
        "ansible_become": False,
        "given_facts": host.facts,
        **host.variables,
    }


def distribution(name: str, version: str, family: str, manager: str) -> dict[str, Any]:
    """Return the facts of a host, as far as the role looks at them."""
    return {
        "distribution": name,
        "distribution_version": version,
        "os_family": family,
        "pkg_mgr": manager,
        "service_mgr": "systemd",
    }


DEBIAN_12 = distribution("Debian", "12.8", "Debian", "apt")
DEBIAN_13 = distribution("Debian", "13.1", "Debian", "apt")
UBUNTU = distribution("Ubuntu", "24.04", "Debian", "apt")
AMAZON = distribution("Amazon", "2023", "RedHat", "dnf")
