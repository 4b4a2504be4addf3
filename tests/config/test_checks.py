"""natproxy.config.checks: what does not go together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.config.checks import find_conflicts
from natproxy.config.model import CacheEntry, Config, Listen, StaticEntry
from natproxy.config.values import PortRange
from natproxy.model import Endpoint
from tests.config.samples import ALLOW, load, mistakes, only_mistake

SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:natproxy/probe-AbCdEf"
MUTUAL = "tls: {certificate: /x.crt, key: /x.key, client_ca: /ca.crt}\n"
LOOPBACK = "listen: {address: 127.0.0.1}\n"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "caches:\n- {ports: 1-2}",
            "3: caches[0]: has neither id nor tags: write the cache's id, or the tags to find caches by",
        ),
        ("caches:\n- {id: a, tags: {b: c}, ports: 1-2}", "3: caches[0]: has both id and tags: write one of them"),
        ("caches:\n- {id: a, ports: 1-2}\n- {id: a, ports: 3-4}", "4: caches[1].id: a has an entry already: caches[0]"),
        ("caches:\n- {id: a, ports: 1-5}\n- {id: b, ports: 5-9}", "4: caches[1].ports: 5-9 overlaps 1-5 of caches[0]"),
        (
            "caches:\n- {id: a, ports: 1-5}\n- {tags: {b: c}, ports: 3}",
            "4: caches[1].ports: 3 overlaps 1-5 of caches[0]",
        ),
        (
            "caches:\n- {id: a, ports: 3}\n- {tags: {b: c}, ports: 1-5}",
            "4: caches[1].ports: 1-5 overlaps 3 of caches[0]",
        ),
        ("caches:\n- {id: a}", "3: caches[0]: has no ports, and there is no listen.ports to take them from"),
        (
            "static:\n- {name: a, port: 1, target: 'h:1'}\n- {name: a, port: 2, target: 'h:1'}",
            "4: static[1].name: a has an entry already: static[0]",
        ),
        (
            "static:\n- {name: a, port: 1, target: 'h:1'}\n- {name: b, port: 1, target: 'h:1'}",
            "4: static[1].port: 1 is used already: static[0]",
        ),
        (
            "caches: [{id: a, ports: 1-5}]\nstatic:\n- {name: b, port: 5, target: 'h:1'}",
            "4: static[0].port: 5 lies in 1-5 of caches[0]",
        ),
        (
            "caches: [{id: a, ports: 1-5}]\nstatic:\n- {name: a, port: 6, target: 'h:1'}",
            "4: static[0].name: a is the id of caches[0]: choose another name",
        ),
        ("caches:\n- {id: a, ports: 9470-9480}", "3: caches[0].ports: 9470-9480 takes in 9479, the admin side's port"),
        ("static:\n- {name: a, port: 9479, target: 'h:1'}", "3: static[0].port: 9479 is the admin side's port"),
    ],
)
def test_what_does_not_go_together(text: str, found: str) -> None:
    assert only_mistake(ALLOW + text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("portal: {}", "2: portal: needs tls.certificate, tls.key and tls.client_ca: "),
        (
            "tls: {certificate: /c, key: /k}\nportal: {}",
            "3: portal: needs tls.certificate, tls.key and tls.client_ca: ",
        ),
        ("admin: {tls: true}", "2: admin.tls: true needs tls.certificate, tls.key and tls.client_ca: "),
        (f"{MUTUAL}portal: {{port: 9479}}", "3: portal.port: 9479 is the admin side's port"),
        (
            f"{MUTUAL}portal: {{}}\ncaches: [{{id: a, ports: 6370-6380}}]",
            "4: caches[0].ports: 6370-6380 takes in 6378, ",
        ),
        (
            f"{MUTUAL}portal: {{port: 7}}\nstatic: [{{name: a, port: 7, target: 'h:1'}}]",
            "4: static[0].port: 7 is the p",
        ),
        ("admin: {address: 192.0.2.1}", "2: admin.address: 192.0.2.1 is beyond loopback, "),
        ("admin: {address: '::'}", "2: admin.address: :: is beyond loopback, "),
        (f"{MUTUAL}admin: {{address: 192.0.2.1, tls: true}}", "3: admin.address: 192.0.2.1 is beyond loopback, "),
        (
            f"{MUTUAL}admin: {{address: 192.0.2.1, allow: 192.0.2.9}}",
            "3: admin.address: 192.0.2.1 is beyond loopback, ",
        ),
    ],
)
def test_what_the_sides_need(text: str, found: str) -> None:
    assert only_mistake(ALLOW + text).startswith(found)


def test_an_admin_side_on_every_address_takes_its_port_from_clients_on_any() -> None:
    text = f"{MUTUAL}admin: {{address: 0.0.0.0, allow: 192.0.2.9, tls: true}}\nlisten: {{address: 127.0.0.1}}\n"
    assert "the admin side's port" in only_mistake(f"{text}caches: [{{id: a, ports: 9479}}]")
    assert "the admin side's port" in only_mistake(f"{text}portal: {{port: 9479}}")


def test_what_is_missing_beyond_loopback_is_named() -> None:
    assert ": write admin.allow and admin.tls: true, or " in only_mistake("admin: {address: 192.0.2.1}")
    assert ": write admin.allow, or " in only_mistake(f"{MUTUAL}admin: {{address: 192.0.2.1, tls: true}}")
    assert ": write admin.tls: true, or " in only_mistake("admin: {address: 192.0.2.1, allow: 192.0.2.9}")


def test_sides_that_have_what_they_need() -> None:
    config = load(f"{MUTUAL}portal:\n  allow: 192.0.2.0/24\nadmin: {{address: 0.0.0.0, allow: 192.0.2.9, tls: true}}")
    assert config.portal is not None
    assert (config.portal.port, config.admin.tls) == (6378, True)
    load("admin: {allow: 127.0.0.1}")
    load(f"{MUTUAL}admin: {{tls: true}}")


def test_the_portal_s_port_is_taken_out_of_the_pool() -> None:
    assert load(f"{MUTUAL}listen: {{ports: 6377-6379}}\nportal: {{}}").pool() == (6377, 6379)
    assert load(f"{MUTUAL}listen: {{ports: 6377-6379}}\nportal: {{port: null}}").pool() == (6377, 6378, 6379)


def test_a_pool_of_which_nothing_is_left_is_no_pool() -> None:
    text = f"{ALLOW}listen: {{ports: 1-2}}\nstatic: [{{name: s, port: 2, target: 'h:1'}}]\n"
    said = only_mistake(f"{text}caches:\n- {{id: a, ports: 1}}\n- {{id: b}}")
    assert said.startswith("6: caches[1]: has no ports, and listen.ports has none left")
    load(f"{text}caches:\n- {{id: a}}")


def test_the_admin_port_is_free_where_clients_are_listened_for_elsewhere() -> None:
    load("listen: {address: 127.0.0.2}\ncaches: [{id: a, ports: 9470-9480}]")
    only_mistake(f"{LOOPBACK}caches: [{{id: a, ports: 9470-9480}}]")
    only_mistake("listen: {address: '::1'}\nadmin: {address: '::1'}\ncaches: [{id: a, ports: 9470-9480}]")


@pytest.mark.parametrize(
    ("addresses", "found"),
    [
        ("[10.0.0.1, 10.0.0.2, 10.0.0.1]", "listen.address[2]: 10.0.0.1 is written twice"),
        ("[10.0.0.1, '::ffff:10.0.0.1']", "listen.address[1]: 10.0.0.1 is written twice"),
        ("[127.0.0.1, 0.0.0.0]", "listen.address[1]: 0.0.0.0 takes in 127.0.0.1: write one of them"),
        ("[0.0.0.0, '::']", "listen.address[1]: :: takes in 0.0.0.0: write one of them"),
        ("['::', '::1']", "listen.address[1]: :: takes in ::1: write one of them"),
    ],
)
def test_addresses_that_cannot_both_be_listened_on(addresses: str, found: str) -> None:
    assert only_mistake(f"listen: {{address: {addresses}}}") == f"1: {found}"


def test_an_entry_beyond_loopback_needs_allow() -> None:
    text = """listen: {address: [127.0.0.1, 10.0.0.55]}
