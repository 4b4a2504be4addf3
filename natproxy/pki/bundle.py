"""What a developer is handed: certificate, key, the CA's certificate, and how to use them. Pure."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from datetime import datetime
from textwrap import indent

from natproxy.documents import CacheView, RouteView
from natproxy.model import Kind, Mode, RouteState
from natproxy.snippets import snippets
from natproxy.snippets.literals import host_and_port, shell
from natproxy.snippets.shell import natproxy_connect

_PORT = 6379
"""Stands in the lines for the port of the developer's cache."""
_MODE = stat.S_IFREG | 0o600

_README = """\
{name}'s access to the caches behind {host}, until {until}

client.crt, client.key   your certificate and its key: keep the key as you keep an SSH key, and share it with nobody
ca.crt                   what natproxy's own certificate is checked with
manifest.json            the same facts for programs


Without TLS in your client: while this runs, caches are on 127.0.0.1 and your clients need nothing else. It asks
natproxy's portal what you may use; whether there is one, the operator knows.

    {connect}


Directly: run the lines below where these files are. {port} stands for your cache's port: ask the operator which one it
is. A cache in cluster mode takes a cluster client, and there are more clients than these: the operator's
`natproxy snippets CACHE` prints the lines for yours, and so does the portal:

    {portal}

{lines}

When it does not work: "connection closed" and "alert certificate required" (or unknown, revoked, expired) mean that
your certificate is not let in: ask the operator, who sees the reason in natproxy's log ("expired" can also mean that
the operator's revocation list is out of date). "This port speaks TLS" means that your client does not. The openssl
line says most.

After {until}, or when the key may have been seen by others, ask the operator for a new bundle; in the second case at
once, so that this one can be revoked.
"""
_HEADINGS = {
    "redis-cli": "redis-cli (it does not check the host's name; the others do)",
    "redis-py": "redis-py",
    "ioredis": "ioredis (in a file that ends in .mjs)",
    "openssl": 'openssl (type PING, or "version" for memcached; Ctrl-C ends it)',
}


def bundle_files(
    name: str, host: str, portal_port: int, expires: datetime, *, certificate: bytes, key: bytes, ca: bytes
) -> dict[str, bytes]:
    """Return the bundle's files by name.

    ``host`` is what the developer dials, ``portal_port`` where the portal is there, ``expires`` is in UTC.
    """
    manifest = {
        "version": 1,
        "name": name,
        "host": host,
        "portal_port": portal_port,
        "expires": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {
        "client.crt": certificate,
        "client.key": key,
        "ca.crt": ca,
        "manifest.json": (json.dumps(manifest, indent=2) + "\n").encode(),
        "README.txt": _readme(name, host, portal_port, expires).encode(),
    }


def zipped(files: dict[str, bytes], now: datetime) -> bytes:
    """Return a zip of the files, which unpack readable for their owner only."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, now.timetuple()[:6])
            info.create_system = 3  # Unix: external_attr holds a mode
            info.external_attr = _MODE << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return buffer.getvalue()


def _readme(name: str, host: str, portal_port: int, expires: datetime) -> str:
    route = RouteView(port=_PORT, kind=Kind.NODE, state=RouteState.OPEN, tls="terminate", certificate=True)
    cache = CacheView(id="your-cache", engine="redis", mode=Mode.STANDALONE, routes=(route,))
    texts = {snippet.client: snippet.text for snippet in snippets(cache, public_host=host).snippets}
    parts = (f"\n{heading}\n\n{indent(texts[client], '    ')}" for client, heading in _HEADINGS.items())
    where = shell(f"https://{host_and_port(host, portal_port)}/snippets/CACHE")
    return _README.format(
        name=name,
        host=host,
        port=_PORT,
        until=expires.strftime("%Y-%m-%d"),
        connect=natproxy_connect(host, portal_port, f"{name}.zip").rstrip(),
        portal=f"curl --cacert ca.crt --cert client.crt --key client.key {where}",
        lines="\n".join(parts),
    )
