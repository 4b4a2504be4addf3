from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

from natproxy.errors import PkiError
from natproxy.pki import files


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def enter(lock: AbstractContextManager[None]) -> None:
    lock.__enter__()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_files_are_written_for_their_owner_only(tmp_path: Path) -> None:
    was = os.umask(0)
    try:
        files.write({tmp_path / "a": b"1", tmp_path / "b": b"2" * 100_000})
        files.make_directory(tmp_path / "d")
    finally:
        os.umask(was)
    assert [mode(tmp_path / name) for name in ("a", "b", "d")] == [0o600, 0o600, 0o700]
    assert (tmp_path / "a").read_bytes() == b"1"
    assert files.read(tmp_path / "b") == b"2" * 100_000
    assert names(tmp_path) == ["a", "b", "d"]


def test_files_are_replaced_whatever_a_crash_left(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / "a").chmod(0o644)
    (tmp_path / ".a.new").write_bytes(b"half of it")
    files.write({tmp_path / "a": b"new"})
    assert ((tmp_path / "a").read_bytes(), mode(tmp_path / "a")) == (b"new", 0o600)
    assert names(tmp_path) == ["a"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"theirs")
    for name in ("a", ".a.new"):
        (tmp_path / name).symlink_to(tmp_path / "other")
    files.write({tmp_path / "a": b"ours"})
    assert (tmp_path / "other").read_bytes() == b"theirs"
    assert not (tmp_path / "a").is_symlink()


def test_where_one_cannot_be_written_none_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    (tmp_path / ".b.new").mkdir()
    with pytest.raises(PkiError, match=rf"cannot write {tmp_path}/b: "):
        files.write({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == [".b.new", "a"]


def test_errors_name_the_file(tmp_path: Path) -> None:
    missing = tmp_path / "missing" / "x"
    acts: list[tuple[Callable[[], object], str]] = [
        (lambda: files.read(missing), "cannot read"),
        (lambda: files.write({missing: b""}), "cannot write"),
        (lambda: files.make_directory(missing), "cannot make the directory"),
        (lambda: files.rename(missing, tmp_path / "y"), "cannot rename"),
        (lambda: enter(files.locked(missing)), "cannot open"),
    ]
    for act, what in acts:
        with pytest.raises(PkiError, match=f"{what} .*{missing}.*: No such file or directory"):
            act()


def test_a_directory_that_was_left_is_taken_up(tmp_path: Path) -> None:
    for _ in range(2):
        files.make_own_directory(tmp_path / "d")
    assert mode(tmp_path / "d") == 0o700


@pytest.mark.parametrize("what", ["open to all", "open to a group", "a link", "another's"])
def test_a_directory_that_others_could_reach_into_is_not(tmp_path: Path, what: str) -> None:
    path = tmp_path / "d"
    if what == "a link":
        (tmp_path / "elsewhere").mkdir(0o700)
        path.symlink_to(tmp_path / "elsewhere")
    elif what == "another's":
        path.mkdir(0o700)
        with suppress(PermissionError):  # only root can give it away
            os.chown(path, 65534, 65534)
    else:
        path.mkdir()
        path.chmod(0o702 if what == "open to all" else 0o720)
    if what == "another's" and path.stat().st_uid == os.geteuid():
        return
    with pytest.raises(PkiError, match=rf"{path} is in the way"):
        files.make_own_directory(path)


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with (
        files.locked(path),
        pytest.raises(PkiError, match="another `natproxy pki` is at work"),
        files.locked(path, seconds=0),
    ):
        pass
    with files.locked(path, seconds=0):
        assert mode(path) == 0o600
    assert names(tmp_path) == [".lock"]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    child = os.fork()
    if child == 0:
        enter(files.locked(path))
        os._exit(0)
    os.waitpid(child, 0)
    with files.locked(path, seconds=0):
        pass
