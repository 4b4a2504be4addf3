from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from natproxy.errors import PkiError
from natproxy.pki.authority import Authority
from natproxy.pki.certificates import load_pair
from natproxy.pki.index import decode_index
from natproxy.pki.terms import ServerNames, serial_text
from tests.pki.samples import LOCAL, NAMES, PARTS, Clock, certificate, issue, make, openssl, revoked_serials, unpack


def all_files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def verify(authority: Authority, path: Path, purpose: str) -> str:
    words = ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(authority.directory / "ca.crt")]
    done = openssl(*words, "-crl_check", "-CRLfile", authority.directory / "clients.crl", path)
    return "OK" if done.returncode == 0 else done.stdout + done.stderr


# --- init


def test_a_new_ca(tmp_path: Path) -> None:
    authority = make(tmp_path)
    directory = authority.directory
    found = sorted(path.name for path in directory.iterdir())
    assert found == [".lock", "ca.crt", "ca.key", "clients.crl", "index.json", "issued", "server.crt", "server.key"]
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]
    assert verify(authority, directory / "server.crt", "sslserver") == "OK"
    assert revoked_serials(directory / "clients.crl") == set()
    assert [view.kind for view in authority.listing().certificates] == ["ca", "server"]
    assert authority.listing().remarks == ()


def test_how_long_all_is_valid(tmp_path: Path) -> None:
    clock = Clock()
    authority = make(tmp_path, clock)
    ca, server = authority.listing().certificates
    until = authority.listing().list.until
    assert until is not None
    assert [(moment - clock.now).days for moment in (ca.expires, server.expires, until)] == [3650, 397, 35]


def test_everything_is_its_owner_s_only(tmp_path: Path) -> None:
    was = os.umask(0)
    try:
        authority = make(tmp_path)
        issue(authority, "dev1")
        authority.renew_server(10)
        authority.revoke("dev1")
    finally:
        os.umask(was)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}


@pytest.mark.parametrize("there", ["ca", "empty directory", "file", "dangling link"])
def test_init_refuses_what_is_there(tmp_path: Path, there: str) -> None:
    path = tmp_path / "ca"
    match there:
        case "ca":
            make(tmp_path)
        case "empty directory":
            path.mkdir()
        case "file":
            path.write_text("mine")
        case "dangling link":
            path.symlink_to(tmp_path / "missing")
    before = all_files(tmp_path)
    with pytest.raises(PkiError, match=rf"{path} is there already"):
        Authority(path).init(NAMES)
    assert all_files(tmp_path) == before


@pytest.mark.parametrize("directory", [".", "..", "/", "missing/ca"])
def test_init_where_there_can_be_no_ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PkiError, match=r"is there already|cannot make the directory"):
        Authority(Path(directory)).init(NAMES)
    assert list(tmp_path.iterdir()) == []


# --- issue


def test_a_bundle(tmp_path: Path) -> None:
    clock = Clock()
    authority = make(tmp_path, clock)
    issued = authority.issue("dev1", 90, tmp_path / "dev1.zip")
    bundle = unpack(tmp_path / "dev1.zip", tmp_path / "dev1")
    assert sorted(path.name for path in bundle.iterdir()) == PARTS
    found, _ = load_pair((bundle / "client.crt").read_bytes(), (bundle / "client.key").read_bytes())
    assert found.not_valid_after_utc == issued.entry.expires == clock.now + timedelta(days=90)
    assert found.serial_number == issued.entry.number
    assert (bundle / "ca.crt").read_bytes() == (authority.directory / "ca.crt").read_bytes()
    assert verify(authority, bundle / "client.crt", "sslclient") == "OK"
    assert issued.others == ()


def test_what_the_ca_keeps_of_a_bundle_is_not_the_key(tmp_path: Path) -> None:
    authority = make(tmp_path)
    bundle = issue(authority, "dev1")
    (kept,) = (authority.directory / "issued").iterdir()
    assert kept.name == f"dev1-{serial_text(certificate(kept).serial_number)}.crt"
    assert kept.read_bytes() == (bundle / "client.crt").read_bytes()
    key = (bundle / "client.key").read_bytes()
    assert key not in all_files(authority.directory).values()


