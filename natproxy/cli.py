"""The commands: the only place that prints or exits. I/O: talks to the terminal, and to the daemon through control.

What only some commands need is imported in them, so that the others, and every ``--help``, start quickly.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from natproxy import __version__
from natproxy.errors import ConfigError, ControlError, DiscoveryError, NatproxyError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from natproxy.control import Control

DEFAULT_CONFIG = Path("/etc/natproxy/config.yaml")

DONE, BAD_ANSWER, USAGE, UNREACHABLE = range(4)
"""Exit codes: done; it ran and the answer is bad; usage or config; the daemon or AWS could not be reached."""

_SETTINGS = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="natproxy",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_SETTINGS,
    epilog="Exit codes: 0 done; 1 it ran, and the answer is bad; 2 wrong usage or config; 3 natproxy or AWS could not "
    "be reached.\n\nExample: natproxy check -c natproxy.yaml && natproxy run -c natproxy.yaml",
)
ports_app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings=_SETTINGS,
    help="Show which port is whose, and release those of gone nodes.",
    epilog="Example: natproxy ports list",
)
app.add_typer(ports_app, name="ports")

ConfigFile = Annotated[
    Path, typer.Option("-c", "--config", envvar="NATPROXY_CONFIG", metavar="FILE", help="The config file.")
]
DaemonConfig = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        envvar="NATPROXY_CONFIG",
        metavar="FILE",
        help="The running natproxy's config file: it says where its state_dir is.",
        show_default=str(DEFAULT_CONFIG),
    ),
]
StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", metavar="DIR", help="The running natproxy's state_dir, in place of the config file."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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


@app.command(epilog="Example: natproxy run -c /etc/natproxy/config.yaml")
def run(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Be the daemon: serve until stopped.

    SIGHUP reloads the config file; SIGTERM and SIGINT let connections end and stop, a second one stops at once.
    """
    from natproxy.controller.daemon import run as run_daemon  # noqa: PLC0415

    raise typer.Exit(run_daemon(config))


@app.command(epilog="Example: natproxy check -c natproxy.yaml")
def check(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Look for mistakes in a config file.

    All of them are printed, with file and line. Only the file is looked at: no network, no AWS, not this host.
    """
    from natproxy.config import load_config  # noqa: PLC0415

    found = load_config(config)
    for warning in found.warnings:
        _complain(f"warning: {warning}")
    print(
        f"{config}: good ({_count(len(found.caches), 'cache entry', 'cache entries')}, "
        f"{_count(len(found.static), 'static route', 'static routes')})"
    )


@app.command("reload", epilog="Example: natproxy reload")
def reload_(config: DaemonConfig = None, state_dir: StateDir = None) -> None:
    """Have the running natproxy read its config file again.

    All or nothing: a file with mistakes changes nothing, and they are printed. Connections whose route stays as it was
    live on.
    """
    verdict = _control(config, state_dir).reload()
    if not verdict.ok:
        _complain(verdict.message)
        raise typer.Exit(BAD_ANSWER)
    print(verdict.message)
    if verdict.restart_needed:
        _complain(f"warning: changed, but only taken up by a restart: {', '.join(verdict.restart_needed)}")


@app.command(epilog="Example: natproxy routes --json")
def routes(config: DaemonConfig = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Show each port of the running natproxy, and where it leads."""
    control = _control(config, state_dir)
    if as_json:
        print(control.json("/routes"))
        return
    from natproxy.tables import route_remarks, routes_narrow, routes_wide  # noqa: PLC0415

    document = control.routes()
    if any(cache.routes for cache in document.caches):
        _print_table(routes_wide(document), routes_narrow(document))
    else:
        print("no routes yet")
    remarks = route_remarks(document)
    if remarks:
        _print("")
    for remark in remarks:
        _print(remark)


@ports_app.command("list", epilog="Example: natproxy ports list --json")
def list_ports(config: DaemonConfig = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Show which port is whose, and which nodes are gone.

    The port of a gone node stays reserved: the node may come back, and no client may end up with another cache.
    """
    control = _control(config, state_dir)
    if as_json:
        print(control.json("/ports"))
        return
    from natproxy.tables import ports_table  # noqa: PLC0415

    document = control.ports()
    if document.ports:
        _print_table(ports_table(document), ports_table(document))
    else:
        print("no ports are assigned yet")


@ports_app.command("release", epilog="Example: natproxy ports release my-redis-003/0001")
def release_port(
    node: Annotated[str, typer.Argument(metavar="NODE", help="As `natproxy ports list` names it.")],
    config: DaemonConfig = None,
    state_dir: StateDir = None,
) -> None:
    """Give the port of a node that is gone back to its cache."""
    print(_control(config, state_dir).release(node))


def main() -> NoReturn:
    """Run the command that the command line asks for, and exit."""
    try:
        try:
            app(prog_name="natproxy")
        finally:
            sys.stdout.flush()  # here, where a full disk or a closed pipe can still be told from success
    except ConfigError as error:
        for problem in error.problems:
            _complain(str(problem))
        sys.exit(USAGE)
    except (ControlError, DiscoveryError) as error:
        _complain(f"natproxy: {error}")
        sys.exit(UNREACHABLE)
    except NatproxyError as error:
        _complain(f"natproxy: {error}")
        sys.exit(BAD_ANSWER)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        _give_up(error)
    sys.exit(DONE)


def _give_up(error: Exception) -> NoReturn:
    """Exit after an error that nobody foresaw, or output that cannot be written."""
    if os.environ.get("NATPROXY_TRACEBACK"):
        raise error
    if isinstance(error, OSError):
        if not isinstance(error, BrokenPipeError):
            _complain(f"natproxy: {error}")
    else:
        _complain(f"natproxy: unexpected {type(error).__name__}: {error}; with NATPROXY_TRACEBACK=1 it tells where")
    with contextlib.suppress(OSError):  # what could not be written is not tried again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(BAD_ANSWER)


def _control(config: Path | None, state_dir: Path | None) -> Control:
    """Return the way to the daemon; only a config file that was named has to exist."""
    from natproxy.control import Control  # noqa: PLC0415

    if state_dir is not None:
        return Control(state_dir)
    from natproxy.config import DEFAULT_STATE_DIR, read_state_dir  # noqa: PLC0415

    if config is not None:
        return Control(read_state_dir(config))
    try:
        return Control(read_state_dir(DEFAULT_CONFIG))
    except ConfigError:
        return Control(DEFAULT_STATE_DIR)


def _print_table(wide: Table, narrow: Table) -> None:
    """Print ``wide`` where it fits, or where lines may be as long as they like; else ``narrow``."""
    from rich.console import Console  # noqa: PLC0415

    console = Console(highlight=False)
    needed = console.measure(wide, options=console.options.update(width=10_000)).maximum
    if needed > console.width and (console.is_terminal or "COLUMNS" in os.environ):
        console.print(narrow)
        return
    console.width = max(needed, console.width)
    console.print(wide)


def _print(renderable: RenderableType) -> None:
    from rich.console import Console  # noqa: PLC0415

    Console(highlight=False).print(renderable, soft_wrap=True)


def _complain(line: str) -> None:
    print(line, file=sys.stderr)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
