"""natproxy.config.structure: keys that are unknown, misspelt, or wrong by themselves."""

from __future__ import annotations

import pytest

from natproxy.config import structure
from natproxy.config.loader import load_document
from natproxy.config.structure import read_structure
from tests.config.samples import ALLOW, load, mistakes, only_mistake

ENTRY = "caches:\n- {id: a, ports: 6379-6388, %s}\n"
STATIC = 'static:\n- {name: a, port: 6379, target: "h:1", %s}\n'


@pytest.mark.parametrize(
    "text",
    [
        "tls: null",
        "tls: {certificate: /x.crt, key: /x.key, client_ca: null, crl: null}",
        "portal: null",
        "portal: {port: null, allow: null}",
        "rewrite: off",
        "admin: {tls: false, allow: null, address: '::1'}",
        "clients: {certificates: null, tls: off}",
        "clients: {certificates:}",
        "nodes: {ca: null, server_name: null, tls: off}",
        ALLOW + ENTRY % "rewrite: off, probe: null, clients: {certificates: null, tls: passthrough}, nodes: {ca: null}",
    ],
)
def test_what_asks_for_nothing_may_be_written(text: str) -> None:
    load(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cache: []", "1: cache: is an unknown key; did you mean caches?"),
        ("listen: {adress: 127.0.0.1}", "1: listen.adress: is an unknown key; did you mean address?"),
        ("timeouts: {keep_alive: 1s}", "1: timeouts.keep_alive: is an unknown key; did you mean keepalive?"),
        ("absent_after: 1s", "1: absent_after: is an unknown key; did you mean aws.absent_after?"),
        ("allow: 192.0.2.1", "1: allow: is an unknown key; did you mean clients.allow?"),
        ("aws: {drain: 1s}", "1: aws.drain: is an unknown key; did you mean timeouts.drain?"),
        ("probe: {password_file: /x}", "1: probe: is an unknown key; "),
        (ALLOW + STATIC % "probe: {password_file: /x}", "3: static[0].probe: is an unknown key; "),
        (ALLOW + ENTRY % "prob: {password_file: /x}", "3: caches[0].prob: is an unknown key; did you mean probe?"),
        (ALLOW + ENTRY % "probe: {user: a, password_file: /x}", "3: caches[0].probe.user: is an unknown key; known "),
        ("rewrit: off", "1: rewrit: is an unknown key; did you mean rewrite?"),
        ("tls: {cert: /x, certificate: /x, key: /x}", "1: tls.cert: is an unknown key; known here: certificate, key, "),
        ("tls: {certificat: /x, key: /x}", "1: tls.certificat: is an unknown key; did you mean certificate?"),
        ("clients: {client_ca: /x}", "1: clients.client_ca: is an unknown key; did you mean tls.client_ca?"),
        ("clients: {certificate: /x}", "1: clients.certificate: is an unknown key; did you mean certificates?"),
        ("crl: /x", "1: crl: is an unknown key; did you mean tls.crl?"),
        ("tls_min_version: 1.3", "1: tls_min_version: is an unknown key; "),
        (ALLOW + ENTRY % "tls: terminate", "3: caches[0].tls: is an unknown key; "),
        ("log: {colour: red}", "1: log.colour: is an unknown key; known here: format, level"),
        ("log: {on: true}", "1: log.on: is an unknown key; known here: format, level"),
        (ALLOW + ENTRY % "port: 1", "3: caches[0].port: is an unknown key; did you mean ports?"),
        (ALLOW + ENTRY % "ports:6379", "3: caches[0].ports:6379: is an unknown key: put a space after ports:"),
        (ALLOW + ENTRY % "has_own_limits: x", "3: caches[0].has_own_limits: is an unknown key; known here: "),
        (ALLOW + STATIC % "ports: 1", "3: static[0].ports: is an unknown key; did you mean port?"),
        ("path: /x", "1: path: is an unknown key; "),
        ("warnings: []", "1: warnings: is an unknown key; "),
        ('"a\\nb": 1', r"1: 'a\nb': is an unknown key; "),
    ],
)
def test_an_unknown_key_is_named_with_the_one_that_was_meant(text: str, found: str) -> None:
    assert only_mistake(text).startswith(found)


