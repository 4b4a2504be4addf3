"""natproxy.config.addresses: addresses, networks, hosts and targets."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natproxy.config import addresses
from natproxy.model import Endpoint
from tests.config.samples import refusal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("198.51.100.27", "198.51.100.27/32"),
        ("198.51.100.0/24", "198.51.100.0/24"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0", "::/0"),
        ("2001:db8::1", "2001:db8::1/128"),
        ("2001:DB8:0::/48", "2001:db8::/48"),
        ("::ffff:198.51.100.27", "198.51.100.27/32"),
        ("::ffff:198.51.100.0/120", "198.51.100.0/24"),
        ("::ffff:0.0.0.0/96", "0.0.0.0/0"),
    ],
)
def test_networks(text: str, shown: str) -> None:
    assert str(addresses.network(text)) == shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("::ffff:198.51.100.0/24", "counts as IPv4: write 198.51.100.0 with a prefix of 0 to 32 bits"),
        ("198.51.100.0/33", "has a prefix of 33 bits where an IPv4 address has 32"),
        ("::/129", "has a prefix of 129 bits where an IPv6 address has 128"),
        ("0.0.0.0", "0.0.0.0 alone is no client's address; for everyone write 0.0.0.0/0"),
        ("::", ":: alone is no client's address; for everyone write ::/0"),
        ("fe80::1%eth0", "addresses with a zone (%) are not supported"),
    ],
)
def test_a_wrong_network_is_told_what_was_meant(text: str, words: str) -> None:
    assert refusal(addresses.network, text) == words


def test_a_network_with_host_bits_is_told_both_networks_it_may_mean() -> None:
    assert refusal(addresses.network, "198.51.100.27/24") == (
        "198.51.100.27/24 has bits set beyond its prefix: write 198.51.100.0/24 for the whole network, "
        "or 198.51.100.27/32 for this address alone"
    )
    assert "write 2001:db8::/64 for the whole network" in refusal(addresses.network, "2001:db8::1/64")
    assert "write 198.51.100.0/24 for the whole network" in refusal(addresses.network, "::ffff:198.51.100.27/120")


@pytest.mark.parametrize(
    "text",
    [
        "office",
        "198.51.100",
        "198.51.100.0/",
        "198.51.100.0/255.255.255.0",
        "198.51.100.0/0.0.0.255",
        "1.2.3.4/-1",
        "/24",
        "010.0.0.1",
        True,
        {},
    ],
)
def test_what_is_no_network(text: object) -> None:
    with pytest.raises(ValueError, match="must be an IP address or network such as"):
        addresses.network(text)


@given(st.ip_addresses(), st.integers(0, 128))
def test_a_network_is_read_as_it_is_shown(address: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix: int) -> None:
    network = ipaddress.ip_network(f"{address}/{min(prefix, address.max_prefixlen)}", strict=False)
    if isinstance(network, ipaddress.IPv4Network) or network.network_address.ipv4_mapped is None:
        assert addresses.network(str(network)) == network


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_a_mapped_network_is_the_ipv4_one(address: ipaddress.IPv4Address, prefix: int) -> None:
    network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
    assert addresses.network(f"::ffff:{network.network_address}/{prefix + 96}") == network


def test_addresses_have_one_spelling() -> None:
    assert addresses.ip_address("2001:DB8:0:0::1") == "2001:db8::1"
    assert addresses.ip_address("::ffff:127.0.0.1") == "127.0.0.1"
    with pytest.raises(ValueError, match=r"write 127\.0\.0\.1$"):
        addresses.ip_address("localhost")
    with pytest.raises(ValueError, match="must be an IP address"):
        addresses.ip_address("1.2.3.4/32")


def test_hosts_are_names_or_addresses() -> None:
    assert addresses.host("cache.dev.example.com") == "cache.dev.example.com"
    assert addresses.host("cache.example.com.") == "cache.example.com"
    assert addresses.host("redis_1") == "redis_1"
    assert addresses.host("::FFFF:10.0.0.1") == "10.0.0.1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("256.1.1.1", "an IPv4 address has four numbers from 0 to 255"),
        ("a..b", "must be a DNS name or an IP address"),
        ("-a.example", "must be a DNS name or an IP address"),
        ("a b", "must be a DNS name or an IP address"),
        ("x" * 64, "must be a DNS name or an IP address"),
        (".".join(["abcdefg"] * 40), "must be a DNS name or an IP address"),
        ("host:6379", "must be a DNS name or an IP address"),
        ("https://host", "must be a host alone"),
        ("me@host", "must be a host alone"),
        ("b\u00fccher.example", "write the name in its xn-- form"),
    ],
)
def test_what_is_no_host(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        addresses.host(text)


@given(st.ip_addresses() | st.sampled_from(["a.example", "legacy"]), st.integers(1, 65535))
def test_a_target_is_read_as_it_is_shown(host: object, port: int) -> None:
    if isinstance(host, ipaddress.IPv6Address) and (host.ipv4_mapped is not None or host.scope_id):
        return
    endpoint = Endpoint(str(host), port)
    assert addresses.target(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("legacy.internal", "has no port"),
        ("legacy.internal:", "has no port"),
        ("legacy.internal:0", "must end in a port between 1 and 65535"),
        ("legacy.internal:redis", "must end in a port between 1 and 65535"),
        ("2001:db8::1:6379", "must have an IPv6 address in brackets"),
        ("[2001:db8::1]", "must be host:port"),
        ("[2001:db8::1:6379", "must be host:port"),
        (":6379", "has no value: write a DNS name"),
        ("redis://legacy:6379", "without a scheme, a user or a password"),
        ("me:secret@legacy:6379", "without a scheme, a user or a password"),
        (True, "must be host:port"),
    ],
)
def test_what_is_no_target(text: object, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        addresses.target(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.0.0.2", "10.0.0.2"),
        ("10.0.0.2:5353", "10.0.0.2:5353"),
        ("::1", "::1"),
        ("[::1]:53", "[::1]:53"),
        ("::ffff:10.0.0.2", "10.0.0.2"),
        ("[::ffff:10.0.0.2]:53", "10.0.0.2:53"),
    ],
)
def test_dns_servers(text: str, shown: str) -> None:
    assert addresses.dns_server(text) == shown


@pytest.mark.parametrize(
    "text", ["dns.example", "dns.example:53", "10.0.0.2:", "10.0.0.2:99999", "[::1]", ":53", "udp://10.0.0.2"]
)
def test_what_is_no_dns_server(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|must end in"):
        addresses.dns_server(text)


def test_urls_of_aws() -> None:
    for url in ("https://elasticache.eu-west-1.amazonaws.com", "http://127.0.0.1:4566/x", "http://[::1]:80"):
        assert addresses.endpoint_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h",
        "h:80",
        "//h",
        "http://",
        "http://h:99999",
        "http://h:0",
        "http://[::1",
        "http://u:s3cret@h",
        "http://h?a",
        "http://h#a",
        "http://h /",
        "x",
    ],
)
def test_what_is_no_url_of_aws(url: str) -> None:
    with pytest.raises(ValueError, match="must be a URL") as caught:
        addresses.endpoint_url(url)
    assert "s3cret" not in str(caught.value)


def test_which_address_leaves_no_room_for_which() -> None:
    assert addresses.covers("0.0.0.0", "127.0.0.1")
    assert not addresses.covers("0.0.0.0", "::1")
    assert addresses.covers("::", "::1")
    assert addresses.covers("::", "127.0.0.1")
    assert addresses.covers("::", "0.0.0.0")
    assert addresses.covers("10.0.0.1", "10.0.0.1")
    assert not addresses.covers("10.0.0.1", "0.0.0.0")


def test_what_only_this_host_reaches() -> None:
    assert addresses.is_loopback("127.0.0.2")
    assert addresses.is_loopback("::1")
    assert not addresses.is_loopback("0.0.0.0")
    assert not addresses.is_loopback("::")


@pytest.mark.parametrize("value", ["0.0.0.0", "::", "224.0.0.1", "ff02::1"])
def test_what_no_host_can_have_is_no_public_host(value: str) -> None:
    for parse in (addresses.public_host, addresses.public_ip):
        with pytest.raises(ValueError, match="no host has this address"):
            parse(value)


def test_what_clients_dial_is_a_name_or_an_address() -> None:
    assert addresses.public_host("cache.example.com.") == "cache.example.com"
    assert addresses.public_host("203.0.113.73") == addresses.public_ip("203.0.113.73") == "203.0.113.73"