def test_the_next_one_may_be_issued_before_the_last_one_ends(tmp_path: Path) -> None:
    authority = make(tmp_path)
    first = authority.issue("dev1", 90, tmp_path / "1.zip")
    authority.issue("dev2", 90, tmp_path / "2.zip")
    assert authority.issue("dev1", 90, tmp_path / "3.zip").others == (first.entry,)


def test_an_out_that_is_taken_costs_no_certificate(tmp_path: Path) -> None:
    authority = make(tmp_path)
    authority.issue("dev1", 90, tmp_path / "dev1.zip")
    before = all_files(tmp_path)
    for out in (tmp_path / "dev1.zip", authority.directory, tmp_path / "missing" / "x.zip"):
        with pytest.raises(PkiError, match=str(out)):
            authority.issue("dev2", 90, out)
    assert all_files(tmp_path) == before
    authority.issue("dev2", 90, tmp_path / "dev1.zip", force=True)
    assert b'"dev2"' in (unpack(tmp_path / "dev1.zip", tmp_path / "dev2") / "manifest.json").read_bytes()


def test_a_bundle_that_could_not_be_written_is_told_with_its_serial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = make(tmp_path)
    out = tmp_path / "dev1"
    out.mkdir()
    real_open = os.open

    def open_but_no_key(path: Path, flags: int, *rest: int) -> int:
        if str(path).endswith(".client.key.new"):
            raise OSError(28, "No space left on device")
        return real_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", open_but_no_key)
    with pytest.raises(PkiError, match=rf"cannot write {out}/client.key: No space left .* was not handed out") as error:
        authority.issue("dev1", 90, out)
    monkeypatch.undo()
    (entry,) = [view for view in authority.listing().certificates if view.kind == "client"]
    assert entry.serial in str(error.value)
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("name", ["", "../..", "a/b", ".", "x" * 65])
def test_a_name_that_is_none_changes_nothing(tmp_path: Path, name: str) -> None:
    authority = make(tmp_path)
    before = all_files(tmp_path)
    with pytest.raises(PkiError, match="name"):
        authority.issue(name, 90, tmp_path / "x.zip")
    assert all_files(tmp_path) == before


@pytest.mark.parametrize("other", ["RUNNER7.ci.example.com", "runner7.CI.Example.com"])
def test_a_name_that_looks_like_another_one_is_refused(tmp_path: Path, other: str) -> None:
    authority = make(tmp_path)
    issue(authority, "runner7.ci.example.com")
    authority.revoke("runner7.ci.example.com")
    before = all_files(authority.directory)
    with pytest.raises(PkiError, match=r"differs from 'runner7\.ci\.example\.com'.* in upper and lower case only"):
        authority.issue(other, 90, tmp_path / "x.zip")
    assert all_files(authority.directory) == before
    issue(authority, "runner7.ci.example.com")


# --- revoke


def test_a_revoked_certificate_is_on_the_list(tmp_path: Path) -> None:
    authority = make(tmp_path)
    bundles = [issue(authority, "dev1"), issue(authority, "dev1"), issue(authority, "dev2")]
    revoked = authority.revoke("dev1")
    assert {entry.number for entry in revoked.entries} == revoked_serials(authority.directory / "clients.crl")
    verdicts = [verify(authority, bundle / "client.crt", "sslclient") for bundle in bundles]
    assert ["certificate revoked" in verdict for verdict in verdicts] == [True, True, False]
    assert verdicts[2] == "OK"
    assert [view.state for view in authority.listing().certificates[2:]] == ["revoked", "revoked", "valid"]


def test_one_of_several_may_be_revoked(tmp_path: Path) -> None:
    authority = make(tmp_path)
    first, second = (certificate(issue(authority, "dev1") / "client.crt").serial_number for _ in range(2))
    authority.revoke("dev1", f"{first:x}")
    assert revoked_serials(authority.directory / "clients.crl") == {first}
    authority.revoke(None, f"0x{second:X}")
    assert revoked_serials(authority.directory / "clients.crl") == {first, second}


