"""Who and what certificates may be for, and how long they may be valid. Pure; loads nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from natproxy.errors import PkiError

CA_DAYS = 3650
SERVER_DAYS = 397
"""What browsers allow at most, and a year with a month to spare."""
CLIENT_DAYS = 90
LIST_DAYS = 35
"""Signed once a month, the revocation list never ends in between; natproxy warns a week before."""
MOST_DAYS = 397
"""For whatever the CA signs."""

LONGEST_NAME = 64
"""As long as a common name can be (RFC 5280, ub-common-name)."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]*[A-Za-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_SERIAL = re.compile(r"[0-9A-F]{1,40}")


@dataclass(frozen=True, slots=True)
class ServerNames:
    """What clients dial, and the server's certificate is for: DNS names and IP addresses, at least one in all."""

    hosts: tuple[str, ...]
    addresses: tuple[str, ...] = ()

    @property
    def host(self) -> str:
        """What a developer is told to dial."""
        return next(iter((*self.hosts, *self.addresses)))

    def __str__(self) -> str:
        return ", ".join((*self.hosts, *self.addresses))


@dataclass(frozen=True, slots=True)
class Term:
    """The serial number of a certificate, and its time; both ends in UTC and whole seconds."""

    serial: int
    begins: datetime
    ends: datetime


def client_name(text: str) -> str:
    """Return a developer's name as it is, or raise PkiError: it becomes a common name and part of a file name."""
    if len(text) > LONGEST_NAME:
        message = f"a name has at most {LONGEST_NAME} characters, and this one has {len(text)}"
        raise PkiError(message)
    if not _NAME.fullmatch(text):
        message = f"{text!a} is no name: letters, digits and . _ - @, beginning and ending with a letter or digit"
        raise PkiError(message)
    return text


def is_host_name(name: str) -> bool:
    """True for a name of several labels that a host could have: ``runner7.ci.example.com``."""
    labels = name.split(".")
    return len(labels) > 1 and not labels[-1].isdigit() and all(_LABEL.fullmatch(label) for label in labels)


def serial_text(serial: int) -> str:
    """Return a serial number as `openssl x509 -serial` prints it: upper-case hex, two digits for each byte."""
    text = f"{serial:X}"
    return text.zfill(len(text) + len(text) % 2)


def read_serial(text: str) -> str:
    """Read a serial number however it was written (``0x1a2b``, ``1A:2B``, ``serial=1A2B``); raises PkiError."""
    digits = text.strip().upper().removeprefix("SERIAL=").removeprefix("0X").replace(":", "")
    if not _SERIAL.fullmatch(digits):
        message = f"{text!a} is no serial number: at most 40 hexadecimal digits, as `natproxy pki list` shows them"
        raise PkiError(message)
    return serial_text(int(digits, 16))
