from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from natproxy.config import load_config
from natproxy.errors import ConfigError
from natproxy.importing.report import ImportDocument
from tests.cli.running import Done, Run, process
from tests.discover.conftest import use_environ
from tests.importing.samples import NOWHERE, rule
from tests.standins.cloud import Cloud

SNAT = "-A POSTROUTING -o eth1 -j SNAT --to-source 10.0.0.55"
RULES = (rule(7000, NOWHERE), rule(7001, NOWHERE), SNAT)

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(*lines: str) -> Path:
        file = tmp_path / "rules.v4"
        file.write_text("\n".join(("*nat", *lines, "COMMIT", "")))
        return file

    return write


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """AWS with one group of three nodes; this process's environment points to it."""
    with Cloud(backing="none") as made:
        use_environ(monkeypatch, made.environ)
        made.replication_group("my-redis", replicas=2)
        yield made


@pytest.fixture
def known(cloud: Cloud, tmp_path: Path) -> Path:
    """A config file that says where names are asked for."""
    path = tmp_path / "known.yaml"
    path.write_text(f"resolver: {cloud.resolver}\npublic_host: 203.0.113.73\nclients: {{allow: [192.0.2.0/24]}}\n")
    return path


def to_nodes(cloud: Cloud) -> list[str]:
    """The guide's rules, for that group."""
    wheres = [cloud.where(f"my-redis-00{number}") for number in (1, 2, 3)]
    return [rule(6379 + at, f"{ip}:{port}") for at, (ip, port) in enumerate(wheres)]


def checked(natproxy: Run, text: str, tmp_path: Path) -> Done:
    path = tmp_path / "printed.yaml"
    path.write_text(text)
    return natproxy("check", "-c", path)


def test_the_rules_of_a_file_become_a_config_that_check_finds_good(
    natproxy: Run, cloud: Cloud, known: Path, save: Save, tmp_path: Path
) -> None:
    done = natproxy("import-iptables", save(*to_nodes(cloud), SNAT), "-c", known)
    assert done.code == 0
    assert "  - id: my-redis\n    ports: 6379-6388\n" in done.out
    assert done.err.count("iptables -t nat -D PREROUTING") == 3
    assert "ip_forward stay as they are" in done.err
    good = checked(natproxy, done.out, tmp_path)
    assert (good.code, good.err) == (0, "")


def test_the_options_win_over_the_config_file(natproxy: Run, cloud: Cloud, known: Path, save: Save) -> None:
    options = (
        "--public-host",
        "cache.dev.example.com",
        "--allow",
        "10.0.0.0/8",
        "--allow",
        "10.9.9.9",
        "--region",
        "eu-west-1",
    )
    done = natproxy("import-iptables", save(*RULES), "-c", known, "--offline", *options)
    assert done.code == 0
    assert "public_host: cache.dev.example.com\n" in done.out
    assert "clients: {allow: [10.0.0.0/8, 10.9.9.9/32]}\n" in done.out
    assert "aws: {region: eu-west-1}\n" in done.out


def test_without_aws_every_port_is_a_static_route(natproxy: Run, save: Save, tmp_path: Path) -> None:
    done = natproxy("import-iptables", save(*RULES), "--offline", "--allow", "192.0.2.0/24")
    assert done.code == 0
    path = tmp_path / "printed.yaml"
    path.write_text(done.out)
    assert [static.port for static in load_config(path).static] == [7000, 7001]
    assert "AWS was not asked (--offline)" in done.err


def test_where_it_is_not_said_who_may_connect_check_refuses_the_config(
    natproxy: Run, save: Save, tmp_path: Path
) -> None:
    done = natproxy("import-iptables", save(*RULES), "--offline")
    assert done.code == 0
    assert "write clients.allow into the config" in done.err
    refused = checked(natproxy, done.out, tmp_path)
    assert refused.code == 2
    assert "everyone who reaches 0.0.0.0 could connect" in refused.err
    with pytest.raises(ConfigError):
        load_config(tmp_path / "printed.yaml")


