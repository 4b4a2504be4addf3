"""Lines for Python: redis-py, valkey-glide, pymemcache, django-elastipymemcache, emcache. Pure."""

from __future__ import annotations

from natproxy.snippets.literals import host_and_port, python
from natproxy.snippets.scene import Layout, Port, Scene, Tls

_WIDTH = 120
"""Of a line that has to be read in one."""


def redis_py(scene: Scene) -> str:
    """Return the lines for redis-py."""
    if scene.layout is Layout.GROUP:
        return _redis_py_group(scene)
    name = "RedisCluster" if scene.layout is Layout.CLUSTER else "Redis"
    lines = [
        f"from redis import {name}",
        "",
        f"client = {name}(",
        f"    {_where(scene, scene.first)}, decode_responses=True, socket_timeout=5,",
    ]
    if scene.tls is not None:
        options = [f"{key}={value}" for key, value in _redis_py_tls(scene.tls).items()]
        lines += [f"    {', '.join(options)},", "    ssl_check_hostname=True,"]
    return _whole([*lines, ")", "print(client.ping())"])


def _redis_py_group(scene: Scene) -> str:
    lines = ["from redis import Redis", "", 'options = {"decode_responses": True, "socket_timeout": 5}']
    if scene.tls is not None:
        options = [f'"{key}": {value}' for key, value in _redis_py_tls(scene.tls).items()]
        lines += [f"options |= {{{', '.join(options)}}}", 'options |= {"ssl_check_hostname": True}']
    for name, port in zip(("primary", "reader"), scene.ports, strict=True):
        lines.append(f"{name} = Redis({_where(scene, port)}, **options)")
    return _whole([*lines, "print(primary.ping(), reader.ping())"])


def _redis_py_tls(tls: Tls) -> dict[str, str]:
    files = {"ssl_ca_certs": tls.ca, "ssl_certfile": tls.certificate, "ssl_keyfile": tls.key}
    return {"ssl": "True"} | {key: python(file) for key, file in files.items() if file}


def valkey_glide(scene: Scene) -> str:
    """Return the lines for valkey-glide."""
    kind = "Cluster" if scene.layout is Layout.CLUSTER else ""
    reads = "read_from=glide.ReadFrom.PREFER_REPLICA, " if scene.layout is Layout.GROUP else ""
    lines = ["import glide", "import asyncio"]
    lines += ["from pathlib import Path"] if scene.tls is not None and scene.tls.ca else []
    lines += ["", "", "async def main() -> None:", *_glide_tls(scene.tls)]
    lines += [
        f"    client = await glide.Glide{kind}Client.create(glide.Glide{kind}ClientConfiguration(",
        f"        {_addresses(scene)},",
        f"        {reads}request_timeout=5000,",
        f"        advanced_config=glide.AdvancedGlide{kind}ClientConfiguration(",
        "            connection_timeout=5000,",
    ]
    lines += ["            tls_config=tls,"] if scene.tls is not None and scene.tls.ca else []
    lines += ["        ),"]
    lines += ["        use_tls=True,"] if scene.tls is not None else []
    lines += ["    ))", "    print(await client.ping())", "    await client.close()", "", "", "asyncio.run(main())"]
    return _whole(lines)


def _glide_tls(tls: Tls | None) -> list[str]:
    if tls is None or tls.ca is None:
        return []
    lines = ["    tls = glide.TlsAdvancedConfiguration(", f"        root_pem_cacerts={_bytes(tls.ca)},"]
    if tls.certificate and tls.key:
        lines += [f"        client_cert_pem={_bytes(tls.certificate)}, client_key_pem={_bytes(tls.key)},"]
    return [*lines, "    )"]


def _addresses(scene: Scene) -> str:
    if len(scene.ports) == 1:
        return f"[glide.NodeAddress({python(scene.dialled(scene.first))}, {scene.first.number})]"
    numbers = ", ".join(str(port.number) for port in scene.ports)
    return f"[glide.NodeAddress({python(scene.host)}, port) for port in ({numbers})]"


def pymemcache(scene: Scene) -> str:
    """Return the lines for pymemcache: it is told all nodes."""
    lines = ["from pymemcache.client.hash import HashClient", *_memcached_tls(scene.tls, 'options = {"timeout": 5')]
    lines += _servers(scene)
    return _whole([*lines, 'print(client.get("key:0"))  # None where there is no such key'])


def _servers(scene: Scene) -> list[str]:
    """Return what makes pymemcache's client: the nodes on one line where they fit there."""
    told = [f"({python(scene.dialled(port))}, {port.number})" for port in scene.ports]
    servers = ", ".join(told)
    if len(told) > 1 and scene.first.name is None:
        numbers = ", ".join(str(port.number) for port in scene.ports)
        servers = f"({python(scene.host)}, port) for port in ({numbers})"
    line = f"client = HashClient([{servers}], **options)"
    if len(line) <= _WIDTH:
        return [line]
    return ["client = HashClient([", *(f"    {server}," for server in told), "], **options)"]


def django_elastipymemcache(scene: Scene) -> str:
    """Return the lines for Django; a scene with a port for discovery."""
    port = scene.discovery or scene.first
    where = python(host_and_port(scene.dialled(port), port.number))
    return _whole(
        [
            "from django.conf import settings",
            *_memcached_tls(scene.tls, 'options = {"discovery_interval": 60, "timeout": 5'),
            "CACHES = {",
            '    "default": {',
            '        "BACKEND": "django_elastipymemcache.backend.ElastiPymemcache",',
            f'        "LOCATION": {where},',
            '        "OPTIONS": options,',
            "    }",
            "}",
            "settings.configure(CACHES=CACHES)",
            "",
            "from django.core.cache import cache",
            "",
            'print(cache.get("key:0"))  # None where there is no such key',
        ]
    )


def emcache(scene: Scene) -> str:
    """Return the lines for emcache; a scene without TLS, with a port for discovery."""
    port = scene.discovery or scene.first
    return _whole(
        [
            "import emcache",
            "import asyncio",
            "",
            "",
            "async def main() -> None:",
            "    client = await emcache.create_client(",
            f"        [emcache.MemcachedHostAddress({python(scene.host)}, {port.number})],",
            "        autodiscovery=True, timeout=5, connection_timeout=5, autodiscovery_timeout=5,",
            "    )",
            '    print(await client.get(b"key:0"))  # None where there is no such key',
            "    await client.close()",
            "",
            "",
            "asyncio.run(main())",
        ]
    )


def _memcached_tls(tls: Tls | None, options: str) -> list[str]:
    """Return what stands between the first import and the client; ``options``: the beginning of a dict."""
    lines = ["", f'{options}, "connect_timeout": 5}}']
    if tls is None:
        return lines
    ca = f"cafile={python(tls.ca)}" if tls.ca else ""
    lines = ["import ssl", *lines, f'options["tls_context"] = ssl.create_default_context({ca})']
    if tls.certificate and tls.key:
        lines.append(f'options["tls_context"].load_cert_chain({python(tls.certificate)}, {python(tls.key)})')
    return lines


def _where(scene: Scene, port: Port) -> str:
    return f"host={python(scene.dialled(port))}, port={port.number}"


def _bytes(file: str) -> str:
    return f"Path({python(file)}).read_bytes()"


def _whole(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
