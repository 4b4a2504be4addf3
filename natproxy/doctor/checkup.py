"""The whole examination: every check in the order in which things fail, later ones with what earlier ones found. I/O.

Nothing is changed anywhere. A check that fails itself is one finding; every step has its time.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from natproxy.config import Config, load_config
from natproxy.config.addresses import as_numeric, is_loopback
from natproxy.doctor.account import Account
from natproxy.doctor.advice import client_findings
from natproxy.doctor.blame import Scene, explain
from natproxy.doctor.entrance import entrance_findings
from natproxy.doctor.environment import ENVIRONMENT_FILE, Surroundings, surroundings, worn
from natproxy.doctor.expected import Expected, error_findings, expect, read_state, room_findings
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.doctor.host import host_findings
from natproxy.doctor.instance import Instance, Interface, source_address, this_instance
from natproxy.doctor.nodetls import node_tls_findings
from natproxy.doctor.papers import certificate_findings
from natproxy.doctor.publicaddress import Owners, dialled_addresses, public_address_findings
from natproxy.doctor.reach import Dialled, dial_all, reach_findings
from natproxy.doctor.resolving import Resolved, resolve_all
from natproxy.doctor.targets import targets_of
from natproxy.errors import ConfigError, Problem, unforeseen

STEP_SECONDS = 60.0
"""No step may take longer than this; most take no second."""
NEEDS_AWS = "not looked at: which nodes the caches have is not known, and needs AWS's answers"
NO_INSTANCE = (
    "no EC2 instance metadata answers here, so that this host's security groups and addresses are not known; nothing "
    "is wrong where this is no EC2 instance"
)
IN_A_CONTAINER = (
    "if this is an EC2 instance's container: aws ec2 modify-instance-metadata-options --http-put-response-hop-limit 2"
)
T = TypeVar("T")


class Checkup:
    """One examination of the config at ``path``. ``tell`` gets each check's findings as soon as they are complete."""

    def __init__(
        self,
        path: Path,
        tell: Callable[[Sequence[Finding]], None] = lambda _: None,
        *,
        now: Callable[[], float] = time.time,
        environment_file: Path = ENVIRONMENT_FILE,
    ) -> None:
        self._path = path
        self._environment_file = environment_file
        self._tell = tell
        self._now = now
        self._findings: dict[Check, list[Finding]] = {check: [] for check in Check}
        self.is_config_readable = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that was found, in the order of the checks."""
        return tuple(finding for findings in self._findings.values() for finding in findings)

    async def run(self) -> None:
        """Look at everything."""
        config = self._load()
        self._done(Check.CONFIG)
        if config is None:
            return
        self.is_config_readable = True
        asked = await self._step(Check.CREDENTIALS, asyncio.to_thread(self._surroundings, config), Surroundings())
        with worn(asked.variables):
            await self._examine(config, asked)
        self._done(Check.LIMITS, Check.KEEPALIVE)

    async def _examine(self, config: Config, asked: Surroundings) -> None:
        instance = await self._step(Check.CREDENTIALS, asyncio.to_thread(this_instance), None)
        account = Account(config, instance, self._now, asked)
        try:
            await self._account(account)
            expected = self._expect(config, account)
            scene = await self._scene(account)
            await self._nodes(config, expected, scene, is_answered=account.answers is not None)
            await self._host(config, expected)
            await self._entrance(config, expected, scene, account)
            await self._papers(config, expected)
        finally:
            await account.close()

    # the steps

    def _surroundings(self, config: Config) -> Surroundings:
        return surroundings(config.state_dir, self._path, self._environment_file)

    def _load(self) -> Config | None:
        try:
            config = load_config(self._path)
        except ConfigError as error:
            self._add(map(_mistake, error.problems))
            return None
        if config.warnings:
            mend = "write it otherwise, unless this is meant"
            self._add(Finding(Check.CONFIG, str(self._path), Verdict.WARNING, text, mend) for text in config.warnings)
        else:
            told = f"{_count(config.caches, 'cache entry', 'cache entries')}, "
            told += _count(config.static, "static route", "static routes")
            self._add([Finding(Check.CONFIG, str(self._path), Verdict.GOOD, told)])
        return config

    async def _account(self, account: Account) -> None:
        self._add(await self._step(Check.CREDENTIALS, account.identify(), []))
        self._done(Check.CREDENTIALS, Check.CLOCK)
        self._add(await self._step(Check.PERMISSIONS, account.ask(), []))
        self._done(Check.PERMISSIONS, Check.CACHES)

    def _expect(self, config: Config, account: Account) -> Expected:
        try:
            state, findings = read_state(config)
            self._add(findings)
            expected = expect(config, state, account.answers, self._now())
        except Exception as error:
            self._failed(Check.PORTS, error)
            return Expected()
        self._add((*room_findings(expected), *error_findings(expected)))
        return expected

    async def _scene(self, account: Account) -> Scene:
        of_cache, groups = await self._step(Check.SECURITY_GROUPS, account.security_groups(), ({}, {}))
        return Scene(account.where.region, account.instance, of_cache, groups, source_address)

    async def _nodes(self, config: Config, expected: Expected, scene: Scene, *, is_answered: bool) -> None:
        targets = targets_of(config, expected.snapshot)
        nothing: tuple[Dialled, ...] = ()
        dialled = await self._step(Check.REACH, dial_all(targets, config.timeouts.connect, config.resolver), nothing)
        self._add(reach_findings(dialled, lambda silent: explain(scene, silent)))
        if has_unknown := bool(config.caches) and not expected.snapshot.caches and not is_answered:
            self._add(Finding(check, "", Verdict.UNKNOWN, NEEDS_AWS) for check in (Check.NAMES, Check.REACH))
        self._done(Check.NAMES, Check.REACH)
        self._add(await self._step(Check.NODE_TLS, node_tls_findings(dialled), []))
        if has_unknown:
            self._add([Finding(Check.NODE_TLS, "", Verdict.UNKNOWN, NEEDS_AWS)])
        self._done(Check.NODE_TLS)

    async def _host(self, config: Config, expected: Expected) -> None:
        self._add(await self._step(Check.PORTS, asyncio.to_thread(host_findings, config, expected.routes), []))
        self._done(Check.PORTS, Check.LEFTOVER_RULES)

    async def _entrance(self, config: Config, expected: Expected, scene: Scene, account: Account) -> None:
        instance, host = scene.instance, config.public_host
        resolved = Resolved((host,) if host is not None else ())
        if host is not None and as_numeric(host) is None:
            answers = await self._step(Check.PUBLIC_ADDRESS, resolve_all({host}, config.resolver), {})
            resolved = answers.get(host, Resolved(reason="see above"))
        dialled = dialled_addresses(config, resolved.addresses)
        self._add(_entrance(config, expected, scene, account, dialled))
        self._done(Check.SECURITY_GROUPS)
        owners = await self._step(Check.PUBLIC_ADDRESS, account.owners(dialled), Owners()) if instance else Owners()
        region = instance.region if instance else ""
        self._add(
            public_address_findings(
                config, resolved.addresses, resolved.reason, instance=instance, owners=owners, region=region
            )
        )
        self._done(Check.PUBLIC_ADDRESS)

    async def _papers(self, config: Config, expected: Expected) -> None:
        papers = asyncio.to_thread(certificate_findings, config, self._now())
        self._add(await self._step(Check.CERTIFICATE, papers, []))
        advice = asyncio.to_thread(client_findings, config, expected.snapshot, expected.routes)
        self._add(await self._step(Check.CLIENTS, advice, []))
        self._done(Check.CERTIFICATE, Check.CLIENTS)

    # the frame

    async def _step(self, check: Check, work: Awaitable[T], otherwise: T) -> T:
        """Do it, in its time; what fails or takes too long is a finding, and ``otherwise`` stands in for its result."""
        try:
            async with asyncio.timeout(STEP_SECONDS):
                return await work
        except TimeoutError:
            evidence = f"not done within {STEP_SECONDS:g} s"
            self._add([Finding(check, "", Verdict.UNKNOWN, evidence, "ask again")])
        except Exception as error:
            self._failed(check, error)
        return otherwise

    def _failed(self, check: Check, error: Exception) -> None:
        evidence = f"the check itself failed: {unforeseen(error)}"
        self._add([Finding(check, "", Verdict.UNKNOWN, evidence, "this is a mistake in natproxy: please report it")])

    def _add(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._findings[finding.check].append(finding)

    def _done(self, *checks: Check) -> None:
        """Tell what these checks have found; nothing will be added to them."""
        for check in checks:
            if self._findings[check]:
                self._tell(tuple(self._findings[check]))


def _count(items: Sequence[object], one: str, many: str) -> str:
    return f"{len(items)} {one if len(items) == 1 else many}"


def _mistake(problem: Problem) -> Finding:
    where = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
    evidence = f"{problem.path}: {problem.message}" if problem.path else problem.message
    mend = f"mend {where}; natproxy check -c {shlex.quote(problem.file)} tells whether all is well then"
    return Finding(Check.CONFIG, where, Verdict.BAD, evidence, mend)


def _entrance(
    config: Config, expected: Expected, scene: Scene, account: Account, dialled: Sequence[str]
) -> list[Finding]:
    """Judge this instance's own groups, as far as they are known."""
    instance = scene.instance
    if config.is_loopback_only and is_loopback(config.admin.address):
        return entrance_findings(config, expected.routes, (), "")
    if instance is None:
        return [Finding(Check.SECURITY_GROUPS, "", Verdict.UNKNOWN, NO_INSTANCE, IN_A_CONTAINER)]
    if not account.is_usable:
        return [Finding(Check.SECURITY_GROUPS, "", Verdict.UNKNOWN, "not looked at: it needs credentials")]
    interface = _door(instance, dialled)
    groups = scene.worn(interface)
    if not groups:
        names = ", ".join(interface.groups)
        evidence = f"cannot look at this instance's security groups ({names}): see the permissions above"
        return [Finding(Check.SECURITY_GROUPS, "", Verdict.UNKNOWN, evidence)]
    return entrance_findings(config, expected.routes, groups, instance.region)


def _door(instance: Instance, dialled: Sequence[str]) -> Interface:
    """Return the interface that clients dial; where none of the addresses is this instance's, the primary one."""
    found = (instance.with_address(address) for address in dialled)
    return next((one for one in found if one is not None), instance.interfaces[0])
