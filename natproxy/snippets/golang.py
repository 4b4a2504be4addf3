"""Lines for Go: go-redis. Pure."""

from __future__ import annotations

from natproxy.snippets.literals import golang, host_and_port
from natproxy.snippets.scene import Layout, Port, Scene, Tls


def go_redis(scene: Scene) -> str:
    """Return a program for go-redis 9."""
    lines = ["package main", "", "import (", *_imports(scene.tls), ")", "", "func main() {"]
    lines += _tls(scene)
    if scene.layout is Layout.GROUP:
        for name, port in zip(("primary", "reader"), scene.ports, strict=True):
            lines += _client(scene, name, port)
    else:
        lines += _client(scene, "client", scene.first)
    return "\n".join([*lines, "}"]) + "\n"


def _imports(tls: Tls | None) -> list[str]:
    names = ["context", "fmt"]
    names += ["crypto/tls"] if tls is not None else []
    names += ["crypto/x509", "os"] if tls is not None and tls.ca else []
    return [*(f'\t"{name}"' for name in sorted(names)), "", '\t"github.com/redis/go-redis/v9"']


def _tls(scene: Scene) -> list[str]:
    if scene.tls is None:
        return []
    lines, config = [], []
    if scene.tls.ca:
        lines += [f"\tca, err := os.ReadFile({golang(scene.tls.ca)})", *_PANIC]
        lines += ["\troots := x509.NewCertPool()", "\troots.AppendCertsFromPEM(ca)"]
        config += ["RootCAs: roots"]
    if scene.tls.certificate and scene.tls.key:
        files = f"{golang(scene.tls.certificate)}, {golang(scene.tls.key)}"
        lines += [f"\tpair, err := tls.LoadX509KeyPair({files})", *_PANIC]
        config += ["Certificates: []tls.Certificate{pair}"]
    if scene.first.name:
        config += [f"ServerName: {golang(scene.first.name)}"]
    return [*lines, f"\tsecurity := &tls.Config{{{', '.join(config)}}}"]


_PANIC = ["\tif err != nil {", "\t\tpanic(err)", "\t}"]


def _client(scene: Scene, name: str, port: Port) -> list[str]:
    where = golang(host_and_port(scene.host, port.number))
    if scene.layout is Layout.CLUSTER:
        kind, fields = "Cluster", [("Addrs", f"[]string{{{where}}}")]
    else:
        kind, fields = "", [("Addr", where)]
    fields += [("TLSConfig", "security")] if scene.tls is not None else []
    width = max(len(field) for field, _ in fields) + 1
    return [
        f"\t{name} := redis.New{kind}Client(&redis.{kind}Options{{",
        *(f"\t\t{field + ':':{width}} {value}," for field, value in fields),
        "\t})",
        f"\tfmt.Println({name}.Ping(context.Background()).Result())",
    ]
