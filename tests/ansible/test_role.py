"""The role in check mode, with the facts of the distributions that it knows: nothing on this host is changed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.playing import (
    AMAZON,
    CHECK,
    CONFIG,
    DEBIAN_12,
    DEBIAN_13,
    ROLE,
    ROOT,
    UBUNTU,
    Host,
    Played,
    Stage,
    distribution,
)

PYTHON = str(ROOT / ".venv/bin/python")
FEDORA = distribution("Fedora", "43", "RedHat", "dnf")
DEBIANS = ["python3", "python3-venv", "ca-certificates"]
AMAZONS = ["python3.11", "python3.11-pip", "ca-certificates"]
INSTALLED = (Path("/opt/natproxy"), Path("/etc/natproxy"), Path("/etc/systemd/system/natproxy.service"))

BARE = {
    "Debian-12": (DEBIAN_12, DEBIANS, "python3"),
    "Debian-13": (DEBIAN_13, DEBIANS, "python3"),
    "Ubuntu-24.04": (UBUNTU, DEBIANS, "python3"),
    "Amazon-2023": (AMAZON, AMAZONS, "python3.11"),
}
"""Facts, the packages to be asked for, the Python to be used."""

SCRAPED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "scraped": (
        {"port": 9480},
        {"targets": ["127.0.0.1:9480"], "labels": {"job": "natproxy"}},
    ),
    "scraped-from-afar": (
        {"address": "10.0.0.55", "allow": ["10.0.0.9"], "tls": True},
        {"targets": ["10.0.0.55:9479"], "labels": {"job": "natproxy", "__scheme__": "https"}},
    ),
}
"""The section admin of the config, and what Prometheus is told."""

NOTHING_MISSING = {"__natproxy_roots": "/", "__natproxy_distribution_python": PYTHON}

UNFIT = {
    "Debian-11": distribution("Debian", "11.9", "Debian", "apt"),
    "Ubuntu-22.04": distribution("Ubuntu", "22.04", "Debian", "apt"),
    "Amazon-2": distribution("Amazon", "2", "RedHat", "yum"),
    "Fedora": FEDORA,
    "sysvinit": DEBIAN_12 | {"service_mgr": "sysvinit"},
}

CONTRADICTIONS = {
    "natproxy_version": "0.1.0",
    "natproxy_config_file": "config.yaml",
    "natproxy_tls_files": {"certificate": "server.crt"},
    "natproxy_tls_pki": "natproxy-pki",
    "natproxy_wheelhouse": "wheels",
    "natproxy_index_url": "index",
    "natproxy_keep_versions": 1,
    "natproxy_remove_dnat": "6379",
    "natproxy_environment": {"A-B": "x", "TWO": "one\ntwo"},
    "natproxy_files": {"a/../../shadow": "x", "config.yaml": "y"},
}

ABSENT_FILES: dict[str, Any] = {
    "natproxy_wheel": "/no/natproxy-1-py3-none-any.whl",
    "natproxy_files": {"probe.txt": "secrets/probe.txt"},
    "natproxy_tls_pki": "/no/pki",
}

WRONG: dict[str, tuple[dict[str, Any], list[str]]] = {
    "state": ({"natproxy_state": "presnt"}, ["natproxy_state", "presnt", "present, rolled_back, absent"]),
    "number": ({"natproxy_keep_versions": "many"}, ["natproxy_keep_versions", "many"]),
    "mapping": ({"natproxy_config": ["a", "list"]}, ["natproxy_config", "dict"]),
    "boolean": ({"natproxy_require_ready": "perhaps"}, ["natproxy_require_ready", "perhaps"]),
    "key": ({"natproxy_tls_files": {"certificat": "a"}}, ["natproxy_tls_files", "certificat"]),
    "no-config": ({"natproxy_config": {}}, ["There is no config. Give natproxy_config, or natproxy_config_file."]),
    "unknown": ({"natproxy_confg_file": "x"}, ["natproxy_confg_file", "natproxy_config_file"]),
    "contradictions": (CONTRADICTIONS, list(CONTRADICTIONS)),
    "absent-files": (
        ABSENT_FILES,
        [f"/no/pki/{name}" for name in ("server.crt", "server.key", "ca.crt", "clients.crl")]
        + [ABSENT_FILES["natproxy_wheel"], str(ROOT / "ansible/secrets/probe.txt")],
    ),
}
"""What is given wrongly, and the words that the complaint has to have."""


@pytest.fixture(scope="module")
def given(wheel: Path) -> dict[str, Any]:
    """Return variables that the role is content with."""
    return {"natproxy_wheel": str(wheel), "natproxy_config": CONFIG}


@pytest.fixture(scope="module")
def content(stage: Stage, given: dict[str, Any]) -> dict[str, Played]:
    """Return what becomes of hosts where all is well."""
    bare = {name: Host(given, facts) for name, (facts, _, _) in BARE.items()}
    whole = {"whole": Host(given, DEBIAN_12), "Fedora": Host(given | {"natproxy_python": PYTHON}, FEDORA)}
    whole |= {name: Host(given | _scraped(stage, admin), DEBIAN_12) for name, (admin, _) in SCRAPED.items()}
    before = [path.exists() for path in INSTALLED]
    played = stage.play(bare, *CHECK, forced={"__natproxy_roots": "/nonexistent/roots.pem"})
    played |= stage.play(whole, *CHECK, forced=NOTHING_MISSING)
    assert [path.exists() for path in INSTALLED] == before
    return played


def _scraped(stage: Stage, admin: dict[str, Any]) -> dict[str, Any]:
    return {"natproxy_prometheus_scrape_dir": str(stage.directory), "natproxy_config": CONFIG | {"admin": admin}}


@pytest.fixture(scope="module")
def refused(stage: Stage, given: dict[str, Any], content: dict[str, Played]) -> dict[str, Played]:
    """Return what becomes of hosts where something is wrong."""
    assert content
    hosts = {name: Host(given, facts) for name, facts in UNFIT.items()}
    hosts |= {name: Host(given | wrong, DEBIAN_12) for name, (wrong, _) in WRONG.items()}
    hosts["back"] = Host({"natproxy_state": "rolled_back"}, DEBIAN_12)
    hosts["absent"] = Host({"natproxy_state": "absent"}, DEBIAN_12)
    return stage.play(hosts, *CHECK)


@pytest.mark.parametrize("host", BARE)
def test_each_distribution_gets_its_packages_and_its_python(content: dict[str, Played], host: str) -> None:
    facts, packages, python = BARE[host]
    played = content[host].succeeded()
    install = played.task("Install Python").result
    assert install["manager"] == facts["pkg_mgr"]
    assert (install["asked"]["name"], install["asked"]["update_cache"]) == (packages, True)
    assert played.task("Ask which Python that is").result["cmd"][0] == python
    assert played.tasks[-1].name == "Remove all but as many of them as are kept"


@pytest.mark.parametrize("host", ["whole", "Fedora"])
def test_the_package_manager_is_not_asked_where_nothing_is_missing(content: dict[str, Played], host: str) -> None:
    assert content[host].succeeded().task("Install Python").outcome == "skipped"


@pytest.mark.parametrize("host", SCRAPED)
def test_prometheus_is_told_where_the_admin_side_is_and_what_it_speaks(content: dict[str, Played], host: str) -> None:
    (diff,) = content[host].succeeded().task("Write the target").result["diff"]
    assert json.loads(diff["after"]) == [SCRAPED[host][1]]


def test_a_version_s_name_changes_with_what_it_is_made_of(
    stage: Stage, given: dict[str, Any], wheel: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "other.lock"
    lock.write_text("boto3==1.40.0\n")
    other = tmp_path / wheel.name
    other.write_bytes(b"another wheel")
    hosts = {
        "one": Host(given, DEBIAN_12),
        "same": Host(given, DEBIAN_12),
        "other-lock": Host(given | {"natproxy_lock": str(lock)}, DEBIAN_12),
        "other-wheel": Host(given | {"natproxy_wheel": str(other)}, DEBIAN_12),
        "from-index": Host(given | {"natproxy_wheel": "", "natproxy_version": "0.1.0"}, DEBIAN_12),
    }
    playbook = tmp_path / "version.yml"
    playbook.write_text(part("look", "preflight", "python", "version"))
    played = stage.play(hosts, *CHECK, playbook=playbook, forced=NOTHING_MISSING)
    names = {
        host: played[host].succeeded().task("Name the version").result["ansible_facts"]["__natproxy_new"]
        for host in hosts
    }
    assert re.fullmatch(r"0\.1\.0-[0-9a-f]{8}", names["one"])
    assert names.pop("same") == names["one"]
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize("host", UNFIT)
def test_a_host_that_it_is_not_made_for_is_refused(refused: dict[str, Played], host: str) -> None:
    facts = UNFIT[host]
    assert f"This host has {facts['distribution']} {facts['distribution_version']}" in refused[host].complaint
    assert "natproxy_python" in refused[host].complaint
    assert refused[host].changed == []


@pytest.mark.parametrize("host", WRONG)
def test_a_wrong_value_is_refused_by_name(refused: dict[str, Played], host: str) -> None:
    complaint = refused[host].complaint
    assert [word for word in WRONG[host][1] if word not in complaint] == []
    assert refused[host].changed == []


def test_all_contradictions_are_named_at_once(refused: dict[str, Played]) -> None:
    assert refused["contradictions"].complaint.count("\n") == 10


def test_the_ca_s_key_is_never_asked_for(refused: dict[str, Played]) -> None:
    assert "ca.key" not in refused["absent-files"].complaint


@pytest.mark.skipif(any(path.exists() for path in INSTALLED), reason="natproxy is installed on this host")
def test_the_other_states_are_harmless_where_nothing_is_installed(refused: dict[str, Played]) -> None:
    nothing = "natproxy is not installed on this host: there is nothing to roll back to."
    assert refused["back"].complaint == nothing
    assert refused["absent"].succeeded().changed == []


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_one_wheel_of_the_repository_is_taken(stage: Stage, tmp_path: Path, count: int) -> None:
    repository = tmp_path / "repository"
    for name in ("ansible", "systemd"):
        shutil.copytree(ROOT / name, repository / name, symlinks=True)
    shutil.copy(ROOT / "requirements.lock", repository)
    (repository / "dist").mkdir()
    for number in range(count):
        (repository / f"dist/natproxy-0.{number}.0-py3-none-any.whl").write_bytes(b"a wheel")
    playbook = tmp_path / "preflight.yml"
    playbook.write_text(part("look", "preflight", role=repository / "ansible/roles/natproxy"))
    played = stage.play({"nat": Host({"natproxy_config": CONFIG}, DEBIAN_12)}, *CHECK, playbook=playbook)["nat"]
    if count == 1:
        found = played.succeeded().task("Note where everything is on the controller").result["ansible_facts"]
        assert found["__natproxy_wheel"] == str(repository / "dist/natproxy-0.0.0-py3-none-any.whl")
        assert found["__natproxy_lock"] == str(repository / "requirements.lock")
    else:
        assert f"holds {count} wheels" in played.complaint
        assert "make wheel" in played.complaint


def part(*names: str, role: Path = ROLE) -> str:
    """Return a playbook of some of the role's files of tasks."""
    tasks = "".join(
        f"    - ansible.builtin.include_role: {{name: {role}, tasks_from: {name}, public: true}}\n" for name in names
    )
    return f"- hosts: natproxy\n  gather_facts: false\n  tasks:\n{tasks}"
