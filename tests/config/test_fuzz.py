"""No input makes load_config raise anything but ConfigError, in plain words and in line order."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from natproxy.config import Config
from natproxy.config.model import Written
from natproxy.config.structure import SECTIONS
from natproxy.errors import ConfigError
from tests.config.samples import EXAMPLE, load

TEXT = EXAMPLE.read_text(encoding="utf-8")
LINES = [line for line in TEXT.splitlines() if line.strip() and not line.strip().startswith("#")]
NOT_PLAIN = re.compile(
    r"pydantic|Input should|Value error|validat|https?://(?!elasticache)|Traceback|NoneType|<class|\bstr\b|\bdict\b"
)

_keys = sorted({name for section in SECTIONS.values() for name in section.model_fields})
_scalars = st.sampled_from(
    ["", "null", "true", "off", "0", "1", "6379", "6379-6388", "15s", "0s", "auto", "a", "my-redis", "::1", "0.0.0.0/0",
     "127.0.0.1", "192.0.2.1/24", "legacy:1", "'x'", "[]", "{}", "*a", "&a", "&a x", "!t", "|", ">", "'", '"', "@",
     "terminate", "passthrough", "on", "memcached", "/x.crt", "1.2", "'*.a.b'", "a.b"]
)  # fmt: skip
_trees = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(st.sampled_from(_keys), inner, max_size=4).map(
            lambda items: "{" + ", ".join(f"{key}: {item}" for key, item in items.items()) + "}"
        )
    ),
    max_leaves=12,
)
_files = st.lists(st.tuples(st.sampled_from(sorted(Written.model_fields)), _trees), max_size=6).map(
    lambda items: "\n".join(f"{key}: {tree}" for key, tree in items)
)
_pieces = st.sampled_from(
    ["\t", "\n", "  ", "- ", ": ", "#", "[", "]", "{", "}", "&a ", "*a", "<<: *a",
     "!x ", "'", '"', "|\n", "---\n", "...\n", "%YAML 1.2\n",
     "? ", "\\", "\0", "\x85", "\u2028", "\ufeff", "\U0001f600", "\\ud800", '"\\U99999999"',
     "null", "true", "9" * 30, *LINES]
)  # fmt: skip


def outcome(text: str | bytes) -> Config | ConfigError:
    try:
        return load(text)
    except ConfigError as error:
        return error


def is_safe(config: Config) -> None:
    """See that nobody gets in whom nobody named, and that nobody is named in vain."""
    for entry in (*config.caches, *config.static):
        asked = entry.clients.tls == "terminate" and config.tls is not None and config.tls.client_ca is not None
        assert entry.clients.tls in {"terminate", "off", "passthrough"}
        assert entry.clients.tls != "terminate" or config.tls is not None
        assert entry.clients.certificates is None or asked
        assert entry.clients.allow is not None or asked or config.is_loopback_only
    assert config.tls is None or config.tls.crl is None or config.tls.client_ca is not None
    for cache in config.caches:
        assert cache.rewrite in {"auto", "off", "redis", "memcached"}
        assert cache.probe is None or (cache.probe.password_file is None) != (cache.probe.secret_arn is None)


def look_at(text: str | bytes) -> None:
    found = outcome(text)
    if isinstance(found, Config):
        assert found.pool() is not None
        is_safe(found)
        return
    problems = found.problems
    assert problems
    numbers = [problem.line for problem in problems]
    assert None not in numbers
    assert numbers == sorted(number for number in numbers if number is not None)
    assert len(set(problems)) == len(problems)
    for problem in problems:
        assert problem.message
        assert "\n" not in str(problem)
        assert not NOT_PLAIN.search(problem.message), problem.message
        str(problem).encode()


@given(_files)
@settings(max_examples=300)
def test_files_of_known_keys_and_strange_values(text: str) -> None:
    look_at(text)


def _sometimes(*pairs: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(pairs), unique_by=lambda pair: pair.partition(":")[0]).map(", ".join)


_clients = _sometimes(
    "tls: terminate", "tls: off", "tls: passthrough", "certificates: dev1", "certificates: null", "allow: 192.0.2.1",
    "allow: null", "max_connections: 5",
)  # fmt: skip
_nodes = _sometimes("tls: on", "tls: off", "tls: auto", "ca: /n.crt", "ca: null", "server_name: x", "server_name: null")


@given(
    st.one_of(st.none(), _sometimes("client_ca: /c.crt", "crl: /c.crl", "min_version: 1.3")),
    st.tuples(_clients, _nodes),
    st.lists(st.tuples(_clients, _nodes), max_size=3),
    st.sampled_from(["127.0.0.1", "0.0.0.0"]),
)
@settings(max_examples=300)
def test_every_combination_of_what_is_said_of_tls(
    tls: str | None, common: tuple[str, str], entries: list[tuple[str, str]], address: str
) -> None:
    lines = [f"listen: {{address: {address}}}", f"clients: {{{common[0]}}}", f"nodes: {{{common[1]}}}", "static:"]
    lines += [] if tls is None else [f"tls: {{certificate: /s.crt, key: /s.key, {tls}}}"]
    static = [
        f"- {{name: s{index}, port: {index + 1}, target: 'h:1', clients: {{{clients}}}, nodes: {{{nodes}}}}}"
        for index, (clients, nodes) in enumerate(entries)
    ]
    look_at("\n".join([*lines[:4], *static, *lines[4:]]))


@given(_trees)
def test_anything_as_the_whole_file(text: str) -> None:
    look_at(text)


@given(st.data())
@settings(max_examples=120)
def test_the_example_with_pieces_put_in_and_taken_out(data: st.DataObject) -> None:
    text = "\n".join(LINES)
    for _ in range(data.draw(st.integers(1, 4), label="edits")):
        start = data.draw(st.integers(0, len(text)), label="start")
        length = data.draw(st.sampled_from([0, 0, 1, 2, 8, 40]), label="length")
        text = text[:start] + data.draw(_pieces, label="piece") + text[start + length :]
    look_at(text)


@given(st.data())
@settings(max_examples=80)
def test_the_example_with_its_lines_moved_about(data: st.DataObject) -> None:
    look_at("\n".join(data.draw(st.lists(st.sampled_from(LINES), max_size=40))))


@given(st.text(max_size=60))
@example("\ufeff")
def test_any_text(text: str) -> None:
    look_at(text.encode("utf-8", "surrogatepass"))


@given(st.binary(max_size=40))
def test_any_bytes(content: bytes) -> None:
    look_at(content)
