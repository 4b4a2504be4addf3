"""natproxy.config.doubts: what is allowed, and warned of."""

from __future__ import annotations

import pytest

from tests.config.samples import ALLOW, load

LOOPBACK = "listen: {address: 127.0.0.1}\n"
TLS = "tls: {certificate: /x.crt, key: /x.key}\n"
MUTUAL = "tls: {certificate: /x.crt, key: /x.key, client_ca: /ca.crt}\n"


def warned(text: str, public_host: str = "cache.dev.example.com") -> list[str]:
    """Return every warning as ``line: place: message``; ``public_host`` is added as the last line."""
    ending = f"public_host: {public_host}\n" if public_host else ""
    return [warning.partition("/natproxy.yaml:")[2] for warning in load(f"{text.rstrip()}\n{ending}").warnings]


def test_sides_that_let_everyone_try_are_warned_of() -> None:
    here = "caches: [{id: a, ports: 1-2}]\n"
    said = "lets everyone try who reaches this port: only the certificate keeps them out"
    text = f"{MUTUAL}portal: {{allow: [192.0.2.0/24, 0.0.0.0/0]}}\nadmin: {{address: '::', tls: true, allow: '::/0'}}\n"
    assert warned(text + here) == [f"2: portal.allow[1]: 0.0.0.0/0 {said}", f"3: admin.allow: ::/0 {said}"]
    assert warned(f"{MUTUAL}admin: {{tls: true, allow: 0.0.0.0/0}}\n{here}") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nodes: {tls: off, ca: /x}", "nodes.ca: means nothing with nodes.tls: off"),
        ("nodes: {tls: off, server_name: x}", "nodes.server_name: means nothing with nodes.tls: off"),
    ],
)
def test_what_is_said_of_nodes_in_vain_is_warned_of(text: str, found: str) -> None:
    (warning,) = warned(f"{ALLOW}caches:\n- {{id: a, ports: 1-2, rewrite: off, {text}}}\n")
    assert warning.startswith(f"3: caches[0].{found}")
    (warning,) = warned(f"{ALLOW}static:\n- {{name: a, port: 1, target: 'h:1', {text}}}\n")
    assert warning.startswith(f"3: static[0].{found}")


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ("tls: on", "nodes.tls: means nothing with clients.tls: passthrough: "),
        ("ca: /x", "nodes.ca: means nothing with clients.tls: passthrough: "),
        ("server_name: x", "nodes.server_name: means nothing with clients.tls: "),
    ],
)
def test_a_cache_whose_clients_pass_through_is_still_asked_for_roles(nodes: str, found: str) -> None:
    text = f"clients: {{tls: passthrough}}, nodes: {{{nodes}}}"
    assert warned(f"{ALLOW}caches:\n- {{id: a, ports: 1-2, rewrite: off, {text}}}\n") == []
    (warning,) = warned(f"{ALLOW}static:\n- {{name: a, port: 1, target: 'h:1', {text}}}\n")
    assert warning.startswith(f"3: static[0].{found}")


def test_tls_to_a_static_target_must_be_said() -> None:
    text = f"{ALLOW}static:\n- {{name: a, port: 1, target: 'h:1', nodes: {{ca: /x}}}}\n"
    assert warned(text) == [
        "3: static[0].nodes.ca: means nothing with nodes.tls: auto, which is off for a static target: write on"
    ]
    assert warned(text.replace("ca:", "tls: on, ca:")) == []
    assert warned(text + "nodes: {tls: on}\n") == []


@pytest.mark.parametrize(
    ("common", "entries", "count"),
    [
        ("nodes: {tls: on, ca: /x}", "static: [{name: a, port: 1, target: 'h:1', clients: {tls: passthrough}}]", 2),
        ("nodes: {tls: on, ca: /x}", "caches: [{id: a, ports: 1-2, clients: {tls: passthrough}}]", 0),
        ("nodes: {ca: /x}", "caches: [{id: a, ports: 1, clients: {tls: passthrough}}, {id: b, ports: 2}]", 0),
        ("nodes: {ca: /x}", "static: [{name: a, port: 1, target: 'h:1'}]", 1),
        ("nodes: {ca: /x}", "caches: [{id: b, ports: 2}]\nstatic: [{name: a, port: 1, target: 'h:1'}]", 0),
        ("nodes: {tls: on}", "caches: [{id: b, ports: 2, nodes: {tls: off}}]", 0),
        ("nodes: {tls: auto}", "caches: [{id: b, ports: 2, clients: {tls: passthrough}}]", 0),
    ],
)
def test_what_is_said_of_all_nodes_is_warned_of_where_it_is_in_vain_for_all(
    common: str, entries: str, count: int
) -> None:
    warnings = warned(f"{ALLOW}{common}\n{entries}\nrewrite: off\n")
    assert len(warnings) == count
    assert all(warning.startswith("2: nodes.") for warning in warnings)


