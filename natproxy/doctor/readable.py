"""Whether natproxy's own user may read a file that root can, or change it. I/O: reads the file system, the users."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Reader:
    """The user that natproxy runs as."""

    name: str
    uid: int
    gids: frozenset[int]
    group: str = ""
    """The name of its own group, or the number; the file gets that one, where it is mended."""


def reader_of(state_dir: Path) -> Reader | None:
    """Return the owner of the state_dir, which is natproxy's own user; None where there is none yet, or it is root."""
    try:
        status = state_dir.stat()
    except OSError:
        return None
    return None if status.st_uid == 0 else reader_with(status.st_uid, status.st_gid)


def reader_with(uid: int, gid: int) -> Reader:
    """Return the user of a number, with its groups; ``gid`` stands in for those of one that has no name."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return Reader(f"uid {uid}", uid, frozenset(), str(gid))
    gids = frozenset(os.getgrouplist(user.pw_name, user.pw_gid))
    return Reader(user.pw_name, uid, gids, _named(lambda: grp.getgrgid(user.pw_gid).gr_name, user.pw_gid))


def is_in_safe_hands(path: Path) -> bool:
    """Tell whether nobody but root and this process's user can change a file, or put another one in its place."""
    safe = {0, os.geteuid()}
    try:
        resolved = path.resolve(strict=True)
        for one in (resolved, *resolved.parents):
            status = one.stat()
            others = stat.S_IWOTH | (stat.S_IWGRP if status.st_gid != 0 else 0)
            is_sticky = stat.S_ISDIR(status.st_mode) and one != resolved and status.st_mode & stat.S_ISVTX
            if status.st_uid not in safe or (status.st_mode & others and not is_sticky):
                return False
    except OSError:
        return False
    return True


def hindrance(path: Path, reader: Reader) -> str:
    """Say what keeps a user from reading a file, by owner, group and mode; empty where nothing does.

    What access control lists and the like give or take is not looked at; a file that is not there is nobody's fault.
    """
    try:
        for directory in (*reversed(path.absolute().parents), *reversed(path.resolve().parents)):  # a link has two ways
            if not _may(directory, reader, stat.S_IXOTH):
                return f"the directory {_shown(directory)} does not let {reader.name} through"
        if not _may(path, reader, stat.S_IROTH):
            return f"{_shown(path)} cannot be read by {reader.name}"
    except OSError:
        pass
    return ""


def _may(path: Path, reader: Reader, bit: int) -> bool:
    status = path.stat()
    if status.st_uid == reader.uid:
        return bool(status.st_mode & bit << 6)
    if status.st_gid in reader.gids:
        return bool(status.st_mode & bit << 3)
    return bool(status.st_mode & bit)


def _shown(path: Path) -> str:
    status = path.stat()
    owner, group = _named(path.owner, status.st_uid), _named(path.group, status.st_gid)
    return f"{path} (mode {stat.S_IMODE(status.st_mode):04o}, {owner}:{group})"


def _named(name: Callable[[], str], number: int) -> str:
    """Return a user's or a group's name; of one that has none the number."""
    try:
        return name()
    except KeyError:
        return str(number)
