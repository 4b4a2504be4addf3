"""The commands: the only place that prints or exits. I/O: talks to the terminal.

What only some commands need is imported in them, so that the others, and every ``--help``, start quickly.

    output   how all commands print and exit
    daemon   run, check, reload, routes, ports
    doctor   what is wrong, and how to mend it
    pki      the developers' CA
    importing  import-iptables
    connect  the caches, on a developer's computer
    snippets  the lines for a cache's clients
"""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import typer

from natproxy import __version__
from natproxy.cli import connect, daemon, doctor, importing, pki, snippets
from natproxy.cli.output import BAD_ANSWER, DONE, SETTINGS, UNREACHABLE, USAGE, complain, give_up
from natproxy.errors import ConfigError, ControlError, DiscoveryError, NatproxyError

app = typer.Typer(
    name="natproxy",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done; 1 it ran, and the answer is bad; 2 wrong usage or config; 3 natproxy or AWS could not "
    "be reached.\n\nExample: natproxy check -c natproxy.yaml && natproxy run -c natproxy.yaml",
    **SETTINGS,
)
app.add_typer(daemon.app)
app.add_typer(doctor.app)
app.add_typer(pki.app, name="pki")
app.add_typer(importing.app)
app.add_typer(connect.app)
app.add_typer(snippets.app)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"natproxy {__version__}")
        raise typer.Exit


@app.callback()
def _natproxy(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Reach Amazon ElastiCache from outside its VPC.

    natproxy runs on one host inside the VPC. It asks AWS which nodes your caches have, opens one port on this host for
    each of them, passes everything on, and follows replacements, failovers and resizes by itself: a node keeps its
    port for as long as it lives.
    """


def main() -> NoReturn:
    """Run the command that the command line asks for, and exit."""
    try:
        try:
            app(prog_name="natproxy")
        finally:
            sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told from success
    except ConfigError as error:
        for problem in error.problems:
            complain(str(problem))
        sys.exit(USAGE)
    except (ControlError, DiscoveryError) as error:
        complain(f"natproxy: {error}")
        sys.exit(UNREACHABLE)
    except NatproxyError as error:
        complain(f"natproxy: {error}")
        sys.exit(BAD_ANSWER)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        give_up(error)
    sys.exit(DONE)
