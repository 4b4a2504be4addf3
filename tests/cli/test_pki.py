from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest
from cryptography import x509

from natproxy.pki.files import locked
from natproxy.pki.terms import serial_text
from tests.cli.running import GOOD, Done, Run, process
from tests.pki.samples import PARTS, certificate, revoked_serials, unpack

HOST = ("--host", "cache.dev.example.com")


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def ca(natproxy: Run) -> Path:
    """Return the directory of a CA, which is the default one."""
    assert natproxy("pki", "init", *HOST, "--ip", "203.0.113.73").code == 0
    return Path("natproxy-pki")


def names_in(path: Path) -> list[str]:
    names = certificate(path).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def serial_of(done: Done) -> str:
    """Return the serial that `issue` told."""
    (serial,) = re.findall(r"serial ([0-9A-F]+)\n", done.out)
    return str(serial)


# --- init


def test_init_says_what_goes_to_the_instance_and_what_does_not(natproxy: Run, tmp_path: Path) -> None:
    done = natproxy("pki", "init", *HOST, "--ip", "203.0.113.73", "--dir", tmp_path / "ca")
    assert (done.code, done.err) == (0, "")
    assert re.match(r"natproxy CA [0-9A-F]{8}, until \d{4}-\d\d-\d\d\n", done.out)
    assert "cache.dev.example.com, 203.0.113.73, until" in done.out
    listed = re.findall(r"^  (\S+)$", done.out, re.MULTILINE)
    assert listed == [str(tmp_path / "ca" / name) for name in ("server.crt", "server.key", "ca.crt", "clients.crl")]
    assert all(Path(path).is_file() for path in listed)


def test_names_may_be_given_several_times(natproxy: Run) -> None:
    natproxy("pki", "init", *HOST, "--host", "b.example.com.", "--ip", "203.0.113.73", "--ip", "2001:DB8::1", *HOST)
    assert names_in(Path("natproxy-pki/server.crt")) == [
        *("cache.dev.example.com", "b.example.com", "203.0.113.73", "2001:db8::1")
    ]


def test_a_host_may_be_an_address(natproxy: Run) -> None:
    assert natproxy("pki", "init", "--host", "203.0.113.73").code == 0
    assert names_in(Path("natproxy-pki/server.crt")) == ["203.0.113.73"]


@pytest.mark.parametrize(
    ("lines", "further", "names"),
    [
        ("public_ip: 203.0.113.73\n", (), ["cache.dev.example.com", "203.0.113.73"]),
        ("", ("--ip", "203.0.113.99"), ["cache.dev.example.com", "203.0.113.99"]),
        ("", ("--host", "b.example.com"), ["cache.dev.example.com", "b.example.com"]),
    ],
)
def test_names_may_come_from_the_config(
    natproxy: Run, config: Path, lines: str, further: tuple[str, ...], names: list[str]
) -> None:
    config.write_text(GOOD + lines)
    assert natproxy("pki", "init", "-c", config, *further).code == 0
    assert names_in(Path("natproxy-pki/server.crt")) == names


def test_a_config_that_is_wrong_or_names_no_host_is_exit_2(natproxy: Run, config: Path) -> None:
    for text, why in [("workers: many\n", "workers"), (GOOD.replace("public_host", "#"), "has no public_host")]:
        config.write_text(text)
        done = natproxy("pki", "init", "-c", config)
        assert (done.code, done.out, why in done.err) == (2, "", True)
    assert not Path("natproxy-pki").exists()


@pytest.mark.parametrize(
    "args",
    [
        *(
            [],
            ["--host", ""],
            ["--host", "*.example.com"],
            ["--host", "https://x"],
            ["--host", "a b"],
            ["--host", "ü.de"],
        ),
        *(["--ip", "x"], ["--ip", "1.2.3.999"], ["--ip", "fe80::1%eth0"], ["--ip", "cache.dev.example.com"], ["extra"]),
    ],
)
def test_init_without_a_good_name_is_wrong_usage(natproxy: Run, args: list[str]) -> None:
    done = natproxy("pki", "init", *args)
    assert (done.code, done.out) == (2, "")
    assert "Error: " in done.err
    assert not Path("natproxy-pki").exists()


