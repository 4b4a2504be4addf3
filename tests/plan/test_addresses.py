from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.model import Address, Endpoint, Kind, Mode
from natproxy.plan.addresses import (
    MOST_ADDRESSES,
    Addresses,
    always_rotates,
    certificate_names,
    dial_addresses,
    membership,
    observe,
    of_nodes,
    rotating_hosts,
    usable,
)
from tests.plan.samples import answered, book, route

A, B, C = "10.0.1.230", "10.0.1.231", "10.0.1.232"


def observed(*answers: tuple[float, str], always: bool = False) -> Addresses:
    """Observe ``(when, "a b")`` one after the other."""
    addresses: Addresses | None = None
    for now, answer in answers:
        addresses = observe(addresses, answer.split(), now, always)
    assert addresses is not None
    return addresses


@pytest.mark.parametrize(
    "ip",
    [
        "169.254.169.254",
        "0.0.0.0",
        "255.255.255.255",
        "224.0.0.1",
        "::",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
    ],
)
def test_no_node_has_an_address_of_the_instance_s_own_services(ip: str) -> None:
    for may_be_local in (False, True):
        assert of_nodes((ip, A), may_be_local=may_be_local) == (A,)


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_a_node_is_on_loopback_only_where_that_is_meant(ip: str) -> None:
    assert of_nodes((ip,), may_be_local=False) == ()
    assert of_nodes((ip,), may_be_local=True) == (ip,)


def test_a_name_has_no_more_addresses_than_anybody_needs() -> None:
    many = [f"10.0.{number // 250}.{number % 250 + 1}" for number in range(1000)]
    assert of_nodes(reversed(many), may_be_local=False) == tuple(many[:MOST_ADDRESSES])


def test_the_first_answer_is_current() -> None:
    assert observed((7.0, f"{B} {A}")) == Addresses(current=(A, B), seen={A: 7.0, B: 7.0}, since=7.0)


def test_an_answer_is_a_set_in_numeric_order_ipv4_first() -> None:
    assert observed((0.0, "::2 10.0.0.10 10.0.0.9 ::10 10.0.0.9")).current == ("10.0.0.9", "10.0.0.10", "::2", "::10")


@given(st.lists(st.ip_addresses().map(str), min_size=1, max_size=8), st.randoms())
def test_the_order_of_an_answer_means_nothing(ips: list[str], rng: random.Random) -> None:
    before = observe(None, ips, 0.0, always_rotates=False)
    rng.shuffle(ips)
    assert observe(before, ips, 0.0, always_rotates=False) == before


def test_an_empty_answer_changes_nothing() -> None:
    before = observed((0.0, A), (5.0, B))
    assert observe(before, (), 99.0, always_rotates=False) == before
    assert observe(None, (), 3.0, always_rotates=False).current == ()


def test_a_name_that_answers_at_last_counts_from_then() -> None:
    nothing = observe(None, (), 3.0, always_rotates=False)
    assert observe(nothing, (A,), 9.0, always_rotates=False).since == 9.0


def test_an_address_leaves_with_the_first_answer_without_it() -> None:
    addresses = observed((0.0, A), (5.0, B), (10.0, B))
    assert addresses.current == (B,)
    assert addresses.left == {A: 5.0}
    assert addresses.seen == {A: 0.0, B: 10.0}


def test_an_address_that_left_is_forgotten_after_ten_minutes() -> None:
    addresses = observed((0.0, A), (5.0, B), (606.0, B))
    assert addresses.left == {}
    assert addresses.seen == {B: 606.0}


def test_an_address_back_within_a_minute_gives_rotation_away() -> None:
    addresses = observed((0.0, A), (5.0, B), (65.0, A))
    assert addresses.rotating_until == 665.0
    assert addresses.left == {B: 65.0}
    assert usable(addresses, 65.0, always_rotates=False) == {A, B}


def test_a_name_that_always_rotates_needs_no_such_mark() -> None:
    assert observed((0.0, A), (5.0, B), (10.0, A), always=True).rotating_until < 0.0


def test_an_address_back_after_more_than_a_minute_does_not() -> None:
    addresses = observed((0.0, A), (5.0, B), (65.1, A))
    assert usable(addresses, 65.1, always_rotates=False) == {A}


def test_a_name_stops_rotating_ten_minutes_after_the_last_comeback() -> None:
    addresses = observed((0.0, A), (5.0, B), (10.0, A), (595.0, A), (600.0, B))
    assert usable(addresses, 609.9, always_rotates=False) == {A, B}
    assert usable(addresses, 610.0, always_rotates=False) == {B}


def test_a_name_that_always_rotates_is_the_union_of_the_last_minute() -> None:
    addresses = observed((0.0, A), (30.0, B), (60.0, C), always=True)
    assert usable(addresses, 60.0, always_rotates=True) == {A, B, C}
    assert usable(addresses, 60.1, always_rotates=True) == {B, C}
    assert usable(addresses, 9999.0, always_rotates=True) == {C}, "the newest answer counts however old it is"


