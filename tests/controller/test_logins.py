from __future__ import annotations

import json
from pathlib import Path

import pytest

from natproxy.config import Probe
from natproxy.controller.logins import KEEP_SECONDS, MAX_BYTES, RETRY_SECONDS, Login, LoginError, Logins
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure
from tests.controller.samples import Clock

ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:probe-AbCdEf"
WORD = "s3cr3t-w0rd"


class Vault:
    """Secrets Manager, as it is asked."""

    def __init__(self, text: str = WORD) -> None:
        self.text = text
        self.failure: DiscoveryError | None = None
        self.asked: list[str] = []
        self.clock = Clock()
        self.logins = Logins(self.ask, clock=self.clock)

    async def ask(self, arn: str) -> str:
        self.asked.append(arn)
        if self.failure is not None:
            raise self.failure
        return self.text


def by_file(path: Path, username: str | None = None) -> Probe:
    return Probe.model_construct(username=username, password_file=path, secret_arn=None)


def by_secret(username: str | None = None) -> Probe:
    return Probe.model_construct(username=username, password_file=None, secret_arn=ARN)


def written(directory: Path, content: bytes = WORD.encode() + b"\n", mode: int = 0o600) -> Path:
    path = directory / "probe.txt"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("username", "words"), [(None, (b"AUTH", b"s3cr3t-w0rd")), ("natproxy", (b"AUTH", b"natproxy", b"s3cr3t-w0rd"))]
)
async def test_a_login_is_a_command(tmp_path: Path, username: str | None, words: tuple[bytes, ...]) -> None:
    login = await Vault().logins.get(by_file(written(tmp_path), username))
    assert login.words() == words


def test_a_login_does_not_show_its_password() -> None:
    login = Login("natproxy", WORD)
    assert WORD not in f"{login} {login!r} {[login]} {vars(login) if hasattr(login, '__dict__') else ''}"
    assert login == Login("natproxy", WORD) != Login("natproxy", WORD + "2")


# Files.


async def test_a_file_is_read_each_time_without_the_end_of_its_line(tmp_path: Path) -> None:
    logins = Vault().logins
    for content in (b"one", b"two\n", b"two words\r\n", b" \xff\n"):
        (tmp_path / "probe.txt").unlink(missing_ok=True)
        login = await logins.get(by_file(written(tmp_path, content, 0o640)))
        assert login.words()[-1] == content.rstrip(b"\r\n")


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (0o604, "mode 0604 lets every user at it: chmod 0640 or 0600"),
        (0o602, "mode 0602 lets every user at it: chmod 0640 or 0600"),
        (0o620, "mode 0620 lets its group write to it: chmod 0640 or 0600"),
        (0o666, "mode 0666 lets every user at it: chmod 0640 or 0600"),
    ],
)
async def test_a_file_that_others_get_at_is_refused(tmp_path: Path, mode: int, why: str) -> None:
    with pytest.raises(LoginError, match=why) as caught:
        await Vault().logins.get(by_file(written(tmp_path, mode=mode)))
    assert str(caught.value).startswith(f"{tmp_path}/probe.txt holds a password")
    assert WORD not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "is empty"), (b"\n", "is empty"), (b"x" * (MAX_BYTES + 1), "is larger than 65536 bytes")],
    ids=["empty", "blank", "large"],
)
async def test_a_file_without_a_password_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(LoginError, match=why):
        await Vault().logins.get(by_file(written(tmp_path, content)))


async def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoginError, match="cannot be read: No such file"):
        await Vault().logins.get(by_file(tmp_path / "none"))
    with pytest.raises(LoginError, match="is not a file"):
        await Vault().logins.get(by_file(tmp_path))


# Secrets.


@pytest.mark.parametrize(
    ("text", "username", "login"),
    [
        (WORD, None, Login(None, WORD)),
        (WORD + "\n", "natproxy", Login("natproxy", WORD)),
        ("12345", None, Login(None, "12345")),
        ('"quoted"', None, Login(None, '"quoted"')),
        ("[1]", None, Login(None, "[1]")),
        ("{not JSON", None, Login(None, "{not JSON")),
        (json.dumps({"password": WORD}), None, Login(None, WORD)),
        (json.dumps({"username": "probe", "password": WORD, "user_arn": "x"}), None, Login("probe", WORD)),
        (json.dumps({"username": "probe", "password": WORD}), "natproxy", Login("natproxy", WORD)),
        (json.dumps({"username": "", "password": WORD}), None, Login(None, WORD)),
    ],
)
async def test_a_secret_is_a_password_or_an_object_with_one(text: str, username: str | None, login: Login) -> None:
    vault = Vault(text)
    assert await vault.logins.get(by_secret(username)) == login
    assert vault.asked == [ARN]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("{}", "missing or no text"),
        (json.dumps({"password": ""}), "is empty"),
        (json.dumps({"password": 1, "username": WORD}), "missing or no text"),
        (json.dumps({"password": WORD, "username": 1}), "missing or no text"),
    ],
)
async def test_a_secret_without_a_password_is_refused_and_not_shown(text: str, why: str) -> None:
    with pytest.raises(LoginError, match=why) as caught:
        await Vault(text).logins.get(by_secret())
    assert WORD not in str(caught.value)


async def test_a_secret_is_kept_for_some_minutes() -> None:
    vault = Vault()
    for seconds in (0.0, KEEP_SECONDS - 1.0):
        vault.clock.now = 1000.0 + seconds
        assert await vault.logins.get(by_secret()) == Login(None, WORD)
    assert len(vault.asked) == 1
    vault.text, vault.clock.now = "new", 1000.0 + KEEP_SECONDS
    assert await vault.logins.get(by_secret()) == Login(None, "new")
    assert len(vault.asked) == 2


async def test_a_secret_that_was_refused_is_asked_for_anew() -> None:
    vault = Vault()
    await vault.logins.get(by_secret())
    vault.logins.forget(by_secret())
    vault.logins.forget(by_secret("another"))
    vault.text = "new"
    assert await vault.logins.get(by_secret()) == Login(None, "new")


async def test_a_secret_that_cannot_be_had_is_not_asked_for_all_the_time() -> None:
    vault = Vault()
    vault.failure = DiscoveryError(DiscoveryFailure.DENIED, "GetSecretValue: AccessDenied: no")
    for seconds in (0.0, RETRY_SECONDS - 1.0):
        vault.clock.now = 1000.0 + seconds
        with pytest.raises(LoginError, match=r"^GetSecretValue: AccessDenied: no$"):
            await vault.logins.get(by_secret())
    assert len(vault.asked) == 1
    vault.failure, vault.clock.now = None, 1000.0 + RETRY_SECONDS
    assert await vault.logins.get(by_secret()) == Login(None, WORD)
