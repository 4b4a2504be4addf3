from __future__ import annotations

from pathlib import Path

import pytest

from natproxy.config import load_config
from natproxy.controller.tlsfiles import NOTHING, files_of, new_files, read_files
from natproxy.messages import Tls
from tests.controller.place import CLIENTS, HOST, NODES, SERVERS, Place
from tests.standins.certificates import Authority


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def read(place: Place, old: Tls = NOTHING) -> tuple[Tls, list[str]]:
    """What there is to go by, and the places in the config of what is bad."""
    loaded, problems = read_files(load_config(place.config), old)
    return loaded.tls, [problem.path for problem in problems]


def test_every_file_that_is_named_is_read_and_watched_once(place: Place) -> None:
    own = place.tls / "own.crt"
    config = place.write(
        f"caches: [{{id: one, ports: 7000-7009, nodes: {{ca: {own}}}}},"
        f" {{id: two, ports: 7010-7019, nodes: {{ca: {own}}}}}, {{id: three, ports: 7020-7029}}]"
    )
    own.write_bytes(CLIENTS.pem)
    names = ["server.crt", "server.key", "clients.crt", "clients.crl", "own.crt", "nodes.crt"]
    assert files_of(config) == [place.tls / name for name in names]
    tls, problems = read(place)
    assert problems == []
    assert tls.node_cas == {str(own): CLIENTS.pem, str(place.tls / "nodes.crt"): NODES.pem}


def test_common_cas_that_no_entry_uses_are_not_asked_for(place: Place) -> None:
    place.config.write_text(
        f"listen: {{address: 127.0.0.1}}\nnodes: {{ca: {place.tls}/missing.crt}}\n"
        f"static: [{{name: a, port: 6490, target: 'a:1', nodes: {{tls: on, ca: null}}}}]\n"
    )
    assert read(place) == (NOTHING, [])


def test_without_a_client_ca_there_is_none(place: Place) -> None:
    place.write(tls=f"{{certificate: {place.tls}/server.crt, key: {place.tls}/server.key, min_version: 1.3}}")
    tls, problems = read(place)
    assert problems == []
    assert tls.server is not None
    assert (tls.server.client_ca, tls.server.crl, tls.server.min_version) == (None, None, "1.3")


def test_at_first_anything_bad_leaves_nothing_and_all_of_it_is_told(place: Place) -> None:
    for name in ("server.key", "clients.crt", "nodes.crt"):
        (place.tls / name).write_bytes(b"")
    assert read(place) == (NOTHING, ["tls.key", "tls.client_ca", "nodes.ca"])


@pytest.mark.parametrize("bad", ["server.crt", "server.key", "clients.crt", "clients.crl", "nodes.crt"])
def test_what_is_bad_keeps_the_old_of_its_part_and_the_other_parts_are_new(place: Place, bad: str) -> None:
    old, _ = read(place)
    clients = Authority("Next clients CA")
    place.renew(SERVERS.issue("cache", dns=[HOST]))
    (place.tls / "clients.crt").write_bytes(clients.pem)
    (place.tls / "clients.crl").write_bytes(clients.crl())
    (place.tls / "nodes.crt").write_bytes(clients.pem)
    good, problems = read(place)
    assert problems == []
    (place.tls / bad).write_bytes(b"")
    mixed, problems = read(place, old)
    assert len(problems) == 1
    parts = {"server.crt": 0, "server.key": 0, "clients.crt": 1, "clients.crl": 1, "nodes.crt": 2}
    for part, (found, before, now) in enumerate(zip(parts_of(mixed), parts_of(old), parts_of(good), strict=True)):
        assert before != now
        assert found == (before if part == parts[bad] else now)


def parts_of(tls: Tls) -> tuple[object, object, object]:
    assert tls.server is not None
    return (tls.server.certificate, tls.server.key), (tls.server.client_ca, tls.server.crl), tls.node_cas


def test_files_with_the_same_content_are_not_new(place: Place) -> None:
    config = load_config(place.config)
    loaded, _ = read_files(config, NOTHING)
    told = [(new.key, new.path.name, len(new.holds), new.revoked) for new in new_files(config, NOTHING, loaded)]
    assert told == [
        ("tls.certificate", "server.crt", 1, None),
        ("tls.key", "server.key", 0, None),
        ("tls.client_ca", "clients.crt", 1, None),
        ("tls.crl", "clients.crl", 1, 0),
        ("nodes.ca", "nodes.crt", 1, None),
    ]
    assert list(new_files(config, loaded.tls, loaded)) == []


def test_what_clients_connect_to_is_looked_for_in_the_certificate(place: Place) -> None:
    config = place.write("public_host: 203.0.113.73")
    assert read_files(config, NOTHING)[0].unnamed == ("203.0.113.73",)
    assert read_files(place.write(f"public_host: {HOST}"), NOTHING)[0].unnamed == ()
    assert read_files(place.write("public_host: a.example.com\nclients: {tls: off}"), NOTHING)[0].unnamed == ()
