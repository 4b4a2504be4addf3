"""The commands' side of the daemon's control socket. I/O: talks HTTP to the daemon."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import TypeVar

import msgspec

from natproxy import __version__
from natproxy.documents import VERSION, PortsDocument, ReloadVerdict, RoutesDocument
from natproxy.errors import ControlError, ReleaseError, StateError

SOCKET_NAME = "control.sock"

_MAX_ANSWER_BYTES = 64 * 1024 * 1024
QUICK_SECONDS = 10.0
RELOAD_SECONDS = 120.0
"""How long to wait for an answer; for a reload's verdict longer."""

Document = TypeVar("Document", RoutesDocument, PortsDocument, ReloadVerdict)


class Control:
    """The daemon whose state_dir is ``state_dir``. Every method raises ControlError where it cannot be reached."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / SOCKET_NAME

    def routes(self) -> RoutesDocument:
        """Return what runs."""
        return self._document("GET", "/routes", RoutesDocument)

    def ports(self) -> PortsDocument:
        """Return the port map."""
        return self._document("GET", "/ports", PortsDocument)

    def json(self, path: str) -> str:
        """Return what ``GET path`` answers, indented; fields that this version does not know are in it."""
        body = self._expect("GET", path)
        try:
            return msgspec.json.format(body, indent=2).decode()
        except (msgspec.MsgspecError, ValueError) as error:
            raise _strange("GET", path, "no JSON") from error

    def reload(self) -> ReloadVerdict:
        """Ask for a reload and wait for the verdict."""
        return self._document("POST", "/reload", ReloadVerdict)

    def release(self, name: str) -> str:
        """Give the port of ``name`` back; return what was done. Raises ReleaseError or StateError."""
        status, body = self._request("POST", "/ports/release", msgspec.json.encode({"name": name}))
        answer = _decode_answer(body)
        if status == 200 and "message" in answer:
            return answer["message"]
        if status == 409 and "error" in answer:
            raise ReleaseError(answer["error"])
        if status == 507 and "error" in answer:
            raise StateError(answer["error"])
        raise _strange("POST", "/ports/release", f"status {status}")

    def _document(self, method: str, path: str, kind: type[Document]) -> Document:
        body = self._expect(method, path)
        try:
            document = msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, ValueError) as error:
            raise _strange(method, path, str(error)) from error
        version = getattr(document, "version", VERSION)
        if version > VERSION:
            message = f"the daemon answers in version {version}, this command reads {VERSION}: use the newer natproxy"
            raise ControlError(message)
        return document

    def _expect(self, method: str, path: str) -> bytes:
        status, body = self._request(method, path)
        if status != 200:
            raise _strange(method, path, f"status {status}")
        return body

    def _request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        seconds = RELOAD_SECONDS if path == "/reload" else QUICK_SECONDS
        connection = _UnixConnection(self._path, seconds)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            return response.status, response.read(_MAX_ANSWER_BYTES)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            message = f"no natproxy runs with the state_dir {self._path.parent}: nobody listens on {self._path}"
            raise ControlError(message) from error
        except PermissionError as error:
            message = f"may not open {self._path}: ask as root, or as the user that natproxy runs as"
            raise ControlError(message) from error
        except TimeoutError as error:
            message = f"natproxy did not answer on {self._path} within {seconds:g} s"
            raise ControlError(message) from error
        except OSError as error:
            message = f"cannot talk to natproxy on {self._path}: {error.strerror or error}"
            raise ControlError(message) from error
        except http.client.HTTPException as error:
            raise _strange(method, path, type(error).__name__) from error
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _decode_answer(body: bytes) -> dict[str, str]:
    try:
        return msgspec.json.decode(body, type=dict[str, str])
    except (msgspec.MsgspecError, ValueError) as error:
        raise _strange("POST", "/ports/release", str(error)) from error


def _strange(method: str, path: str, answer: str) -> ControlError:
    return ControlError(f"the daemon did not answer {method} {path} as natproxy {__version__} does: {answer}")
