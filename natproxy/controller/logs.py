"""One line for each event: a sentence, then key=value; or the same as JSON. I/O: talks to standard error.

``event(log, logging.INFO, "connection ended", port=6379)`` becomes ``connection ended port=6379``. Nothing that comes
from outside can begin a new line or move a terminal's cursor: whatever is not printable is escaped. Where the journal
reads along, lines begin with its priority prefix (sd-daemon(3)) and carry no time of their own.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from natproxy.messages import FinishedConnection
from natproxy.model import Address, Endpoint, NodeId, Outcome, RouteKey
from natproxy.printable import escaped

Scalar = (
    str
    | int
    | float
    | Path
    | NodeId
    | Endpoint
    | Address
    | RouteKey
    | ipaddress.IPv4Address
    | ipaddress.IPv6Address
    | BaseException
)
Value = Scalar | Sequence[Scalar] | None
"""What a field may hold; a field that is None is left out."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.DEBUG, 7))
_BARE = re.compile(r"[A-Za-z0-9_./:@%+,*\[\]-]+")
_SINGLE = (NodeId, Endpoint, Address)
_FIELDS = "natproxy_fields"

Hearer = Callable[[int, str, Mapping[str, Value]], None]
"""(level, message, fields) of an event."""
_hearers: list[Hearer] = []


def listen(hearer: Hearer) -> None:
    """Have ``hearer`` called for each event from now on, whatever level is logged; as logging's handlers are, it is
    the whole process's."""
    _hearers.append(hearer)


def listen_no_more(hearer: Hearer) -> None:
    """Take ``listen`` back; nothing happens where it was not called."""
    if hearer in _hearers:
        _hearers.remove(hearer)


def event(
    logger: logging.Logger,
    level: int,
    message: str,
    /,
    *,
    exc_info: bool | BaseException = False,
    **fields: Value,
) -> None:
    """Log ``message`` (subject, verb, object) with ``fields``; ``exc_info`` adds an error (True: the handled one)."""
    for hear in _hearers:
        hear(level, message, fields)
    if logger.isEnabledFor(level):
        logger.log(level, "%s", message, exc_info=exc_info, extra={_FIELDS: fields}, stacklevel=2)


def log_connection(logger: logging.Logger, connection: FinishedConnection) -> None:
    """Log the one line that a finished connection gets. A name that nobody has verified goes by another field."""
    name, serial = connection.certificate or None, connection.serial or None
    event(
        logger,
        logging.INFO,
        "connection ended",
        port=connection.port,
        cache=connection.cache,
        kind=connection.kind,
        node=connection.node or None,
        client=connection.client,
        certificate=name if connection.is_verified else None,
        serial=serial if connection.is_verified else None,
        claimed_certificate=None if connection.is_verified else name,
        claimed_serial=None if connection.is_verified else serial,
        client_tls=connection.client_tls or None,
        address=connection.address or None,
        node_tls=connection.node_tls or None,
        unread=connection.unread or None,
        client_bytes=connection.client_bytes,
        node_bytes=connection.node_bytes,
        seconds=connection.seconds,
        outcome=Outcome(connection.outcome),
        detail=connection.detail or None,
    )


class LineFormatter(logging.Formatter):
    """What the two formats share; ``is_journal``: prefix each line with its priority, leave the time out."""

    def __init__(self, *, is_journal: bool = False) -> None:
        super().__init__()
        self._is_journal = is_journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        fields: dict[str, Value] = dict(getattr(record, _FIELDS, {}))
        if not record.name.startswith("natproxy"):
            fields["logger"] = record.name
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            fields["error"] = f"{type(error).__name__}: {error}"
            fields["traceback"] = self.formatException(record.exc_info)
        line = self.line(record, {key: value for key, value in fields.items() if value is not None})
        return f"<{_priority(record.levelno)}>{line}" if self._is_journal else line

    def line(self, record: logging.LogRecord, fields: Mapping[str, Value]) -> str:
        """Return the line without its prefix."""
        raise NotImplementedError


class TextFormatter(LineFormatter):
    """``2026-01-31T12:00:00.123Z info connection ended port=6379 client=198.51.100.27:50000``."""

    def line(self, record: logging.LogRecord, fields: Mapping[str, Value]) -> str:
        """Return the line without its prefix."""
        head = [] if self._is_journal else [_utc(record.created), record.levelname.lower()]
        words = [f"{key}={_quoted(shown(value))}" for key, value in fields.items()]
        return " ".join([*head, escaped(record.getMessage()), *words])


class JsonFormatter(LineFormatter):
    """``{"time": ..., "level": "info", "event": "connection ended", "port": 6379}``."""

    def line(self, record: logging.LogRecord, fields: Mapping[str, Value]) -> str:
        """Return the line without its prefix; it is ASCII."""
        head: dict[str, object] = {} if self._is_journal else {"time": _utc(record.created)}
        head |= {"level": record.levelname.lower(), "event": record.getMessage()}
        return json.dumps(head | {key: _plain(value) for key, value in fields.items()})


class Sink(Protocol):
    """What log lines are written to: a text stream, or a LineWriter."""

    def write(self, text: str, /) -> int:
        """Take ``text``."""

    def flush(self) -> None:
        """See to it that it goes on."""

    def isatty(self) -> bool:
        """Say whether this is a terminal."""

    def fileno(self) -> int:
        """Return its descriptor."""


class _Handler(logging.StreamHandler[Sink]):
    """Writes to a stream, and gives up silently where nobody reads it any more: the daemon's work goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def set_up_logs(
    format_name: str | None,
    level: str,
    *,
    stream: Sink | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send all logs to ``stream``, from ``level`` on; calling it again replaces what was set up.

    ``stream`` None = the one that was set up before, else standard error.

    ``format_name`` is text or json; None = text on a terminal, else json. Other libraries are heard from ``warning``
    on only: their lower levels may show secrets.
    """
    root = logging.getLogger()
    before = [handler for handler in root.handlers if isinstance(handler, _Handler)]
    if stream is None:
        stream = before[0].stream if before else sys.stderr
    is_text = format_name == "text" or (format_name is None and stream.isatty())
    is_journal = _is_journal(stream, environ)
    handler = _Handler(stream)
    handler.setFormatter(TextFormatter(is_journal=is_journal) if is_text else JsonFormatter(is_journal=is_journal))
    for old in before:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("natproxy").setLevel(LEVELS[level])
    logging.captureWarnings(capture=True)


def _quoted(text: str) -> str:
    if _BARE.fullmatch(text):
        return text
    return '"' + escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def shown(value: Value) -> str:
    """Return a field's value as the text format has it; of several, with commas between them."""
    plain = _plain(value)
    if isinstance(plain, bool):
        return "true" if plain else "false"
    return ",".join(map(str, plain)) if isinstance(plain, list) else str(plain)


def _plain(value: Value) -> object:
    """Return what JSON can hold; floats with at most six digits after the point."""
    if isinstance(value, float):
        return round(value, 6)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, Sequence) and not isinstance(value, (str, *_SINGLE)):
        return [_plain(item) for item in value]
    return str(value)


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), 7)


def _utc(seconds: float) -> str:
    milliseconds = int(seconds * 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000)) + f".{milliseconds % 1000:03d}Z"


def _is_journal(stream: Sink, environ: Mapping[str, str]) -> bool:
    """Whether ``stream`` is the one that JOURNAL_STREAM names (systemd.exec(5))."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
