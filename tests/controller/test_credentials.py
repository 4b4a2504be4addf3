from __future__ import annotations

import datetime
import logging
import os
import shutil
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from natproxy.controller.credentials import PATIENCE_SECONDS, RETRY_SECONDS, between
from natproxy.controller.tlsfiles import NOTHING
from natproxy.errors import ConfigError
from natproxy.messages import ServerTls, Tls
from natproxy.tls.contexts import node_context, server_context
from tests.controller.place import CLIENTS, HOST, NODES, SERVERS, Place
from tests.standins.certificates import Authority


@pytest.fixture
def place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Place:
    caplog.set_level(logging.DEBUG, "natproxy")
    return Place(tmp_path)


def lines(caplog: pytest.LogCaptureFixture, least: int = logging.DEBUG) -> list[tuple[str, dict[str, object]]]:
    """What was logged, with its fields, since the last time."""
    found = [
        (record.getMessage(), {key: value for key, value in vars(record)["natproxy_fields"].items() if value})
        for record in caplog.records
        if record.levelno >= least
    ]
    caplog.clear()
    return found


def messages_of(caplog: pytest.LogCaptureFixture, least: int = logging.WARNING) -> list[str]:
    return [message for message, _ in lines(caplog, least)]


# At a start and a reload.


def test_all_files_are_read_and_make_contexts(place: Place) -> None:
    tls = place.load()
    assert tls.server is not None
    assert tls.server.client_ca == CLIENTS.pem
    assert tls.server.crl is not None
    server_context(tls.server)
    assert tls.node_cas == {str(place.tls / "nodes.crt"): NODES.pem}
    node_context(NODES.pem)
    assert {one.use for one in place.credentials.expiries} == {"certificate", "client_ca", "crl", "nodes_ca"}
    assert place.metric("tls_files_good") == 1
    assert place.metric("tls_file_loads_totalaccepted") == 1


def test_where_nothing_is_configured_there_is_nothing_to_read(place: Place) -> None:
    place.config.write_text("listen: {address: 127.0.0.1}\nstatic: [{name: a, port: 6490, target: '127.0.0.1:1'}]\n")
    assert place.load() == NOTHING
    assert place.polls(5) == []
    assert place.metric("tls_file_loads_totalaccepted") == 0