def test_a_second_init_is_refused(natproxy: Run, ca: Path) -> None:
    done = natproxy("pki", "init", *HOST)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("natproxy: natproxy-pki is there already: ")


# --- issue


def test_a_bundle_is_a_zip_named_after_the_developer(natproxy: Run, ca: Path, tmp_path: Path) -> None:
    done = natproxy("pki", "issue", "dev1")
    assert (done.code, done.err) == (0, "")
    assert re.match(r"dev1.zip: dev1's bundle, until \d{4}-\d\d-\d\d, serial [0-9A-F]+\n", done.out)
    bundle = unpack(Path("dev1.zip"), tmp_path / "unpacked")
    assert sorted(path.name for path in bundle.iterdir()) == PARTS
    assert {stat.S_IMODE(path.stat().st_mode) for path in bundle.iterdir()} == {0o600}
    assert serial_text(certificate(bundle / "client.crt").serial_number) == serial_of(done)


def test_a_bundle_may_be_a_directory_and_be_overwritten_by_force(natproxy: Run, ca: Path) -> None:
    assert natproxy("pki", "issue", "dev1", "--out", "handed").code == 0
    assert sorted(path.name for path in Path("handed").iterdir()) == PARTS
    refused = natproxy("pki", "issue", "dev2", "--out", "handed")
    assert (refused.code, refused.err) == (
        1,
        "natproxy: handed is there already: choose another --out, or overwrite it with --force\n",
    )
    assert natproxy("pki", "issue", "dev2", "--out", "handed", "--force").code == 0
    assert json.loads(Path("handed/manifest.json").read_text())["name"] == "dev2"


def portal_port_for(natproxy: Run, name: str, *args: str | Path) -> int:
    """Issue a bundle; return the port in it."""
    assert natproxy("pki", "issue", name, "--out", name, *args).code == 0
    return int(json.loads(Path(name, "manifest.json").read_text())["portal_port"])


def test_bundles_have_the_portal_s_port_which_is_remembered(natproxy: Run, ca: Path, config: Path) -> None:
    index = ca / "index.json"
    assert (portal_port_for(natproxy, "a"), "portal_port" in index.read_text()) == (6378, False)
    config.write_text(f"{GOOD}tls: {{certificate: /c, key: /k, client_ca: /ca}}\nportal: {{port: 7000}}\n")
    assert portal_port_for(natproxy, "b", "-c", config) == 7000
    assert portal_port_for(natproxy, "c") == 7000
    assert portal_port_for(natproxy, "d", "-c", config, "--portal-port", "7001") == 7001
    config.write_text(GOOD)
    assert portal_port_for(natproxy, "e", "-c", config) == 7001
    assert natproxy("pki", "renew-server").code == 0
    assert portal_port_for(natproxy, "f") == 7001
    assert portal_port_for(natproxy, "g", "--portal-port", "6378") == 6378
    assert portal_port_for(natproxy, "h") == 6378


@pytest.mark.parametrize("is_in_config", [True, False])
def test_a_new_ca_may_be_told_the_portal_s_port(natproxy: Run, config: Path, *, is_in_config: bool) -> None:
    config.write_text(f"{GOOD}tls: {{certificate: /c, key: /k, client_ca: /ca}}\nportal: {{port: 7000}}\n")
    words = ("-c", config) if is_in_config else (*HOST, "--portal-port", "7000")
    assert natproxy("pki", "init", *words).code == 0
    assert portal_port_for(natproxy, "a") == 7000


def test_days_are_counted(natproxy: Run, ca: Path) -> None:
    natproxy("pki", "issue", "dev1", "--days", "7", "--out", "d")
    found = certificate(Path("d/client.crt"))
    assert (found.not_valid_after_utc - found.not_valid_before_utc).days == 7


