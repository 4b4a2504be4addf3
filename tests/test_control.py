from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from natproxy import control
from natproxy.control import Control
from natproxy.documents import ReloadVerdict
from natproxy.errors import ControlError, NatproxyError, ReleaseError, StateError
from tests.controller.source import PORTS, ROUTES, Source, serving


@contextmanager
def answering(state_dir: Path, answer: bytes | None) -> Iterator[None]:
    """Be a daemon that gives one client these bytes, whatever it asks; None = says nothing at all."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state_dir / "control.sock"))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            left = answer
            with client, suppress(ConnectionError):  # who has its answer may hang up
                # A request may come in pieces, and is answered once.
                while client.recv(65536):
                    if left is not None:
                        client.sendall(left)
                        client.shutdown(socket.SHUT_WR)
                        left = None

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def http(body: bytes, status: int = 200) -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_what_runs_is_read(tmp_path: Path) -> None:
    with serving(Source(), tmp_path):
        daemon = Control(tmp_path)
        routes, ports = daemon.routes(), daemon.ports()
        assert routes.caches[0].routes[0].connections == 12
        assert str(routes.caches[0].routes[0].node) == "my-redis-0001-001/0001"
        assert routes.caches[0].routes[2].port is None
        assert ports.ports[1].gone_since == "2025-01-30T08:15:00Z"
        assert json.loads(daemon.json("/routes")) == ROUTES
        assert json.loads(daemon.json("/ports")) == PORTS
        assert daemon.json("/ports").count("\n") > 10


def test_a_reload_s_verdict_is_read(tmp_path: Path) -> None:
    source = Source(verdict=ReloadVerdict(False, "bad", ("workers",)))
    with serving(source, tmp_path):
        assert Control(tmp_path).reload() == ReloadVerdict(False, "bad", ("workers",))
    assert source.reloads == 1


def test_a_port_is_released_by_name(tmp_path: Path) -> None:
    source = Source()
    with serving(source, tmp_path):
        assert Control(tmp_path).release('a "b"/0001') == 'port 6381 of a "b"/0001 is free'
    assert source.released == ['a "b"/0001']


@pytest.mark.parametrize("error", [ReleaseError("its node still exists"), StateError("disk full")])
def test_a_release_that_failed_is_the_daemon_s_own_error(tmp_path: Path, error: NatproxyError) -> None:
    with serving(Source(release_error=error), tmp_path), pytest.raises(type(error), match=str(error)):
        Control(tmp_path).release("x")


@pytest.mark.parametrize("state", ["no directory", "no socket", "stale socket", "state_dir is a file"])
def test_no_daemon_is_said_with_its_state_dir(tmp_path: Path, state: str) -> None:
    state_dir = tmp_path / "state"
    if state == "state_dir is a file":
        state_dir.write_text("")
    elif state != "no directory":
        state_dir.mkdir()
    if state == "stale socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(state_dir / "control.sock"))
    with pytest.raises(ControlError, match=rf"no natproxy runs with the state_dir {state_dir}: nobody listens"):
        Control(state_dir).ports()


def test_a_socket_of_somebody_else_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(ControlError, match=r"may not open .*control\.sock: ask as root, or as the user"):
        Control(tmp_path).ports()


def test_a_path_too_long_is_said() -> None:
    with pytest.raises(ControlError, match=r"cannot talk to natproxy on .*path too long"):
        Control(Path("/" + "x" * 200)).ports()


def test_a_daemon_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "RELOAD_SECONDS", 0.05)
    with answering(tmp_path, None), pytest.raises(ControlError, match=r"did not answer on .* within 0\.05 s"):
        Control(tmp_path).reload()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 X\r\nContent-Length: 99\r\n\r\n{",
        http(b"{}"),
        http(b"[]"),
        http(b"\xff"),
        http(b'{"ok": 1}'),
        http(b"[" * 100_000),
        http(b'{"generated": "x"}', 500),
    ],
)
def test_what_is_no_natproxy_is_said(tmp_path: Path, answer: bytes) -> None:
    for ask in (Control.routes, Control.ports, Control.reload, lambda daemon: daemon.release("x")):
        (tmp_path / "control.sock").unlink(missing_ok=True)
        with answering(tmp_path, answer), pytest.raises(ControlError, match=r"did not answer (GET|POST) /"):
            ask(Control(tmp_path))


def test_a_daemon_that_hangs_up_is_said(tmp_path: Path) -> None:
    with (
        answering(tmp_path, b""),
        pytest.raises(ControlError, match=r"cannot talk to natproxy on .*: Remote end closed"),
    ):
        Control(tmp_path).ports()


def test_json_that_is_none_is_said(tmp_path: Path) -> None:
    with answering(tmp_path, http(b"x")), pytest.raises(ControlError, match="did not answer GET /routes"):
        Control(tmp_path).json("/routes")


def test_a_newer_daemon_s_answer_is_not_guessed_at(tmp_path: Path) -> None:
    body = json.dumps({"version": 2, "generated": "x", "caches": []}).encode()
    with answering(tmp_path, http(body)), pytest.raises(ControlError, match="version 2, this command reads 1"):
        Control(tmp_path).routes()
