"""Certificates, keys, CAs and lists change on disk while connections live; broken ones change nothing."""

from __future__ import annotations

import contextlib
import json
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.scenarios.conftest import Natproxies
from tests.scenarios.daemon import FIRST_PORT, Daemon, Line
from tests.scenarios.peers import connect
from tests.scenarios.tlspeers import HOST, VERSIONS, Papers, TlsTalk, prepare_tls, secure
from tests.scenarios.waiting import eventually
from tests.standins.certificates import Authority, Issued

PORT, OTHER_PORT = FIRST_PORT, FIRST_PORT + 1
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
LOADS = "natproxy_tls_file_loads_total"


@pytest.fixture
def home(natproxy: Natproxies, echo: str) -> tuple[Daemon, Papers]:
    daemon, papers = prepare_tls(natproxy)
    daemon.config["static"] = [{"name": "a", "port": PORT, "target": echo}]
    return daemon, papers


def serial_shown(daemon: Daemon, papers: Papers) -> int:
    """Return the serial of the certificate that a new client is shown."""
    with secure(daemon.ip, PORT, papers.client(papers.dev)) as talk:
        assert talk.echoes()
        return x509.load_der_x509_certificate(talk.tls.getpeercert(binary_form=True) or b"").serial_number


def come(daemon: Daemon, papers: Papers, who: Issued, **more: Any) -> TlsTalk:
    talk = secure(daemon.ip, more.pop("port", PORT), papers.client(who), **more)
    assert talk.echoes()
    return talk


def is_let_in(daemon: Daemon, papers: Papers, who: Issued, port: int = PORT) -> bool:
    try:
        with secure(daemon.ip, port, papers.client(who)) as talk:
            return talk.echoes()
    except (ssl.SSLError, ConnectionError):
        return False


def replace(path: Path, data: bytes) -> None:
    """Write a file as people are told to: beside it first, then over it."""
    fresh = path.with_suffix(".new")
    fresh.touch(0o600)
    fresh.write_bytes(data)
    fresh.replace(path)


def test_a_renewed_certificate_is_shown_to_new_clients_and_the_old_ones_live_on(home: tuple[Daemon, Papers]) -> None:
    daemon, papers = home
    daemon.start()
    live = come(daemon, papers, papers.dev)
    assert serial_shown(daemon, papers) == papers.server.serial
    renewed = papers.new_server()
    replace(papers.directory / "server.crt", renewed.certificate)
    replace(papers.directory / "server.key", renewed.key)
    eventually(lambda: serial_shown(daemon, papers) == renewed.serial, "the new certificate is shown")
    assert live.echoes()
    expiry = "natproxy_certificate_expiry_timestamp_seconds"
    assert daemon.metric(expiry, use="certificate", serial=serial_text(renewed.serial)) > NOW.timestamp()
    assert daemon.metric(expiry, use="certificate", serial=serial_text(papers.server.serial)) == 0
    assert daemon.metric("natproxy_tls_files_good") == 1
    assert daemon.metric(LOADS, result="accepted") >= 1
    assert daemon.metric(LOADS, result="refused") == 0, "two files that are written one after the other are one change"


def serial_text(serial: int) -> str:
    text = f"{serial:X}"
    return text.zfill(len(text) + len(text) % 2)


def broken_key(papers: Papers) -> None:
    """Without its certificate."""
    other = papers.new_server()
    papers.other_keys.append(other.key)
    replace(papers.directory / "server.key", other.key)


def broken_certificate(papers: Papers) -> None:
    replace(papers.directory / "server.crt", b"this is no certificate\n")


def readable_key(papers: Papers) -> None:
    (papers.directory / "server.key").chmod(0o644)


def missing_ca(papers: Papers) -> None:
    papers.client_ca.unlink()


def strange_list(papers: Papers) -> None:
    replace(papers.crl, Authority("Clients CA").crl())


def half_a_list(papers: Papers) -> None:
    replace(papers.crl, papers.crl.read_bytes()[:200])


BROKEN = {
    broken_key: "server.key",
    broken_certificate: "server.crt",
    readable_key: "server.key",
    missing_ca: "clients.crt",
    strange_list: "clients.crl",
    half_a_list: "clients.crl",
}


