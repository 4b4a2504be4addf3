"""The commands of the developers' CA. I/O: talks to the terminal; natproxy.pki does the work."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from natproxy.cli.output import SETTINGS, AsJson, complain, show_table
from natproxy.errors import PkiError
from natproxy.pki import terms

if TYPE_CHECKING:
    from natproxy.pki.authority import Authority
    from natproxy.pki.listing import CertificateView

app = typer.Typer(
    no_args_is_help=True,
    help="Be the developers' CA: make the certificates that natproxy and its clients show each other.\n\nThe CA's "
    "directory belongs on your own machine, never on the instance that runs natproxy: only server.crt, server.key, "
    "ca.crt and clients.crl go there.",
    epilog="Example: natproxy pki issue dev1",
    **SETTINGS,
)


def _client_name(text: str | None) -> str | None:
    try:
        return None if text is None else terms.client_name(text)
    except PkiError as error:
        raise typer.BadParameter(str(error)) from None


def _serial(text: str | None) -> str | None:
    try:
        return None if text is None else terms.read_serial(text)
    except PkiError as error:
        raise typer.BadParameter(str(error)) from None


Directory = Annotated[Path, typer.Option("--dir", metavar="DIR", help="The CA's directory.")]
Name = Annotated[
    str, typer.Argument(metavar="NAME", callback=_client_name, help="The developer's: letters, digits and . _ - @")
]
Hosts = Annotated[
    list[str] | None,
    typer.Option("--host", metavar="NAME", help="What clients dial: a DNS name, or an IP address. May be repeated."),
]
Addresses = Annotated[
    list[str] | None, typer.Option("--ip", metavar="IP", help="An address that they may dial as well. May be repeated.")
]
NamingConfig = Annotated[
    Path | None,
    typer.Option("-c", "--config", metavar="FILE", help="Take public_host and public_ip from this config file first."),
]
PortalConfig = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", help="Take the portal's port from this config file.")
]
PortalPort = Annotated[
    int | None,
    typer.Option(
        "--portal-port",
        metavar="PORT",
        min=1,
        max=65535,
        help="Where natproxy's portal is, for bundles.",
        show_default="what -c says, else as before; 6378 at first",
    ),
]
DEFAULT_DIRECTORY = Path("natproxy-pki")


@app.command(epilog="Example: natproxy pki init --host cache.dev.example.com --ip 203.0.113.73")
def init(
    host: Hosts = None,
    ip: Addresses = None,
    portal_port: PortalPort = None,
    config: NamingConfig = None,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Make a CA, and the server's certificate.

    The CA is valid for ten years, the server's certificate for 397 days, the revocation list, which begins empty, for
    35 days. DIR must not exist.
    """
    names = _server_names(host, ip, config)
    if names is None:
        raise typer.BadParameter(
            "say what clients dial: --host NAME, or -c FILE with a public_host", param_hint="--host"
        )
    listing = _authority(directory).init(names, portal_port or _portal_port(config))
    ca, server = listing.certificates
    print(f"{ca.name}, until {_day(ca.expires)}")
    print(f"the server's certificate for {names}, until {_day(server.expires)}")
    print(
        f"\nThe CA's directory is {directory}: keep it here, and off the instance that runs natproxy. What goes there:"
    )
    for name in ("server.crt", "server.key", "ca.crt", "clients.crl"):
        print(f"  {directory / name}")