def test_a_misspelt_key_is_the_only_thing_complained_of() -> None:
    assert only_mistake(f"{ALLOW}static: [{{nam: a, port: 1, target: 'h:1'}}]").endswith("did you mean name?")
    said = only_mistake("clients: {alow: [198.51.100.27/32]}\ncaches: [{id: a, ports: 1-2}]")
    assert said == "1: clients.alow: is an unknown key; did you mean allow?"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("listen: 6379", "1: listen: must be a mapping (key: value)"),
        ("listen: []", "1: listen: must be a mapping (key: value)"),
        ("caches: my-redis", "1: caches: must be a list: begin each entry with a hyphen and a space, or "),
        ("caches: {id: my-redis}", "1: caches: must be a list"),
        ("caches: false", "1: caches: must be a list"),
        ("static: ''", "1: static: must be a list"),
        ("caches:\n- my-redis", "2: caches[0]: must be a mapping (key: value)"),
        ("caches:\n-", "2: caches[0]: has no value: write one, or leave the key out"),
        ("listen: {address: null}", "1: listen.address: has no value: write one, or leave the key out"),
        ("listen: {address: []}", "1: listen.address: is empty: write at least one address"),
        ("listen: {address: {a: b}}", "1: listen.address: must be a list"),
        ("clients: {allow: []}", "1: clients.allow: is empty: write at least one network"),
        ("clients:\n  allow:\n  - 192.0.2.1\n  - [192.0.2.2]", "4: clients.allow[1]: must be an IP address or network"),
        ("clients: {allow: true}", "1: clients.allow: must be an IP address or network"),
        ("clients: {max_connections: 0}", "1: clients.max_connections: must be between 1 and 1000000"),
        ("workers: 0", "1: workers: must be between 1 and 256 (or auto: one for each processor)"),
        ("state_dir: var", "1: state_dir: must be an absolute path, such as /var/lib/natproxy"),
        ("aws: {refresh: 0s}", "1: aws.refresh: must be more than zero"),
        ("aws:\n  refresh:", "2: aws.refresh: has no value: write a duration such as"),
        ("timeouts: {connect: 0s}", "1: timeouts.connect: must be more than zero"),
        ("timeouts: {idle: 0s}", "1: timeouts.idle: must be more than zero"),
        ("timeouts: {keepalive: 500ms}", "1: timeouts.keepalive: must be between 1s and 9h"),
        ("tls: true", "1: tls: must be a mapping (key: value)"),
        ("tls: /x.crt", "1: tls: must be a mapping (key: value)"),
        ("tls: [/x.crt, /x.key]", "1: tls: must be a mapping (key: value)"),
        ("tls: {certificate: x.crt, key: /x.key}", "1: tls.certificate: must be the absolute path of a file, such as"),
        ("tls:\n  certificate: /x.crt\n  key:", "3: tls.key: has no value: write the absolute path of a file, "),
        ("tls: {certificate: /x.crt, key: /x.key, client_ca: x.crt}", "1: tls.client_ca: must be the absolute path"),
        ("tls: {certificate: /x.crt, key: /x.key, client_ca: /x, crl: [/x]}", "1: tls.crl: must be the absolute path"),
        ("tls: {certificate: /x.crt, key: /x.key, min_version: 1.1}", "1: tls.min_version: must be 1.2 or 1.3"),
        ("tls: {certificate: /x.crt, key: /x.key, min_version: TLSv1.2}", "1: tls.min_version: must be 1.2 or 1.3"),
        ("tls: {certificate: /x.crt, key: /x.key, min_version: null}", "1: tls.min_version: has no value: write 1.2"),
        ("clients: {tls: on}", "1: clients.tls: must be terminate, off or passthrough"),
        ("clients: {tls: true}", "1: clients.tls: must be terminate, off or passthrough"),
        ("clients: {tls: null}", "1: clients.tls: has no value: write terminate, off or passthrough"),
        ("clients: {certificates: []}", "1: clients.certificates: is empty: write at least one name"),
        ("clients: {certificates: true}", "1: clients.certificates: must be text: put it in quotes"),
        ("clients: {certificates: {a: b}}", "1: clients.certificates: must be a list"),
        ("clients: {certificates: [dev1, '*']}", "1: clients.certificates[1]: is every name: leave the key out"),
        ("nodes: {tls: passthrough}", "1: nodes.tls: must be auto, on or off"),
        ("nodes: {tls: true}", "1: nodes.tls: must be auto, on or off"),
        ("nodes: {ca: ca.crt}", "1: nodes.ca: must be the absolute path of a file"),
        ("nodes: {server_name: 'https://x'}", "1: nodes.server_name: must be a host alone, without a scheme"),
        ("nodes: {server_name: '*.example.com'}", "1: nodes.server_name: must be a DNS name or an IP address"),
        ("timeouts: {handshake: 0s}", "1: timeouts.handshake: must be more than zero"),
        ("timeouts: {handshake: null}", "1: timeouts.handshake: has no value: write a duration such as"),
        ("timeouts: {handshake: 5}", "1: timeouts.handshake: has no unit: write 5s for seconds"),
        (ALLOW + ENTRY % "clients: {tls: tls}", "3: caches[0].clients.tls: must be terminate, off or passthrough"),
        (ALLOW + ENTRY % "nodes: {ca: x}", "3: caches[0].nodes.ca: must be the absolute path of a file"),
        (ALLOW + STATIC % "nodes: {server_name: 'a b'}", "3: static[0].nodes.server_name: must be a DNS name or"),
        (ALLOW + STATIC % "timeouts: {handshake: x}", "3: static[0].timeouts.handshake: must be a duration"),
        ("rewrite: on", "1: rewrite: must be auto, off, redis or memcached"),
        ("rewrite: true", "1: rewrite: must be auto, off, redis or memcached"),
        ("rewrite: [off]", "1: rewrite: must be auto, off, redis or memcached"),
        ("rewrite:", "1: rewrite: has no value: write auto, off, redis or memcached, or leave the key out"),
        (ALLOW + ENTRY % "rewrite: valkey", "3: caches[0].rewrite: must be auto, off, redis or memcached"),
        (ALLOW + STATIC % "rewrite: cluster", "3: static[0].rewrite: must be auto, off, redis or memcached"),
        (ALLOW + ENTRY % "probe: /x", "3: caches[0].probe: must be a mapping (key: value)"),
        (ALLOW + ENTRY % "probe: {password_file: probe.txt}", "3: caches[0].probe.password_file: must be the absolute"),
        (ALLOW + ENTRY % "probe: {secret_arn: probe}", "3: caches[0].probe.secret_arn: must be the ARN of a secret"),
        (ALLOW + ENTRY % "probe: {username: 'a b', password_file: /x}", "3: caches[0].probe.username: must be a user"),
        (ALLOW + ENTRY % "probe: {username: true, password_file: /x}", "3: caches[0].probe.username: must be text"),
        ("log: {level: loud}", "1: log.level: must be debug, info, warning or error"),
        ("log: {format: true}", "1: log.format: must be text or json"),
        ("resolver: [10.0.0.2, dns]", "1: resolver[1]: must be the IP address of a DNS server"),
        (ALLOW + ENTRY % "endpoints: [nodes, writer]", "3: caches[0].endpoints[1]: must be nodes, primary, reader or"),
        (ALLOW + ENTRY % "endpoints: []", "3: caches[0].endpoints: is empty: write at least one of nodes"),
        ("caches:\n- {tags: {}, ports: 1-2}", "2: caches[0].tags: is empty: write at least one tag"),
        ("caches:\n- {tags: dev, ports: 1-2}", "2: caches[0].tags: must be a mapping (key: value)"),
        ("caches:\n- tags:\n    env: true\n  ports: 1-2", "3: caches[0].tags.env: must be text: put it in quotes"),
    ],
)
def test_a_value_that_is_wrong_by_itself(text: str, found: str) -> None:
    said = [one for one in mistakes(text) if "could connect" not in one]
    assert len(said) == 1, said
    assert said[0].startswith(found)


