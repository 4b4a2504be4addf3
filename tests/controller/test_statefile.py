from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from natproxy.controller.statefile import LoadResult, State, StateFile, make_directory
from natproxy.controller.stateformat import encode_state
from natproxy.errors import StateError
from natproxy.model import Kind, PortEntry, PortMap, RouteKey

ROOT = Path(__file__).parents[2]
NOW = 1735689600.0  # 2025-01-01T00:00:00Z


def state(port: int, size: int = 1) -> State:
    return State(PortMap(tuple(PortEntry(RouteKey(f"c{n}", Kind.PRIMARY), port + n) for n in range(size))))


OLD, NEW = state(1000, 50), state(2000, 50)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def python(code: str, *argv: object) -> subprocess.Popen[bytes]:
    """Start a child that can write the same states as this file."""
    whole = "from tests.controller.test_statefile import *\n" + textwrap.dedent(code)
    return subprocess.Popen(
        [sys.executable, "-c", whole, *map(str, argv)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_the_directory_is_made_for_its_owner_only(path: Path) -> None:
    directory = path.parent / "var" / "natproxy"
    make_directory(directory)
    make_directory(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(path: Path, mode: int) -> None:
    path.parent.chmod(mode)
    with pytest.raises(StateError, match=f"other users may write to the state_dir {path.parent}: .*chmod go-w"):
        make_directory(path.parent)


def test_a_directory_that_others_may_read_is_taken(path: Path) -> None:
    path.parent.chmod(0o755)
    make_directory(path.parent)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(path: Path) -> None:
    os.chown(path.parent, 65534, 65534)
    with pytest.raises(StateError, match=r"belongs to another user \(uid 65534\)"):
        make_directory(path.parent)


def test_no_file_is_an_empty_state(path: Path) -> None:
    assert StateFile(path).load() == LoadResult(State())


def test_what_is_saved_is_loaded(path: Path) -> None:
    assert StateFile(path).save(NEW)
    assert StateFile(path).load() == LoadResult(NEW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["state.json"]


def test_the_mode_holds_whatever_the_umask_and_the_old_mode(path: Path) -> None:
    path.write_bytes(encode_state(OLD))
    path.chmod(0o666)
    old_umask = os.umask(0)
    try:
        StateFile(path).save(NEW)
    finally:
        os.umask(old_umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_equal_state_is_not_written_again(path: Path) -> None:
    file = StateFile(path)
    file.save(NEW)
    before = path.stat().st_ino
    assert not file.save(state(2000, 50))
    assert path.stat().st_ino == before
    loaded = StateFile(path)
    loaded.load()
    assert not loaded.save(NEW)
    assert loaded.save(OLD)


def test_a_file_that_was_removed_is_written_again(path: Path) -> None:
    file = StateFile(path)
    file.save(NEW)
    path.unlink()
    assert file.save(NEW)
    assert StateFile(path).load().state == NEW


@pytest.mark.parametrize("content", [b"", b"{", encode_state(NEW)[:-40], encode_state(NEW).replace(b"2000", b"2777")])
def test_a_damaged_file_is_put_aside_and_said(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    result = StateFile(path, now=lambda: NOW).load()
    aside = path.with_name("state.json.damaged-20250101T000000Z")
    assert result.state == State()
    assert result.warning is not None
    assert str(path) in result.warning
    assert aside.name in result.warning
    assert aside.read_bytes() == content
    assert not path.exists()


def test_no_damaged_file_replaces_another(path: Path) -> None:
    file = StateFile(path, now=lambda: NOW)
    for content in (b"1", b"2", b"3"):
        path.write_bytes(content)
        file.load()
    aside = "state.json.damaged-20250101T000000Z"
    assert [path.with_name(aside + end).read_bytes() for end in ("", "-2", "-3")] == [b"1", b"2", b"3"]


def test_a_damaged_file_that_cannot_be_renamed_is_said_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"{")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    warning = StateFile(path).load().warning
    assert warning is not None
    assert "cannot be renamed: Permission denied" in warning
    assert path.exists()


def test_a_newer_file_is_refused_and_left_alone(path: Path) -> None:
    content = b'{"version": 99}'
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"state\.json: it has version 99"):
        StateFile(path).load()
    assert path.read_bytes() == content


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StateError, match=r"cannot read the state file .*state\.json: Is a directory"):
        StateFile(path).load()


def test_a_missing_directory_is_an_error_that_names_the_file(path: Path) -> None:
    with pytest.raises(StateError, match=r"cannot write the state file .*state\.json: No such file"):
        StateFile(path.parent / "missing" / "state.json").save(NEW)


def test_what_a_crash_left_is_no_obstacle(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(b"mine")
    path.with_name(".state.json.new").symlink_to(elsewhere)
    StateFile(path).save(NEW)
    assert StateFile(path).load().state == NEW
    assert elsewhere.read_bytes() == b"mine"
    assert sorted(file.name for file in path.parent.iterdir()) == ["elsewhere", "state.json"]


def test_a_full_disk_leaves_the_old_file(path: Path) -> None:
    StateFile(path).save(OLD)
    child = python(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        file = StateFile(Path(sys.argv[1]))
        for _ in range(2):  # a failed save is not taken for a done one
            try:
                file.save(NEW)
            except StateError as error:
                print(error)
        """,
        path,
    )
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, b"")
    assert out.decode().splitlines() == [f"cannot write the state file {path}: File too large"] * 2
    assert StateFile(path).load() == LoadResult(OLD)
    assert [file.name for file in path.parent.iterdir()] == ["state.json"]


def test_a_directory_without_write_permission_leaves_the_old_file(path: Path) -> None:
    StateFile(path).save(OLD)
    path.chmod(0o644)
    path.parent.chmod(0o555)
    child = python(
        """
        if os.geteuid() == 0:  # root without the right to ignore permissions
            import ctypes
            assert ctypes.CDLL(None).prctl(24, 1, 0, 0, 0) == 0  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
            os.execv(sys.executable, [sys.executable, "-c", sys.argv[2], sys.argv[1]])
        exec(sys.argv[2])
        """,
        path,
        "from tests.controller.test_statefile import *\n"
        "file = StateFile(Path(sys.argv[1]))\n"
        "try: file.save(NEW)\n"
        "except StateError as error: print(error)\n",
    )
    out, err = child.communicate(timeout=60)
    path.parent.chmod(0o755)
    assert (child.returncode, err) == (0, b"")
    assert out.decode() == f"cannot write the state file {path}: Permission denied\n"
    assert StateFile(path).load() == LoadResult(OLD)


def test_a_crash_at_any_step_leaves_the_old_file_or_the_new_one(path: Path) -> None:
    code = """
        steps = int(sys.argv[2])

        def dies(real):
            def step(*args, **kwargs):
                global steps
                steps -= 1
                if steps < 0:
                    os._exit(9)
                return real(*args, **kwargs)
            return step

        for name in ("open", "fdopen", "fsync", "replace", "rename", "unlink", "close"):
            setattr(os, name, dies(getattr(os, name)))
        StateFile(Path(sys.argv[1])).save(NEW)
        os._exit(0)
        """
    seen = []
    for steps in range(100):
        path.unlink(missing_ok=True)
        StateFile(path).save(OLD)
        child = python(code, path, steps)
        _, err = child.communicate(timeout=60)
        assert child.returncode in (0, 9), err
        found = StateFile(path).load()
        assert found.warning is None
        assert found.state in (OLD, NEW)
        seen.append(found.state)
        if child.returncode == 0:
            break
    assert seen[0] == OLD
    assert seen[-1] == NEW
    assert len(seen) >= 7
    assert seen == sorted(seen, key=lambda state: state == NEW)


def test_a_kill_at_any_time_leaves_one_state_whole(path: Path) -> None:
    for _ in range(8):
        child = python(
            """
            file = StateFile(Path(sys.argv[1]))
            file.save(OLD)
            print("began", flush=True)
            while True:
                file.save(NEW)
                file.save(OLD)
                print(".", end="", flush=True)
            """,
            path,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"began\n"
        child.stdout.read(5)
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=60)
        found = StateFile(path).load()
        assert found.warning is None
        assert found.state in (OLD, NEW)