def test_a_revocation_may_be_said_twice_and_keeps_its_date(tmp_path: Path) -> None:
    clock = Clock()
    authority = make(tmp_path, clock)
    issue(authority, "dev1")
    authority.revoke("dev1")
    since = authority.listing().certificates[2].revoked
    (authority.directory / "clients.crl").unlink()
    clock.move(days=1)
    again = authority.revoke("dev1")
    assert again.entries == ()
    assert authority.listing().certificates[2].revoked == since
    assert authority.listing().remarks == ()


def test_what_has_expired_is_not_revoked(tmp_path: Path) -> None:
    clock = Clock()
    authority = make(tmp_path, clock)
    old, new = issue(authority, "dev1", days=1), issue(authority, "dev1", days=30)
    clock.move(days=2)
    assert [entry.number for entry in authority.revoke("dev1").entries] == [
        certificate(new / "client.crt").serial_number
    ]
    with pytest.raises(PkiError, match="nothing to revoke: dev1's certificate expired on"):
        authority.revoke("dev1", f"{certificate(old / 'client.crt').serial_number:x}")


def test_what_cannot_be_revoked_is_said(tmp_path: Path) -> None:
    authority = make(tmp_path)
    dev1 = certificate(issue(authority, "dev1") / "client.crt").serial_number
    issue(authority, "dev2")
    ca, server = (view.serial for view in authority.listing().certificates[:2])
    before = all_files(tmp_path)
    for name, serial, why in [
        ("dev9", None, "no certificate was ever issued to 'dev9'"),
        ("cache.dev.example.com", None, "no certificate was ever issued to 'cache.dev.example.com'"),
        ("dev2", f"{dev1:x}", f"there is no certificate {serial_text(dev1)} of dev2"),
        (None, "AB", "there is no certificate AB: "),
        (None, "xyz", "no serial number"),
        (None, server, "is the server's own certificate"),
        (None, ca, "is the ca's own certificate"),
    ]:
        with pytest.raises(PkiError, match=why):
            authority.revoke(name, serial)
    assert all_files(tmp_path) == before


# --- the list


def test_lists_are_numbered_and_remember_their_days(tmp_path: Path) -> None:
    clock = Clock()
    authority = make(tmp_path, clock)
    issue(authority, "dev1")
    assert authority.sign_list(60) == clock.now + timedelta(days=60)
    clock.move(days=1)
    assert authority.revoke("dev1").until == clock.now + timedelta(days=60)
    assert authority.sign_list() == clock.now + timedelta(days=60)
    found = x509.load_pem_x509_crl((authority.directory / "clients.crl").read_bytes())
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 4
    assert found.next_update_utc == clock.now + timedelta(days=60)


def test_an_older_index_lets_nobody_in_again(tmp_path: Path) -> None:
    authority = make(tmp_path)
    issue(authority, "dev1")
    index = authority.directory / "index.json"
    before = index.read_bytes()
    issue(authority, "dev2")
    authority.revoke("dev2")
    authority.revoke("dev1")
    revoked = revoked_serials(authority.directory / "clients.crl")
    index.write_bytes(before)
    assert any("the revocation list has 2 that index.json does not" in one for one in authority.listing().remarks)
    authority.sign_list()
    assert revoked_serials(authority.directory / "clients.crl") == revoked
    found = x509.load_pem_x509_crl((authority.directory / "clients.crl").read_bytes())
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 4


def test_what_has_expired_stays_on_the_list(tmp_path: Path) -> None:
    clock = Clock()
    authority = make(tmp_path, clock)
    issue(authority, "dev1", days=1)
    authority.revoke("dev1")
    clock.move(days=30)
    authority.sign_list()
    assert len(revoked_serials(authority.directory / "clients.crl")) == 1


def test_no_list_is_valid_for_longer_than_its_ca(tmp_path: Path) -> None:
    clock = Clock()
    authority = make(tmp_path, clock)
    end = authority.listing().certificates[0].expires
    clock.move(days=3645)
    assert authority.sign_list() == end


# --- the server


