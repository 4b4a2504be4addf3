"""One NAT instance with everything around it, and what its operator wants there. I/O: builds networks and machines."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from natproxy import __version__
from tests.network.aws import GuideAws
from tests.network.guide import GUIDE_NODES, LAPTOP_IP, PUBLIC_IP, REDIS_PORT, REDIS_PORTS, GuideNetwork
from tests.network.natproxy import GUIDE_CONFIG
from tests.network.natproxy import ROUTES as GUIDE_ROUTES
from tests.system.clients import Clients
from tests.system.image import debian_root, wheelhouse
from tests.system.machine import Machine
from tests.system.playbook import Operator, Play
from tests.system.service import Service
from tests.system.wheels import build_wheel

TLS_PORT = 6490
"""Leads to the first node, and asks for a certificate."""
ROUTES = GUIDE_ROUTES + 1

WHEELS = "/srv/wheels"
"""Where the machine's pip looks for wheels, in the place of an index."""
ROOTS_HOME = "/root"
PASSING = (
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/tmp",
    "/var/log",
    "/var/tmp",
    "/home/admin",
    f"{ROOTS_HOME}/.ansible",
    WHEELS,
)
"""Where things come and go that are not natproxy's."""

TLS_DIRECTORY = "/etc/natproxy/tls"
CONFIG: Mapping[str, Any] = {
    **GUIDE_CONFIG,
    "aws": {"refresh": "1s"},
    "clients": {"allow": [f"{LAPTOP_IP}/32"], "tls": "off"},
    "static": [
        {
            "name": "secret",
            "port": TLS_PORT,
            "target": f"{GUIDE_NODES[0]}:{REDIS_PORT}",
            "clients": {"tls": "terminate", "certificates": ["dev1"]},
        }
    ],
    "tls": {
        "certificate": f"{TLS_DIRECTORY}/server.crt",
        "key": f"{TLS_DIRECTORY}/server.key",
        "client_ca": f"{TLS_DIRECTORY}/ca.crt",
        "crl": f"{TLS_DIRECTORY}/clients.crl",
    },
    "timeouts": {"stop": "2s"},
}


@dataclass(frozen=True)
class Seen:
    """All that a program may leave behind on a machine, but for logs and what is there for the moment."""

    files: frozenset[str]
    """Path, owner and mode of every file."""
    accounts: str


@dataclass(frozen=True)
class First:
    """The first runs of the playbook, and what was there before and after each."""

    bare: Seen
    check: Play
    checked: Seen
    run: Play
    installed: Seen


@dataclass(frozen=True)
class Site:
    """The guide's network with its caches, AWS, and a machine that is the NAT instance."""

    network: GuideNetwork
    aws: GuideAws
    machine: Machine
    operator: Operator
    service: Service
    variables: Mapping[str, Any]
    """The role's, for the guide's caches and one more way to the first node over TLS."""
    pki: Path
    """The operator's certificates, as ``natproxy pki`` makes them."""
    first: First
    """How the role came to the machine."""

    def but(self, **config: Any) -> dict[str, Any]:
        """Return the variables with some keys of the config replaced."""
        return {**self.variables, "natproxy_config": {**CONFIG, **config}}

    def client_tls(self) -> ssl.SSLContext:
        """Return what a developer's program speaks TLS with."""
        developer = self.pki.parent / "dev1"
        context = ssl.create_default_context(cafile=developer / "ca.crt")
        context.load_cert_chain(developer / "client.crt", developer / "client.key")
        return context

    def clients(self) -> Clients:
        """Return clients of the three nodes, one of them over TLS as well."""
        names = dict(zip(REDIS_PORTS, GUIDE_NODES, strict=True))
        return Clients(self.network, names, tls_names={TLS_PORT: GUIDE_NODES[0]}, tls=self.client_tls())


@contextlib.contextmanager
def built_site() -> Iterator[Site]:
    """Build it all, have the role put natproxy on the bare machine, and remove it all in the end."""
    wheels = wheelhouse(debian_root())
    with GuideNetwork() as network, Machine(network, debian_root(), shown={WHEELS: wheels}) as machine:
        machine.put("/etc/pip.conf", f"[global]\nno-index = true\nfind-links = {WHEELS}\n")
        network.start_guide_caches()
        operator = Operator(network, machine)
        aws = GuideAws(network)
        pki = make_pki(operator.directory)
        variables = {
            "natproxy_wheel": str(build_wheel(__version__, operator.directory / "wheels")),
            "natproxy_config": CONFIG,
            "natproxy_environment": aws.instance_environ,
            "natproxy_tls_pki": str(pki),
        }
        service = Service(machine)
        bare = seen(machine)
        check = operator.play(variables, "--check", "--diff").succeeded()
        checked = seen(machine)
        # Later runs find the wheels as they would find an index; this one carries them there.
        run = operator.play({**variables, "natproxy_wheelhouse": str(wheels)}).succeeded()
        service.wait_for_routes(ROUTES)
        first = First(bare, check, checked, run, seen(machine))
        yield Site(network, aws, machine, operator, service, variables, pki, first)


def seen(machine: Machine) -> Seen:
    """Look at a machine."""
    pruned = [word for place in PASSING for word in ("-path", place, "-prune", "-o")]
    files = machine.run("find", "/", *pruned, "-printf", "%p %U:%G %m\\n").splitlines()
    return Seen(frozenset(files), machine.run("cat", "/etc/passwd", "/etc/group", "/etc/shadow"))


def make_pki(directory: Path) -> Path:
    """Do what an operator does for TLS: make a CA, and a bundle for one developer; return the CA's directory."""
    pki = directory / "natproxy-pki"
    words = ("--dir", str(pki))
    natproxy("pki", "init", "--host", PUBLIC_IP, *words)
    natproxy("pki", "issue", "dev1", "--out", str(directory / "dev1.zip"), *words)
    with zipfile.ZipFile(directory / "dev1.zip") as bundle:
        bundle.extractall(directory / "dev1")
    return pki


def natproxy(*arguments: str) -> None:
    """Run one of natproxy's commands where the operator sits."""
    subprocess.run([sys.executable, "-m", "natproxy", *arguments], check=True, capture_output=True, timeout=60)
