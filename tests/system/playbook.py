"""The role, applied to the machine as an operator applies it: by ssh from the laptop, as a user who may use sudo.

I/O: talks to ansible-playbook, which talks ssh.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.network.guide import LAPTOP, PUBLIC_IP, GuideNetwork
from tests.system.image import ADMIN, ROOT
from tests.system.machine import Machine

ANSIBLE = ROOT / ".venv/ansible/bin/ansible-playbook"
PLAYBOOK = ROOT / "ansible/playbook.yml"
HOST = "nat"
PLAY_SECONDS = 300.0

_TASK = re.compile(r"^TASK \[(?P<task>.*?)\] \**$|^(?P<result>changed): \[", re.MULTILINE)
_RECAP = re.compile(rf"^{HOST} +: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Play:
    """One run of the playbook, over."""

    status: int
    output: str

    @property
    def changed(self) -> list[str]:
        """The names of the tasks that changed something, once for each item of a loop."""
        task, names = "", []
        for match in _TASK.finditer(self.output):
            task = match["task"] or task
            if match["result"]:
                names.append(task.removeprefix("natproxy : "))
        return names

    @property
    def recap(self) -> Mapping[str, int]:
        """The numbers of its last line: ok, changed, unreachable, failed, skipped, rescued, ignored."""
        found = _RECAP.search(self.output)
        assert found, self.output
        return {name: int(count) for name, _, count in (word.partition("=") for word in found[1].split())}

    def succeeded(self) -> Play:
        """Return itself; AssertionError with all that it said where it failed."""
        assert self.status == 0, self.output
        return self

    def failed(self) -> Play:
        """Return itself; AssertionError with all that it said where it did not fail."""
        assert self.status == 2, self.output
        return self


class Operator:
    """Somebody at the laptop with this repository, and a key for the NAT instance."""

    def __init__(self, network: GuideNetwork, machine: Machine) -> None:
        self.directory = network.directory / f"operator-{machine.name}"
        """For files that a playbook's variables name."""
        self.directory.mkdir()
        self._network = network
        key = self.directory / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=30)
        authorized = key.with_suffix(".pub").read_text(encoding="ascii")
        machine.put(f"/home/{ADMIN}/.ssh/authorized_keys", authorized, mode="0600", owner=f"{ADMIN}:{ADMIN}")
        host_key = machine.read("/etc/ssh/ssh_host_ed25519_key.pub").split()
        known = self.directory / "known_hosts"
        known.write_text(f"{PUBLIC_IP} {host_key[0]} {host_key[1]}\n", encoding="ascii")
        strict = f"-F none -o UserKnownHostsFile={known} -o GlobalKnownHostsFile=none -o StrictHostKeyChecking=yes"
        host = {
            "ansible_host": PUBLIC_IP,
            "ansible_user": ADMIN,
            "ansible_ssh_private_key_file": str(key),
            "ansible_ssh_common_args": strict,
        }
        self._inventory = self.directory / "inventory.json"
        self._inventory.write_text(json.dumps({"natproxy": {"hosts": {HOST: host}}}), encoding="utf-8")

    def play(self, variables: Mapping[str, Any], *options: str) -> Play:
        """Run the playbook with these variables, until it ends, however it ends; ``options`` are --check, --diff."""
        given = self.directory / "variables.json"
        given.write_text(json.dumps(variables), encoding="utf-8")
        argv = [str(ANSIBLE), "-i", str(self._inventory), "-e", f"@{given}", *options, str(PLAYBOOK)]
        return self._play(argv)

    def _play(self, argv: Sequence[str]) -> Play:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        done = subprocess.run(
            ["ip", "netns", "exec", self._network.namespaces.name(LAPTOP), *argv],
            env={
                **environ,
                "HOME": str(self.directory),
                "LC_ALL": "C.UTF-8",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_LOCALHOST_WARNING": "0",
                "ANSIBLE_PIPELINING": "1",
                "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.directory / "ssh"),
            },
            cwd=ROOT / "ansible",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PLAY_SECONDS,
            check=False,
        )
        return Play(done.returncode, done.stdout + done.stderr)


def why_not_here() -> str | None:
    """Return why no playbook can be run here, or None where one can."""
    return None if ANSIBLE.exists() else "Ansible is not installed: make ansible"
