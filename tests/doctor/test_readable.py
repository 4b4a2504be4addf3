from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from natproxy.doctor.readable import Reader, hindrance, is_in_safe_hands, reader_of

NOBODY = Reader("nobody", 65534, frozenset((65534,)))


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may go through, as those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="natproxy-doctor-") as directory:
        path = Path(directory)
        path.chmod(0o755)
        yield path


def make(path: Path, mode: int) -> Path:
    path.touch()
    path.chmod(mode)
    return path


def test_who_may_read_by_mode(folder: Path) -> None:
    me = Reader("me", os.getuid(), frozenset((os.getgid(),)))
    key = make(folder / "server.key", 0o600)
    assert hindrance(key, NOBODY).startswith(f"{key} (mode 0600, ")
    assert hindrance(key, NOBODY).endswith(") cannot be read by nobody")
    assert hindrance(key, me) == ""
    assert hindrance(make(folder / "server.crt", 0o644), NOBODY) == ""
    grouped = make(folder / "grouped.key", 0o640)
    assert hindrance(grouped, Reader("natproxy", 65533, frozenset((os.getgid(),)))) == ""
    assert hindrance(grouped, NOBODY) != ""
    assert hindrance(make(folder / "strange", 0o044), me) != ""  # the owner's bits count for the owner


def test_a_directory_on_the_way(folder: Path) -> None:
    (folder / "tls").mkdir(mode=0o700)
    key = make(folder / "tls" / "server.key", 0o644)
    assert hindrance(key, NOBODY).startswith(f"the directory {folder / 'tls'} (mode 0700")


def test_what_is_not_there_is_told_elsewhere(folder: Path) -> None:
    assert hindrance(folder / "missing.key", NOBODY) == ""


@pytest.mark.root
def test_the_owner_of_the_state_dir_is_natproxy_s_user(folder: Path) -> None:
    assert reader_of(folder / "missing") is None
    assert reader_of(folder) is None  # root
    os.chown(folder, 65534, 65534)
    reader = reader_of(folder)
    assert reader is not None
    assert (reader.uid, 65534 in reader.gids) == (65534, True)
    os.chown(folder, 54321, 54321)
    assert reader_of(folder) == Reader("uid 54321", 54321, frozenset(), "54321")


@pytest.mark.root
def test_owners_without_a_name_are_told_by_number(folder: Path) -> None:
    key = make(folder / "server.key", 0o600)
    os.chown(key, 54321, 54322)
    assert "(mode 0600, 54321:54322)" in hindrance(key, NOBODY)


def test_a_link_leads_through_the_directories_on_both_ways(folder: Path) -> None:
    (folder / "archive").mkdir(mode=0o700)
    make(folder / "archive" / "server.key", 0o644)
    (folder / "server.key").symlink_to("archive/server.key")
    assert hindrance(folder / "server.key", NOBODY).startswith(f"the directory {folder / 'archive'} ")


def test_what_others_can_change_is_in_no_safe_hands(folder: Path) -> None:
    below = folder / "below"
    below.mkdir()
    file = make(below / "config", 0o644)
    assert is_in_safe_hands(file)
    file.chmod(0o646)
    assert not is_in_safe_hands(file)
    file.chmod(0o644)
    below.chmod(0o777)
    assert not is_in_safe_hands(file)
    below.chmod(0o1777)
    assert is_in_safe_hands(file)  # only its owner can put another one in its place
    link = folder / "link"
    link.symlink_to(below / "config")
    assert is_in_safe_hands(link)
    below.chmod(0o777)
    assert not is_in_safe_hands(link)
    assert not is_in_safe_hands(folder / "none")
