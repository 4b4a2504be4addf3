from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from natproxy.controller.controlsocket import MAX_PATH_BYTES, ControlSocket
from natproxy.errors import NatproxyError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def test_it_listens_for_its_owner_only_whatever_the_umask(path: Path) -> None:
    old_umask = os.umask(0)
    try:
        listener = ControlSocket(path).listener
    finally:
        os.umask(old_umask)
    with listener, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert not listener.getblocking()
        client.connect(str(path))


def test_a_stale_socket_is_replaced(path: Path) -> None:
    ControlSocket(path).listener.close()
    before = path.stat().st_ino, path.stat().st_ctime_ns
    with ControlSocket(path).listener, socket.socket(socket.AF_UNIX) as client:
        assert (path.stat().st_ino, path.stat().st_ctime_ns) != before
        client.connect(str(path))


def test_a_socket_that_answers_is_left_alone(path: Path) -> None:
    with ControlSocket(path).listener as first:
        with pytest.raises(NatproxyError, match=r"another natproxy runs with this state_dir: it answers on .*control"):
            ControlSocket(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            first.accept()[0].close()
            first.accept()[0].close()


def test_a_daemon_too_busy_to_accept_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(0)
        waiting.connect(str(path))
        with pytest.raises(NatproxyError, match="another natproxy"):
            ControlSocket(path)
    assert path.exists()


def test_removing_it_leaves_the_name_of_another_one_alone(path: Path) -> None:
    first = ControlSocket(path)
    path.unlink()
    second = ControlSocket(path)
    first.remove()
    first.listener.close()
    assert path.exists()
    second.remove()
    assert not path.exists()
    second.remove()
    second.listener.close()


def test_a_disk_that_became_read_only_keeps_nobody_from_ending(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    control = ControlSocket(path)
    with control.listener:
        monkeypatch.setattr(Path, "unlink", refuse)
        control.remove()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_left_alone(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("mine")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(NatproxyError, match="a file that is no socket is in the way"):
        ControlSocket(path)
    assert os.path.lexists(path)


def test_a_path_too_long_for_a_socket_is_an_error_that_says_so(tmp_path: Path) -> None:
    room = MAX_PATH_BYTES - len(os.fsencode(tmp_path)) - 1
    with pytest.raises(NatproxyError, match=rf"too long: {MAX_PATH_BYTES + 1} bytes .* {MAX_PATH_BYTES}; .*state_dir"):
        ControlSocket(tmp_path / ("x" * (room + 1)))
    with ControlSocket(tmp_path / ("x" * room)).listener as longest:
        assert longest.getsockname().endswith("x")


def test_a_lock_that_somebody_sits_on_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natproxy.controller.controlsocket.LOCK_SECONDS", 0.1)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(NatproxyError, match=f"another process keeps {path.parent} locked"):
            ControlSocket(path)
    finally:
        os.close(descriptor)
    ControlSocket(path).listener.close()


def test_a_missing_directory_is_an_error_that_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(NatproxyError, match=r"cannot open the control socket .*control\.sock: No such file"):
        ControlSocket(tmp_path / "missing" / "control.sock")


def test_of_many_daemons_that_start_at_once_one_gets_it(path: Path) -> None:
    code = """
import sys
from pathlib import Path
from natproxy.controller.controlsocket import ControlSocket
from natproxy.errors import NatproxyError
print("ready", flush=True)
sys.stdin.readline()
try:
    held = ControlSocket(Path(sys.argv[1]))
except NatproxyError as error:
    print("no" if "another natproxy" in str(error) else error, flush=True)
else:
    print("yes", flush=True)
sys.stdin.readline()
"""
    ControlSocket(path).listener.close()
    argv = [sys.executable, "-c", code, str(path)]
    children = [
        subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    verdicts = [child.stdout.readline().strip() for child in children if child.stdout is not None]
    for child in children:
        child.communicate("end\n", timeout=60)
    assert sorted(verdicts) == ["no"] * 5 + ["yes"]
