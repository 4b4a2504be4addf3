"""What a developer is handed: certificate, key, the CA's certificate, and how to use them. Pure."""

from __future__ import annotations

import io
import ipaddress
import json
import stat
import zipfile
from datetime import datetime

PORTAL_PORT = 6378
_PORT = 6379
"""Stands in the lines for the port of the developer's cache."""
_MODE = stat.S_IFREG | 0o600

_README = """\
{name}'s access to the caches behind {host}, until {until}

client.crt, client.key   your certificate and its key: keep the key as you keep an SSH key, and share it with nobody
ca.crt                   what natproxy's own certificate is checked with
manifest.json            the same facts for programs

Run the lines below where these files are. {port} stands for your cache's port: ask the operator which one it is.
Where that cache is in cluster mode it takes a cluster client: redis-cli -c, redis.RedisCluster, Redis.Cluster with the
same options. docs/clients.md of natproxy has those lines, and more clients.


redis-cli (it does not check the host's name; the others do)

    redis-cli --tls -h {host} -p {port} --cacert ca.crt --cert client.crt --key client.key


redis-py

    import redis

    client = redis.Redis(
        host="{host}", port={port}, ssl=True, ssl_check_hostname=True,
        ssl_ca_certs="ca.crt", ssl_certfile="client.crt", ssl_keyfile="client.key",
    )
    print(client.ping())


ioredis

    const fs = require("fs");
    const Redis = require("ioredis");

    const tls = {{
      ca: fs.readFileSync("ca.crt"), cert: fs.readFileSync("client.crt"), key: fs.readFileSync("client.key"),
    }};
    const client = new Redis({{ host: "{host}", port: {port}, tls }});
    client.ping().then(console.log).finally(() => client.disconnect());


openssl (type PING, or "version" for memcached; Ctrl-C ends it)

    openssl s_client -quiet -connect {dialled}:{port} \\
      {names} -verify_return_error \\
      -CAfile ca.crt -cert client.crt -key client.key


When it does not work: "connection closed" and "alert certificate required" (or unknown, revoked, expired) mean that
your certificate is not let in: ask the operator, who sees the reason in natproxy's log ("expired" can also mean that
the operator's revocation list is out of date). "This port speaks TLS" means that your client does not. The openssl
line says most.

After {until}, or when the key may have been seen by others, ask the operator for a new bundle; in the second case at
once, so that this one can be revoked.
"""


def bundle_files(
    name: str, host: str, expires: datetime, *, certificate: bytes, key: bytes, ca: bytes
) -> dict[str, bytes]:
    """Return the bundle's files by name. ``host`` is what the developer dials, ``expires`` is in UTC."""
    manifest = {
        "version": 1,
        "name": name,
        "host": host,
        "portal_port": PORTAL_PORT,
        "expires": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {
        "client.crt": certificate,
        "client.key": key,
        "ca.crt": ca,
        "manifest.json": (json.dumps(manifest, indent=2) + "\n").encode(),
        "README.txt": _readme(name, host, expires).encode(),
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


def _readme(name: str, host: str, expires: datetime) -> str:
    dialled, names = host, f"-servername {host} -verify_hostname {host}"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        dialled = host if address.version == 4 else f"[{host}]"
        names = f"-verify_ip {host}"
    return _README.format(
        name=name, host=host, dialled=dialled, names=names, port=_PORT, until=expires.strftime("%Y-%m-%d")
    )