def test_the_server_s_certificate_and_key_are_replaced(tmp_path: Path) -> None:
    clock = Clock()
    authority = make(tmp_path, clock)
    pair = authority.directory / "server.crt", authority.directory / "server.key"
    before = [path.read_bytes() for path in pair]
    clock.move(days=380)
    assert any("server's certificate ends" in remark for remark in authority.listing().remarks)
    authority.sign_list()
    entry = authority.renew_server(397)
    after = [path.read_bytes() for path in pair]
    assert all(new != old for new, old in zip(after, before, strict=True))
    found, _ = load_pair(*after)
    assert found.serial_number == entry.number
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["cache.dev.example.com", "203.0.113.73"]
    assert authority.listing().remarks == ()


def test_the_server_may_get_other_names_and_bundles_say_the_new_one(tmp_path: Path) -> None:
    authority = make(tmp_path)
    authority.renew_server(30, ServerNames(("new.example.com",), ()))
    authority.renew_server(30)
    names = certificate(authority.directory / "server.crt").extensions
    found = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [name.value for name in found] == ["new.example.com"]
    assert b'"host": "new.example.com"' in (issue(authority, "dev1") / "manifest.json").read_bytes()


# --- time


def test_nothing_outlives_the_ca(tmp_path: Path) -> None:
    clock = Clock()
    authority = make(tmp_path, clock)
    clock.move(days=3640, hours=1)
    before = all_files(tmp_path)
    acts: list[Callable[[], object]] = [
        lambda: authority.issue("dev1", 90, tmp_path / "x.zip"),
        lambda: authority.renew_server(10),
    ]
    for act in acts:
        with pytest.raises(PkiError, match=r"the CA itself ends on \d{4}-\d\d-\d\d: --days 9 at most"):
            act()
    assert all_files(tmp_path) == before
    authority.issue("dev1", 9, tmp_path / "x.zip")
    assert any("the CA itself ends" in remark for remark in authority.listing().remarks)


@pytest.mark.parametrize(("days", "why"), [(3651, "the CA itself ended on"), (-1, "set the clock right")])
def test_a_ca_that_has_ended_or_not_begun_signs_nothing(tmp_path: Path, days: int, why: str) -> None:
    clock = Clock()
    authority = make(tmp_path, clock)
    issue(authority, "dev1", days=397)
    clock.move(days=days)
    before = all_files(tmp_path)
    acts: list[Callable[[], object]] = [
        lambda: authority.issue("dev1", 1, tmp_path / "x.zip"),
        lambda: authority.renew_server(1),
        authority.sign_list,
    ]
    for act in acts:
        with pytest.raises(PkiError, match=why):
            act()
    assert all_files(tmp_path) == before
    assert len(authority.listing().certificates) == 3


def test_times_are_those_of_the_clock_in_utc(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    authority.init(NAMES)
    issued = authority.issue("dev1", 1, tmp_path / "x.zip").entry.issued
    assert abs(datetime.now(UTC) - issued) < timedelta(minutes=5)


# --- what is damaged, missing, or not ours


def list_(authority: Authority, _: Path) -> None:
    authority.listing()


COMMANDS: list[Callable[[Authority, Path], object]] = [
    lambda authority, out: authority.issue("dev2", 90, out / "dev2.zip"),
    lambda authority, out: authority.revoke("dev1"),
    lambda authority, out: authority.renew_server(397),
    lambda authority, out: authority.sign_list(),
]


@pytest.mark.parametrize("content", [b"", b"\0" * 2000, b"{", b"[]", b'{"version": 1}', b'{"version": 2}'])
def test_a_damaged_index_is_named_and_nothing_is_overwritten(tmp_path: Path, content: bytes) -> None:
    authority = make(tmp_path)
    issue(authority, "dev1")
    index = authority.directory / "index.json"
    index.write_bytes(content)
    before = all_files(tmp_path)
    for command in [*COMMANDS, list_]:
        with pytest.raises(PkiError, match=rf"{index} (is damaged|was written by a newer).*nothing was changed"):
            command(authority, tmp_path)
    assert all_files(tmp_path) == before


@pytest.mark.parametrize("there", ["nothing", "empty directory", "file"])
def test_where_there_is_no_ca_none_is_made_up(tmp_path: Path, there: str) -> None:
    directory = tmp_path / "ca"
    if there == "empty directory":
        directory.mkdir()
    elif there == "file":
        directory.touch()
    for command in [*COMMANDS, list_]:
        with pytest.raises(PkiError, match=rf"there is no CA in {directory} .*natproxy pki init"):
            command(Authority(directory), tmp_path)
    assert list(tmp_path.rglob("ca/*")) == []


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("ca.key", None, "cannot read .*ca.key: No such file"),
        ("ca.crt", None, "cannot read .*ca.crt: No such file"),
        ("ca.key", b"x", "ca.crt and .*ca.key cannot be used: the key is damaged"),
        ("ca.crt", b"x", "ca.crt and .*ca.key cannot be used: the certificate is damaged"),
        ("ca.key", "server.key", "ca.crt and .*ca.key cannot be used: the key is not the certificate's"),
    ],
)
def test_a_damaged_ca_signs_nothing(tmp_path: Path, name: str, content: bytes | str | None, why: str) -> None:
    authority = make(tmp_path)
    issue(authority, "dev1")
    path = authority.directory / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else (authority.directory / content).read_bytes())
    before = all_files(tmp_path)
    for command in COMMANDS:
        with pytest.raises(PkiError, match=why) as error:
            command(authority, tmp_path)
        assert "PRIVATE" not in str(error.value)
    assert all_files(tmp_path) == before


