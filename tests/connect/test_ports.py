from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from natproxy.connect.ports import FIRST, LAST, beyond, local_ports

numbers = st.integers(1, LAST)
some = st.sets(st.one_of(st.integers(6370, 6390), numbers), max_size=12)


def chosen(*ports: int, kept: dict[int, int] | None = None, taken: tuple[int, ...] = (), offset: int = 0) -> list[int]:
    found = local_ports(ports, kept=kept or {}, taken=taken, offset=offset)
    assert list(found) == sorted(ports)
    return [number or 0 for number in found.values()]


def test_the_same_number_where_it_is_free() -> None:
    assert chosen(6379, 11211, 6380) == [6379, 6380, 11211]
    assert chosen(6379, 6380, offset=10_000) == [16379, 16380]
    assert chosen(16379, offset=-10_000) == [6379]


def test_the_next_free_one_where_it_is_taken_and_no_other_route_s_own() -> None:
    assert chosen(6379, 6380, 6381, taken=(6379,)) == [6382, 6380, 6381]
    assert chosen(6379, 6380, taken=(6379, 6381)) == [6382, 6380]
    assert chosen(6379, 6380, taken=(6379, 6380)) == [6381, 6382]
    assert chosen(6379, 6380, taken=(16379,), offset=10_000) == [16381, 16380]


def test_a_choice_is_kept_also_for_what_is_gone_for_now() -> None:
    assert chosen(6379, 6380, kept={6379: 6390}) == [6390, 6380]
    assert chosen(6380, kept={6379: 6380}) == [6381]  # 6379 may come back


def test_a_port_that_ordinary_users_may_not_have_is_found_above() -> None:
    assert chosen(443) == [10_443]
    assert chosen(443, taken=(10_443,)) == [10_444]
    assert chosen(443, 10_443) == [10_444, 10_443]
    assert chosen(16379, offset=-16_000) == [10_379]


def test_beyond_the_last_port_it_begins_again_at_the_first() -> None:
    assert chosen(65535, taken=(65535,)) == [1024]


def test_an_offset_that_leads_to_no_port_gives_none() -> None:
    assert local_ports([6379, 443], kept={}, taken=(), offset=-1000) == {443: None, 6379: 5379}
    assert beyond([6379, 443], -1000) == 443
    assert beyond([6379], LAST - 6379) is None
    assert beyond([6379], LAST - 6378) == 6379
    assert beyond([6379], -6379) == 6379


def test_none_is_left() -> None:
    assert local_ports([6379], kept={}, taken=range(1, LAST + 1)) == {6379: None}


@given(some, some, st.integers(-100, 100), st.data())
def test_no_two_routes_share_a_port_and_nothing_is_taken_twice(
    ports: set[int], taken: set[int], offset: int, data: st.DataObject
) -> None:
    keepers = data.draw(st.sets(st.sampled_from(sorted(ports)), max_size=3)) if ports else set()
    free = sorted(set(range(20_000, 20_100)) - taken)
    kept = dict(zip(sorted(keepers), free, strict=False))
    found = local_ports(ports, kept=kept, taken=taken, offset=offset)
    assert found == local_ports(
        sorted(ports, reverse=True), kept=dict(reversed(kept.items())), taken=taken, offset=offset
    )
    given_out = [number for number in found.values() if number is not None]
    assert len(set(given_out)) == len(given_out)
    assert not taken & set(given_out)
    assert all(number >= FIRST for number in given_out)
    assert all(found[port] == number for port, number in kept.items())
    own = {port + offset for port in ports - kept.keys() if FIRST <= port + offset <= LAST}
    for port, number in found.items():
        is_free = port + offset in own and port + offset not in taken and port + offset not in kept.values()
        if port not in kept and is_free:
            assert number == port + offset
