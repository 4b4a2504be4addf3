"""The command that prints the lines for a cache's clients. I/O: talks to the daemon through control."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from natproxy.cli.daemon import DaemonConfig, StateDir, control_of
from natproxy.cli.output import BAD_ANSWER, SETTINGS, USAGE, AsJson, complain

if TYPE_CHECKING:
    from natproxy.documents import RoutesDocument, SnippetsDocument

app = typer.Typer(**SETTINGS)


@app.command(epilog="Example: natproxy snippets my-redis --client redis-py")
def snippets(
    cache: Annotated[str, typer.Argument(metavar="CACHE", help="A cache's id or a static route's name.")],
    *,
    client: Annotated[
        str | None,
        typer.Option("--client", metavar="NAME", help="Only this client's lines, and nothing else on stdout."),
    ] = None,
    is_local: Annotated[
        bool, typer.Option("--connect", help="The lines for a computer on which `natproxy connect` runs.")
    ] = False,
    config: DaemonConfig = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Print lines to copy, for each client that a cache is for.

    They have the ports, the TLS and the names of the running natproxy. Developers are shown the same by the portal.
    """
    from natproxy.snippets import CLIENTS, as_text  # noqa: PLC0415

    if client is not None and client not in CLIENTS:
        complain(f"natproxy: no client is called {client!r}; there are {', '.join(CLIENTS)}")
        raise typer.Exit(USAGE)
    document = _document(control_of(config, state_dir).routes(), cache, is_local=is_local)
    if client is not None:
        document = _only(document, client)
    if as_json:
        import msgspec  # noqa: PLC0415

        print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
    elif client is not None:
        for line in (*document.remarks, *(snippet.note for snippet in document.snippets)):
            complain(line)
        print("".join(snippet.text for snippet in document.snippets), end="")
    else:
        print(as_text(document), end="")
    if not document.snippets:
        raise typer.Exit(BAD_ANSWER)


def _document(routes: RoutesDocument, cache_id: str, *, is_local: bool) -> SnippetsDocument:
    from natproxy.printable import escaped  # noqa: PLC0415
    from natproxy.snippets import connect_snippets, snippets  # noqa: PLC0415

    cache = next((cache for cache in routes.caches if cache.id == cache_id), None)
    if cache is None:
        known = ", ".join(escaped(cache.id) for cache in routes.caches) or "none yet"
        complain(f"natproxy: no cache or static route is called {cache_id!r}; there are: {known}")
        raise typer.Exit(BAD_ANSWER)
    host, ip = routes.public_host, routes.public_ip
    if is_local:
        return connect_snippets(cache, public_host=host, public_ip=ip, portal_port=routes.portal_port)
    return snippets(cache, public_host=host, public_ip=ip)


def _only(document: SnippetsDocument, client: str) -> SnippetsDocument:
    import msgspec  # noqa: PLC0415

    from natproxy.snippets import CONNECT  # noqa: PLC0415

    found = tuple(snippet for snippet in document.snippets if snippet.client == client)
    if document.snippets and not found:
        fitting = ", ".join(snippet.client for snippet in document.snippets)
        hint = f" ({CONNECT}: with --connect)" if client == CONNECT else ""
        complain(f"natproxy: {client} is not for this cache as it is served; these are: {fitting}{hint}")
        raise typer.Exit(BAD_ANSWER)
    return msgspec.structs.replace(document, snippets=found)
