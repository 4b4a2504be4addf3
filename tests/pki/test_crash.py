"""Every command is killed, and refused by the file system, before each of its changes to it; then nothing is lost."""

from __future__ import annotations

import os
import shutil
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from natproxy.errors import PkiError
from natproxy.pki.authority import Authority
from natproxy.pki.index import Index, decode_index
from tests.pki.samples import NAMES, revoked_serials

CHANGES = ("open", "write", "fsync", "replace", "rename", "mkdir", "unlink")
"""What ``os`` is asked for, by pathlib too. A write is done by half before the end."""

DONE, KILLED, REFUSED, UNHARMED, BROKEN = 0, 70, 71, 72, 73
"""How a command ended: before that step was reached, by it, or in spite of it."""

Command = Callable[[Authority, Path], object]

COMMANDS: dict[str, Command] = {
    "issue a zip": lambda authority, place: authority.issue("dev1", 90, place / "dev1.zip"),
    "issue a directory": lambda authority, place: authority.issue("dev1", 90, place / "dev1"),
    "issue by force": lambda authority, place: authority.issue("dev1", 90, place / "old.zip", force=True),
    "revoke": lambda authority, place: authority.revoke("old"),
    "renew-server": lambda authority, place: authority.renew_server(397),
    "crl": lambda authority, place: authority.sign_list(60),
}


def end_at(step: int, command: Callable[[], object], *, is_kill: bool) -> int:
    """Run a command in a child process that is killed, or refused by the file system, at its ``step``-th change."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen != step:
                return real(*args, **options)
            if real.__name__ == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            if is_kill:
                os._exit(KILLED)
            raise OSError(28, "No space left on device")

        return call

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))
    try:
        command()
    except PkiError as error:
        os._exit(REFUSED if str(error) else BROKEN)
    except BaseException:
        traceback.print_exc()
        os._exit(BROKEN)
    os._exit(DONE if seen < step else UNHARMED)


def certificates_in(place: Path) -> Iterator[x509.Certificate]:
    """Return every developer's certificate that lies anywhere, also in what a crash left."""
    for path in place.rglob("*"):
        if not path.is_file():
            continue
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = archive.read("client.crt")
        else:
            content = path.read_bytes()
        end = b"-----END CERTIFICATE-----\n"
        if path.name not in ("ca.crt", ".ca.crt.new") and content.startswith(b"-----BEGIN CERT") and end in content:
            yield x509.load_pem_x509_certificate(content)


def index_of(authority: Authority) -> Index:
    return decode_index((authority.directory / "index.json").read_bytes())


def check(before: Index, place: Path) -> None:
    """Nothing that was known is lost, and nothing is anywhere that the index does not know."""
    authority = Authority(place / "ca")
    now = index_of(authority)
    serials = [entry.number for entry in now.certificates]
    assert len(serials) == len(set(serials))
    assert {certificate.serial_number for certificate in certificates_in(place)} <= set(serials)
    kept = now.certificates[: len(before.certificates)]
    assert [entry.serial for entry in kept] == [entry.serial for entry in before.certificates]
    assert all(new == old for new, old in zip(kept, before.certificates, strict=True) if old.revoked is not None)
    revoked = {entry.number for entry in now.revoked()}
    assert revoked_serials(authority.directory / "clients.crl") <= revoked
    signed = authority.listing().list.number
    assert signed is not None
    assert before.list_number <= signed <= now.list_number
    assert (place / "old.zip").stat().st_size > 0


def check_that_all_commands_work(place: Path) -> None:
    authority = Authority(place / "ca")
    authority.issue("dev1", 90, place / "dev1.zip", force=True)
    authority.issue("dev1", 90, place / "dev1", force=True)
    authority.issue("dev2", 90, place / "dev2.zip")
    authority.revoke("dev1")
    authority.renew_server(397)
    authority.sign_list()
    assert authority.listing().remarks == ()
    assert revoked_serials(place / "ca" / "clients.crl") == {entry.number for entry in index_of(authority).revoked()}
    assert list((place / "ca").glob(".*.new")) == []


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a CA that has issued and revoked."""
    place = tmp_path_factory.mktemp("begun")
    authority = Authority(place / "ca")
    authority.init(NAMES)
    authority.issue("old", 90, place / "old.zip")
    authority.issue("gone", 90, place / "gone.zip")
    authority.revoke("gone")
    return place


@pytest.mark.parametrize("is_kill", [True, False], ids=["killed", "disk full"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_may_end_at_every_step(begun: Path, tmp_path: Path, name: str, is_kill: bool) -> None:
    before = index_of(Authority(begun / "ca"))
    for step in range(1, 200):
        place = tmp_path / str(step)
        shutil.copytree(begun, place)
        code = end_at(step, lambda: COMMANDS[name](Authority(place / "ca"), place), is_kill=is_kill)  # noqa: B023
        assert code in ((KILLED, DONE) if is_kill else (REFUSED, UNHARMED, DONE))
        check(before, place)
        if step % 5 == 0:
            check_that_all_commands_work(place)
        if code == DONE:
            break
    assert step > 10
    assert code == DONE


@pytest.mark.parametrize("is_kill", [True, False], ids=["killed", "disk full"])
def test_init_may_end_at_every_step(tmp_path: Path, is_kill: bool) -> None:
    for step in range(1, 200):
        place = tmp_path / str(step)
        place.mkdir()
        authority = Authority(place / "ca")
        code = end_at(step, lambda: authority.init(NAMES), is_kill=is_kill)  # noqa: B023
        assert code in ((KILLED, DONE) if is_kill else (REFUSED, UNHARMED, DONE))
        if not authority.directory.exists():
            authority.init(NAMES)
        assert [path.name for path in place.iterdir()] == ["ca"]
        assert authority.listing().remarks == ()
        if step % 5 == 0:
            check_that_all_commands_work(place)
        if code == DONE:
            break
    assert step > 30
    assert code == DONE