caches:
- {id: a, ports: 1-2}
- {id: b, ports: 3-4, clients: {allow: 192.0.2.1}}
- {id: c, ports: 5-6, clients: {tls: passthrough}}
static:
- {name: s, port: 7, target: 'h:1'}
"""
    words = (
        "everyone who reaches 10.0.0.55 could connect: write clients.allow, here or for the whole file, "
        "with the networks that may (0.0.0.0/0 and ::/0 for all), or demand certificates with clients.tls: terminate "
        "and tls.client_ca"
    )
    assert mistakes(text) == [f"3: caches[0]: {words}", f"5: caches[2]: {words}", f"7: static[0]: {words}"]
    load(text.replace("10.0.0.55", "'::1'"))
    load(ALLOW + text)


def test_an_entry_can_take_the_global_allow_back_only_on_loopback() -> None:
    entry = "caches:\n- {id: a, ports: 1-2, clients: {allow: null}}\n"
    assert only_mistake(ALLOW + entry).startswith("3: caches[0]: everyone who reaches 0.0.0.0 could connect")
    assert load(ALLOW + LOOPBACK + entry).caches[0].clients.allow is None


TLS = "tls: {certificate: /x.crt, key: /x.key}\n"
MUTUAL = "tls: {certificate: /x.crt, key: /x.key, client_ca: /ca.crt}\n"


def test_whoever_has_no_certificate_needs_allow() -> None:
    text = """caches:
