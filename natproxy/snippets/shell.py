"""Lines for a shell: redis-cli, openssl, telnet, and natproxy connect. Pure."""

from __future__ import annotations

import ipaddress
import re

from natproxy.model import PORTAL_PORT
from natproxy.snippets.literals import host_and_port, shell
from natproxy.snippets.scene import Layout, Scene


def redis_cli(scene: Scene) -> str:
    """Return the line for redis-cli; it can be told a name to ask for, and checks none."""
    port = scene.first
    words = "redis-cli -c" if scene.layout is Layout.CLUSTER else "redis-cli"
    where = f"-h {shell(scene.host)} -p {port.number}"
    if scene.tls is None:
        return f"{words} {where}\n"
    tls = ["--tls"]
    tls += [f"--sni {shell(port.name)}"] if port.name else []
    tls += [f"--cacert {shell(scene.tls.ca)}"] if scene.tls.ca else []
    if scene.tls.certificate and scene.tls.key:
        tls += [f"--cert {shell(scene.tls.certificate)}", f"--key {shell(scene.tls.key)}"]
    return f"{words} \\\n  {' '.join(tls)} \\\n  {where}\n"


def openssl(scene: Scene) -> str:
    """Return the line for openssl; a scene with TLS."""
    port = scene.first
    words = [f"openssl s_client -quiet -connect {shell(host_and_port(scene.host, port.number))}"]
    words.append(f"{_names(port.name or scene.host)} -verify_return_error")
    files = []
    if scene.tls is not None and scene.tls.ca:
        files.append(f"-CAfile {shell(scene.tls.ca)}")
    if scene.tls is not None and scene.tls.certificate and scene.tls.key:
        files.append(f"-cert {shell(scene.tls.certificate)} -key {shell(scene.tls.key)}")
    words += [" ".join(files)] if files else []
    return " \\\n  ".join(words) + "\n"


def telnet(scene: Scene) -> str:
    """Return the line for telnet; a scene without TLS."""
    return f"telnet {shell(scene.host)} {scene.first.number}\n"


def natproxy_connect(host: str, portal_port: int, bundle: str, cache: str | None = None) -> str:
    """Return the line that brings a cache, or all of them, to this computer."""
    where = host if portal_port == PORTAL_PORT else host_and_port(host, portal_port)
    only = "" if cache is None else f" --cache {shell(cache)}"
    return f"natproxy connect {shell(where)} --bundle {shell(bundle)}{only}\n"


def bundle_of(certificate: str) -> str:
    """Return what `natproxy pki issue` calls the bundle of a certificate; of a name it would not take, any."""
    is_safe = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@+-]*", certificate)
    return f"{certificate if is_safe else 'bundle'}.zip"


def _names(name: str) -> str:
    """Return openssl's words for what the certificate has to be for; an address is not asked for by name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return f"-servername {shell(name)} -verify_hostname {shell(name)}"
    return f"-verify_ip {shell(name)}"