def test_what_was_taken_up_is_logged_and_no_key_is(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    issued = SERVERS.issue("cache", dns=[HOST], serial=0xABC)
    place.renew(issued)
    (place.tls / "clients.crl").write_bytes(CLIENTS.crl([1, 2, 3]))
    place.load()
    found = {str(fields["key"]): fields for message, fields in lines(caplog) if message == "TLS file taken up"}
    assert list(found) == ["tls.certificate", "tls.key", "tls.client_ca", "tls.crl", "nodes.ca"]
    expires = x509.load_pem_x509_certificate(issued.certificate).not_valid_after_utc
    assert found["tls.certificate"] == {
        "key": "tls.certificate",
        "file": place.tls / "server.crt",
        "subject": "CN=cache",
        "serial": "0ABC",
        "expires": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    assert found["tls.key"] == {"key": "tls.key", "file": place.tls / "server.key"}
    assert found["tls.crl"]["revoked"] == 3
    assert found["nodes.ca"]["subject"] == "CN=Nodes CA"
    assert "PRIVATE" not in caplog.text


def test_every_bad_file_is_named_by_its_place_in_the_config(place: Place) -> None:
    place.write(
        f"caches: [{{id: one, ports: 7000-7009, nodes: {{ca: {place.tls}/one.crt}}}},"
        f" {{id: two, ports: 7010-7019, nodes: {{ca: {place.tls}/one.crt}}}}]"
    )
    (place.tls / "server.key").chmod(0o644)
    (place.tls / "nodes.crt").write_text("nonsense")
    with pytest.raises(ConfigError) as caught:
        place.load()
    assert [(problem.file, problem.line, problem.path) for problem in caught.value.problems] == [
        (str(place.config), None, "tls.key"),
        (str(place.config), None, "caches[0].nodes.ca"),
        (str(place.config), None, "nodes.ca"),
    ]
    assert f"{place.tls}/server.key: " in str(caught.value)
    assert f"{place.tls}/one.crt: it cannot be read: No such file or directory" in str(caught.value)
    assert place.credentials.tls == NOTHING
    assert place.metric("tls_file_loads_totalrefused") == 1


def test_a_load_that_is_refused_changes_nothing(place: Place) -> None:
    tls = place.load()
    (place.tls / "other.crt").write_bytes(b"")
    place.write(tls=f"{{certificate: {place.tls}/other.crt, key: {place.tls}/server.key}}")
    with pytest.raises(ConfigError, match=r"tls\.certificate: .*other\.crt: there is no certificate in it"):
        place.load()
    assert place.credentials.tls == tls
    assert place.metric("tls_files_good") == 1
    assert place.polls(5) == []
    place.renew(renewed := SERVERS.issue("cache", dns=[HOST]))  # the files of the config in use are still watched
    (new,) = place.polls(5)
    assert new.server is not None
    assert new.server.certificate == renewed.certificate


def test_another_config_s_files_are_taken_up_and_watched_from_then_on(place: Place) -> None:
    place.load()
    place.write(tls="")
    tls = place.load()
    assert tls.server is None
    assert {one.use for one in place.credentials.expiries} == {"nodes_ca"}
    place.renew(SERVERS.issue("cache"))
    assert place.polls(5) == []
    (place.tls / "nodes.crt").write_bytes(CLIENTS.pem)
    assert place.polls(5) == [Tls(None, {str(place.tls / "nodes.crt"): CLIENTS.pem})]


def test_a_change_right_after_a_load_is_found_though_the_files_look_the_same(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = (place.tls / "server.crt").stat()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", lambda *_, **__: looks)
        place.load()
        renewed = SERVERS.issue("cache", dns=[HOST])
        for name, content in zip(("crt", "key"), (renewed.certificate, renewed.key), strict=True):
            (place.tls / f"server.{name}").write_bytes(content)
        assert len(place.polls(5)) == 1
        assert place.polls(60) == []


# While it runs.


def test_a_renewed_certificate_is_taken_up_once_within_five_seconds(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.load()
    assert place.polls(5) == []
    lines(caplog)
    place.renew(renewed := SERVERS.issue("cache", dns=[HOST]))
    (new,) = place.polls(5)
    assert new.server is not None
    assert new.server.certificate == renewed.certificate
    assert place.credentials.tls is new
    assert [fields["key"] for _, fields in lines(caplog)] == ["tls.certificate", "tls.key"]
    assert place.metric("tls_file_loads_totalaccepted") == 2
    assert place.polls(60) == []


def test_a_certificate_whose_key_comes_later_is_taken_up_with_it_and_nothing_is_said(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.load()
    place.polls(5)
    lines(caplog)
    renewed = SERVERS.issue("cache", dns=[HOST])
    (place.tls / "server.crt").write_bytes(renewed.certificate)
    assert place.polls(2) == []
    (place.tls / "server.key").write_bytes(renewed.key)
    assert len(place.polls(2)) == 1
    assert messages_of(caplog) == []
    assert place.metric("tls_file_loads_totalrefused") == 0


def test_files_that_never_come_to_rest_are_taken_up_all_the_same(place: Place) -> None:
    place.load()
    place.polls(5)
    new: list[Tls] = []
    for serial in range(1, 6):
        (place.tls / "clients.crl").write_bytes(CLIENTS.crl([serial]))
        new += place.polls(1)
    assert new


def test_a_new_revocation_list_is_taken_up_and_says_how_many_are_on_it(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.load()
    place.polls(5)
    lines(caplog)
    (place.tls / "clients.crl").write_bytes(crl := CLIENTS.crl([7]))
    (new,) = place.polls(5)
    assert new.server is not None
    assert new.server.crl == crl
    ((message, fields),) = lines(caplog)
    assert (message, fields["key"], fields["subject"], fields["revoked"]) == (
        "TLS file taken up",
        "tls.crl",
        "CN=Clients CA",
        1,
    )


def test_an_added_ca_is_the_one_that_is_named(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.load()
    place.polls(5)
    lines(caplog)
    with (place.tls / "nodes.crt").open("ab") as file:
        file.write(Authority("Next nodes CA").pem)
    (new,) = place.polls(5)
    assert len(new.node_cas) == 1
    ((_, fields),) = lines(caplog)
    assert (fields["key"], fields["subject"], fields["others"]) == ("nodes.ca", "CN=Next nodes CA", 1)


def test_a_directory_that_is_switched_by_a_symbolic_link_is_noticed(place: Place) -> None:
    (place.directory / "1").mkdir()
    for path in place.tls.iterdir():
        shutil.copy2(path, place.directory / "1")
    shutil.copytree(place.directory / "1", place.directory / "2")
    shutil.rmtree(place.tls)
    place.tls.symlink_to(place.directory / "1")
    place.load()
    place.polls(5)
    SERVERS.issue("cache", dns=[HOST]).write(place.directory / "2")
    assert place.polls(5) == []
    link = place.directory / "new"
    link.symlink_to(place.directory / "2")
    link.replace(place.tls)
    (new,) = place.polls(5)
    assert new.server is not None
    assert new.server.certificate == (place.directory / "2" / "server.crt").read_bytes()


def test_a_file_that_is_only_touched_or_copied_anew_is_nothing_new(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.load()
    lines(caplog)
    (place.tls / "clients.crl").touch()
    copy = place.tls / "copy"
    shutil.copy(place.tls / "server.crt", copy)
    copy.replace(place.tls / "server.crt")
    assert place.polls(10) == []
    assert lines(caplog) == []
    assert place.metric("tls_file_loads_totalaccepted") == 1


def mode(place: Place) -> None:
    (place.tls / "server.key").chmod(0o604)


def mismatch(place: Place) -> None:
    (place.tls / "server.key").write_bytes(SERVERS.issue("other").key)


def gone(place: Place) -> None:
    shutil.rmtree(place.tls)


def empty(place: Place) -> None:
    (place.tls / "clients.crl").write_bytes(b"")


def forged(place: Place) -> None:
    (place.tls / "clients.crl").write_bytes(Authority("Clients CA").crl())


def large(place: Place) -> None:
    with (place.tls / "nodes.crt").open("ab") as file:
        file.truncate(1 << 40)


def pipe(place: Place) -> None:
    (place.tls / "server.crt").unlink()
    os.mkfifo(place.tls / "server.crt")


def directory(place: Place) -> None:
    (place.tls / "nodes.crt").unlink()
    (place.tls / "nodes.crt").mkdir()


def loop(place: Place) -> None:
    (place.tls / "clients.crt").unlink()
    (place.tls / "clients.crt").symlink_to("clients.crt")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (mode, "tls.key"),
        (mismatch, "tls.key"),
        (gone, "tls.certificate"),
        (empty, "tls.crl"),
        (forged, "tls.crl"),
        (large, "nodes.ca"),
        (pipe, "tls.certificate"),
        (directory, "nodes.ca"),
        (loop, "tls.client_ca"),
    ],
)
def test_what_becomes_bad_keeps_the_old_in_use_until_it_is_good_again(
    place: Place, caplog: pytest.LogCaptureFixture, spoil: Callable[[Place], None], told: str
) -> None:
    tls = place.load()
    place.polls(5)
    ends = place.credentials.expiries
    kept = place.directory / "kept"
    shutil.copytree(place.tls, kept)
    lines(caplog)
    spoil(place)
    assert place.polls(5) == []
    ((message, fields),) = lines(caplog, logging.ERROR)
    assert message == "TLS files are bad, the old ones stay in use"
    assert str(fields["detail"]).startswith(f"{told}: {place.tls}/")
    assert place.credentials.problem == fields["detail"]
    assert place.credentials.tls is tls
    assert place.credentials.expiries == ends
    assert place.metric("tls_files_good") == 0
    assert place.metric("tls_file_loads_totalrefused") == 1
    assert place.polls(5 * RETRY_SECONDS) == []  # it is looked at again, and said no more
    assert lines(caplog) == []
    assert place.metric("tls_file_loads_totalrefused") == 1
    shutil.rmtree(place.tls, ignore_errors=True)
    kept.replace(place.tls)
    assert place.polls(5) == []  # they are the old ones
    assert [message for message, _ in lines(caplog)] == ["TLS files are good again"]
    assert place.credentials.problem == ""
    assert place.metric("tls_files_good") == 1
    assert place.metric("tls_file_loads_totalaccepted") == 2


def test_a_new_revocation_list_is_taken_up_while_another_file_is_bad(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    old = place.load()
    mismatch(place)
    place.polls(5)
    lines(caplog)
    (place.tls / "clients.crl").write_bytes(crl := CLIENTS.crl([7]))
    (new,) = place.polls(5)
    assert old.server is not None
    assert new.server == msgspec.structs.replace(old.server, crl=crl)
    ((message, fields),) = lines(caplog)
    assert (message, fields["key"]) == ("TLS file taken up", "tls.crl")
    assert place.credentials.problem.startswith("tls.key: ")
    assert place.metric("tls_files_good") == 0
    place.renew(SERVERS.issue("cache", dns=[HOST]))
    assert len(place.polls(5)) == 1
    assert messages_of(caplog, logging.INFO)[0] == "TLS files are good again"
    assert place.metric("tls_files_good") == 1


def test_another_fault_is_said_and_new_files_end_it(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.load()
    mismatch(place)
    place.polls(5)
    mode(place)
    place.polls(5)
    assert messages_of(caplog) == ["TLS files are bad, the old ones stay in use"] * 2
    place.renew(SERVERS.issue("cache", dns=[HOST]))
    (new,) = place.polls(5)
    assert new is place.credentials.tls
    assert place.metric("tls_files_good") == 1


def test_a_reading_that_failed_by_itself_is_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.load()
    place.polls(5)
    place.renew(SERVERS.issue("cache", dns=[HOST]))

    def no_descriptors(*_: object) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", no_descriptors)
        assert place.polls(PATIENCE_SECONDS + 2) == []
    assert "Too many open files" in place.credentials.problem
    assert len(place.polls(RETRY_SECONDS + PATIENCE_SECONDS + 2)) == 1
    assert place.credentials.problem == ""


def test_a_reload_ends_a_problem_only_when_it_is_accepted(place: Place) -> None:
    place.load()
    mismatch(place)
    place.polls(5)
    with pytest.raises(ConfigError, match="does not belong"):
        place.load()
    assert place.credentials.problem
    assert place.metric("tls_files_good") == 0
    place.renew(renewed := SERVERS.issue("cache", dns=[HOST]))
    tls = place.load()
    assert tls.server is not None
    assert tls.server.certificate == renewed.certificate
    assert place.credentials.problem == ""
    assert place.metric("tls_files_good") == 1
    assert place.polls(10) == []


def test_a_reload_amid_a_change_leaves_nothing_to_do_for_the_poll(place: Place) -> None:
    place.load()
    place.renew(SERVERS.issue("cache", dns=[HOST]))
    assert place.polls(1) == []
    tls = place.load()
    assert place.polls(10) == []
    assert place.credentials.tls is tls


# What is warned of.


def test_an_older_revocation_list_is_taken_up_with_a_warning(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    now = datetime.datetime.now(UTC)
    crl = place.tls / "clients.crl"
    crl.write_bytes(CLIENTS.crl([5, 6], this_update=now - timedelta(hours=1)))
    place.load()
    place.polls(5)
    lines(caplog)
    crl.write_bytes(CLIENTS.crl([5], this_update=now - timedelta(hours=2)))
    assert len(place.polls(5)) == 1
    (warning,) = messages_of(caplog)
    assert warning.startswith("revocation list is older than the one before it")
    crl.write_bytes(CLIENTS.crl([5, 6], this_update=now))
    assert len(place.polls(5)) == 1
    assert not messages_of(caplog)


def test_an_expired_list_is_taken_up_with_an_error_and_keeps_newer_files_not_out(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    past = datetime.datetime.now(UTC) - timedelta(days=1)
    (place.tls / "clients.crl").write_bytes(crl := CLIENTS.crl([5], next_update=past))
    tls = place.load()
    assert tls.server is not None
    assert tls.server.crl == crl
    ((message, fields),) = lines(caplog, logging.ERROR)
    assert message.startswith("revocation list has expired")
    assert fields["subject"] == "CN=Clients CA"
    assert fields["expires"] == past.strftime("%Y-%m-%dT%H:%M:%SZ")
    assert place.metric("crl_next_update_timestamp_secondsCN=Clients CA") == int(past.timestamp())
    assert place.credentials.troubles() == [
        "the revocation list of CN=Clients CA has expired: nobody with a certificate of that CA gets in"
    ]
    place.renew(SERVERS.issue("cache", dns=[HOST]))
    assert len(place.polls(5)) == 1


def test_what_expires_is_said_at_a_load_and_once_a_day(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    soon = datetime.datetime.now(UTC) + timedelta(days=10)
    place.renew(SERVERS.issue("cache", dns=[HOST], not_after=soon, serial=0x10))
    place.load()
    ((message, fields),) = lines(caplog, logging.WARNING)
    assert message == "certificate expires soon"
    assert (fields["use"], fields["subject"], fields["serial"]) == ("certificate", "CN=cache", "10")
    place.polls(10)
    assert messages_of(caplog) == []
    place.unix_time.now += 86_400.0
    place.polls(1)
    assert messages_of(caplog) == ["certificate expires soon"]
    place.load()
    assert messages_of(caplog) == ["certificate expires soon"]
    place.unix_time.now += 10 * 86_400.0
    place.polls(1)
    assert messages_of(caplog) == ["certificate has expired"]
    place.renew(SERVERS.issue("cache", dns=[HOST]))
    assert len(place.polls(5)) == 1
    lines(caplog)
    place.unix_time.now += 86_400.0
    place.polls(1)
    assert messages_of(caplog) == []


def test_a_certificate_of_the_future_is_an_error(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    begin = datetime.datetime.now(UTC) + timedelta(days=1)
    place.renew(SERVERS.issue("cache", dns=[HOST], not_before=begin))
    place.load()
    ((message, fields),) = lines(caplog, logging.ERROR)
    assert message == "certificate is not valid yet"
    assert fields["starts"] == begin.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_names_that_the_certificate_leaves_out_are_said_once(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.write(f"public_host: {HOST}\npublic_ip: 203.0.113.73")
    place.load()
    ((message, fields),) = lines(caplog, logging.WARNING)
    assert message == "certificate does not name what clients connect to"
    assert fields["missing"] == ("203.0.113.73",)
    (place.tls / "clients.crl").write_bytes(CLIENTS.crl([1]))
    assert len(place.polls(5)) == 1
    assert messages_of(caplog) == []
    place.write("public_host: other.example.com")
    place.load()
    ((_, fields),) = lines(caplog, logging.WARNING)
    assert fields["missing"] == ("other.example.com",)
    place.write(f"public_host: {HOST}\npublic_ip: 203.0.113.73")
    place.load()
    lines(caplog)
    place.renew(SERVERS.issue("cache", dns=[HOST], ips=["203.0.113.73"]))
    assert len(place.polls(5)) == 1
    assert messages_of(caplog) == []


def test_names_do_not_matter_where_no_port_speaks_tls(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.write("public_host: other.example.com\nclients: {tls: off}")
    place.load()
    assert messages_of(caplog) == []


# From one config to the next.


def server(*, ca: bool, certificate: bytes = b"c") -> ServerTls:
    return ServerTls(certificate, b"k", b"ca" if ca else None)


def test_certificates_are_asked_for_until_every_port_has_its_new_terms() -> None:
    old, new = Tls(server(ca=True), {"/a": b"1"}), Tls(server(ca=False, certificate=b"d"), {"/b": b"2"})
    assert between(old, new) == Tls(old.server, {"/a": b"1", "/b": b"2"})
    assert between(old, Tls(None, {})) == old


@pytest.mark.parametrize("old", [None, server(ca=False), server(ca=True)])
def test_otherwise_the_new_certificate_is_there_before_the_ports_that_need_it(old: ServerTls | None) -> None:
    new = Tls(server(ca=True, certificate=b"d"), {"/a": b"2"})
    assert between(Tls(old, {"/a": b"1"}), new) == new


def test_nothing_shows_a_key(place: Place) -> None:
    tls = place.load()
    assert "PRIVATE" not in f"{tls!r} {tls.server!r} {place.credentials!r} {vars(place.credentials)!r}"
