from __future__ import annotations

from collections.abc import Callable

import pytest

from natproxy.discover.fields import Fields, Raw
from natproxy.model import Endpoint

WRONG = [17, 1.5, True, "text", b"bytes", ["item"], {"key": "value"}, object()]


def test_good_fields_are_read_and_nothing_is_in_doubt() -> None:
    doubts: set[str] = set()
    fields = Fields(
        {
            "Name": "my-redis",
            "Status": "AVAILABLE",
            "Enabled": False,
            "Count": 0,
            "Endpoint": {"Address": "host", "Port": 6379},
            "Names": ["a", "b"],
            "Parts": [{"Name": "inner"}],
        },
        doubts,
    )
    assert fields.text("Name") == "my-redis"
    assert fields.word("Status") == "available"
    assert fields.flag("Enabled") is False
    assert fields.number("Count") == 0
    assert fields.endpoint("Endpoint") == Endpoint("host", 6379)
    assert fields.identifiers("Names") == ["a", "b"]
    assert [part.text("Name") for part in fields.structures("Parts")] == ["inner"]
    assert not doubts


def test_absent_fields_are_not_in_doubt() -> None:
    doubts: set[str] = set()
    names = ("Text", "Flag", "Number", "Endpoint", "Texts", "Structures")
    raws: tuple[Raw, ...] = ({}, dict.fromkeys(names))
    for raw in raws:
        fields = Fields(raw, doubts)
        assert fields.text("Text") is None
        assert fields.word("Text") == ""
        assert fields.flag("Flag") is None
        assert fields.number("Number") is None
        assert fields.endpoint("Endpoint") is None
        assert fields.identifiers("Texts") == []
        assert fields.structures("Structures") == []
        assert not fields.has("Text")
    assert not doubts


@pytest.mark.parametrize(
    ("read", "right"),
    [
        (lambda fields: fields.text("X") is None, (str,)),
        (lambda fields: fields.flag("X") is None, (bool,)),
        (lambda fields: fields.number("X") is None, (int,)),
        (lambda fields: fields.endpoint("X") is None, ()),
        (lambda fields: fields.structures("X") == [], ()),
    ],
    ids=["text", "flag", "number", "endpoint", "structures"],
)
def test_fields_of_a_wrong_type_read_as_absent_and_are_in_doubt(
    read: Callable[[Fields], bool], right: tuple[type, ...]
) -> None:
    for value in WRONG:
        if type(value) in right:
            continue
        doubts: set[str] = set()
        assert read(Fields({"X": value}, doubts)), value
        assert doubts == {"X"}, value


@pytest.mark.parametrize(
    "value",
    [
        {"Address": "host"},
        {"Port": 6379},
        {"Address": "", "Port": 6379},
        {"Address": "host", "Port": 0},
        {"Address": "host", "Port": 65536},
        {"Address": "host", "Port": "6379"},
        {"Address": "host", "Port": True},
        {"Address": ["host"], "Port": 6379},
        {"Address": "ho st", "Port": 6379},
        {"Address": "host\n", "Port": 6379},
        {"Address": "http://host/", "Port": 6379},
        {"Address": "-host", "Port": 6379},
        {"Address": "fe80::1%eth0", "Port": 6379},
        {"Address": "h" * 254, "Port": 6379},
        {},
    ],
)
def test_half_an_endpoint_is_none_and_in_doubt(value: object) -> None:
    doubts: set[str] = set()
    assert Fields({"Endpoint": value}, doubts).endpoint("Endpoint") is None
    assert doubts == {"Endpoint"}


def test_wrong_items_of_a_list_are_left_out_and_the_good_ones_kept() -> None:
    doubts: set[str] = set()
    fields = Fields({"Names": ["a", 1, "", "b"], "Parts": [{"Name": "good"}, "bad", None]}, doubts)
    assert fields.identifiers("Names") == ["a", "b"]
    assert [part.text("Name") for part in fields.structures("Parts")] == ["good"]
    assert doubts == {"Names", "Parts"}


@pytest.mark.parametrize("host", ["my-redis-001.x7f3k.0001.use1.cache.amazonaws.com", "10.0.1.230", "2001:db8::1"])
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert Fields({"X": {"Address": host, "Port": 1}}, set()).endpoint("X") == Endpoint(host, 1)


@pytest.mark.parametrize("value", ["a\nb", "\x1b[2J", "a\x9b31m", "\u202egnp", "\ud800", "x" * 1025])
def test_text_that_steers_a_terminal_or_fills_a_log_is_in_doubt(value: str) -> None:
    doubts: set[str] = set()
    assert Fields({"X": value}, doubts).text("X") is None
    assert Fields({"Y": value}, doubts).identifier("Y") is None
    assert Fields({"Z": [value]}, doubts).identifiers("Z") == []
    assert doubts == {"X", "Y", "Z"}


@pytest.mark.parametrize("value", ["a/b", "a b", "-a", "a:6379", "é", "x" * 256])
def test_an_id_has_nothing_that_could_part_names(value: str) -> None:
    doubts: set[str] = set()
    assert Fields({"X": value}, doubts).identifier("X") is None
    assert doubts == {"X"}
    assert Fields({"X": "my-redis-001"}, set()).identifier("X") == "my-redis-001"


def test_what_is_inside_shares_the_doubts() -> None:
    doubts: set[str] = set()
    Fields({"Parts": [{"Name": 1}]}, doubts).structures("Parts")[0].text("Name")
    assert doubts == {"Name"}