def test_what_cannot_be_loaded_keeps_the_old_and_heals_and_no_key_is_ever_shown(
    natproxy: Natproxies, echo: str
) -> None:
    """Files are looked at once a second: as many daemons as there are cases wait for that at the same time."""
    cases = []
    for break_it, file in BROKEN.items():
        daemon, papers = prepare_tls(natproxy, log={"format": "json", "level": "debug"})
        daemon.config["static"] = [{"name": "a", "port": PORT, "target": echo}]
        live = come(daemon.start(), papers, papers.dev)
        names = ("server.crt", "server.key", "clients.crt", "clients.crl")
        good = {path: path.read_bytes() for path in (papers.directory / name for name in names)}
        cases.append((daemon, papers, live, good, str(papers.directory / file), len(daemon.log)))
        break_it(papers)
    for daemon, papers, live, good, file, since in cases:
        daemon.wait_for_metric(0, "natproxy_tls_files_good")
        assert daemon.metric(LOADS, result="refused") >= 1
        eventually(lambda: [line for line in errors(daemon, since) if file in json.dumps(line)], f"{file} is named")  # noqa: B023
        assert serial_shown(daemon, papers) == papers.server.serial
        assert live.echoes()
        for path, content in good.items():
            replace(path, content)
    for daemon, papers, live, _, _, since in cases:
        daemon.wait_for_metric(1, "natproxy_tls_files_good")
        assert serial_shown(daemon, papers) == papers.server.serial
        assert live.echoes()
        assert len(errors(daemon, since)) == 1, "said once"
        assert_no_key_is_shown(daemon, papers)
        live.close()