@given(st.lists(st.tuples(st.floats(0.1, 90), st.sets(st.sampled_from([A, B, C]))), max_size=30), st.booleans())
def test_current_seen_and_left_agree_whatever_is_answered(rounds: list[tuple[float, set[str]]], always: bool) -> None:
    addresses, now = observe(None, (), 0.0, always), 0.0
    for seconds, answer in rounds:
        now += seconds
        addresses = observe(addresses, answer, now, always)
        assert set(addresses.current) == (answer or set(addresses.current))
        assert set(addresses.left) == set(addresses.seen) - set(addresses.current)
        assert set(addresses.current) <= usable(addresses, now, always) <= set(addresses.seen)


@pytest.mark.parametrize(
    ("kind", "mode", "expected"),
    [
        (Kind.NODE, Mode.CLUSTER_DISABLED, False),
        (Kind.PRIMARY, Mode.CLUSTER_DISABLED, False),
        (Kind.STATIC, Mode.STATIC, False),
        (Kind.READER, Mode.CLUSTER_DISABLED, True),
        (Kind.CONFIGURATION, Mode.CLUSTER_ENABLED, True),
        (Kind.CONFIGURATION, Mode.MEMCACHED, True),
        (Kind.PRIMARY, Mode.SERVERLESS, True),
    ],
)
def test_which_names_rotate_by_nature(kind: Kind, mode: Mode, expected: bool) -> None:
    assert always_rotates(kind, mode) is expected
    assert rotating_hosts([route(kind, mode)]) == ({"target"} if expected else set())


def test_a_route_without_a_target_has_no_rotating_host() -> None:
    assert rotating_hosts([route(Kind.READER, target=None)]) == set()


class TestMembership:
    def test_current(self) -> None:
        stands = membership(route(), book(target=[A]), Address(A, 6379), 0.0)
        assert (stands.is_answered, stands.is_current, stands.missing_seconds, stands.is_rotating) == (
            True,
            True,
            0.0,
            False,
        )

    def test_out_of_the_set_since_the_first_answer_without_it(self) -> None:
        names = {"target": observed((0.0, A), (5.0, B), (10.0, B))}
        stands = membership(route(), names, Address(A, 6379), 12.0)
        assert not stands.is_current
        assert stands.missing_seconds == 7.0

    def test_an_address_the_name_never_had_is_missing_since_its_first_answer(self) -> None:
        stands = membership(route(), {"target": observed((100.0, B))}, Address(A, 6379), 103.0)
        assert not stands.is_current
        assert stands.missing_seconds == 3.0

    @pytest.mark.parametrize("names", [{}, {"target": Addresses()}], ids=["not asked", "never answered"])
    def test_a_name_that_never_answered_says_nothing(self, names: dict[str, Addresses]) -> None:
        assert membership(route(), names, Address(A, 6379), 12.0).is_current

    def test_a_route_without_a_target_says_nothing(self) -> None:
        assert membership(route(target=None), {}, Address(A, 6379), 12.0).is_current

    def test_another_port_is_another_address(self) -> None:
        stands = membership(route(), book(target=[A]), Address(A, 6380), 0.0)
        assert not stands.is_current
        assert not stands.is_answered

    def test_a_reader_rotates_and_its_union_counts(self) -> None:
        names = {"target": observed((0.0, A), (5.0, B), always=True)}
        stands = membership(route(Kind.READER), names, Address(A, 6379), 10.0)
        assert stands.is_rotating
        assert stands.is_current
        assert not stands.is_answered

    def test_a_union_is_left_a_minute_after_the_last_answer(self) -> None:
        names = {"target": observed((0.0, A), (5.0, B), always=True)}
        stands = membership(route(Kind.READER), names, Address(A, 6379), 67.0)
        assert not stands.is_current
        assert stands.missing_seconds == 7.0

    def test_of_several_names_the_one_that_has_the_address_counts(self) -> None:
        configuration = route(Kind.CONFIGURATION, fallback=(Endpoint("n1", 6379), Endpoint("n2", 6379)))
        stands = membership(configuration, book(target=[B], n1=[A], n2=[C]), Address(A, 6379), 999.0)
        assert stands.is_current
        assert stands.missing_seconds == 0.0

    @pytest.mark.parametrize(
        ("kind", "is_current", "is_rotating"),
        [(Kind.NODE, True, False), (Kind.STATIC, True, True), (Kind.PRIMARY, False, False)],
    )
    def test_what_a_comeback_means(self, kind: Kind, is_current: bool, is_rotating: bool) -> None:
        names = {"target": observed((0.0, A), (5.0, B), (10.0, A), (15.0, B))}
        stands = membership(route(kind), names, Address(A, 6379), 20.0)
        assert (stands.is_current, stands.is_rotating) == (is_current, is_rotating)

    def test_a_nodes_connection_outlives_a_lagging_resolver_by_a_minute_only(self) -> None:
        names = {"target": observed((0.0, A), (5.0, B), (10.0, A), (15.0, B), (80.0, B))}
        stands = membership(route(), names, Address(A, 6379), 80.0)
        assert not stands.is_current
        assert stands.missing_seconds == 10.0