def test_everyone_with_a_certificate_is_not_warned_of() -> None:
    text = "clients: {allow: 0.0.0.0/0}\ncaches:\n- {id: a, ports: 1-2}\n"
    assert len(warned(text)) == len(warned(TLS + text)) == 1
    assert warned(MUTUAL + text) == []
    assert warned(MUTUAL + text.replace("1-2", "1-2, clients: {allow: '::/0'}")) == []
    (warning,) = warned(MUTUAL + text + "- {id: b, ports: 3-4, clients: {tls: off}}\n")
    assert warning.startswith("2: clients.allow: 0.0.0.0/0 lets everyone in")
    (warning,) = warned(MUTUAL + text + "- {id: b, ports: 3-4, clients: {tls: off, allow: '::/0'}}\n")
    assert warning.startswith("5: caches[1].clients.allow: ::/0 lets everyone in")


def test_everyone_may_be_written_and_is_warned_of() -> None:
    text = """clients:
  allow:
  - 192.0.2.1
  - 0.0.0.0/0
caches:
- {id: a, ports: 1-2, clients: {allow: "::/0"}}
- {id: b, ports: 3-4, clients: {allow: "::ffff:0.0.0.0/96"}}
"""
    words = "lets everyone in who reaches these ports"
    assert warned(text) == [
        f"4: clients.allow[1]: 0.0.0.0/0 {words}",
        f"6: caches[0].clients.allow: ::/0 {words}",
        f"7: caches[1].clients.allow: 0.0.0.0/0 {words}",
    ]
    assert warned(LOOPBACK + text) == []


@pytest.mark.parametrize("network", ["0.0.0.0/1", "198.0.0.0/7", "2000::/3", "::ffff:128.0.0.0/97"])
def test_a_network_that_is_hardly_meant_is_warned_of(network: str) -> None:
    (warning,) = warned(f"clients: {{allow: '{network}'}}\ncaches: [{{id: a, ports: 1-2}}]\n")
    assert warning.endswith("lets a large part of the Internet in: is its prefix meant?")


@pytest.mark.parametrize("network", ["10.0.0.0/8", "198.0.0.0/8", "fc00::/7", "2001:db8::/32"])
def test_a_network_that_somebody_can_have_is_not_warned_of(network: str) -> None:
    assert warned(f"clients: {{allow: '{network}'}}\ncaches: [{{id: a, ports: 1-2}}]\n") == []


def test_the_global_everyone_is_warned_of_once() -> None:
    text = "clients: {allow: 0.0.0.0/0}\ncaches: [{id: a, ports: 1-2}, {id: b, ports: 3-4}]\n"
    assert len(warned(text)) == 1


def test_a_config_that_names_nothing_is_warned_of() -> None:
    (warning,) = warned("log: {level: info}")
    assert warning == "1: names no caches and no static routes: natproxy will have nothing to do"


def test_an_entry_that_nothing_is_left_for_is_warned_of() -> None:
    text = f"""{LOOPBACK}caches:
- {{tags: {{a: b}}, ports: 1-2}}
- {{tags: {{a: b, c: d}}, ports: 3-4}}
- {{tags: {{a: x, c: d}}, ports: 5-6}}
"""
    (warning,) = warned(text)
    assert warning == "4: caches[1]: is never used: caches[0] above it takes every cache with these tags"


ENTRY = "caches:\n- {id: a, ports: 1-2, %s}\n"
STATIC = "static:\n- {name: s, port: 9, target: 'h:1', %s}\n"
UNADVERTISED = (
    "1: public_host is missing: clients that ask a cache for its nodes are told the address at which they reached this "
    "host, and behind an Elastic IP or another NAT that is one which they cannot dial"
)


@pytest.mark.parametrize(
    ("text", "is_warned_of"),
    [
        (ENTRY % "", True),
        (ENTRY % "rewrite: off", False),
        (ENTRY % "rewrite: off" + "- {id: b, ports: 3}\n", True),
        (ENTRY % "" + "rewrite: off\n", False),
        (ENTRY % "rewrite: auto" + "rewrite: off\n", True),
        (STATIC % "", False),
        (STATIC % "rewrite: auto", False),
        (STATIC % "rewrite: redis", True),
        (STATIC % "rewrite: memcached", True),
        (STATIC % "" + "rewrite: redis\n", True),
        (ENTRY % "" + LOOPBACK, False),
        (ENTRY % "" + "listen: {address: [127.0.0.1, 10.0.0.55]}\n", True),
    ],
)
def test_who_is_told_of_nodes_has_to_be_told_of_this_host(text: str, is_warned_of: bool) -> None:
    assert warned(ALLOW + text, public_host="") == ([UNADVERTISED] if is_warned_of else [])
    assert warned(ALLOW + text) == []
    assert warned(ALLOW + text, public_host="203.0.113.73") == []