@app.command(epilog="Example: natproxy pki issue dev1 --days 30 --out dev1.zip")
def issue(
    name: Name,
    *,
    days: Annotated[
        int, typer.Option("--days", min=1, max=terms.MOST_DAYS, help="How long it is valid.")
    ] = terms.CLIENT_DAYS,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.zip|DIR",
            help="Where the bundle goes: a zip where it ends in .zip, else a directory.",
            show_default="NAME.zip",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    portal_port: PortalPort = None,
    config: PortalConfig = None,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Make a developer's bundle.

    It holds a certificate, its key, the CA's certificate, and a README with ready lines for redis-cli, redis-py,
    ioredis and openssl. No copy of the key is kept. A developer may have several certificates: issue the next one
    before the last one ends.
    """
    authority = _authority(directory)
    issued = authority.issue(
        name,
        days,
        Path(f"{name}.zip") if out is None else out,
        force=force,
        portal_port=portal_port or _portal_port(config),
    )
    print(f"{issued.out}: {name}'s bundle, until {_day(issued.entry.expires)}, serial {issued.entry.serial}")
    print(f"It holds the only copy of {name}'s key: hand it over so that nobody else can read it, and delete it here.")
    for other in issued.others:
        print(f"{name} has another one until {_day(other.expires)}: natproxy pki revoke {name} --serial {other.serial}")
    _warn(authority)


@app.command(epilog="Example: natproxy pki revoke dev1")
def revoke(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", callback=_client_name, help="Whose certificates.")
    ] = None,
    serial: Annotated[
        str | None, typer.Option("--serial", metavar="HEX", callback=_serial, help="Only the one with this serial.")
    ] = None,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Revoke a developer's certificates.

    The revocation list is signed anew. It takes effect when DIR/clients.crl has been copied to the instance: within
    5 s, also for open connections.
    """
    if name is None and serial is None:
        raise typer.BadParameter("say whose certificates, or which one: NAME or --serial HEX", param_hint="NAME")
    authority = _authority(directory)
    revoked = authority.revoke(name, serial)
    for entry in revoked.entries:
        print(f"revoked: {entry.name}'s certificate {entry.serial}, until {_day(entry.expires)}")
    if not revoked.entries:
        print("revoked already; the list is signed anew")
    _tell_list(directory, revoked.until)
    _warn(authority)


@app.command("list", epilog="Example: natproxy pki list --json")
def list_(directory: Directory = DEFAULT_DIRECTORY, as_json: AsJson = False) -> None:
    """Show every certificate, and how it stands.

    Whose it is, its serial, until when, whether it is revoked; and below, what should be done soon.
    """
    listing = _authority(directory).listing()
    if as_json:
        import msgspec  # noqa: PLC0415

        print(msgspec.json.format(msgspec.json.encode(listing), indent=2).decode())
        return
    from natproxy.tables import certificates_narrow, certificates_wide  # noqa: PLC0415

    rows = [(view.name, view.kind, view.serial, _day(view.expires), _standing(view)) for view in listing.certificates]
    show_table(certificates_wide(rows), certificates_narrow(rows))
    if listing.list.until is not None:
        print(f"\nrevocation list {listing.list.number}, until {_day(listing.list.until)}")
    for remark in listing.remarks:
        print(remark)


@app.command("renew-server", epilog="Example: natproxy pki renew-server")
def renew_server(
    days: Annotated[
        int, typer.Option("--days", min=1, max=terms.MOST_DAYS, help="How long it is valid.")
    ] = terms.SERVER_DAYS,
    host: Hosts = None,
    ip: Addresses = None,
    config: NamingConfig = None,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Replace the server's certificate and key.

    It is for the same names as before, unless --host, --ip or -c say otherwise. Bundles stay as good as they were,
    where clients still dial a name that it has.
    """
    authority = _authority(directory)
    before = authority.listing()
    entry = authority.renew_server(days, _server_names(host, ip, config))
    after = authority.listing()
    names = (*after.hosts, *after.addresses)
    print(f"{directory / 'server.crt'} and its server.key: for {', '.join(names)}, until {_day(entry.expires)}")
    if dropped := [name for name in (*before.hosts, *before.addresses) if name not in names]:
        complain(f"warning: no longer for {', '.join(dropped)}: bundles that dial it will not verify any more")
    print("Copy both to the instance.")
    _warn(authority)


@app.command(epilog="Example: natproxy pki crl --days 60")
def crl(
    days: Annotated[
        int | None,
        typer.Option(
            "--days",
            min=1,
            max=terms.MOST_DAYS,
            help="How long this list and later ones are valid.",
            show_default=f"as the last one; {terms.LIST_DAYS} at first",
        ),
    ] = None,
    directory: Directory = DEFAULT_DIRECTORY,
) -> None:
    """Sign the revocation list anew.

    A list that has ended lets nobody in: do this once a month, and copy it to the instance. natproxy warns a week
    before.
    """
    authority = _authority(directory)
    _tell_list(directory, authority.sign_list(days))
    _warn(authority)


def _authority(directory: Path) -> Authority:
    from natproxy.pki.authority import Authority  # noqa: PLC0415

    return Authority(directory)


def _server_names(
    hosts: Iterable[str] | None, addresses: Iterable[str] | None, config: Path | None
) -> terms.ServerNames | None:
    """Return what the server's certificate is to be for; None where nothing was said about it."""
    written = [("--host", host) for host in hosts or ()] + [("--ip", address) for address in addresses or ()]
    if config is not None:
        written = _public_names(config) + written
    if not written:
        return None
    from natproxy.config.addresses import as_numeric, host, ip_address  # noqa: PLC0415

    found: list[str] = []
    for option, text in written:
        try:
            found.append(host(text) if option == "--host" else ip_address(text))
        except ValueError as error:
            raise typer.BadParameter(f"{text!a} {error}", param_hint=option) from None
    found = list(dict.fromkeys(found))
    numeric = [text for text in found if as_numeric(text) is not None]
    return terms.ServerNames(tuple(text for text in found if text not in numeric), tuple(numeric))


def _public_names(path: Path) -> list[tuple[str, str]]:
    from natproxy.config import load_config  # noqa: PLC0415

    config = load_config(path)
    if config.public_host is None:
        raise typer.BadParameter(f"{path} has no public_host", param_hint="-c")
    names = [("--host", config.public_host)]
    return names if config.public_ip is None else [*names, ("--ip", config.public_ip)]


def _portal_port(path: Path | None) -> int | None:
    """Return the port that a config file says; None where there is no file, or no portal in it."""
    if path is None:
        return None
    from natproxy.config import load_config  # noqa: PLC0415

    return load_config(path).portal_port


def _tell_list(directory: Path, until: datetime) -> None:
    print(f"{directory / 'clients.crl'}: until {_day(until)}. Copy it to the instance.")


def _warn(authority: Authority) -> None:
    """Say what should be done soon, whatever the command was about."""
    for remark in authority.listing().remarks:
        complain(f"warning: {remark}")


def _standing(view: CertificateView) -> str:
    return view.state if view.revoked is None else f"revoked {_day(view.revoked)}"


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
