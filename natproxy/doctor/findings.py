"""What the doctor finds: one verdict for each thing looked at, with the evidence and the mend. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How a thing is."""

    GOOD = "good"
    WARNING = "warning"
    """It works, and will not always, or is not as safe as it could be."""
    BAD = "bad"
    UNKNOWN = "unknown"
    """It could not be looked at; the evidence says why."""


class Check(StrEnum):
    """What is looked at, in the order in which it fails in real life: a closed list."""

    CONFIG = "config"
    CREDENTIALS = "credentials"
    CLOCK = "clock"
    PERMISSIONS = "permissions"
    CACHES = "caches"
    NAMES = "names"
    REACH = "reach"
    NODE_TLS = "node-tls"
    PORTS = "ports"
    LEFTOVER_RULES = "leftover-rules"
    SECURITY_GROUPS = "security-groups"
    PUBLIC_ADDRESS = "public-address"
    CERTIFICATE = "certificate"
    CLIENTS = "clients"
    """What clients will run into: passthrough that cannot rewrite, serverless's second port, names with ``.cfg.``."""
    LIMITS = "limits"
    KEEPALIVE = "keepalive"
    ROUTE = "route"
    """From a client: the way to natproxy's host."""
    ENGINE = "engine"
    """From a client: a PING, or a version, through a port."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: Check
    subject: str
    """Which one: a cache, a node, a port, a file; empty where there is only one."""
    verdict: Verdict
    evidence: str
    """What was seen, in a sentence without a full stop."""
    mend: str = ""
    """What to do about it, with names and values that can be copied; never empty for BAD and WARNING."""
