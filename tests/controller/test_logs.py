from __future__ import annotations

import io
import ipaddress
import json
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.controller.logs import JsonFormatter, TextFormatter, event, log_connection, set_up_logs
from natproxy.messages import FinishedConnection
from natproxy.model import Address, Endpoint, Kind, NodeId, Outcome, RouteKey
from natproxy.printable import escaped

log = logging.getLogger("natproxy.test")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("natproxy")
    before = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)
    logging.captureWarnings(capture=False)


def text(message: str, **fields: str) -> str:
    record = logging.LogRecord("natproxy.x", logging.INFO, "", 0, "%s", (message,), None)
    record.__dict__["natproxy_fields"] = fields
    return TextFormatter().format(record)


def test_a_text_line_is_a_sentence_and_fields(stream: io.StringIO) -> None:
    set_up_logs("text", "info", stream=stream, environ={})
    event(log, logging.INFO, "connection ended", port=6379, client="198.51.100.27:50000", outcome=Outcome.IDLE)
    time, _, rest = stream.getvalue().partition(" ")
    assert rest == "info connection ended port=6379 client=198.51.100.27:50000 outcome=idle\n"
    assert len(time) == len("2026-01-31T12:00:00.123Z")
    assert time.endswith("Z")


def finished(outcome: Outcome, *, is_verified: bool = True, **more: str) -> FinishedConnection:
    connection = FinishedConnection(
        6379, "my-redis", "primary", "", "198.51.100.27:50000", "10.0.1.230:6379", 14, 7, 0.5, outcome.value
    )
    return msgspec.structs.replace(connection, **more, is_verified=is_verified)


def test_a_name_that_nobody_verified_is_a_claim(stream: io.StringIO) -> None:
    set_up_logs("json", "info", stream=stream, environ={})
    log_connection(log, finished(Outcome.REVOKED, certificate="ceo", serial="01AB", is_verified=False))
    told = json.loads(stream.getvalue())
    assert (told["claimed_certificate"], told["claimed_serial"]) == ("ceo", "01AB")
    assert not {"certificate", "serial"} & told.keys()


def test_a_connection_without_tls_has_no_fields_of_it(stream: io.StringIO) -> None:
    set_up_logs("text", "info", stream=stream, environ={})
    log_connection(log, finished(Outcome.CLIENT_CLOSED))
    assert stream.getvalue().partition(" info ")[2] == (
        "connection ended port=6379 cache=my-redis kind=primary client=198.51.100.27:50000 address=10.0.1.230:6379 "
        "client_bytes=14 node_bytes=7 seconds=0.5 outcome=client-closed\n"
    )


def test_a_connection_tells_whose_certificate_it_showed_and_what_both_legs_spoke(stream: io.StringIO) -> None:
    set_up_logs("json", "info", stream=stream, environ={})
    log_connection(
        log,
        finished(Outcome.REVOKED, certificate="dev1", serial="01AB", client_tls="TLSv1.3", node_tls="TLSv1.2"),
    )
    found = json.loads(stream.getvalue())
    tls = {key: found[key] for key in ("client", "certificate", "serial", "client_tls", "node_tls", "outcome")}
    assert tls == {
        "client": "198.51.100.27:50000",
        "certificate": "dev1",
        "serial": "01AB",
        "client_tls": "TLSv1.3",
        "node_tls": "TLSv1.2",
        "outcome": "certificate-revoked",
    }


def test_why_a_handshake_failed_stands_in_its_connection_s_line(stream: io.StringIO) -> None:
    set_up_logs("text", "info", stream=stream, environ={})
    log_connection(log, finished(Outcome.CLIENT_HANDSHAKE, detail="expired: certificate has expired"))
    assert stream.getvalue().endswith('outcome=client-handshake detail="expired: certificate has expired"\n')