- {id: a, ports: 1-2}
- {id: b, ports: 3-4, clients: {tls: off}}
- {id: c, ports: 5-6, clients: {tls: passthrough}}
- {id: d, ports: 7-8, clients: {tls: terminate}}
static:
- {name: s, port: 9, target: 'h:1'}
- {name: t, port: 10, target: 'h:1', clients: {tls: off, allow: 192.0.2.1}}
"""

    def open_to_everyone(text: str) -> list[str]:
        found = mistakes(text)
        assert all("everyone who reaches 0.0.0.0 could connect" in one for one in found)
        return [one.split(": ")[1] for one in found]

    assert open_to_everyone(MUTUAL + text) == ["caches[1]", "caches[2]"]
    assert open_to_everyone(TLS + text) == ["caches[0]", "caches[1]", "caches[2]", "caches[3]", "static[0]"]
    assert open_to_everyone(MUTUAL + "clients: {tls: off}\n" + text) == [
        "caches[0]", "caches[1]", "caches[2]", "static[0]",
    ]  # fmt: skip
    load(TLS + ALLOW + text)
    load(TLS + LOOPBACK + text)


@pytest.mark.parametrize("wrong", ["x.crt", "[/x.crt]", "''"])
def test_nothing_is_concluded_from_a_client_ca_that_is_wrong_itself(wrong: str) -> None:
    text = f"tls: {{certificate: /x.crt, key: /x.key, client_ca: {wrong}, crl: /x.crl}}\n"
    assert only_mistake(text + "clients: {certificates: dev1}\ncaches: [{id: a, ports: 1-2}]\n").startswith(
        "1: tls.client_ca: "
    )
    assert only_mistake(text.replace("client_ca", "clientca") + "caches: [{id: a, ports: 1-2}]\n").startswith(
        "1: tls.clientca: is an unknown key; did you mean client_ca?"
    )


def test_nothing_is_concluded_from_a_tls_section_or_mode_that_is_wrong_itself() -> None:
    caches = "caches: [{id: a, ports: 1-2}]\n"
    mode = "clients: {tls: terminate, certificates: dev1}\n"
    assert only_mistake("tls: true\n" + mode + caches).startswith("1: tls: must be a mapping")
    assert only_mistake(MUTUAL + "clients: {tls: on, certificates: dev1}\n" + caches).startswith("2: clients.tls: must")
    own = "caches: [{id: a, ports: 1-2, clients: {tls: on, certificates: dev1}}]\n"
    assert only_mistake(MUTUAL + own).startswith("2: caches[0].clients.tls: must be")
    assert only_mistake(MUTUAL + "clients: {tls: off}\n" + own).startswith("3: caches[0].clients.tls: must be")


ENTRY = "caches:\n- {id: a, ports: 1-2, clients: {%s}}\n"
STATIC = "static:\n- {name: s, port: 9, target: 'h:1', clients: {%s}}\n"
NO_CA = "needs tls.client_ca: without it no certificate is asked of clients"
NO_SECTION = "terminate needs the section tls, with natproxy's certificate and key"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("clients: {tls: terminate}", f"2: clients.tls: {NO_SECTION}"),
        (ENTRY % "tls: terminate", f"3: caches[0].clients.tls: {NO_SECTION}"),
        (STATIC % "tls: terminate", f"3: static[0].clients.tls: {NO_SECTION}"),
        ("clients: {tls: terminate}\n" + ENTRY % "max_connections: 1", f"2: clients.tls: {NO_SECTION}"),
        ("tls:\n" + ENTRY % "tls: terminate", f"4: caches[0].clients.tls: {NO_SECTION}"),
        (
            TLS.replace("}", ", crl: /x.crl}"),
            "2: tls.crl: needs client_ca: the CA whose certificates are revoked in it",
        ),
        ("clients: {certificates: dev1}", f"2: clients.certificates: {NO_CA}"),
        (TLS + "clients: {certificates: [dev1, dev2]}", f"3: clients.certificates: {NO_CA}"),
        (TLS + "clients: {certificates: dev1}\n" + ENTRY % "", f"3: clients.certificates: {NO_CA}"),
        (TLS + ENTRY % "certificates: dev1", f"4: caches[0].clients.certificates: {NO_CA}"),
        (STATIC % "certificates: dev1", f"3: static[0].clients.certificates: {NO_CA}"),
        (
            MUTUAL + "clients: {tls: off, certificates: dev1}",
            (
                "3: clients.certificates: names certificates, and with clients.tls: off nobody is asked for one: "
                "write terminate, or certificates: null"
            ),
        ),
        (
            MUTUAL + "clients: {tls: passthrough, certificates: dev1}\n" + ENTRY % "",
            (
                "3: clients.certificates: names certificates, and with clients.tls: passthrough nobody is asked for "
                "one: write terminate, or certificates: null"
            ),
        ),
        (
            MUTUAL + "clients: {certificates: dev1}\n" + ENTRY % "tls: off",
            (
                "5: caches[0].clients: names certificates, and with clients.tls: off nobody is asked for one: "
                "write terminate, or certificates: null"
            ),
        ),
        (
            MUTUAL + STATIC % "tls: passthrough, certificates: dev1",
            (
                "4: static[0].clients.certificates: names certificates, and with clients.tls: passthrough nobody is "
                "asked for one: write terminate, or certificates: null"
            ),
        ),
    ],
)
def test_what_does_not_go_together_in_tls(text: str, found: str) -> None:
    assert only_mistake(LOOPBACK + text) == found


@pytest.mark.parametrize(
    "text",
    [
        MUTUAL + "clients: {certificates: dev1}\n" + ENTRY % "tls: off, certificates: null, allow: 192.0.2.1",
        MUTUAL + "clients: {tls: off, certificates: dev1}\n" + ENTRY % "tls: terminate",
        MUTUAL + "clients: {certificates: dev1}\n" + ENTRY % "certificates: dev2" + STATIC % "",
        MUTUAL.replace("}", ", crl: /x.crl}") + ENTRY % "certificates: '*.ci.example.com'",
        "clients: {tls: terminate, allow: 192.0.2.1}\n" + ENTRY % "tls: off" + STATIC % "tls: passthrough",
        TLS + "clients: {tls: off}\n" + ENTRY % "allow: 192.0.2.1",
    ],
)
def test_what_does_go_together_in_tls(text: str) -> None:
    load(text)


PROBE = "caches:\n- {id: a, ports: 1-2, probe: {%s}}\n"


@pytest.mark.parametrize(
    ("probe", "found"),
    [
        ("", "has neither password_file nor secret_arn: write one of them"),
        ("username: natproxy", "has neither password_file nor secret_arn: write one of them"),
        ("password_file: null, secret_arn: null", "has neither password_file nor secret_arn: write one of them"),
        (f"password_file: /x, secret_arn: '{SECRET}'", "has both password_file and secret_arn: write one of them"),
    ],
)
def test_a_probe_has_its_password_from_one_place(probe: str, found: str) -> None:
    assert only_mistake(ALLOW + PROBE % probe) == f"3: caches[0].probe: {found}"


@pytest.mark.parametrize("wrong", ["password_file: x", "secret_arn: x", "password: x", "passwordfile: /x"])
def test_nothing_is_concluded_from_a_password_s_place_that_is_wrong_itself(wrong: str) -> None:
    key = wrong.partition(":")[0]
    assert only_mistake(ALLOW + PROBE % wrong).startswith(f"3: caches[0].probe.{key}: ")


_RANGES = st.builds(lambda first, more: PortRange(first, first + more), st.integers(1, 60), st.integers(0, 8))


@given(st.lists(_RANGES, max_size=8), st.lists(st.integers(1, 70), max_size=6))
def test_no_port_belongs_to_two(ranges: list[PortRange], static_ports: list[int]) -> None:
    caches = tuple(CacheEntry(id=f"c{index}", ports=ports) for index, ports in enumerate(ranges))
    static = tuple(
        StaticEntry(name=f"s{index}", port=port, target=Endpoint("h", 1)) for index, port in enumerate(static_ports)
    )
    config = Config(path="x", listen=Listen(address=("127.0.0.1",)), caches=caches, static=static)
    claims = [port for ports in ranges for port in ports] + static_ports
    assert bool(list(find_conflicts(config))) == (len(claims) != len(set(claims)))


@given(st.sets(st.sampled_from([PortRange(10 * index + 1, 10 * index + 10) for index in range(12)]), min_size=1))
def test_the_pool_and_the_ranges_share_no_port_and_leave_none_out(ranges: set[PortRange]) -> None:
    caches = tuple(CacheEntry(id=f"c{index}", ports=ports) for index, ports in enumerate(sorted(ranges, key=str)))
    config = Config(path="x", listen=Listen(address=("127.0.0.1",), ports="1-120"), caches=caches)
    named = [port for entry in caches for port in config.candidate_ports(entry)]
    assert sorted([*named, *config.pool()]) == list(range(1, 121))