def test_standard_input_is_read_where_it_is_asked_for(natproxy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n".join(("*nat", *RULES)).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    assert natproxy("import-iptables", "-", "--offline").out.count("- {name: iptables.") == 2


def test_nft_s_json_is_read_as_well(natproxy: Run, tmp_path: Path) -> None:
    port = {"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 7000}}
    where = {"family": "ip", "table": "nat"}
    base = {"chain": {**where, "name": "pre", "type": "nat", "hook": "prerouting"}}
    dnat = {"rule": {**where, "chain": "pre", "handle": 4, "expr": [port, {"dnat": {"addr": "10.9.9.9", "port": 1}}]}}
    file = tmp_path / "rules.json"
    file.write_text(json.dumps({"nftables": [base, dnat]}))
    done = natproxy("import-iptables", file, "--offline")
    assert done.code == 0
    assert "port: 7000" in done.out
    assert "  nft delete rule ip nat pre handle 4\n" in done.err


def test_json_says_everything_and_nothing_else_is_printed(natproxy: Run, cloud: Cloud, known: Path, save: Save) -> None:
    done = natproxy("import-iptables", save(*to_nodes(cloud), rule(53, NOWHERE, more="-p udp")), "-c", known, "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert list(found) == list(ImportDocument.__struct_fields__)
    assert [route["port"] for route in found["routes"]] == [6379, 6380, 6381]
    assert [left["line"] for left in found["left"]] == [5]
    assert "my-redis" in found["config"]


def test_where_no_rule_can_be_taken_over_no_config_is_printed(natproxy: Run, save: Save) -> None:
    done = natproxy("import-iptables", save(rule(53, NOWHERE, more="-p udp")), "--offline")
    assert (done.code, done.out) == (1, "")
    assert "none of the rules can be taken over" in done.err
    found = json.loads(natproxy("import-iptables", save(rule(53, NOWHERE, more="-p udp")), "--offline", "--json").out)
    assert found["config"] == ""


def test_where_there_are_no_rules_there_is_nothing_to_import(natproxy: Run, save: Save) -> None:
    done = natproxy("import-iptables", save(SNAT, "rubbish"))
    assert (done.code, done.out) == (1, "")
    assert "there is no DNAT rule for what comes in: nothing to import" in done.err
    assert "warning: line 3 is not understood" in done.err


def test_what_iptables_save_never_printed_is_refused_with_its_line(natproxy: Run, tmp_path: Path) -> None:
    file = tmp_path / "strange"
    file.write_bytes(b"\n\xff\xfe\x00 nothing of the kind")
    done = natproxy("import-iptables", file)
    assert (done.code, done.out) == (1, "")
    assert "line 2: this is not what iptables-save prints" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{}/missing",), "cannot be read: No such file"),
        (("{}",), "cannot be read: Is a directory"),
        (("-", "--allow", "everyone"), "'everyone' must be an IP address or network"),
        (("-", "--public-host", "http://x"), "must be a host alone"),
        (("-", "--region", "Europe"), "'Europe'"),
        (("-", "-c", "{}/missing"), "missing: cannot be read"),
    ],
)
def test_wrong_usage_is_told(natproxy: Run, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = natproxy("import-iptables", *(text.format(tmp_path) for text in arguments))
    assert (done.code, done.out) == (2, "")
    assert said in " ".join(done.err.split())


def test_a_file_without_end_is_refused(natproxy: Run, tmp_path: Path) -> None:
    file = tmp_path / "huge"
    with file.open("wb") as made:
        made.truncate((16 << 20) + 1)
    assert natproxy("import-iptables", file).code == 2


def test_an_aws_that_cannot_be_asked_is_told_with_the_way_around(natproxy: Run, cloud: Cloud, save: Save) -> None:
    cloud.aws.fault("*", "denied", times=None)
    done = natproxy("import-iptables", save(*RULES))
    assert (done.code, done.out) == (3, "")
    assert "AWS could not be asked which nodes there are" in done.err
    assert "--offline does without" in done.err


def test_the_rules_of_this_host_are_for_root_to_read(
    natproxy: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "iptables-save").write_text("#!/bin/sh\n")
    (tmp_path / "iptables-save").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = natproxy("import-iptables")
    assert done.code == 1
    assert "only root may read the firewall's rules" in done.err


def test_help_has_an_example() -> None:
    done = process("import-iptables", "--help")
    assert done.code == 0
    assert "Example: sudo natproxy import-iptables" in done.out