def test_another_ca_s_files_are_not_taken(tmp_path: Path) -> None:
    authority, other = make(tmp_path), Authority(tmp_path / "other")
    other.init(LOCAL)
    for name in ("ca.crt", "ca.key"):
        (authority.directory / name).write_bytes((other.directory / name).read_bytes())
    with pytest.raises(PkiError, match=r"ca.crt is not the CA that .*index.json is about"):
        authority.sign_list()


def test_a_list_or_pair_that_is_missing_is_made_anew(tmp_path: Path) -> None:
    authority = make(tmp_path)
    for name in ("clients.crl", "server.key"):
        (authority.directory / name).unlink()
    said = authority.listing().remarks
    assert ["revocation list is missing" in said[0], "server.key" in said[1], len(said)] == [True, True, 2]
    authority.sign_list()
    authority.renew_server(30)
    assert not any("missing" in remark or "server.key" in remark for remark in authority.listing().remarks)


def test_a_renewal_that_was_cut_short_is_remarked(tmp_path: Path) -> None:
    authority = make(tmp_path)
    pair = [
        (authority.directory / name, (authority.directory / name).read_bytes()) for name in ("server.crt", "server.key")
    ]
    authority.renew_server(397)
    for path, content in pair:
        path.write_bytes(content)
    (said,) = authority.listing().remarks
    assert "are not the newest" in said
    pair[0][0].write_bytes((authority.directory / "ca.crt").read_bytes())
    (said,) = authority.listing().remarks
    assert "the key is not the certificate's" in said


@pytest.mark.parametrize("name", ["ca.key", "server.key"])
def test_a_key_that_others_can_read_is_remarked(tmp_path: Path, name: str) -> None:
    authority = make(tmp_path)
    (authority.directory / name).chmod(0o640)
    assert authority.listing().remarks == (f"others can read or write {authority.directory / name}: chmod 600",)


def test_the_index_is_json_for_humans(tmp_path: Path) -> None:
    authority = make(tmp_path)
    content = (authority.directory / "index.json").read_bytes()
    assert json.loads(content)["hosts"] == ["cache.dev.example.com"]
    assert decode_index(content).list_number == 1


# --- two at once


def test_commands_at_once_wait_for_each_other(tmp_path: Path) -> None:
    authority = make(tmp_path)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            try:
                for turn in range(3):
                    authority.issue(f"dev{number}", 90, tmp_path / f"{number}-{turn}.zip")
                    authority.revoke(f"dev{number}")
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    listing = authority.listing()
    assert len(listing.certificates) == 2 + 12
    assert len(revoked_serials(authority.directory / "clients.crl")) == 12
    assert (listing.list.number, listing.remarks) == (1 + 12, ())


def test_two_inits_at_once_make_one_ca(tmp_path: Path) -> None:
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                make(tmp_path)
            except PkiError:
                os._exit(7)
            except BaseException:
                os._exit(1)
            os._exit(0)
        children.append(child)
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
    assert codes == [0, 7, 7, 7]
    assert Authority(tmp_path / "ca").listing().remarks == ()
