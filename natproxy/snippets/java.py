"""Lines for Java: Lettuce. Pure."""

from __future__ import annotations

from natproxy.snippets.literals import java
from natproxy.snippets.scene import Layout, Port, Scene, Tls


def lettuce(scene: Scene) -> str:
    """Return a program for Lettuce 6."""
    is_cluster = scene.layout is Layout.CLUSTER
    lines = [*_imports(scene), "", "public class Ping {", "  public static void main(String[] args) {"]
    lines += _tls(scene.tls)
    lines += _cluster(scene) if is_cluster else _plain(scene)
    return "\n".join([*lines, "    client.shutdown();", "  }", "}"]) + "\n"


def _imports(scene: Scene) -> list[str]:
    is_cluster, has_files = scene.layout is Layout.CLUSTER, scene.tls is not None and scene.tls.ca is not None
    core = ["RedisURI"] + (["SslOptions"] if has_files else [])
    core += [] if is_cluster else ["RedisClient"] + (["ClientOptions"] if has_files else [])
    names = [f"io.lettuce.core.{name}" for name in sorted(core)]
    cluster = ("ClusterClientOptions", "ClusterTopologyRefreshOptions", "RedisClusterClient")
    names += [f"io.lettuce.core.cluster.{name}" for name in cluster] if is_cluster else []
    names += ["java.io.File"] if has_files else []
    names += ["java.time.Duration"]
    return [f"import {name};" for name in names]


def _tls(tls: Tls | None) -> list[str]:
    if tls is None or tls.ca is None:
        return []
    lines = ["    SslOptions ssl = SslOptions.builder().jdkSslProvider()"]
    lines.append(f"        .trustManager(new File({java(tls.ca)}))")
    if tls.certificate and tls.key:
        lines.append(f"        .keyManager(new File({java(tls.certificate)}), new File({java(tls.key)}), null)")
    return [*lines, "        .build();"]


def _cluster(scene: Scene) -> list[str]:
    options = ["    client.setOptions(ClusterClientOptions.builder()"]
    options += ["        .sslOptions(ssl)"] if scene.tls is not None and scene.tls.ca else []
    return [
        *_address("address", scene, scene.first),
        "    RedisClusterClient client = RedisClusterClient.create(address);",
        *options,
        "        .topologyRefreshOptions(ClusterTopologyRefreshOptions.builder()",
        "            .enableAllAdaptiveRefreshTriggers().enablePeriodicRefresh(Duration.ofSeconds(30)).build())",
        "        .build());",
        "    System.out.println(client.connect().sync().ping());",
    ]


def _plain(scene: Scene) -> list[str]:
    lines = ["    RedisClient client = RedisClient.create();"]
    if scene.tls is not None and scene.tls.ca:
        lines.append("    client.setOptions(ClientOptions.builder().sslOptions(ssl).build());")
    names = ("primary", "reader") if scene.layout is Layout.GROUP else ("address",)
    for name, port in zip(names, scene.ports, strict=True):
        lines += _address(name, scene, port)
        lines.append(f"    System.out.println(client.connect({name}).sync().ping());")
    return lines


def _address(name: str, scene: Scene, port: Port) -> list[str]:
    ssl = ".withSsl(true)" if scene.tls is not None else ""
    return [
        f"    RedisURI {name} = RedisURI.Builder.redis({java(scene.dialled(port))}, {port.number})",
        f"        {ssl}.withTimeout(Duration.ofSeconds(5)).build();",
    ]
