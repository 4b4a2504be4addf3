"""The commands around the daemon: to be it, to check its config file, to ask it. I/O: talks to it through control."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from natproxy.cli.output import BAD_ANSWER, SETTINGS, USAGE, AsJson, complain, count, show, show_table
from natproxy.errors import ConfigError

if TYPE_CHECKING:
    from natproxy.control import Control

DEFAULT_CONFIG = Path("/etc/natproxy/config.yaml")

app = typer.Typer(**SETTINGS)
ports_app = typer.Typer(
    no_args_is_help=True,
    help="Show which port is whose, and release those of gone nodes.",
    epilog="Example: natproxy ports list",
    **SETTINGS,
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


@app.command(epilog="Example: natproxy run -c /etc/natproxy/config.yaml")
def run(config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Be the daemon: serve until stopped.

    SIGHUP reloads the config file; SIGTERM and SIGINT let connections end and stop, a second one stops at once.
    """
    from natproxy.controller.daemon import run as run_daemon  # noqa: PLC0415

    raise typer.Exit(run_daemon(config))


@app.command(epilog="Example: natproxy check -c natproxy.yaml")
def check(config: ConfigFile = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Look for mistakes in a config file.

    All of them are printed, with file and line. Only the file is looked at: no network, no AWS, not this host.
    """
    from natproxy.config import load_config  # noqa: PLC0415

    if as_json:
        _check_as_json(config)
        return
    found = load_config(config)
    for warning in found.warnings:
        complain(f"warning: {warning}")
    print(
        f"{config}: good ({count(len(found.caches), 'cache entry', 'cache entries')}, "
        f"{count(len(found.static), 'static route', 'static routes')})"
    )


def _check_as_json(config: Path) -> None:
    import msgspec  # noqa: PLC0415

    from natproxy.config import load_config  # noqa: PLC0415
    from natproxy.config.document import bad_document, good_document  # noqa: PLC0415

    try:
        document = good_document(load_config(config))
    except ConfigError as error:
        document = bad_document(error.problems)
    print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
    if not document.ok:
        raise typer.Exit(USAGE)


@app.command("reload", epilog="Example: natproxy reload")
def reload_(config: DaemonConfig = None, state_dir: StateDir = None) -> None:
    """Have the running natproxy read its config file again.

    All or nothing: a file with mistakes changes nothing, and they are printed. Connections whose route stays as it was
    live on.
    """
    verdict = control_of(config, state_dir).reload()
    if not verdict.ok:
        complain(verdict.message)
        raise typer.Exit(BAD_ANSWER)
    print(verdict.message)
    if verdict.restart_needed:
        complain(f"warning: changed, but only taken up by a restart: {', '.join(verdict.restart_needed)}")


@app.command(epilog="Example: natproxy routes --json")
def routes(config: DaemonConfig = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Show each port of the running natproxy, and where it leads."""
    control = control_of(config, state_dir)
    if as_json:
        print(control.json("/routes"))
        return
    from natproxy.tables import route_remarks, routes_narrow, routes_wide  # noqa: PLC0415

    document = control.routes()
    if any(cache.routes for cache in document.caches):
        show_table(routes_wide(document), routes_narrow(document))
    else:
        print("no routes yet")
    remarks = route_remarks(document)
    if remarks:
        show("")
    for remark in remarks:
        show(remark)


@ports_app.command("list", epilog="Example: natproxy ports list --json")
def list_ports(config: DaemonConfig = None, state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Show which port is whose, and which nodes are gone.

    The port of a gone node stays reserved: the node may come back, and no client may end up with another cache.
    """
    control = control_of(config, state_dir)
    if as_json:
        print(control.json("/ports"))
        return
    from natproxy.tables import ports_table  # noqa: PLC0415

    document = control.ports()
    if document.ports:
        show_table(ports_table(document), ports_table(document))
    else:
        print("no ports are assigned yet")


@ports_app.command("release", epilog="Example: natproxy ports release my-redis-003/0001")
def release_port(
    node: Annotated[str, typer.Argument(metavar="NODE", help="As `natproxy ports list` names it.")],
    config: DaemonConfig = None,
    state_dir: StateDir = None,
) -> None:
    """Give the port of a node that is gone back to its cache."""
    print(control_of(config, state_dir).release(node))


def control_of(config: Path | None, state_dir: Path | None) -> Control:
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
