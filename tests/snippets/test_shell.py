from __future__ import annotations

import shlex

import pytest

from natproxy.documents import CacheView
from natproxy.snippets.shell import bundle_of, natproxy_connect, openssl, redis_cli, telnet
from tests.snippets.samples import CLEAR, HOST, HOSTILE, MUTUAL, PASSTHROUGH, TLS, alone, cluster, group, scene

FILES = "-CAfile ca.crt -cert client.crt -key client.key"


def words(text: str) -> str:
    """Return a line's words."""
    assert text.endswith("\n")
    return " ".join(split(text))


def split(text: str) -> list[str]:
    """Return what the shell makes of lines that belong together."""
    return shlex.split(text.replace(" \\\n  ", " "))


@pytest.mark.parametrize(
    ("cache", "line"),
    [
        (cluster(**CLEAR), f"redis-cli -c -h {HOST} -p 6385"),
        (
            cluster(**MUTUAL),
            f"redis-cli -c --tls --cacert ca.crt --cert client.crt --key client.key -h {HOST} -p 6385",
        ),
        (group(**TLS), f"redis-cli --tls --cacert ca.crt -h {HOST} -p 6391"),
        (alone(**PASSTHROUGH), f"redis-cli --tls --sni node1.example.com -h {HOST} -p 6400"),
    ],
)
def test_redis_cli(cache: CacheView, line: str) -> None:
    assert words(redis_cli(scene(cache))) == line


@pytest.mark.parametrize(
    ("cache", "host", "line"),
    [
        (
            alone(**TLS),
            "a.b",
            "-connect a.b:6400 -servername a.b -verify_hostname a.b -verify_return_error -CAfile ca.crt",
        ),
        (
            alone(**MUTUAL),
            "203.0.113.73",
            f"-connect 203.0.113.73:6400 -verify_ip 203.0.113.73 -verify_return_error {FILES}",
        ),
        (alone(**TLS), "fd00::1", "-connect [fd00::1]:6400 -verify_ip fd00::1 -verify_return_error -CAfile ca.crt"),
        (
            alone(**PASSTHROUGH),
            "a.b",
            "-connect a.b:6400 -servername node1.example.com -verify_hostname node1.example.com -verify_return_error",
        ),
    ],
)
def test_openssl(cache: CacheView, host: str, line: str) -> None:
    assert words(openssl(scene(cache, host))) == f"openssl s_client -quiet {line}"


def test_telnet() -> None:
    assert telnet(scene(alone())) == f"telnet {HOST} 6400\n"


def test_natproxy_connect() -> None:
    assert natproxy_connect(HOST, 6378, "dev1.zip", "my-redis") == (
        f"natproxy connect {HOST} --bundle dev1.zip --cache my-redis\n"
    )
    assert natproxy_connect("::1", 7000, "dev1.zip") == "natproxy connect '[::1]:7000' --bundle dev1.zip\n"


@pytest.mark.parametrize("name", ["dev1", "jane.doe@example.com", "a_b+c"])
def test_a_bundle_is_called_after_its_certificate_where_that_is_safe(name: str) -> None:
    assert bundle_of(name) == f"{name}.zip"
    assert bundle_of(f"/{name}") == bundle_of(f"-{name}") == bundle_of(f"{name};x") == "bundle.zip"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_strange_name_stays_one_word(text: str) -> None:
    assert shlex.split(natproxy_connect(text, 6378, text, text)) == [
        *("natproxy", "connect", text, "--bundle", text, "--cache", text),
    ]
    assert text in shlex.split(telnet(scene(alone(), text)))
    strange = scene(alone(**PASSTHROUGH, target=f"{text}:1"), text)
    name = text.strip("[]")
    if name:
        assert split(redis_cli(strange))[:4] == ["redis-cli", "--tls", "--sni", name]
        assert name in split(openssl(strange))
