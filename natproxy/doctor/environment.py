"""The environment that natproxy itself asks AWS with: that of the running one, or of its unit. I/O: reads /proc, files.

Whoever has taken over natproxy's own user could write anything into the environment of its process. So what another
user's process says is worn only as far as it makes this one read no file but those that root alone can change: the AWS
config file may name programs that are then run, and a token file is sent to an address that the environment names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from natproxy.doctor.environfile import parse_environment
from natproxy.doctor.listeners import PROC, daemon_pid
from natproxy.doctor.readable import Reader, hindrance, is_in_safe_hands, reader_with

ENVIRONMENT_FILE = Path("/etc/natproxy/environment")
"""What systemd/natproxy.service reads, for a config that stands beside it."""
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_NAMES = frozenset((*_PROXIES, *map(str.lower, _PROXIES), "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"))
"""What matters for AWS, with all that begins with AWS_."""
_PATHS = ("_FILE", "_DIR", "_DIRECTORY", "_PATH", "_BUNDLE")
"""How the names of those end whose values are paths."""
_AT_HOME = {"AWS_CONFIG_FILE": ".aws/config", "AWS_SHARED_CREDENTIALS_FILE": ".aws/credentials"}
_AS_ROOT = "sudo natproxy doctor"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """With which environment AWS is asked."""

    told: str = ""
    """Whose it is, in words; never a value."""
    variables: Mapping[str, str] | None = None
    """What stands in place of the shell's; None = the shell's."""
    surer: str = ""
    """The command that would see more; not empty where natproxy's own environment is, or may be, another."""


def surroundings(
    state_dir: Path, config: Path, environment_file: Path = ENVIRONMENT_FILE, proc: Path = PROC
) -> Surroundings:
    """Find the environment of the natproxy that runs with this state_dir; else of the unit; else it is the shell's."""
    pid = daemon_pid(state_dir)
    if pid is not None:
        return _of_process(pid, proc)
    if config.absolute().parent == environment_file.parent:
        try:
            text = environment_file.read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            pass
        except OSError:
            told = f"as this shell's environment has it; {environment_file}, which natproxy's unit reads, may differ"
            return Surroundings(told, surer=_AS_ROOT)
        else:
            told = f"with the environment that natproxy's unit takes from {environment_file}"
            return Surroundings(told, _relevant(parse_environment(text)))
    return Surroundings("with the environment of this shell")


@contextlib.contextmanager
def worn(variables: Mapping[str, str] | None) -> Iterator[None]:
    """Have these variables in place of this process's own ones of the kind, and afterwards those again."""
    if variables is None:
        yield
        return
    own = dict(os.environ)
    for name in _relevant(own):
        del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(own)


def _of_process(pid: int, proc: Path) -> Surroundings:
    try:
        content = (proc / str(pid) / "environ").read_bytes()
        uid, gid = _ids((proc / str(pid) / "status").read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        told = "as this shell's environment has it; the running natproxy's may differ"
        return Surroundings(told, surer=_AS_ROOT)
    words = (os.fsdecode(word).partition("=") for word in content.split(b"\0") if b"=" in word)
    said = {name: value for name, _, value in words}
    told = f"with the environment of the running natproxy (pid {pid})"
    home = {"HOME": said["HOME"]} if "HOME" in said else {}
    if uid in {0, os.geteuid()}:
        return Surroundings(told, {**_relevant(said), **home})
    reader = reader_with(uid, gid)
    variables, left_out = _harmless(said, reader)
    if not left_out:
        return Surroundings(told, variables)
    told += f", but for {', '.join(left_out)}, as the user {reader.name} can change those files, or may not read them"
    return Surroundings(told, variables, f"sudo -u {reader.name} natproxy doctor")


def _relevant(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith("AWS_") or name in _NAMES}


def _harmless(said: Mapping[str, str], reader: Reader) -> tuple[dict[str, str], list[str]]:
    """Return what may be worn of what another user's process says, and the names of what may not."""
    variables = _relevant(said)
    for name, below in _AT_HOME.items():  # in place of those of this user's own home
        variables.setdefault(name, str(Path(said.get("HOME") or "/nonexistent") / below))
    left_out = []
    for name, value in list(variables.items()):
        if not value or not name.endswith(_PATHS):
            continue
        path = Path(value)
        if name in _AT_HOME and not _is_there(path):
            variables[name] = os.devnull
        elif path.is_absolute() and _is_harmless(path, reader):
            variables[name] = str(path.resolve())
        else:
            variables[name] = os.devnull
            left_out.append(name)
    return variables, left_out


def _is_harmless(path: Path, reader: Reader) -> bool:
    """Tell whether a file, or the lack of one, is root's doing, and nothing that the reader may not see anyway."""
    if path == Path(os.devnull):
        return True
    return is_in_safe_hands(path if _is_there(path) else path.resolve().parent) and not hindrance(path, reader)


def _is_there(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return path.exists()
    return True  # as far as is known


def _ids(status: str) -> tuple[int, int]:
    """Return the user's and the group's number of a process (proc_pid_status(5)). Raises ValueError."""
    found = {words[0]: int(words[1]) for line in status.splitlines() if (words := line.split())[:1] in _ID_LINES}
    if len(found) != len(_ID_LINES):
        raise ValueError(status)
    return found["Uid:"], found["Gid:"]


_ID_LINES = (["Uid:"], ["Gid:"])
