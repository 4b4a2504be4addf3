"""Lines for Node.js: ioredis, node-redis, memcached-elasticache. Pure."""

from __future__ import annotations

from natproxy.snippets.literals import host_and_port, javascript
from natproxy.snippets.scene import Layout, Scene, Tls

_READ = "import { readFileSync } from 'node:fs'"


def ioredis(scene: Scene) -> str:
    """Return the lines for ioredis."""
    if scene.layout is Layout.CLUSTER:
        lines = ["import { Cluster } from 'ioredis'", *_import(scene.tls), ""]
        lines += [f"const tls = {{ {', '.join(_tls(scene))} }}"] if scene.tls else []
        lines += [f"const client = new Cluster([{{ {_where(scene)} }}], {{", "  slotsRefreshTimeout: 5000,"]
        checking = "  dnsLookup: (address, callback) => callback(null, address), redisOptions: { tls }"
        lines += [checking] if scene.tls else []
        return _whole([*lines, "})", "console.log(await client.ping())", "client.disconnect()"])
    lines = ["import { Redis } from 'ioredis'", *_import(scene.tls), ""]
    if scene.layout is Layout.GROUP:
        lines += [f"const options = {{ host: {javascript(scene.host)}, connectTimeout: 5000 }}"]
        lines += [f"options.tls = {{ {', '.join(_tls(scene))} }}"] if scene.tls else []
        lines += [f"const [primary, reader] = {_numbers(scene)}.map(port => new Redis({{ ...options, port }}))"]
        lines += ["console.log(await primary.ping(), await reader.ping())"]
        return _whole([*lines, "for (const client of [primary, reader]) client.disconnect()"])
    lines += [f"const tls = {{ {', '.join(_tls(scene))} }}"] if scene.tls else []
    tls = ", tls" if scene.tls else ""
    lines += [f"const client = new Redis({{ {_where(scene)}, connectTimeout: 5000{tls} }})"]
    return _whole([*lines, "console.log(await client.ping())", "client.disconnect()"])


def node_redis(scene: Scene) -> str:
    """Return the lines for node-redis."""
    if scene.layout is Layout.CLUSTER:
        lines = ["import { createCluster } from 'redis'", *_import(scene.tls), ""]
        lines += ["const client = createCluster({", f"  rootNodes: [{{ socket: {{ {_where(scene)} }} }}],"]
        lines += ["  defaults: {", "    socket: {"]
        lines += [f"      tls: true, {', '.join(_tls(scene))},"] if scene.tls else []
        lines += ["      connectTimeout: 5000", "    }", "  }", "})"]
        lines += ["client.on('error', console.error)", "await client.connect()"]
        # A cluster client sends PING nowhere by itself: it belongs to no key.
        return _whole([*lines, "console.log(await client.get('key:0')) // null where there is no such key", _END])
    lines = ["import { createClient } from 'redis'", *_import(scene.tls), ""]
    if scene.layout is Layout.GROUP:
        lines += [f"const socket = {{ host: {javascript(scene.host)}, connectTimeout: 5000 }}"]
        lines += _assigned(scene)
        made = "createClient({ socket: { ...socket, port } })"
        lines += [f"const [primary, reader] = {_numbers(scene)}.map(port => {made})"]
        lines += ["for (const client of [primary, reader]) await client.on('error', console.error).connect()"]
        lines += ["console.log(await primary.ping(), await reader.ping())"]
        return _whole([*lines, "for (const client of [primary, reader]) client.destroy()"])
    lines += [f"const socket = {{ {_where(scene)}, connectTimeout: 5000 }}", *_assigned(scene)]
    lines += ["const client = createClient({ socket })", "await client.on('error', console.error).connect()"]
    return _whole([*lines, "console.log(await client.ping())", _END])


def memcached_elasticache(scene: Scene) -> str:
    """Return the lines for memcached-elasticache; a scene without TLS, with a port for discovery."""
    port = scene.discovery or scene.first
    return _whole(
        [
            "import Memcached from 'memcached-elasticache'",
            "import { once } from 'node:events'",
            "import { promisify } from 'node:util'",
            "",
            f"const client = new Memcached({javascript(host_and_port(scene.host, port.number))})",
            "await once(client, 'autoDiscover')",
            "const get = promisify(client.get).bind(client)",
            "console.log(await get('key:0')) // undefined where there is no such key",
            "client.end()",
        ]
    )


_END = "client.destroy()"


def _import(tls: Tls | None) -> list[str]:
    return [_READ] if tls is not None and tls.ca else []


def _tls(scene: Scene) -> list[str]:
    """Return the properties of Node.js' own TLS options; ``servername`` is also what it checks."""
    if scene.tls is None:
        return []
    files = {"ca": scene.tls.ca, "cert": scene.tls.certificate, "key": scene.tls.key}
    found = [f"{key}: readFileSync({javascript(file)})" for key, file in files.items() if file]
    return [f"servername: {javascript(scene.first.name)}", *found] if scene.first.name else found


def _assigned(scene: Scene) -> list[str]:
    if scene.tls is None:
        return []
    properties = _tls(scene)
    lines = [f"Object.assign(socket, {{ tls: true, {properties[0]} }})"]
    return [*lines, f"Object.assign(socket, {{ {', '.join(properties[1:])} }})"] if properties[1:] else lines


def _where(scene: Scene) -> str:
    return f"host: {javascript(scene.host)}, port: {scene.first.number}"


def _numbers(scene: Scene) -> str:
    return f"[{', '.join(str(port.number) for port in scene.ports)}]"


def _whole(lines: list[str]) -> str:
    return "\n".join(lines) + "\n"