class TestDialAddresses:
    def test_the_newest_answer(self) -> None:
        assert dial_addresses(route(), {"target": observed((0.0, A), (5.0, f"{C} {B}"))}, 5.0) == (
            Address(B, 6379),
            Address(C, 6379),
        )

    def test_fallback_names_follow_without_repeats(self) -> None:
        configuration = route(Kind.CONFIGURATION, fallback=(Endpoint("n1", 6379), Endpoint("n2", 6380)))
        assert dial_addresses(configuration, book(target=[B], n1=[A, B], n2=[B]), 0.0) == (
            Address(B, 6379),
            Address(A, 6379),
            Address(B, 6380),
        )

    def test_fallback_names_serve_where_the_target_does_not_resolve(self) -> None:
        configuration = route(Kind.CONFIGURATION, fallback=(Endpoint("n1", 6379),))
        assert dial_addresses(configuration, book(n1=[A]), 0.0) == (Address(A, 6379),)

    def test_nothing_is_known(self) -> None:
        assert dial_addresses(route(), {}, 0.0) == ()
        assert dial_addresses(route(target=None), book(target=[A]), 0.0) == ()

    @pytest.mark.parametrize("kind", [Kind.READER, Kind.PRIMARY, Kind.CONFIGURATION])
    def test_what_left_an_endpoints_newest_answer_is_not_dialled(self, kind: Kind) -> None:
        names = {"target": observed((0.0, A), (5.0, B), (10.0, A))}
        assert dial_addresses(route(kind), names, 10.0) == (Address(A, 6379),)

    @pytest.mark.parametrize("kind", [Kind.NODE, Kind.STATIC])
    def test_where_a_name_comes_and_goes_the_last_minutes_addresses_follow(self, kind: Kind) -> None:
        names = {"target": observed((0.0, A), (5.0, B), (10.0, A))}
        assert dial_addresses(route(kind), names, 10.0) == (Address(A, 6379), Address(B, 6379))

    def test_what_is_dialled_is_never_told_to_have_left(self) -> None:
        names = {"target": observed((0.0, A), (5.0, B), (10.0, A)), "n1": answered(C)}
        for kind in Kind:
            one = route(kind, fallback=(Endpoint("n1", 6379),))
            assert all(membership(one, names, address, 10.0).is_current for address in dial_addresses(one, names, 10.0))


class TestCertificateNames:
    def test_each_address_must_show_a_certificate_for_the_name_it_was_found_under(self) -> None:
        one = route(Kind.CONFIGURATION, fallback=(Endpoint("n1", 6379), Endpoint("n2", 6380)), node_tls="on")
        names = book(target=[B], n1=[A, B], n2=[B])
        assert dict(zip(dial_addresses(one, names, 0.0), certificate_names(one, names, 0.0), strict=True)) == {
            Address(B, 6379): "target",
            Address(A, 6379): "n1",
            Address(B, 6380): "n2",
        }

    def test_a_server_name_stands_for_all(self) -> None:
        one = route(Kind.CONFIGURATION, fallback=(Endpoint("n1", 6379),), node_tls="on", server_name="cache.example")
        assert certificate_names(one, book(target=[A], n1=[B]), 0.0) == ("cache.example", "cache.example")

    @pytest.mark.parametrize("server_name", [None, "cache.example"])
    def test_nothing_is_asked_for_where_no_tls_is_spoken(self, server_name: str | None) -> None:
        assert certificate_names(route(server_name=server_name), book(target=[A]), 0.0) == ()

    def test_a_name_that_answers_no_more_still_counts_for_its_last_addresses(self) -> None:
        known = observe(observed((0.0, A)), (), 600.0, always_rotates=False)
        assert certificate_names(route(node_tls="on"), {"target": known}, 600.0) == ("target",)

    @pytest.mark.parametrize("kind", list(Kind))
    def test_there_is_one_for_each_address(self, kind: Kind) -> None:
        names = {"target": observed((0.0, A), (5.0, B), (10.0, A)), "n1": answered(C, A)}
        for fallback in ((), (Endpoint("n1", 6379), Endpoint("n1", 6380))):
            one = route(kind, fallback=fallback, node_tls="on")
            assert len(certificate_names(one, names, 10.0)) == len(dial_addresses(one, names, 10.0))
        assert certificate_names(route(kind, node_tls="on"), {}, 10.0) == ()