def test_a_certificate_s_name_cannot_forge_a_field(stream: io.StringIO) -> None:
    set_up_logs("text", "info", stream=stream, environ={})
    log_connection(log, finished(Outcome.CLIENT_CLOSED, certificate="dev1 serial=02\nx", serial="01"))
    assert r'certificate="dev1 serial=02\nx" serial=01' in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_a_time_is_utc_with_milliseconds() -> None:
    record = logging.LogRecord("natproxy", logging.WARNING, "", 0, "x", (), None)
    record.created = 1735689600.0625
    assert TextFormatter().format(record) == "2025-01-01T00:00:00.062Z warning x"


def test_a_json_line_is_one_object(stream: io.StringIO) -> None:
    set_up_logs("json", "info", stream=stream, environ={})
    event(log, logging.ERROR, "port not opened", port=6379, reason="a\nb", seconds=0.12345678, allow=["a", "b"])
    assert stream.getvalue().count("\n") == 1
    found = json.loads(stream.getvalue())
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "error",
        "event": "port not opened",
        "port": 6379,
        "reason": "a\nb",
        "seconds": 0.123457,
        "allow": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a", "a"),
        ("", '""'),
        ("two words", '"two words"'),
        ("k=v", '"k=v"'),
        ('say "x"', r'"say \"x\""'),
        ("back\\slash", r'"back\\slash"'),
        ("a\nb\r\tc", r'"a\nb\r\tc"'),
        ("\x1b[31m", r'"\x1b[31m"'),
        ("\u202egnirts", r'"\u202egnirts"'),
        ("\ud800", r'"\ud800"'),
        ("\U000e0041", r'"\U000e0041"'),
        ("größe", '"größe"'),
        (True, "true"),
        (0, "0"),
        (1.5, "1.5"),
        (1 / 3, "0.333333"),
        (["a", "b c"], '"a,b c"'),
        ((6379, 6380), "6379,6380"),
        (NodeId("c", "0001"), "c/0001"),
        (Endpoint("fd00::1", 6379), "[fd00::1]:6379"),
        (Address("10.0.1.230", 6379), "10.0.1.230:6379"),
        ([Address("10.0.1.230", 1), Address("10.0.1.231", 2)], "10.0.1.230:1,10.0.1.231:2"),
        (RouteKey("c", Kind.READER), "c:reader"),
        (ipaddress.ip_address("10.0.1.230"), "10.0.1.230"),
        (Path("/etc/natproxy"), "/etc/natproxy"),
        (OSError(2, "gone"), '"[Errno 2] gone"'),
    ],
)
def test_every_value_is_one_word_or_quoted(stream: io.StringIO, value: str, shown: str) -> None:
    set_up_logs("text", "info", stream=stream, environ={})
    event(log, logging.INFO, "x", value=value)
    assert stream.getvalue().partition(" ")[2] == f"info x value={shown}\n"
    stream.truncate(0)
    set_up_logs("json", "info", stream=stream, environ={})
    event(log, logging.INFO, "x", value=value)
    assert "value" in json.loads(stream.getvalue().lstrip("\0"))


def test_a_field_that_is_none_is_left_out(stream: io.StringIO) -> None:
    set_up_logs("text", "info", stream=stream, environ={})
    event(log, logging.INFO, "x", zone=None, port=1)
    assert stream.getvalue().endswith("info x port=1\n")


@given(st.text(st.characters()), st.text(st.characters()))
def test_no_text_can_forge_a_line(message: str, value: str) -> None:
    line = text(message, value=value)
    assert line.isprintable()
    assert line.splitlines() == [line]
    assert escaped(message) in line


