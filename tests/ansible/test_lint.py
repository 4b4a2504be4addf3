"""ansible-lint's production profile, without any network."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.ansible.playing import ANSIBLE, ROOT

SECONDS = 110.0
LINTED = ("ansible/playbook.yml", "ansible/inventory.example.yml", "ansible/roles/natproxy")


def lint(directory: Path) -> subprocess.CompletedProcess[str]:
    """Lint what is in ``directory``, where ansible-lint leaves files of its own."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    return subprocess.run(
        [str(ANSIBLE / "bin/ansible-lint"), "--nocolor", *LINTED],
        cwd=directory,
        env=mine | {"LC_ALL": "C.UTF-8", "HOME": str(directory), "PATH": f"{ANSIBLE / 'bin'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_the_production_profile_is_clean_and_a_fault_would_be_found(tmp_path: Path) -> None:
    for name in ("ansible", "systemd"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True)
    shutil.copy(ROOT / ".ansible-lint", tmp_path)
    (tmp_path / "ansible/roles/natproxy/tasks/faulty.yml").write_text("- shell: systemctl restart natproxy\n")
    done = lint(tmp_path)
    said = done.stdout + done.stderr
    faults = [line for line in said.splitlines() if line.startswith("ansible/")]
    assert done.returncode != 0, said
    assert faults, said
    assert [line for line in faults if "faulty.yml" not in line] == []
    assert "'production' was required" in said