def test_zero_is_allowed_where_it_means_at_once() -> None:
    assert load("timeouts: {drain: 0s, stop: 0s}").timeouts.drain == 0.0


def test_keys_that_must_be_there_are_named() -> None:
    assert mistakes(f"{ALLOW}static:\n- {{name: a}}\n- port: 1\n") == [
        "3: static[0]: port is missing",
        "3: static[0]: target is missing",
        "4: static[1]: name is missing",
        "4: static[1]: target is missing",
    ]


def test_a_certificate_and_its_key_belong_together() -> None:
    assert mistakes("tls: {}") == ["1: tls: certificate is missing", "1: tls: key is missing"]
    assert mistakes("workers: 1\ntls:\n  certificate: /x.crt\n") == ["2: tls: key is missing"]
    assert mistakes("tls: {key: /x.key, client_ca: /x.crt}") == ["1: tls: certificate is missing"]
    assert load("tls:\n").tls is None


def test_a_value_that_was_taken_out_is_not_called_missing() -> None:
    said = only_mistake(
        f"{ALLOW}static:\n- {{name: a, port: x, target: 'h:1'}}\n- {{name: b, port: 2, target: 'h:1'}}\n"
    )
    assert said == "3: static[0].port: must be a whole number"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("portal: {colour: red}", "1: portal.colour: is an unknown key; known here: port, allow"),
        ("portal: {prot: 6378}", "1: portal.prot: is an unknown key; did you mean port?"),
        ("portal: 6378", "1: portal: must be a mapping (key: value)"),
        ("portal: {port: 0}", "1: portal.port: must be between 1 and 65535"),
        ("portal: {allow: []}", "1: portal.allow: is empty: write at least one network"),
        ("admin: {tls: yes}", "1: admin.tls: must be true or false"),
        ("admin: {tls:}", "1: admin.tls: has no value: write true or false, or leave the key out"),
        ("admin: {allow: everyone}", "1: admin.allow: must be an IP address or network such as"),
    ],
)
def test_what_is_wrong_with_the_sides_is_named(text: str, found: str) -> None:
    assert found in "\n".join(mistakes(text))


def test_a_file_that_cannot_be_mended_is_still_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "_mend", lambda tree, details, place: iter([place]))
    draft = read_structure(load_document("workers: 0\n"))
    assert [finding.place for finding in draft.findings] == [("workers",)]
    assert draft.unsure == {()}
