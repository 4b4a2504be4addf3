"""natproxy.config.values: durations, numbers, ranges and names."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.config import values
from natproxy.config.values import PortRange
from tests.config.samples import refusal

SECONDS = {"us": "0.000001", "ms": "0.001", "s": "1", "m": "60", "h": "3600", "d": "86400"}

anything = values.duration()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30us", 0.00003),
        ("500ms", 0.5),
        ("15s", 15.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("90d", 7776000.0),
        ("1.5s", 1.5),
        ("0s", 0.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert anything(text) == seconds


@given(st.integers(0, 10**6), st.sampled_from(sorted(SECONDS)))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    exact = Decimal(number) * Decimal(SECONDS[unit])
    if exact <= 3650 * 86400:
        assert anything(f"{number}{unit}") == float(exact)
    else:
        with pytest.raises(ValueError, match="must not be longer than 3650d"):
            anything(f"{number}{unit}")


@pytest.mark.parametrize("text", ["", None])
def test_an_empty_value_is_told_what_it_could_be(text: str | None) -> None:
    with pytest.raises(ValueError, match="has no value: write a duration such as 500ms"):
        anything(text)


@pytest.mark.parametrize(
    "text", ["s", "15 s", "15S", "-1s", "1h30m", "1e3s", "15sec", "\u0663s", "15s\n", ".5s", True, [], {}]
)
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="must be a duration such as 500ms, 15s, 2m, 1h or 90d"):
        anything(text)


def test_a_duration_needs_a_unit() -> None:
    with pytest.raises(ValueError, match="has no unit: write 15s for seconds"):
        anything("15")


def test_a_duration_has_its_bounds() -> None:
    assert values.duration(least="1s", most="9h")("9h") == 32400
    with pytest.raises(ValueError, match="must be between 1s and 9h"):
        values.duration(least="1s", most="9h")("500ms")
    with pytest.raises(ValueError, match="must be more than zero"):
        values.duration(least="1us")("0s")


@given(st.integers(1, 65535), st.integers(1, 65535))
def test_a_range_of_ports_is_read_as_it_is_shown(one: int, other: int) -> None:
    ports = PortRange(min(one, other), max(one, other))
    assert values.port_range(str(ports)) == ports
    assert values.port_range(f"{ports.first} - {ports.last}") == ports
    assert len(list(ports)) == len(ports) == abs(one - other) + 1
    assert one in ports
    assert other in ports
    assert ports.first - 1 not in ports
    assert ports.last + 1 not in ports


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("6388-6379", "runs backwards: write 6379-6388"),
        ("0-10", "ports lie between 1 and 65535"),
        ("65530-65536", "ports lie between 1 and 65535"),
        ("6379-", "must be a range of ports such as 6379-6388"),
        ("6379..6388", "must be a range of ports such as 6379-6388"),
        ("-5", "must be a range of ports such as 6379-6388"),
        (["6379"], "must be a range of ports such as 6379-6388"),
        ("", "has no value: write a range of ports such as 6379-6388, or leave the key out"),
    ],
)
def test_what_is_no_range_of_ports(text: object, words: str) -> None:
    assert refusal(values.port_range, text) == words


def test_a_range_holds_no_other_things() -> None:
    assert "6379" not in PortRange(6379, 6388)
    assert str(PortRange(6379, 6379)) == "6379"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0", "must be between 1 and 65535"),
        ("65536", "must be between 1 and 65535"),
        ("http", "must be a whole number"),
        ("1.5", "must be a whole number"),
        ("1_000", "must be a whole number"),
        ("9" * 5000, "must be a whole number"),
        (True, "must be a whole number"),
        (None, "has no value: write a whole number, or leave the key out"),
    ],
)
def test_what_is_no_port(text: object, words: str) -> None:
    assert refusal(values.port, text) == words


def test_workers_are_a_number_or_auto() -> None:
    assert values.workers("4") == 4
    assert values.workers(4) == 4
    assert values.workers("auto") == "auto"
    with pytest.raises(ValueError, match=r"must be a whole number \(or auto: one for each processor\)"):
        values.workers("all")


def test_a_choice_names_what_can_be_chosen() -> None:
    tls = values.choice("off", "passthrough")
    assert tls("off") == "off"
    assert refusal(tls, "on") == "must be off or passthrough"
    assert refusal(tls, False) == "must be off or passthrough"
    assert refusal(values.choice("a", "b", "c"), "d") == "must be a, b or c"


@pytest.mark.parametrize("text", ["my-redis", "a", "a1-2-b", "x" * 50])
def test_ids_of_caches(text: str) -> None:
    assert values.cache_id(text) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("My-Redis", "AWS keeps ids in lower case: write my-redis"),
        ("1redis", "is no id of a cache"),
        ("my--redis", "is no id of a cache"),
        ("my-redis-", "is no id of a cache"),
        ("x" * 51, "is no id of a cache"),
        ("my_redis", "is no id of a cache"),
        ("arn:aws:elasticache:x", "is no id of a cache"),
        (True, "must be text: put it in quotes"),
        ("", "has no value"),
        (["a"], "must be the id of a cache"),
    ],
)
def test_what_is_no_id_of_a_cache(text: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        values.cache_id(text)


def test_names_of_static_routes() -> None:
    assert values.static_name("Legacy_1.old-one") == "Legacy_1.old-one"
    for wrong in ("-a", "a/b", "a b", "x" * 64, "\u00e4"):
        with pytest.raises(ValueError, match="must be a name of at most 63 letters"):
            values.static_name(wrong)


def test_tag_values_are_text_even_an_empty_one() -> None:
    assert values.tag_value("") == ""
    assert values.tag_value("007") == "007"
    with pytest.raises(ValueError, match="put it in quotes"):
        values.tag_value(True)
    with pytest.raises(ValueError, match="has no value"):
        values.tag_value(None)
    with pytest.raises(ValueError, match="must be text"):
        values.tag_value(["dev"])


def test_paths_are_absolute() -> None:
    assert values.absolute_path("/var/lib/natproxy") == Path("/var/lib/natproxy")
    for wrong in ("var/lib", "./x", "~/x", True):
        with pytest.raises(ValueError, match="must be an absolute path"):
            values.absolute_path(wrong)


def test_files_are_named_by_their_paths_and_not_looked_for() -> None:
    assert values.file_path("/nowhere/server.crt") == Path("/nowhere/server.crt")
    assert values.file_path(Path("/a")) == Path("/a")
    for wrong in ("server.crt", "~/server.crt", True, ["/a"]):
        assert refusal(values.file_path, wrong) == (
            "must be the absolute path of a file, such as /etc/natproxy/tls/server.crt"
        )
    assert refusal(values.file_path, None).startswith("has no value: write the absolute path of a file")


def test_a_key_in_the_place_of_its_path_is_not_repeated() -> None:
    said = refusal(values.file_path, "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n")
    assert said.endswith("such as /etc/natproxy/tls/server.crt: what is in the file does not belong here")
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "name",
    [
        "dev1",
        "007",
        "J\u00fcrgen M\u00fcller (web)",
        "ci.example.com",
        "*.ci.example.com",
        "*.internal",
        "spiffe://example.com/ns/dev/sa/web",
        "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "x" * 2048,
    ],
)
def test_names_in_certificates(name: str) -> None:
    assert values.certificate_name(name) == name
    assert values.certificate_name("*.ci.example.com.") == "*.ci.example.com"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("*", "is every name: leave the key out for every certificate that tls.client_ca vouches for"),
        ("*.", "must have its asterisk for the first label"),
        ("*ci.example.com", "must have its asterisk for the first label"),
        ("dev*", "must have its asterisk for the first label"),
        ("dev.*.example.com", "must have its asterisk for the first label"),
        ("*.*.example.com", "must have its asterisk for the first label"),
        ("*..example.com", "must have its asterisk for the first label"),
        ("*.-x.example.com", "must have its asterisk for the first label"),
        ("spiffe://example.com/*", "must have its asterisk for the first label"),
        (" dev1", "must be a name without a space before or after it"),
        ("dev1\u00a0", "must be a name without a space before or after it"),
        ("x" * 2049, "must be a name of at most 2048 characters"),
        ("", "has no value: write a name in a certificate"),
        (None, "has no value: write a name in a certificate"),
        (True, "must be text: put it in quotes"),
        (["dev1"], "must be a name in a certificate, such as dev1"),
        ({"CN": "dev1"}, "must be a name in a certificate, such as dev1"),
    ],
)
def test_what_is_no_name_in_a_certificate(name: object, words: str) -> None:
    assert refusal(values.certificate_name, name).startswith(words)


def test_regions_and_roles() -> None:
    for region in ("eu-west-1", "us-gov-west-1", "ap-southeast-4", "us-isob-east-1"):
        assert values.region(region) == region
    for wrong in ("eu-west-1a", "EU-WEST-1", "ireland", "eu_west_1"):
        with pytest.raises(ValueError, match="must be an AWS region, such as eu-west-1"):
            values.region(wrong)
    role = "arn:aws-cn:iam::123456789012:role/path/natproxy"
    assert values.role_arn(role) == role
    with pytest.raises(ValueError, match="must be the ARN of an IAM role"):
        values.role_arn("arn:aws:iam::123456789012:user/me")


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:natproxy/probe-AbCdEf",
        "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:probe",
        "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:a/b_c+d=e.f@g!h-AbCdEf",
    ],
)
def test_a_secret_is_named_by_its_arn(arn: str) -> None:
    assert values.secret_arn(arn) == arn


@pytest.mark.parametrize(
    "wrong",
    [
        "natproxy/probe",
        "arn:aws:iam::123456789012:role/natproxy",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:",
        "arn:aws:secretsmanager:eu-west-1:12345:secret:probe",
        "arn:aws:secretsmanager::123456789012:secret:probe",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a b",
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a\n",
        True,
        ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:probe"],
    ],
)
def test_what_is_no_secret_s_arn(wrong: object) -> None:
    assert refusal(values.secret_arn, wrong).startswith("must be the ARN of a secret, such as arn:aws:secretsmanager:")


def test_a_secret_s_arn_that_says_nothing() -> None:
    assert refusal(values.secret_arn, None).startswith("has no value: write the ARN of a secret")


def test_users_of_a_cache() -> None:
    for name in ("default", "natproxy", "iam-user-01", "a", "x" * 120, "a.b@c:d"):
        assert values.username(name) == name
    for wrong in ("a b", " a", "a\n", "\x7f", "\u00e9", "x" * 121, ["a"]):
        assert refusal(values.username, wrong).startswith("must be ")
    assert refusal(values.username, True) == "must be text: put it in quotes"
    assert refusal(values.username, "").startswith("has no value: write the name of a user")
