"""The files of certificates, keys, CAs and revocation lists that a config names. I/O: reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from natproxy.config import Config
from natproxy.config import Tls as TlsFiles
from natproxy.errors import Problem, TlsError
from natproxy.messages import ServerTls, Tls
from natproxy.tls.contexts import server_context
from natproxy.tls.expiry import Expiry, expiries, unnamed
from natproxy.tls.material import MaterialError, load_ca, load_clients, load_server
from natproxy.tls.revocation import read_crl

NOTHING = Tls(None, {})
T = TypeVar("T")
_USES = ("certificate", "key", "client_ca", "crl")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the files hold, found good."""

    tls: Tls
    expiries: tuple[Expiry, ...]
    unnamed: tuple[str, ...]
    """What clients connect to, and would not find in the certificate."""


def read_files(config: Config, old: Tls) -> tuple[Loaded, list[Problem]]:
    """Read every file; return what is good, and ``old`` where something is not, with what is wrong there.

    What belongs together stays together, old or new: a certificate and its key, the CA of clients and its lists, the
    CAs of one file. So nobody stays let in whom a new list revokes, because a renewed certificate is broken.
    """
    problems: list[Problem] = []

    def read(place: str, part: Callable[[], T], otherwise: T) -> T:
        try:
            return part()
        except TlsError as error:
            problems.append(Problem(str(config.path), None, _place(place, error), str(error)))
            return otherwise

    server = None
    if config.tls is not None:
        own = read("tls", partial(_own, config.tls), old.server)
        clients = read("tls", partial(_clients, config.tls), _clients_of(old.server))
        server = None if own is None else msgspec.structs.replace(own, client_ca=clients[0], crl=clients[1])
    cas = {}
    for path, place in _node_cas(config).items():
        cas[str(path)] = read(place, partial(load_ca, path), old.node_cas.get(str(path), b""))
    unchanged = Loaded(old, (), ())
    if problems and old == NOTHING:
        return unchanged, problems
    return read("tls", partial(_loaded, config, Tls(server, cas)), unchanged), problems


def _loaded(config: Config, tls: Tls) -> Loaded:
    if tls.server is not None:
        server_context(tls.server)  # what goes together has been read apart
    return Loaded(tls, expiries(tls.server, tls.node_cas), _unnamed(config, tls.server))


def _own(files: TlsFiles) -> ServerTls:
    return load_server(files.certificate, files.key, None, None, files.min_version)


def _clients(files: TlsFiles) -> tuple[bytes | None, bytes | None]:
    return (None, None) if files.client_ca is None else load_clients(files.client_ca, files.crl)


def _clients_of(server: ServerTls | None) -> tuple[bytes | None, bytes | None]:
    return (None, None) if server is None else (server.client_ca, server.crl)


def _place(place: str, error: TlsError) -> str:
    """Return the place in the config that an error is about."""
    return f"tls.{error.key}" if place == "tls" and isinstance(error, MaterialError) else place


def _unnamed(config: Config, server: ServerTls | None) -> tuple[str, ...]:
    entries = (*config.caches, *config.static)
    if server is None or all(entry.clients.tls != "terminate" for entry in entries):
        return ()
    return unnamed(server, dict.fromkeys(host for host in (config.public_host, config.public_ip) if host is not None))


class NewFile(NamedTuple):
    """A file whose content is new, and what may be told of it: of a key, that it is new."""

    key: str
    """In the config."""
    path: Path
    holds: Sequence[Expiry] = ()
    revoked: int | None = None
    """How many certificates its revocation lists name."""


def new_files(config: Config, before: Tls, loaded: Loaded) -> Iterator[NewFile]:
    """Yield each file whose content is not that of ``before``."""
    for use in _USES:
        content: bytes | None = getattr(loaded.tls.server, use, None)
        if content is not None and content != getattr(before.server, use, None):
            holds = [one for one in loaded.expiries if one.use == use]
            revoked = len(read_crl(content).revoked) if use == "crl" else None
            yield NewFile(f"tls.{use}", getattr(config.tls, use), holds, revoked)
    for path, place in _node_cas(config).items():
        content = loaded.tls.node_cas[str(path)]
        if content != before.node_cas.get(str(path)):
            yield NewFile(place, path, expiries(None, {str(path): content}))


def files_of(config: Config) -> list[Path]:
    """Name all files that are to be watched."""
    tls = config.tls
    own = () if tls is None else (tls.certificate, tls.key, tls.client_ca, tls.crl)
    return [*(path for path in own if path is not None), *_node_cas(config)]


def _node_cas(config: Config) -> Mapping[Path, str]:
    """Return each file of CAs that vouch for nodes, with the place in the config that names it first."""
    places: dict[Path, str] = {}
    for kind, entries in (("caches", config.caches), ("static", config.static)):
        for index, entry in enumerate(entries):
            if (path := entry.nodes.ca) is not None:
                is_common = path == config.nodes.ca
                places.setdefault(path, "nodes.ca" if is_common else f"{kind}[{index}].nodes.ca")
    return places
