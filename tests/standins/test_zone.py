from __future__ import annotations

from tests.standins.zone import Record, Zone


def values(zone: Zone, name: str, kind: str = "A") -> list[str] | None:
    answer = zone.answer(name, kind)
    return None if answer is None else [record.value for record in answer]


def test_a_name_answers_the_addresses_of_the_kind_asked_for() -> None:
    zone = Zone()
    zone.publish({"n.example": Record(("10.0.1.230", "2001:db8::1"))})
    assert values(zone, "n.example") == ["10.0.1.230"]
    assert values(zone, "N.Example.", "AAAA") == ["2001:db8::1"]
    assert values(zone, "n.example", "TXT") == []
    assert values(zone, "other.example") is None


def test_an_alias_is_answered_with_what_it_leads_to() -> None:
    zone = Zone()
    zone.publish({"p.example": Record(aliases=("n.example",)), "n.example": Record(("10.0.1.230",))})
    assert zone.answer("p.example", "A") == (
        ("p.example", "CNAME", "n.example"),
        ("n.example", "A", "10.0.1.230"),
    )
    assert zone.answer("p.example", "AAAA") == (("p.example", "CNAME", "n.example"),)


def test_aliases_take_turns_for_each_kind_of_query_by_itself() -> None:
    zone = Zone()
    nodes = {"a.example": Record(("10.0.1.1",)), "b.example": Record(("10.0.1.2",))}
    zone.publish({"r.example": Record(aliases=("a.example", "b.example")), **nodes})
    seen = []
    for _ in range(4):
        seen.append((values(zone, "r.example") or [])[-1])
        zone.answer("r.example", "AAAA")
    assert seen == ["10.0.1.1", "10.0.1.2", "10.0.1.1", "10.0.1.2"]
    assert zone.addresses("r.example") == ("10.0.1.1", "10.0.1.2")


def test_a_window_moves_over_the_addresses() -> None:
    zone = Zone()
    zone.put("c.example", "10.0.1.1", "10.0.1.2", "10.0.1.3", window=2)
    assert [values(zone, "c.example") for _ in range(3)] == [
        ["10.0.1.1", "10.0.1.2"],
        ["10.0.1.2", "10.0.1.3"],
        ["10.0.1.3", "10.0.1.1"],
    ]


def test_what_is_set_by_hand_wins_until_it_is_dropped() -> None:
    zone = Zone()
    zone.publish({"n.example": Record(("10.0.1.1",))})
    zone.put("n.example", "10.0.1.9")
    zone.alias("m.example", "n.example")
    zone.publish({"n.example": Record(("10.0.1.2",))})
    assert values(zone, "m.example") == ["n.example", "10.0.1.9"]
    zone.drop("n.example")
    assert values(zone, "n.example") == ["10.0.1.2"]
    assert zone.names() == ("m.example", "n.example")


def test_aliases_in_a_circle_end() -> None:
    zone = Zone()
    zone.alias("a.example", "b.example")
    zone.alias("b.example", "a.example")
    assert len(zone.answer("a.example", "A") or ()) < 20
    assert zone.addresses("a.example") == ()