@given(st.text(st.characters()))
def test_json_gives_back_what_came_in(value: str) -> None:
    record = logging.LogRecord("natproxy.x", logging.INFO, "", 0, "%s", (value,), None)
    line = JsonFormatter().format(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["event"] == value


def test_the_level_is_obeyed_and_can_be_changed(stream: io.StringIO) -> None:
    set_up_logs("text", "warning", stream=stream, environ={})
    event(log, logging.INFO, "one")
    set_up_logs("text", "debug", stream=stream, environ={})
    event(log, logging.DEBUG, "two")
    set_up_logs("json", "error", stream=stream, environ={})
    event(log, logging.WARNING, "three")
    event(log, logging.ERROR, "four")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("debug two")
    assert json.loads(lines[1])["event"] == "four"


def test_other_libraries_are_heard_from_warning_on_and_named(stream: io.StringIO) -> None:
    set_up_logs("text", "debug", stream=stream, environ={})
    logging.getLogger("botocore.auth").debug("secret")
    logging.getLogger("botocore.auth").info("secret")
    logging.getLogger("asyncio").warning("slow %s", "callback\nx")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith(r"warning slow callback\nx logger=asyncio")
    assert "logger=py.warnings" in lines[1]


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_stays_on_its_line(stream: io.StringIO, form: str) -> None:
    set_up_logs(form, "info", stream=stream, environ={})
    try:
        raise ValueError("bad\nthing")
    except ValueError:
        event(log, logging.ERROR, "round failed", exc_info=True, round=3)
    assert stream.getvalue().count("\n") == 1
    if form == "json":
        found = json.loads(stream.getvalue())
        assert found["error"] == "ValueError: bad\nthing"
        assert "test_logs.py" in found["traceback"]
        assert found["round"] == 3
    else:
        assert r'round failed round=3 error="ValueError: bad\nthing" traceback="Traceback' in stream.getvalue()


def test_an_exception_that_was_kept_can_be_logged_later(stream: io.StringIO) -> None:
    set_up_logs("text", "info", stream=stream, environ={})
    event(log, logging.ERROR, "worker died", exc_info=ValueError("bad"))
    assert 'worker died error="ValueError: bad" traceback=' in stream.getvalue()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_without_a_format_a_terminal_gets_text_and_all_else_json(stream: io.StringIO) -> None:
    terminal = Terminal()
    set_up_logs(None, "info", stream=terminal, environ={})
    event(log, logging.INFO, "x")
    assert terminal.getvalue().endswith("info x\n")
    set_up_logs(None, "info", stream=stream, environ={})
    event(log, logging.INFO, "x")
    assert json.loads(stream.getvalue())["event"] == "x"


@pytest.mark.parametrize(
    ("level", "prefix"),
    [
        (logging.DEBUG, "<7>"),
        (logging.INFO, "<6>"),
        (logging.WARNING, "<4>"),
        (logging.ERROR, "<3>"),
        (logging.CRITICAL, "<2>"),
    ],
)
def test_the_journal_gets_priorities_and_no_times(tmp_path: Path, level: int, prefix: str) -> None:
    path = tmp_path / "journal"
    with path.open("w") as file:
        status = os.fstat(file.fileno())
        environ = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        set_up_logs("text", "debug", stream=file, environ=environ)
        event(log, level, "x", port=1)
        set_up_logs("json", "debug", stream=file, environ=environ)
        event(log, level, "x", port=1)
    as_text, as_json = path.read_text().splitlines()
    assert as_text == f"{prefix}x port=1"
    assert as_json.startswith(prefix)
    assert list(json.loads(as_json[3:])) == ["level", "event", "port"]


def test_a_journal_that_is_somebody_else_s_is_none_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w") as file:
        set_up_logs("text", "info", stream=file, environ={"JOURNAL_STREAM": "1:2"})
        event(log, logging.INFO, "x")
    assert not path.read_text().startswith("<")


def test_a_reader_that_is_gone_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    file: TextIO = os.fdopen(writing, "w")
    set_up_logs("text", "info", stream=file, environ={})
    event(log, logging.INFO, "x")
    logging.getLogger().handlers.clear()
    with pytest.raises(BrokenPipeError):
        file.close()
    assert capsys.readouterr().err == ""


def test_standard_error_is_where_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("text", "info", environ={})
    event(log, logging.INFO, "x")
    assert capsys.readouterr().err.endswith("info x\n")