def test_another_one_is_told_with_the_line_that_revokes_the_first(natproxy: Run, ca: Path) -> None:
    first = serial_of(natproxy("pki", "issue", "dev1"))
    again = natproxy("pki", "issue", "dev1", "--out", "again.zip")
    (line,) = re.findall(r"natproxy (pki revoke dev1 .*)\n", again.out)
    assert natproxy(*line.split()).code == 0
    assert revoked_serials(ca / "clients.crl") == {int(first, 16)}


@pytest.mark.parametrize(
    "args",
    [
        *([], ["../.."], ["a/b"], [""], ["x" * 65], ["dev1\n"], ["*"], ["dev1", "dev2"]),
        *(["dev1", "--days", days] for days in ("0", "-1", "398", "9999999999999999999999", "x", "1.5", "")),
    ],
)
def test_a_wrong_name_or_number_of_days_is_wrong_usage(natproxy: Run, ca: Path, args: list[str]) -> None:
    done = natproxy("pki", "issue", *args)
    assert (done.code, done.out) == (2, "")
    assert "Error: " in done.err
    assert list(Path().iterdir()) == [ca]


# --- revoke, list, crl, renew-server


def test_a_life(natproxy: Run, ca: Path) -> None:
    natproxy("pki", "issue", "dev1")
    natproxy("pki", "issue", "dev2")
    revoked = natproxy("pki", "revoke", "dev1")
    assert (revoked.code, revoked.err) == (0, "")
    assert re.match(r"revoked: dev1's certificate [0-9A-F]+, until \S+\nnatproxy-pki/clients.crl: until", revoked.out)
    again = natproxy("pki", "revoke", "dev1")
    assert (again.code, again.out.splitlines()[0]) == (0, "revoked already; the list is signed anew")
    signed = natproxy("pki", "crl", "--days", "60")
    assert (signed.code, "natproxy-pki/clients.crl: until" in signed.out) == (0, True)
    renewed = natproxy("pki", "renew-server", "--days", "100")
    assert renewed.out.startswith(
        "natproxy-pki/server.crt and its server.key: for cache.dev.example.com, 203.0.113.73, until "
    )
    lines = natproxy("pki", "list").out.splitlines()
    assert lines[0].split() == ["NAME", "KIND", "SERIAL", "UNTIL", "STATE"]
    assert [line.split()[-1] for line in lines[2:4]] == ["valid", "valid"]
    assert re.match(r"dev1 +client +[0-9A-F]+ +\d{4}-\d\d-\d\d +revoked \d{4}-\d\d-\d\d *$", lines[4])
    assert re.match(r"dev2 +client +[0-9A-F]+ +\d{4}-\d\d-\d\d +valid *$", lines[5])
    assert re.match(r"revocation list 4, until \d{4}-\d\d-\d\d$", lines[-1])


