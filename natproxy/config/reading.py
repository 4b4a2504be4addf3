"""load_config and its kin: the file as a whole. I/O: reads the config file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from natproxy.config.addresses import as_numeric
from natproxy.config.checks import find_conflicts, find_restart_conflicts
from natproxy.config.doubts import find_warnings
from natproxy.config.loader import Document, load_document
from natproxy.config.model import CacheEntry, Clients, Config, Overrides, Section, StaticEntry, Written
from natproxy.config.places import Finding, Place, dotted, existing, is_related
from natproxy.config.structure import Draft, read_structure
from natproxy.errors import ConfigError, Problem

MAX_FILE_BYTES = 1 << 20
DEFAULT_STATE_DIR: Path = Written().state_dir

RESTART_ONLY: tuple[Place, ...] = (
    ("listen", "address"),
    ("aws", "region"),
    ("aws", "endpoint_url"),
    ("aws", "role_arn"),
    ("workers",),
    ("admin", "address"),
    ("admin", "port"),
    ("admin", "allow"),
    ("admin", "tls"),
    ("portal",),
    ("state_dir",),
)
"""What a reload does not change."""

_STATE_DIR_LINE = re.compile(r"^state_dir[ \t]*:[ \t]+(?:\"(/[^\"]*)\"|'(/[^']*)'|(/[^\s#]*))", re.MULTILINE)
_LIMITS = frozenset({"max_connections", "max_connections_per_client"})
_Part = TypeVar("_Part", bound=Section)


def load_config(path: Path) -> Config:
    """Read and validate the file: no network, no AWS, no look at the host. Raises ConfigError with every mistake."""
    document = load_document(_read(path))
    findings = _unfit(document)
    if findings:
        raise _error(path, findings, document.lines)
    draft = read_structure(document)
    config = _settled(draft.written, path)
    findings = (*draft.findings, *_certain(find_conflicts(config), draft))
    if findings:
        raise _error(path, findings, document.lines)
    warnings = tuple(str(problem) for problem in _problems(path, find_warnings(config, draft.written), document.lines))
    return config.model_copy(update={"warnings": warnings})


def kept_until_restart(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """Return ``new`` as far as a reload can change it, and the dotted places that wait for a restart.

    Raises ConfigError where the two do not go together: a file that listens on loopback only may leave ``allow`` out,
    but natproxy still listens wherever it did.
    """
    mixed, waiting = new, []
    for place in RESTART_ONLY:
        was = _value(old, place)
        if was != _value(new, place):
            waiting.append(dotted(place))
            mixed = _replaced(mixed, place, was)
    if waiting:
        findings = [
            Finding(found.place, f"{found.message} ({', '.join(waiting)} will only change with a restart)")
            for found in find_restart_conflicts(mixed)
        ]
        if findings:
            raise _error(new.path, findings, {})
    return mixed, tuple(waiting)


def read_state_dir(path: Path) -> Path:
    """Return where the daemon of this config file keeps its state, however broken the rest of the file is.

    Raises ConfigError only where the file cannot be read at all.
    """
    text = _read(path)
    document = load_document(text)
    if document.is_readable:
        written = document.value.get("state_dir") if isinstance(document.value, dict) else None
        return Path(written) if isinstance(written, str) and written.startswith("/") else DEFAULT_STATE_DIR
    match = _STATE_DIR_LINE.search(text)
    return DEFAULT_STATE_DIR if match is None else Path(next(filter(None, match.groups())))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else "its name is not one a file can have"
        )
        raise ConfigError((Problem(str(path), None, "", f"cannot be read: {reason}"),)) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError((Problem(str(path), None, "", f"is larger than {MAX_FILE_BYTES >> 20} MiB"),))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError((Problem(str(path), line, "", "is not UTF-8 text"),)) from None


def _unfit(document: Document) -> tuple[Finding, ...]:
    """Return what keeps the document from being looked at any further."""
    if not document.is_readable:
        return document.findings
    if document.value is None:
        return (Finding((), "the file is empty: it needs at least caches or static"),)
    if not isinstance(document.value, dict):
        return (Finding((), "must be a mapping (key: value)"),)
    return ()


def _certain(conflicts: Iterable[Finding], draft: Draft) -> list[Finding]:
    """Return the conflicts that do not rest on a value which is wrong itself."""
    return [
        found
        for found in conflicts
        if not any(is_related(place, unsure) for place in (found.place, *found.needs) for unsure in draft.unsure)
    ]


def _error(path: Path, findings: Iterable[Finding], lines: Mapping[Place, int]) -> ConfigError:
    return ConfigError(tuple(_problems(path, findings, lines)))


def _problems(path: Path, findings: Iterable[Finding], lines: Mapping[Place, int]) -> list[Problem]:
    """Return the findings as problems in line order, each once. Without ``lines`` there is no file to look into."""
    problems: dict[Problem, None] = {}
    for found in findings:
        place = existing(found.place, lines) if lines else found.place
        problems[Problem(str(path), found.line or lines.get(place), dotted(place), found.message)] = None
    return sorted(problems, key=lambda problem: problem.line or 0)


def _settled(written: Written, path: Path) -> Config:
    """Lay each entry's own values over the global ones."""
    values = {name: getattr(written, name) for name in Written.model_fields}
    if written.public_ip is None and written.public_host is not None and as_numeric(written.public_host) is not None:
        values["public_ip"] = written.public_host
    if written.tls is not None:
        written = written.model_copy(update={"clients": _terminating(written.clients)})
        values["clients"] = written.clients
    if written.portal is not None and written.portal.port is None:
        values["portal"] = None
    values["caches"] = tuple(CacheEntry(**_effective(written, entry)) for entry in written.caches)
    values["static"] = tuple(StaticEntry(**_effective(written, entry)) for entry in written.static)
    return Config(path=path, **values)


def _terminating(clients: Clients) -> Clients:
    """Return the global values with TLS spoken to clients, where they do not say otherwise themselves."""
    return clients if "tls" in clients.model_fields_set else clients.model_copy(update={"tls": "terminate"})


def _effective(written: Written, entry: Overrides) -> dict[str, object]:
    values = {name: getattr(entry, name) for name in type(entry).model_fields}
    for name in Overrides.model_fields:
        common, own = getattr(written, name), getattr(entry, name)
        if isinstance(common, Section):
            values[name] = _laid_over(common, own)
        elif name not in entry.model_fields_set:
            values[name] = common
    return {**values, "has_own_limits": not _LIMITS.isdisjoint(entry.clients.model_fields_set)}


def _laid_over(common: _Part, own: _Part) -> _Part:
    return common.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})


def _value(config: Config, place: Place) -> object:
    value: object = config
    for step in place:
        value = getattr(value, str(step))
    return value


def _replaced(config: Config, place: Place, value: object) -> Config:
    name = str(place[0])
    if len(place) > 1:
        value = getattr(config, name).model_copy(update={str(place[1]): value})
    return config.model_copy(update={name: value})
