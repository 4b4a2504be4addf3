"""The command for a developer's computer. I/O: talks to the terminal; natproxy.connect does the work."""

from __future__ import annotations

import io
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from natproxy.cli.output import BAD_ANSWER, SETTINGS, UNREACHABLE, USAGE, AsJson, complain, show_table

if TYPE_CHECKING:
    from natproxy.documents import ConnectEvent
    from natproxy.errors import NatproxyError

app = typer.Typer(**SETTINGS)

_SPOT = re.compile(
    r"(?P<bare>[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*)"
    r"|(?:\[(?P<bracketed>[0-9A-Fa-f:.]+)\]|(?P<name>[^:/\[\]\s]+))(?::(?P<port>[0-9]{1,5}))?"
)

Host = Annotated[
    str | None,
    typer.Argument(
        metavar="HOST[:PORT]",
        help="natproxy's host, and its portal's port. Default: what the bundle says; of the port else 6378.",
        show_default=False,
    ),
]
Bundle = Annotated[
    Path,
    typer.Option("--bundle", metavar="FILE", help="What `natproxy pki issue` made for you: the zip, or its directory."),
]
Caches = Annotated[
    list[str] | None,
    typer.Option("--cache", metavar="ID", help="Serve this cache only; may be given again. Default: all you may use."),
]
Offset = Annotated[
    int,
    typer.Option(
        "--port-offset", metavar="N", min=-65535, max=65535, help="Add N to each port: 10000 serves 6379 as 16379."
    ),
]


@app.command(
    epilog="Clients on this computer speak no TLS and show no certificate: that is done here. Ctrl-C ends it."
    "\n\nExit codes: 0 ended by Ctrl-C; 1 natproxy does not let you in; 2 wrong usage or bundle; 3 natproxy could not "
    "be reached.\n\nExample: natproxy connect cache.dev.example.com --bundle dev1.zip --cache my-redis"
)
def connect(
    bundle: Bundle, host: Host = None, caches: Caches = None, offset: Offset = 0, as_json: AsJson = False
) -> None:
    """Bring the caches that you may use to this computer.

    Each port of natproxy's is opened on 127.0.0.1, under the same number where that is free, and leads there through
    mutual TLS. New nodes, failovers and new ports are followed; what is wrong is said, once.
    """
    from natproxy.connect.session import OffsetError, run  # noqa: PLC0415
    from natproxy.errors import BundleError, PortalError, PortalUnreachableError  # noqa: PLC0415

    name, port = _apart(host)
    _make_writable()
    try:
        run(bundle, name, port, _print_json if as_json else _print, caches=caches or (), offset=offset)
    except (BundleError, OffsetError) as error:
        _give_up(error, USAGE)
    except PortalUnreachableError as error:
        _give_up(error, UNREACHABLE)
    except PortalError as error:
        _give_up(error, BAD_ANSWER)


def _make_writable() -> None:
    """Have standard output take everything: a week's run does not end for a letter that the terminal has not."""
    if sys.stdout is None:  # it was closed by whoever began this
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (as long as the process)
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _give_up(error: NatproxyError, code: int) -> NoReturn:
    """Say why, in which natproxy's names of caches may stand."""
    from natproxy.printable import escaped  # noqa: PLC0415

    complain(f"natproxy: {escaped(str(error))}")
    raise typer.Exit(code) from error


def _apart(written: str | None) -> tuple[str | None, int | None]:
    """Take ``host``, ``host:port``, ``::1`` or ``[::1]:port`` apart."""
    if written is None:
        return None, None
    found = _SPOT.fullmatch(written)
    if found is None:
        raise typer.BadParameter("write it as HOST or HOST:PORT", param_hint="HOST[:PORT]")
    port = int(found["port"] or 0)
    if found["port"] is not None and not 0 < port < 65536:
        raise typer.BadParameter(f"write it as HOST:PORT: {port} is no port", param_hint="HOST[:PORT]")
    return found["bare"] or found["bracketed"] or found["name"], port or None


def _print(event: ConnectEvent) -> None:
    from natproxy.printable import escaped  # noqa: PLC0415

    if event.event != "serving":
        print(f"{time.strftime('%H:%M:%S')} {escaped(event.message)}", flush=True)
        return
    from natproxy.tables import local_narrow, local_wide  # noqa: PLC0415

    show_table(local_wide(event.routes), local_narrow(event.routes))
    print(f"\n{escaped(event.message)}. Ctrl-C ends it.", flush=True)


def _print_json(event: ConnectEvent) -> None:
    import json  # noqa: PLC0415

    import msgspec  # noqa: PLC0415

    # ASCII alone: the portal's words may hold what moves a terminal's cursor.
    print(json.dumps(msgspec.to_builtins(event), separators=(",", ":")), flush=True)
