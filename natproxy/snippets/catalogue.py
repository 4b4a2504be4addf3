"""Which clients a cache is for, and what each is told. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from natproxy.documents import CacheView, Snippet, SnippetsDocument
from natproxy.printable import escaped
from natproxy.snippets import golang, java, javascript, python, shell
from natproxy.snippets.remarks import NO_PORTAL, no_port, remarks_on
from natproxy.snippets.scene import BUNDLE, NO_HOST, Files, Layout, Scene, scene_of

_FENCES = {"shell": "sh"}


@dataclass(frozen=True, slots=True)
class _Client:
    """One client, and how it is told."""

    name: str
    language: str
    write: Callable[[Scene], str]
    is_for: Callable[[Scene], bool]
    note: str = ""
    tls_note: str = ""
    """What is to be said besides where clients speak TLS."""
    login: str = ""
    """Where a user and a password go."""
    title: str = ""
    """Empty: its name."""
    is_tested: bool = True
    """Whether our tests run its lines."""


def _redis(scene: Scene) -> bool:
    return scene.layout is not Layout.MEMCACHED


def _memcached(scene: Scene) -> bool:
    return scene.layout in (Layout.MEMCACHED, Layout.UNKNOWN)


def _discovering(scene: Scene) -> bool:
    return scene.discovery is not None


def _in_clear(scene: Scene) -> bool:
    return scene.tls is None


_CLIENTS = (
    _Client(
        "redis-cli",
        "shell",
        shell.redis_cli,
        _redis,
        tls_note="It checks who has signed the certificate, but not the name in it.",
        login="--user USER, and the password in the environment variable REDISCLI_AUTH",
    ),
    _Client(
        "redis-py",
        "python",
        python.redis_py,
        _redis,
        note="valkey-py takes the same, imported from valkey: Valkey and ValkeyCluster.",
        login="username and password beside decode_responses",
    ),
    _Client(
        "ioredis",
        "javascript",
        javascript.ioredis,
        _redis,
        note="Goes into a file that ends in .mjs. iovalkey takes the same, imported from iovalkey.",
        login="username and password beside host; for a cluster in redisOptions",
    ),
    _Client(
        "node-redis",
        "javascript",
        javascript.node_redis,
        _redis,
        note="Goes into a file that ends in .mjs.",
        login="username and password beside socket; for a cluster in defaults",
    ),
    _Client(
        "lettuce",
        "java",
        java.lettuce,
        _redis,
        note="For Lettuce 6; goes into Ping.java.",
        login="withAuthentication(USER, PASSWORD) before build() of the address",
        title="Lettuce",
        is_tested=False,
    ),
    _Client(
        "go-redis",
        "go",
        golang.go_redis,
        _redis,
        note="For go-redis 9.",
        login="Username and Password in the options",
        is_tested=False,
    ),
    _Client(
        "valkey-glide",
        "python",
        python.valkey_glide,
        _redis,
        note="Both timeouts are in milliseconds.",
        login="credentials=glide.ServerCredentials(PASSWORD, USER) beside request_timeout",
    ),
    _Client(
        "pymemcache",
        "python",
        python.pymemcache,
        _memcached,
        note="It has no auto discovery: it is told all nodes.",
    ),
    _Client(
        "django-elastipymemcache",
        "python",
        python.django_elastipymemcache,
        _discovering,
        note="Django with pymemcache and auto discovery: CACHES is what your settings need.",
    ),
    _Client(
        "emcache",
        "python",
        python.emcache,
        lambda scene: _discovering(scene) and _in_clear(scene),
        note="It has auto discovery.",
    ),
    _Client(
        "memcached-elasticache",
        "javascript",
        javascript.memcached_elasticache,
        lambda scene: _discovering(scene) and _in_clear(scene),
        note="Node.js' memcached with auto discovery; goes into a file that ends in .mjs.",
    ),
    _Client(
        "openssl",
        "shell",
        shell.openssl,
        lambda scene: not _in_clear(scene),
        note='Shows what is wrong with TLS, if anything. Then type PING, or "version" for memcached; Ctrl-C ends it.',
    ),
    _Client(
        "telnet",
        "shell",
        shell.telnet,
        _in_clear,
        note='Shows whether you get through. Then type PING, or "version" for memcached; Ctrl-] and "quit" end it.',
    ),
)
CONNECT = "natproxy-connect"
CLIENTS = (CONNECT, *(client.name for client in _CLIENTS))
"""The names of all clients."""


def snippets(
    cache: CacheView, *, public_host: str | None, public_ip: str | None = None, files: Files = BUNDLE
) -> SnippetsDocument:
    """Return the lines that lead straight to natproxy; none where the cache has no port yet."""
    host = public_host or public_ip or NO_HOST
    scene = scene_of(cache, host, files)
    if scene is None:
        return SnippetsDocument(cache=cache.id, remarks=(no_port(cache),))
    remarks = remarks_on(cache, scene, public_host=public_host, address=public_ip or host, is_local=False)
    return SnippetsDocument(cache=cache.id, remarks=tuple(remarks), snippets=tuple(_written(scene)))


def connect_snippets(
    cache: CacheView,
    *,
    public_host: str | None,
    portal_port: int | None,
    public_ip: str | None = None,
    bundle: str = "dev1.zip",
) -> SnippetsDocument:
    """Return the line for ``natproxy connect``, and those that work on 127.0.0.1 while it runs.

    ``portal_port`` is where natproxy's portal is; where there is none (None) there are no lines, but a remark.
    """
    if portal_port is None:
        return SnippetsDocument(cache=cache.id, remarks=(NO_PORTAL,))
    host = public_host or public_ip or NO_HOST
    scene = scene_of(cache, host, is_local=True)
    if scene is None:
        return SnippetsDocument(cache=cache.id, remarks=(no_port(cache),))
    first = Snippet(
        client=CONNECT,
        title="natproxy connect",
        language="shell",
        text=shell.natproxy_connect(host, portal_port, bundle, cache.id),
        note=f"{escaped(bundle)} is your bundle. It runs until Ctrl-C.",
    )
    remarks = remarks_on(cache, scene, public_host=public_host, address=host, is_local=True)
    return SnippetsDocument(cache=cache.id, remarks=tuple(remarks), snippets=(first, *_written(scene)))


def as_text(document: SnippetsDocument) -> str:
    """Return a document as Markdown, which reads well as it is."""
    parts = [f"# {escaped(document.cache)}", *document.remarks]
    for snippet in document.snippets:
        parts += [f"## {snippet.title}", *([snippet.note] if snippet.note else []), _fenced(snippet)]
    return "\n\n".join(parts) + "\n"


def _written(scene: Scene) -> Iterator[Snippet]:
    for client in _CLIENTS:
        if client.is_for(scene):
            title, text = client.title or client.name, client.write(scene)
            yield Snippet(
                client=client.name,
                title=title,
                language=client.language,
                text=text,
                note=" ".join(filter(None, _notes(client, scene))),
            )


def _notes(client: _Client, scene: Scene) -> Iterator[str]:
    yield client.note
    if not _in_clear(scene):
        yield client.tls_note
    if client.login:
        yield f"Where the cache wants a password: {client.login}."
    if not client.is_tested:
        yield "These lines follow its documentation; natproxy's tests do not run them."


def _fenced(snippet: Snippet) -> str:
    """Return the lines in a fence longer than any that stands in them."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", snippet.text)), default=0))
    return f"{fence}{_FENCES.get(snippet.language, snippet.language)}\n{snippet.text}{fence}"
