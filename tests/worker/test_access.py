"""Who may connect, and how many at once."""

from __future__ import annotations

import ipaddress
import os
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.model import Outcome
from natproxy.worker import access
from natproxy.worker.access import AllowList, Census, client_of, plain_ip
from natproxy.worker.shared import SharedCounts, create_shared_counts


@pytest.mark.parametrize(
    ("ip", "plain"),
    [
        ("198.51.100.27", "198.51.100.27"),
        ("::ffff:198.51.100.27", "198.51.100.27"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::1.2.3.4", "::1.2.3.4"),
        ("::1", "::1"),
    ],
)
def test_an_address_counts_as_what_it_is(ip: str, plain: str) -> None:
    assert plain_ip(ip) == plain
    ipaddress.ip_address(plain)


@pytest.mark.parametrize(
    ("networks", "ip", "is_allowed"),
    [
        (None, "203.0.113.9", True),
        ((), "203.0.113.9", False),
        (("198.51.100.27/32",), "198.51.100.27", True),
        (("198.51.100.27/32",), "198.51.100.28", False),
        (("10.0.0.0/8", "198.51.100.0/24"), "198.51.100.28", True),
        (("0.0.0.0/0",), "198.51.100.28", True),
        (("0.0.0.0/0",), "2001:db8::1", False),
        (("::/0",), "2001:db8::1", True),
        (("::/0",), "198.51.100.28", False),
        (("fe80::/10",), "fe80::1", True),
    ],
)
def test_a_network_allows_its_addresses(networks: tuple[str, ...] | None, ip: str, is_allowed: bool) -> None:
    allow = AllowList(networks)
    assert allow.allows(ip) is is_allowed
    assert allow.allows(ip) is is_allowed


def test_what_is_remembered_of_addresses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "_MEMO_MAX", 10)
    allow = AllowList(["10.0.0.0/24"])
    for number in range(1000):
        assert allow.allows(f"10.0.{number // 250}.{number % 250}") is (number < 250)
        assert len(allow._memo) <= 10


def test_limits_count_by_group_and_by_client() -> None:
    census = Census()
    assert [census.admit("", "a", 3, 2) for _ in range(3)] == [None, None, Outcome.CLIENT_LIMIT]
    assert [census.admit("", "b", 3, 2) for _ in range(2)] == [None, Outcome.LIMIT]
    assert census.admit("shop", "a", 3, 2) is None
    assert census.open == 4
    census.leave("", "a")
    assert census.admit("", "b", 3, 2) is None
    assert census.admit("", "b", 3, 2) is Outcome.LIMIT


def test_a_limit_of_none_at_all_lets_nobody_in() -> None:
    census = Census()
    assert census.admit("", "a", 0, 5) is Outcome.LIMIT
    assert census.admit("", "a", 5, 0) is Outcome.CLIENT_LIMIT
    assert census.open == 0


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["", "shop"]), st.sampled_from("abc"), st.integers(0, 4)), max_size=60
    )
)
def test_what_leaves_is_forgotten_wholly(steps: list[tuple[bool, str, str, int]]) -> None:
    census = Census()
    inside: list[tuple[str, str]] = []
    for is_coming, group, ip, maximum in steps:
        if is_coming:
            in_group = sum(1 for other, _ in inside if other == group)
            outcome = census.admit(group, ip, maximum, 2)
            if in_group >= maximum:
                assert outcome is Outcome.LIMIT
            elif inside.count((group, ip)) >= 2:
                assert outcome is Outcome.CLIENT_LIMIT
            else:
                assert outcome is None
                inside.append((group, ip))
        elif inside:
            census.leave(*inside.pop(0))
        assert census.open == len(inside)
    for group, ip in inside:
        census.leave(group, ip)
    assert census.open == 0
    assert not census._counts


@pytest.fixture
def memory() -> Iterator[int]:
    fd = create_shared_counts(2)
    yield fd
    os.close(fd)


def test_limits_hold_for_all_workers_together(memory: int) -> None:
    shared = [SharedCounts(memory, row) for row in range(2)]
    one, other = (Census(counts) for counts in shared)
    outcomes = Counter(census.admit("", "a", 10, 4) for census in (one, other) * 4)
    assert outcomes == {None: 4, Outcome.CLIENT_LIMIT: 4}
    other.leave("", "a")
    assert one.admit("", "a", 10, 4) is None
    assert other.admit("", "b", 4, 4) is Outcome.LIMIT
    for counts in shared:
        counts.close()


def test_a_look_for_room_counts_nobody(memory: int) -> None:
    shared = [SharedCounts(memory, row) for row in range(2)]
    one, other = (Census(counts) for counts in shared)
    assert one.admit("", "a", 3, 2) is None
    assert [other.has_room("", "a", 3, 2) for _ in range(3)] == [True] * 3
    assert other.admit("", "a", 3, 2) is None
    assert (one.has_room("", "a", 3, 2), one.has_room("", "b", 3, 2)) == (False, True)
    assert one.admit("", "b", 3, 2) is None
    assert (one.has_room("", "c", 3, 2), other.has_room("", "c", 3, 2)) == (False, False)
    assert other.has_room("shop", "c", 3, 2)
    for counts in shared:
        counts.close()


def test_the_addresses_of_one_ipv6_network_are_one_client() -> None:
    census = Census()
    assert census.admit("", "2001:db8::1", 10, 2) is None
    assert census.admit("", "2001:db8::2", 10, 2) is None
    assert census.admit("", "2001:db8:0:0:ffff::3", 10, 2) is Outcome.CLIENT_LIMIT
    assert census.admit("", "2001:db8:0:1::1", 10, 2) is None
    census.leave("", "2001:db8::1")
    assert census.admit("", "2001:db8::3", 10, 2) is None
    assert [client_of(ip) for ip in ("198.51.100.27", "2001:db8::1", "::1")] == [
        "198.51.100.27",
        "2001:db8::/64",
        "::/64",
    ]
