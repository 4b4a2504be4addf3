from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from natproxy.config import Config
from natproxy.doctor import checkup
from natproxy.doctor.checkup import Checkup
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.model import Route
from tests.discover.conftest import use_environ

QUIET = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_REGION": "us-east-1"}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config of loopback alone, on a host that knows of no AWS."""
    use_environ(monkeypatch, {**QUIET, "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"})
    file = tmp_path / "natproxy.yaml"
    file.write_text(
        f"state_dir: {tmp_path}\nlisten: {{address: 127.250.9.9}}\nadmin: {{address: 127.250.9.9}}\n"
        "static: [{name: a, port: 6390, target: '127.0.0.1:1'}]\n"
    )
    return file


def write(path: Path, text: str) -> None:
    path.write_text(text)


def add_a_cache(path: Path) -> None:
    path.write_text(f"{path.read_text()}caches: [{{id: a-cache, ports: 6391-6392}}]\n")


async def look(path: Path) -> tuple[Checkup, list[Sequence[Finding]]]:
    told: list[Sequence[Finding]] = []
    examined = Checkup(path, told.append)
    await examined.run()
    return examined, told


async def test_each_check_is_told_once_in_its_order(path: Path) -> None:
    examined, told = await look(path)
    assert examined.is_config_readable
    checks = [findings[0].check for findings in told]
    assert checks == [check for check in Check if check in set(checks)]
    assert tuple(one for findings in told for one in findings) == examined.findings
    assert {Check.CONFIG, Check.CREDENTIALS, Check.REACH, Check.PORTS, Check.KEEPALIVE} <= set(checks)
    assert [one.verdict for one in examined.findings if one.check is Check.REACH] == [Verdict.BAD]


async def test_a_config_that_cannot_be_used_ends_it(path: Path) -> None:
    write(path, "static: [{name: a}]\n")
    examined, told = await look(path)
    assert not examined.is_config_readable
    assert len(told) == 1
    assert {(one.check, one.subject, one.verdict) for one in examined.findings} == {
        (Check.CONFIG, f"{path}:1", Verdict.BAD)
    }


async def test_doubts_about_the_config_are_warnings(path: Path) -> None:
    write(path, "listen: {address: 127.250.9.9}\nadmin: {address: 127.250.9.9}\n")
    examined, _ = await look(path)
    first = examined.findings[0]
    assert (first.check, first.verdict) == (Check.CONFIG, Verdict.WARNING)
    assert "nothing to do" in first.evidence
    assert first.mend


async def test_a_check_that_fails_itself_is_one_finding(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Config, routes: Sequence[Route]) -> list[Finding]:
        message = "no such luck"
        raise RuntimeError(message)

    monkeypatch.setattr(checkup, "host_findings", fail)
    examined, told = await look(path)
    failed = [one for one in examined.findings if one.check is Check.PORTS and one.verdict is Verdict.UNKNOWN]
    assert len(failed) == 1
    assert failed[0].evidence.startswith("the check itself failed: RuntimeError: no such luck (")
    assert told[-1][0].check is Check.CLIENTS


async def test_a_check_that_takes_too_long_is_one_finding(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> tuple[()]:
        await asyncio.Event().wait()
        return ()

    monkeypatch.setattr(checkup, "dial_all", never)
    monkeypatch.setattr(checkup, "STEP_SECONDS", 2.0)
    examined, _ = await look(path)
    slow = [one for one in examined.findings if one.check is Check.REACH]
    assert [(one.verdict, one.evidence) for one in slow] == [(Verdict.UNKNOWN, "not done within 2 s")]
    assert any(one.check is Check.KEEPALIVE for one in examined.findings)


async def test_without_caches_nothing_of_aws_is_needed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION")
    examined, _ = await look(path)
    of_aws = (Check.CREDENTIALS, Check.CLOCK, Check.PERMISSIONS)
    found = [(one.verdict, one.evidence) for one in examined.findings if one.check in of_aws]
    assert found == [(Verdict.GOOD, "not needed: no caches are configured")] * 4
    assert not [one for one in examined.findings if one.verdict is Verdict.UNKNOWN]
    add_a_cache(path)
    examined, _ = await look(path)
    assert {one.verdict for one in examined.findings if one.check in of_aws} == {Verdict.BAD, Verdict.UNKNOWN}


async def test_where_nobody_knows_the_nodes_what_they_are_looked_at_for_is_unknown(path: Path) -> None:
    add_a_cache(path)
    examined, _ = await look(path)
    for check in (Check.NAMES, Check.REACH, Check.NODE_TLS):
        unknown = [one for one in examined.findings if one.check is check and one.verdict is Verdict.UNKNOWN]
        assert [one.evidence for one in unknown if "needs AWS's answers" in one.evidence]
    (scene,) = [one for one in examined.findings if one.check is Check.SECURITY_GROUPS]
    assert not scene.mend or scene.mend.startswith("if this is an EC2 instance's container: ")


async def test_the_unit_s_environment_is_worn_and_taken_off_again(path: Path) -> None:
    add_a_cache(path)
    file = path.with_name("environment")
    file.write_text("AWS_REGION=nowhere-9\nAWS_EC2_METADATA_DISABLED=true\n")
    examined = Checkup(path, environment_file=file)
    await examined.run()
    region, credentials = [one for one in examined.findings if one.check is Check.CREDENTIALS]
    assert region.evidence.startswith("nowhere-9 (AWS_REGION) is no region")
    assert credentials.evidence.endswith(f", with the environment that natproxy's unit takes from {file}")
    assert os.environ["AWS_REGION"] == "us-east-1"


async def test_a_config_s_path_is_quoted_for_a_shell(path: Path) -> None:
    strange = path.with_name("a $(id).yaml")
    strange.write_text("nonsense")
    examined, _ = await look(strange)
    assert f"natproxy check -c '{strange}' tells" in examined.findings[0].mend