@pytest.mark.parametrize("told", ["localhost", "127.0.0.1", "'::1'"])
def test_a_public_host_that_leads_clients_to_themselves_is_warned_of(told: str) -> None:
    assert warned(ALLOW + ENTRY % "", public_host=told)[0].endswith("leads every client to the client's own host")
    assert warned("listen: {address: 127.0.0.1}\n" + ENTRY % "", public_host=told) == []


def test_the_public_ip_alone_is_not_what_clients_are_told_to_dial() -> None:
    assert warned(f"{ALLOW}public_ip: 203.0.113.73\n{ENTRY % ''}", public_host="") == [UNADVERTISED]


PASSED = (
    "nothing is rewritten with clients.tls: passthrough: clients speak TLS with the node itself, and those of a "
    "cluster or of memcached's auto discovery are told addresses that only this side can reach; write terminate, or "
    "rewrite: off where that is meant"
)
OWN = "clients: {tls: passthrough}"
LONG = "caches:\n- id: a\n  ports: 1-2\n  %s\n  clients:\n    tls: passthrough\n"


@pytest.mark.parametrize(
    ("text", "places"),
    [
        (ENTRY % OWN, ["3: caches[0].clients.tls"]),
        (LONG % "endpoints: nodes", ["7: caches[0].clients.tls"]),
        (LONG % "rewrite: auto", ["5: caches[0].rewrite"]),
        (LONG % "rewrite: redis", ["5: caches[0].rewrite"]),
        (LONG % "rewrite: memcached", ["5: caches[0].rewrite"]),
        (LONG % "rewrite: off", []),
        (
            ENTRY % OWN + "- {id: b, ports: 3}\n- {id: c, ports: 4, clients: {tls: passthrough}}\n",
            ["3: caches[0].clients.tls", "5: caches[2].clients.tls"],
        ),
        (ENTRY % OWN + "rewrite: off\n", []),
        (ENTRY % OWN + "rewrite: redis\n", ["3: caches[0].clients.tls"]),
        (STATIC % OWN, []),
        (STATIC % f"rewrite: auto, {OWN}", []),
        (STATIC % f"rewrite: redis, {OWN}", ["3: static[0].rewrite"]),
        (STATIC % f"rewrite: memcached, {OWN}", ["3: static[0].rewrite"]),
        (STATIC % OWN + "rewrite: redis\n", ["3: static[0].clients.tls"]),
    ],
)
def test_a_passthrough_route_that_cannot_rewrite_is_warned_of(text: str, places: list[str]) -> None:
    assert warned(ALLOW + text) == [f"{place}: {PASSED}" for place in places]


def test_what_passes_through_tells_nobody_of_this_host() -> None:
    assert UNADVERTISED not in warned(ALLOW + ENTRY % OWN, public_host="")
    assert UNADVERTISED in warned(ALLOW + ENTRY % OWN + "- {id: b, ports: 3}\n", public_host="")


def test_where_all_pass_through_every_entry_is_named() -> None:
    text = "clients: {tls: passthrough, allow: 192.0.2.1}\ncaches:\n- {id: a, ports: 1-2}\n- {id: b, ports: 3-4}\n"
    assert warned(text) == [f"3: caches[0]: {PASSED}", f"4: caches[1]: {PASSED}"]


LEFT_OUT = (
    "3: caches[0].endpoints: leaves out nodes: a client of a cluster, or of memcached's auto discovery, asks the "
    "configuration endpoint for the nodes, and none of them has a port that it could dial"
)


@pytest.mark.parametrize(
    ("own", "is_warned_of"),
    [
        ("endpoints: configuration", True),
        ("endpoints: [configuration, primary, reader]", True),
        ("endpoints: [configuration], rewrite: redis", True),
        ("endpoints: [configuration, nodes]", False),
        ("endpoints: [primary, reader]", False),
        ("endpoints: nodes", False),
        ("endpoints: configuration, rewrite: off", False),
        ("", False),
    ],
)
def test_clients_that_are_told_of_nodes_need_ports_for_nodes(own: str, is_warned_of: bool) -> None:
    assert warned(ALLOW + ENTRY % own) == ([LEFT_OUT] if is_warned_of else [])


@pytest.mark.parametrize(
    ("nodes", "is_warned_of"), [("tls: off", True), ("tls: on", False), ("tls: auto", False), ("", False)]
)
def test_a_password_that_would_be_sent_in_the_clear_is_warned_of(nodes: str, is_warned_of: bool) -> None:
    text = ALLOW + ENTRY % f"probe: {{password_file: /x}}, nodes: {{{nodes}}}"
    said = "3: caches[0].probe: sends its password to the nodes in the clear: nodes.tls is off"
    assert warned(text) == ([said] if is_warned_of else [])
    assert warned(text.replace("probe: {password_file: /x}", "probe: null")) == []
