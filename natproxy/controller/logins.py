"""What natproxy logs in to nodes with, to ask for roles: a password file, or Secrets Manager. I/O: reads the file.

Nothing of it is ever logged, counted or shown. A file is read each time; a secret is kept for some minutes.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from natproxy.config import Probe
from natproxy.errors import DiscoveryError, NatproxyError

KEEP_SECONDS = 300.0
"""How long a secret is taken for what Secrets Manager holds."""
RETRY_SECONDS = 60.0
"""How long one that could not be had is not asked for again."""
MAX_BYTES = 64 * 1024


class LoginError(NatproxyError):
    """There is none; the text says why."""


@dataclass(frozen=True, slots=True, repr=False)
class Login:
    """A user and a password. It has no repr that tells them."""

    username: str | None
    """None = the default user, by the password alone."""
    password: str

    def words(self) -> tuple[bytes, ...]:
        """Return the command that logs in."""
        user = () if self.username is None else (self.username.encode(),)
        return b"AUTH", *user, self.password.encode(errors="surrogateescape")


class _Kept(NamedTuple):
    login: Login | LoginError
    until: float


class Logins:
    """``ask_secret`` returns the text of a secret by its ARN, or raises DiscoveryError. ``clock`` is monotonic."""

    def __init__(
        self, ask_secret: Callable[[str], Awaitable[str]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask_secret = ask_secret
        self._clock = clock
        self._kept: dict[Probe, _Kept] = {}

    async def get(self, probe: Probe) -> Login:
        """Return the login that the config means; raises LoginError."""
        if probe.password_file is not None:
            return Login(probe.username, _read_password(probe.password_file))
        kept = self._kept.get(probe)
        if kept is None or kept.until <= self._clock():
            kept = self._kept[probe] = await self._fetch(probe)
        if isinstance(kept.login, LoginError):
            raise LoginError(str(kept.login))
        return kept.login

    def forget(self, probe: Probe) -> None:
        """It was refused: have the secret asked for anew."""
        self._kept.pop(probe, None)

    async def _fetch(self, probe: Probe) -> _Kept:
        try:
            login = _login_of(await self._ask_secret(probe.secret_arn or ""), probe.username)
        except DiscoveryError as error:
            return _Kept(LoginError(str(error)), self._clock() + RETRY_SECONDS)
        except LoginError as error:
            return _Kept(error, self._clock() + RETRY_SECONDS)
        return _Kept(login, self._clock() + KEEP_SECONDS)


def _login_of(text: str, username: str | None) -> Login:
    """Read a secret: the password as it is, or a JSON object with ``password`` and perhaps ``username``."""
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return Login(username, _not_empty(text.rstrip("\r\n"), "the secret is empty"))
    password, user = document.get("password"), document.get("username")
    if not isinstance(password, str) or not (user is None or isinstance(user, str)):
        raise LoginError('the secret is a JSON object, and "password" or "username" in it is missing or no text')
    return Login(username or user or None, _not_empty(password, 'the secret\'s "password" is empty'))


def _read_password(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise LoginError(message) from error
    try:
        _check_mode(path, os.fstat(descriptor).st_mode)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise LoginError(message) from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        message = f"{path} is larger than {MAX_BYTES} bytes: no password is"
        raise LoginError(message)
    return _not_empty(content.rstrip(b"\r\n").decode(errors="surrogateescape"), f"{path} is empty")


def _check_mode(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        message = f"{path} is not a file"
        raise LoginError(message)
    if mode & stat.S_IRWXO or mode & stat.S_IWGRP:
        whom = "every user at it" if mode & stat.S_IRWXO else "its group write to it"
        message = f"{path} holds a password, and its mode {stat.S_IMODE(mode):04o} lets {whom}: chmod 0640 or 0600"
        raise LoginError(message)


def _not_empty(password: str, otherwise: str) -> str:
    if not password:
        raise LoginError(otherwise)
    return password