def test_at_80_columns_the_list_stays_within_them(natproxy: Run, ca: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    natproxy("pki", "issue", "x" * 64)
    serials = [view["serial"] for view in json.loads(natproxy("pki", "list", "--json").out)["certificates"]]
    monkeypatch.setenv("COLUMNS", "80")
    text = natproxy("pki", "list").out
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
    assert all(serial in text for serial in serials)


def test_the_list_as_json(natproxy: Run, ca: Path) -> None:
    serial = serial_of(natproxy("pki", "issue", "dev1"))
    natproxy("pki", "revoke", "--serial", serial.lower())
    done = natproxy("pki", "list", "--json")
    document = json.loads(done.out)
    assert (done.code, done.err, document["version"], document["remarks"]) == (0, "", 1, [])
    view = document["certificates"][-1]
    assert (view["name"], view["kind"], view["serial"], view["state"]) == ("dev1", "client", serial, "revoked")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", view["revoked"])


def test_what_should_be_done_is_said_below_the_list_and_warned_of(natproxy: Run, ca: Path) -> None:
    natproxy("pki", "crl", "--days", "7")
    remark = r"the revocation list ends on \d{4}-\d\d-\d\d, and then lets nobody in: `natproxy pki crl` signs it anew\n"
    assert re.search(remark, natproxy("pki", "list").out)
    warned = natproxy("pki", "issue", "dev1")
    assert (warned.code, re.fullmatch("warning: " + remark, warned.err) is not None) == (0, True)


def test_the_server_may_get_other_names(natproxy: Run, ca: Path) -> None:
    renewed = natproxy("pki", "renew-server", "--host", "new.example.com")
    assert renewed.code == 0
    assert renewed.err.startswith("warning: no longer for cache.dev.example.com, 203.0.113.73: bundles that dial it ")
    assert names_in(ca / "server.crt") == ["new.example.com"]
    assert natproxy("pki", "renew-server", "--ip", "x").code == 2


@pytest.mark.parametrize(
    "args",
    [
        *(
            ["revoke"],
            ["revoke", "a/b"],
            ["revoke", "--serial", "xyz"],
            ["crl", "--days", "0"],
            ["crl", "--days", "398"],
        ),
        *(["renew-server", "--days", "0"], ["renew-server", "--days", "398"], ["list", "x"], ["nope"]),
    ],
)
def test_wrong_usage(natproxy: Run, ca: Path, args: list[str]) -> None:
    done = natproxy("pki", *args)
    assert (done.code, done.out, "Error: " in done.err) == (2, "", True)


def test_a_bad_answer_is_exit_1(natproxy: Run, ca: Path) -> None:
    done = natproxy("pki", "revoke", "dev9")
    assert (done.code, done.out) == (1, "")
    assert done.err == "natproxy: no certificate was ever issued to 'dev9': `natproxy pki list` shows to whom\n"


COMMANDS = [["issue", "dev1"], ["revoke", "dev1"], ["list"], ["list", "--json"], ["crl"], ["renew-server"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_ca_it_is_said_how_to_make_one(natproxy: Run, command: list[str]) -> None:
    done = natproxy("pki", *command)
    assert (done.code, done.out) == (1, "")
    assert done.err == ("natproxy: there is no CA in natproxy-pki (no index.json): `natproxy pki init` makes one\n")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_index_is_one_line(natproxy: Run, ca: Path, command: list[str]) -> None:
    (ca / "index.json").write_bytes(b"{")
    done = natproxy("pki", *command)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert done.err.startswith("natproxy: natproxy-pki/index.json is damaged: ")
    assert (ca / "index.json").read_bytes() == b"{"


def test_no_command_shows_a_key(natproxy: Run, tmp_path: Path) -> None:
    said = ""
    for command in [["init", *HOST], *COMMANDS, ["revoke", "dev1"], ["issue", "dev1"]]:
        done = natproxy("pki", *command)
        said += done.out + done.err
    keys = [path.read_text() for path in tmp_path.rglob("*.key")]
    assert len(keys) == 2
    assert "PRIVATE" not in said
    assert not any(line in said for key in keys for line in key.splitlines()[1:-1])


def test_a_listing_needs_no_lock(natproxy: Run, ca: Path) -> None:
    with locked(ca / ".lock"):
        assert natproxy("pki", "list").code == 0


# --- a process of its own


def test_it_runs_as_a_process(tmp_path: Path) -> None:
    directory = ("--dir", tmp_path / "ca")
    assert process("pki", "init", *HOST, *directory).code == 0
    done = process("pki", "issue", "dev1", *directory, "--out", tmp_path / "dev1.zip")
    assert (done.code, done.err, (tmp_path / "dev1.zip").exists()) == (0, "", True)
    listed = process("pki", "list", *directory)
    assert (listed.code, "dev1" in listed.out, "\x1b" in listed.out) == (0, True, False)
