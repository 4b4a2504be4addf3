"""What natproxy would serve now, by the state file and AWS's answers, as the daemon takes them. I/O: reads the state.

Nothing is written, and a damaged file stays where it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from natproxy.config import Config
from natproxy.controller.stateformat import STATE_FILE, DamagedError, State, decode_state
from natproxy.discover.parse import RawAnswers, parse_snapshot
from natproxy.doctor.findings import Check, Finding, Verdict
from natproxy.errors import StateError
from natproxy.model import PortMap, Route, Snapshot
from natproxy.plan.guard import Known, hold_back, select
from natproxy.plan.ports import assign_ports
from natproxy.plan.routes import Desired, desired_routes


@dataclass(frozen=True, slots=True)
class Expected:
    """The caches that exist as far as is known, and the routes to them."""

    snapshot: Snapshot = field(default_factory=Snapshot)
    desired: Desired = field(default_factory=lambda: Desired(()))

    @property
    def routes(self) -> tuple[Route, ...]:
        """All that would be served, by port."""
        return self.desired.routes


def read_state(config: Config) -> tuple[State, list[Finding]]:
    """Read what natproxy last wrote down; empty where there is nothing, or nothing that can be read."""
    path = config.state_dir / STATE_FILE
    try:
        return decode_state(path.read_bytes()), []
    except FileNotFoundError:
        return State(), []
    except PermissionError:
        evidence = f"{path} may not be read: the ports that natproxy has given are not known here"
        mend = "ask as root, or as the user that natproxy runs as: sudo natproxy doctor"
        return State(), [Finding(Check.PORTS, str(path), Verdict.UNKNOWN, evidence, mend)]
    except OSError as error:
        evidence = f"{path} cannot be read: {error.strerror or error}"
        return State(), [Finding(Check.PORTS, str(path), Verdict.BAD, evidence, "mend the disk, or the directory")]
    except DamagedError as error:
        mend = "restore it from a backup: natproxy puts it aside at its next start, and gives out ports anew"
        return State(), [Finding(Check.PORTS, str(path), Verdict.BAD, f"{path} is damaged: {error}", mend)]
    except StateError as error:
        mend = "use the newer natproxy, which wrote it"
        return State(), [Finding(Check.PORTS, str(path), Verdict.BAD, f"{path}: {error}", mend)]


def expect(config: Config, state: State, answers: RawAnswers | None, now: float) -> Expected:
    """Work out what would be served. ``answers``: AWS's, where it answered; ``now``: the Unix time."""
    known = select(Known(state.snapshot), config)
    if answers is not None:
        known = hold_back(known, parse_snapshot(answers, config), now, config.aws.absent_after)
    assignment = assign_ports(state.portmap, known.snapshot, config, now)
    portmap: PortMap = assignment.portmap
    return Expected(known.snapshot, desired_routes(config, known.snapshot, portmap, assignment.errors))


def room_findings(expected: Expected) -> list[Finding]:
    """Name what has no port; one good finding where all have one."""
    findings = [
        Finding(
            Check.PORTS,
            str(one.key),
            Verdict.BAD,
            one.reason,
            "write a larger range (ports under its cache, or listen.ports), and open it in the security group",
        )
        for one in expected.desired.unplaced
    ]
    if not findings and expected.routes:
        return [Finding(Check.PORTS, "", Verdict.GOOD, "every node and endpoint has a port in its range")]
    return findings


def error_findings(expected: Expected) -> list[Finding]:
    """Name the routes that cannot be served on the ports they have."""
    findings = []
    for route in expected.routes:
        if route.error is not None:
            why, _, mend = route.error.partition("; ")
            evidence = f"port {route.port} is not opened: {why}"
            findings.append(Finding(Check.NODE_TLS, str(route.key), Verdict.BAD, evidence, mend or why))
    return findings