def assert_no_key_is_shown(daemon: Daemon, papers: Papers) -> None:
    keys = [papers.server.key, papers.dev.key, *papers.other_keys]
    with connect(daemon.ip, PORT) as talk:
        talk.say(papers.dev.key)
        assert talk.hear_all_or_reset()
    shown = [json.dumps(daemon.log.all()), *daemon.strange_lines, *daemon.notified.all()]
    shown += [daemon.get(path)[1] for path in ("/metrics", "/routes", "/")]
    shown += [path.read_text(errors="replace") for path in daemon.state_dir.rglob("*") if path.is_file()]
    for pid in (daemon.process.pid, *daemon.workers()):
        shown += [Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace") for name in ("cmdline", "environ")]
        held = []
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                held.append(str(path.readlink()))
        assert not [path for path in held if "memfd" in path or path.endswith(".key")], "what was read is closed"
    secrets = [line.decode() for key in keys for line in key.splitlines() if b"-----" not in line]
    assert len(secrets) > len(keys)
    assert not [secret for secret in secrets for text in shown if secret in text]


def errors(daemon: Daemon, since: int) -> list[Line]:
    return [line for line in daemon.log.all(since) if line["level"] == "error"]


def test_a_revoked_client_is_closed_and_comes_in_no_more_and_nobody_else_notices(home: tuple[Daemon, Papers]) -> None:
    daemon, papers = home
    daemon.start()
    good = papers.clients.issue("dev2", usage="client")
    contexts = [papers.client(papers.dev, version=version) for version in VERSIONS]
    lost = [secure(daemon.ip, PORT, context) for context in contexts]
    assert all(talk.echoes() for talk in lost)
    kept = come(daemon, papers, good)
    replace(papers.crl, papers.clients.crl([papers.dev]))
    for talk in lost:
        assert talk.ended() in ("eof", "cut", "reset")
    assert kept.echoes()
    line = daemon.wait_for_log("connection ended", outcome="certificate-revoked")
    assert (line["certificate"], line["serial"]) == ("dev1", serial_text(papers.dev.serial))
    assert not is_let_in(daemon, papers, papers.dev)
    assert is_let_in(daemon, papers, good)
    for context, talk in zip(contexts, lost, strict=True):  # nor by an old session, which shows no certificate
        plain = connect(daemon.ip, PORT)
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            assert TlsTalk(plain.sock, context, name=HOST, session=talk.tls.session).echoes()
    daemon.wait_for_metric(5, "natproxy_connections_ended_total", outcome="certificate-revoked")
    daemon.wait_for_metric(3, "natproxy_handshakes_total", side="client", reason="revoked")


def test_a_list_past_its_next_update_lets_nobody_in(home: tuple[Daemon, Papers]) -> None:
    daemon, papers = home
    papers.crl.write_bytes(papers.clients.crl(this_update=NOW - 2 * DAY, next_update=NOW - DAY))
    daemon.start()
    assert not is_let_in(daemon, papers, papers.dev)
    line = daemon.wait_for_log("connection ended", outcome="client-handshake")
    assert line["detail"].startswith("crl-expired"), line
    daemon.wait_for_metric(1, "natproxy_handshakes_total", reason="crl-expired")
    told = [line for line in daemon.log.all() if line["level"] in ("warning", "error")]
    assert any(str(papers.crl) in json.dumps(line) or "Clients CA" in json.dumps(line) for line in told), told

    replace(papers.crl, papers.clients.crl(next_update=datetime.now(UTC) + timedelta(seconds=4)))
    eventually(lambda: is_let_in(daemon, papers, papers.dev), "with a new list they come in again")
    live = come(daemon, papers, papers.dev)
    eventually(lambda: not is_let_in(daemon, papers, papers.dev), "this one runs out, too")
    assert live.echoes(), "who is in stays in"


def test_names_that_are_listed_no_more_are_closed_at_once(home: tuple[Daemon, Papers], echo: str) -> None:
    daemon, papers = home
    daemon.config["static"].append(
        {"name": "b", "port": OTHER_PORT, "target": echo, "clients": {"certificates": ["dev1", "dev2"]}}
    )
    daemon.start()
    other = papers.clients.issue("dev2", usage="client")
    kept, lost = come(daemon, papers, papers.dev, port=OTHER_PORT), come(daemon, papers, other, port=OTHER_PORT)
    elsewhere = come(daemon, papers, other)
    daemon.config["static"][1]["clients"]["certificates"] = ["dev1"]
    daemon.reload()
    assert lost.ended() in ("eof", "cut", "reset")
    assert kept.echoes()
    assert elsewhere.echoes()
    line = daemon.wait_for_log("connection ended", outcome="certificate-not-allowed", port=OTHER_PORT)
    assert line["certificate"] == "dev2"
    assert not is_let_in(daemon, papers, other, OTHER_PORT)
    assert is_let_in(daemon, papers, other)


def test_an_address_that_is_allowed_no_more_is_closed_at_once(home: tuple[Daemon, Papers]) -> None:
    daemon, papers = home
    daemon.config["clients"] = {"allow": ["127.0.0.2", "127.0.0.3"]}
    daemon.start()
    kept = come(daemon, papers, papers.dev, source="127.0.0.2")
    lost = come(daemon, papers, papers.dev, source="127.0.0.3")
    daemon.config["clients"]["allow"].pop()
    daemon.reload()
    assert lost.ended() in ("eof", "cut", "reset")
    assert kept.echoes()
    daemon.wait_for_log("connection ended", outcome="not-allowed")


def test_clients_of_a_ca_that_is_trusted_no_more_are_closed(home: tuple[Daemon, Papers]) -> None:
    daemon, papers = home
    new_authority = Authority("New clients CA")
    papers.client_ca.write_bytes(papers.clients.pem + new_authority.pem)
    papers.crl.write_bytes(papers.clients.crl() + new_authority.crl())
    daemon.start()
    new = new_authority.issue("dev1", usage="client")
    lost, kept = come(daemon, papers, papers.dev), come(daemon, papers, new)
    replace(papers.client_ca, new_authority.pem)
    replace(papers.crl, new_authority.crl())
    assert lost.ended() in ("eof", "cut", "reset")
    assert kept.echoes()
    daemon.wait_for_log("connection ended", outcome="certificate-not-allowed")
    assert not is_let_in(daemon, papers, papers.dev)
    assert is_let_in(daemon, papers, new)


def test_a_reload_takes_up_other_files_and_versions_and_refuses_what_cannot_be_loaded(
    home: tuple[Daemon, Papers],
) -> None:
    daemon, papers = home
    daemon.start()
    live = come(daemon, papers, papers.dev)
    other = papers.new_server()
    certificate, key = papers.write(other)
    daemon.config["tls"] |= {"certificate": str(certificate), "key": str(key), "min_version": "1.3"}
    daemon.reload()
    assert serial_shown(daemon, papers) == other.serial
    assert live.echoes()
    with pytest.raises(ssl.SSLError):
        secure(daemon.ip, PORT, papers.client(papers.dev, version="TLSv1.2"))
    daemon.wait_for_metric(1, "natproxy_handshakes_total", reason="version")

    daemon.config["tls"]["key"] = str(papers.directory / "server.key")
    daemon.config["static"].append({"name": "b", "port": OTHER_PORT, "target": "127.0.0.1:1"})
    daemon.write()
    done = daemon.cli("reload")
    assert done.returncode == 1
    assert "tls.key" in done.stderr or "tls.certificate" in done.stderr
    assert str(papers.directory / "server.key") in done.stderr
    assert "Traceback" not in done.stderr
    assert serial_shown(daemon, papers) == other.serial
    assert "b" not in daemon.routes(), "all or nothing"
    assert live.echoes()


def test_client_ca_can_be_added_and_taken_away(home: tuple[Daemon, Papers]) -> None:
    daemon, papers = home
    section = daemon.config["tls"]
    daemon.config["tls"] = papers.section(client_ca=False)
    daemon.start()
    with secure(daemon.ip, PORT, papers.client()) as anyone:
        assert anyone.echoes()
        daemon.config["tls"] = section
        daemon.reload()
        assert anyone.ended() in ("eof", "cut", "reset"), "whoever is not known may not stay"
    assert is_let_in(daemon, papers, papers.dev)
    daemon.config["tls"] = papers.section(client_ca=False)
    daemon.reload()
    with secure(daemon.ip, PORT, papers.client()) as anyone:
        assert anyone.echoes()


@pytest.mark.parametrize(
    ("break_it", "key"), [(broken_key, "tls."), (readable_key, "tls.key"), (missing_ca, "tls.client_ca")]
)
def test_it_does_not_start_with_what_cannot_be_loaded(home: tuple[Daemon, Papers], break_it: Any, key: str) -> None:
    daemon, papers = home
    break_it(papers)
    daemon.start(is_ready=False)
    assert daemon.wait() == 2
    said = "".join(daemon.strange_lines)
    assert key in said
    assert str(papers.directory) in said
    daemon.strange_lines.clear()
