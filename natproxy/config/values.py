"""Turns the config file's single values into durations, ports, networks and names. Pure.

Every function takes what the loader gives (None, bool, text, list, mapping) or the finished value, and raises
ValueError with plain words. A value is repeated in those words only once it is known to be a number or an address:
something else may be a password in the wrong place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NoReturn

Parser = Callable[[object], object]

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(us|ms|s|m|h|d)")
_UNIT_SECONDS = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_LONGEST_SECONDS = 3650 * 86400.0
_NUMBER = re.compile(r"[0-9]{1,12}")
_RANGE = re.compile(r"([0-9]{1,12})(?: *- *([0-9]{1,12}))?")
_CACHE_ID = re.compile(r"[a-z](?:-?[a-z0-9]){0,49}")
_STATIC_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62})")
_REGION = re.compile(r"[a-z]{2,8}(?:-[a-z0-9]{1,12}){1,4}-[0-9]{1,2}")
_ROLE_ARN = re.compile(r"arn:aws[a-z0-9-]{0,20}:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,576}")
_SECRET_ARN = re.compile(
    r"arn:aws[a-z0-9-]{0,20}:secretsmanager:[a-z0-9-]{1,40}:[0-9]{12}:secret:[A-Za-z0-9/_+=.@!-]{1,519}"
)
_USERNAME = re.compile(r"[!-~]{1,120}")
_WILDCARD = re.compile(r"\*(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)+\.?")
_LONGEST_NAME = 2048

LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class PortRange:
    """The ports from ``first`` to ``last``, both included."""

    first: int
    last: int

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.first, self.last + 1))

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def refuse(message: str) -> NoReturn:
    """Raise ValueError."""
    raise ValueError(message)


def text(value: object, what: str) -> str:
    """Return ``value`` where it is text that says something; else say that it must be ``what``."""
    if value is None or value == "":
        refuse(f"has no value: write {what}, or leave the key out")
    if not isinstance(value, str):
        refuse(f"must be {what}")
    return value


def optional(parse: Parser) -> Parser:
    """Return a parser that also takes null."""

    def parse_unless_null(value: object) -> object:
        return None if value is None else parse(value)

    return parse_unless_null


def duration(*, least: str = "0s", most: str = "3650d") -> Callable[[object], float]:
    """Return a parser of durations: ``15s`` -> 15.0 seconds, between ``least`` and ``most``."""
    low, high = _seconds(least), _seconds(most)

    def parse_duration(value: object) -> float:
        seconds = _seconds(value)
        if not low <= seconds <= high:
            refuse("must be more than zero" if seconds == 0 else f"must be between {least} and {most}")
        return seconds

    return parse_duration


def _seconds(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    written = text(value, "a duration such as 500ms, 15s, 2m, 1h or 90d")
    if _NUMBER.fullmatch(written):
        refuse(f"has no unit: write {written}s for seconds (units: us, ms, s, m, h, d)")
    match = _DURATION.fullmatch(written)
    if match is None:
        refuse("must be a duration such as 500ms, 15s, 2m, 1h or 90d (one number, one unit, no space)")
    seconds = float(Decimal(match[1]) * _UNIT_SECONDS[match[2]])
    return seconds if seconds <= _LONGEST_SECONDS else refuse("must not be longer than 3650d")


def whole_number(least: int, most: int) -> Callable[[object], int]:
    """Return a parser of whole numbers between ``least`` and ``most``."""

    def parse_number(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        else:
            written = text(value, "a whole number")
            number = int(written) if _NUMBER.fullmatch(written) else refuse("must be a whole number")
        return number if least <= number <= most else refuse(f"must be between {least} and {most}")

    return parse_number


port = whole_number(1, LAST_PORT)


def boolean(value: object) -> bool:
    """Parse true or false; nothing else is a boolean."""
    if value is None:
        refuse("has no value: write true or false, or leave the key out")
    return value if isinstance(value, bool) else refuse("must be true or false")


def port_range(value: object) -> PortRange:
    """Parse ``6379-6388``, or ``6379`` for one port."""
    if isinstance(value, PortRange):
        return value
    what = "a range of ports such as 6379-6388"
    match = _RANGE.fullmatch(text(value, what))
    if match is None:
        refuse(f"must be {what}")
    first, last = int(match[1]), int(match[2] or match[1])
    if first > last:
        refuse(f"runs backwards: write {last}-{first}")
    if first < 1 or last > LAST_PORT:
        refuse(f"ports lie between 1 and {LAST_PORT}")
    return PortRange(first, last)


def choice(*words: str) -> Callable[[object], str]:
    """Return a parser of one of ``words``."""
    known = " or ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else words[0]

    def parse_choice(value: object) -> str:
        word = text(value, known)
        return word if word in words else refuse(f"must be {known}")

    return parse_choice


def workers(value: object) -> int | str:
    """Parse a number of processes, or ``auto``."""
    if value == "auto":
        return "auto"
    try:
        return whole_number(1, 256)(value)
    except ValueError as error:
        refuse(f"{error} (or auto: one for each processor)")


def cache_id(value: object) -> str:
    """Parse the id of a replication group, cache cluster or serverless cache."""
    if isinstance(value, bool):
        refuse("must be text: put it in quotes")
    written = text(value, "the id of a cache, as AWS shows it")
    if _CACHE_ID.fullmatch(written):
        return written
    if _CACHE_ID.fullmatch(written.lower()):
        refuse(f"AWS keeps ids in lower case: write {written.lower()}")
    refuse("is no id of a cache: it begins with a letter and has only letters, digits and single hyphens, at most 50")


def static_name(value: object) -> str:
    """Parse the name that a static route goes by in logs, metrics and ``routes``."""
    written = text(value, "a short name, such as legacy")
    if not _STATIC_NAME.fullmatch(written):
        refuse("must be a name of at most 63 letters, digits, dots, hyphens and underscores")
    return written


def tag_value(value: object) -> str:
    """Parse the value of an AWS tag: any text, the empty one included."""
    if value is None:
        refuse('has no value: write the tag\'s value, or "" for an empty one')
    return value if isinstance(value, str) else refuse("must be text: put it in quotes")


def absolute_path(value: object) -> Path:
    """Parse an absolute path."""
    return _path(value, "an absolute path, such as /var/lib/natproxy")


def file_path(value: object) -> Path:
    """Parse the absolute path of a file of certificates, keys or revocation lists, without looking for it."""
    return _path(value, "the absolute path of a file, such as /etc/natproxy/tls/server.crt")


def _path(value: object, what: str) -> Path:
    if isinstance(value, str) and "-----BEGIN" in value:
        refuse(f"must be {what}: what is in the file does not belong here")
    written = str(value) if isinstance(value, Path) else text(value, what)
    return Path(written) if written.startswith("/") else refuse(f"must be {what}")


def certificate_name(value: object) -> str:
    """Parse a name that certificates are known by: a CN, a DNS name or URI, or ``*.`` and the end of DNS names."""
    if isinstance(value, bool):
        refuse("must be text: put it in quotes")
    written = text(value, "a name in a certificate, such as dev1")
    if len(written) > _LONGEST_NAME:
        refuse(f"must be a name of at most {_LONGEST_NAME} characters")
    if written != written.strip():
        refuse("must be a name without a space before or after it")
    if written == "*":
        refuse("is every name: leave the key out for every certificate that tls.client_ca vouches for")
    if "*" in written and not _WILDCARD.fullmatch(written):
        refuse('must have its asterisk for the first label of a DNS name and nowhere else: "*.ci.example.com"')
    return written.removesuffix(".") if "*" in written else written


def region(value: object) -> str:
    """Parse an AWS region."""
    if not _REGION.fullmatch(text(value, "an AWS region")):
        refuse("must be an AWS region, such as eu-west-1")
    return str(value)


def role_arn(value: object) -> str:
    """Parse the ARN of an IAM role."""
    if not _ROLE_ARN.fullmatch(text(value, "the ARN of an IAM role")):
        refuse("must be the ARN of an IAM role, such as arn:aws:iam::123456789012:role/natproxy")
    return str(value)


def secret_arn(value: object) -> str:
    """Parse the ARN of a secret in AWS Secrets Manager."""
    what = "the ARN of a secret, such as arn:aws:secretsmanager:eu-west-1:123456789012:secret:natproxy/probe-AbCdEf"
    return str(value) if _SECRET_ARN.fullmatch(text(value, what)) else refuse(f"must be {what}")


def username(value: object) -> str:
    """Parse the name of a user of Redis or Valkey."""
    if isinstance(value, bool):
        refuse("must be text: put it in quotes")
    if _USERNAME.fullmatch(text(value, "the name of a user of the cache")):
        return str(value)
    refuse("must be a user's name: at most 120 characters of ASCII, without spaces")
