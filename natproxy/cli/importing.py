"""The command that makes a config of DNAT rules. I/O: talks to the terminal; natproxy.importing does the work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from natproxy.cli.output import BAD_ANSWER, SETTINGS, AsJson, complain
from natproxy.errors import DiscoveryError

if TYPE_CHECKING:
    from natproxy.config import Aws
    from natproxy.importing.account import Account
    from natproxy.importing.writing import Terms
    from natproxy.netfilter import Rules

MOST_BYTES = 16 << 20
T = TypeVar("T")

app = typer.Typer(**SETTINGS)


@app.command(
    "import-iptables",
    epilog="Example: sudo natproxy import-iptables --allow 198.51.100.0/24 > natproxy.yaml && "
    "natproxy check -c natproxy.yaml",
)
def import_iptables(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|-]",
            help="What iptables-save printed; - reads it from standard input.",
            show_default="the rules of this host, which only root may read",
        ),
    ] = None,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            "-c",
            "--config",
            metavar="FILE",
            help="Take aws, resolver, public_host, public_ip and clients.allow from this config file first.",
        ),
    ] = None,
    region: Annotated[
        str | None, typer.Option("--region", metavar="REGION", help="The caches' region.", show_default="as for run")
    ] = None,
    public_host: Annotated[
        str | None,
        typer.Option("--public-host", metavar="NAME", help="What clients dial: a DNS name or an IP address."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", metavar="NETWORK", help="Who may connect, where a rule lets everybody in. May be repeated."
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Do not ask AWS: every port becomes a static route.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a config of the DNAT rules that lead to your caches.

    Rules are only read, never changed. Their targets are looked up among the nodes that AWS tells of, and a config is
    printed that keeps every port where it was. What it cannot match becomes a static route. On standard error stands
    what was not taken over, and which rules have to go once natproxy runs.
    """
    terms = _terms(config, region, public_host, allow)
    rules = _rules(file)
    if not rules.dnat:
        from natproxy.importing.report import misread  # noqa: PLC0415

        for line in misread(rules):
            complain(line)
        complain("natproxy: there is no DNAT rule for what comes in: nothing to import")
        raise typer.Exit(BAD_ANSWER)
    _print(rules, _account(terms.aws, terms.resolver, is_offline=offline), terms, as_json=as_json, is_offline=offline)


def _print(rules: Rules, account: Account, terms: Terms, *, as_json: bool, is_offline: bool) -> None:
    from natproxy.importing import places, planning, proof, report, writing  # noqa: PLC0415

    nobody = "AWS was not asked (--offline)" if is_offline else places.NOBODY
    draft = planning.draft_of(
        rules, account.snapshot, places.Places(account.snapshot, account.addresses, nobody=nobody)
    )
    is_empty = not draft.wishes.wishes
    if not is_empty:
        proof.prove(draft, terms, account.raw)
    text = "" if is_empty else writing.config_text(draft, terms)
    if as_json:
        import msgspec  # noqa: PLC0415

        told = report.document(text, draft, rules, terms, account.doubts)
        print(msgspec.json.format(msgspec.json.encode(told), indent=2).decode())
    else:
        print(text, end="", flush=True)
        for line in report.remarks(draft, rules, terms, account.doubts):
            complain(line)
    if is_empty:
        complain("natproxy: none of the rules can be taken over: there is no config to print")
        raise typer.Exit(BAD_ANSWER)


def _terms(config: Path | None, region: str | None, public_host: str | None, allow: list[str] | None) -> Terms:
    """Return what the options and the config file say; the options win."""
    from natproxy.config import Aws, addresses, load_config, values  # noqa: PLC0415
    from natproxy.importing.writing import Terms  # noqa: PLC0415

    terms = Terms(Aws())
    if config is not None:
        known = load_config(config)
        terms = Terms(known.aws, known.public_host, known.public_ip, known.clients.allow, known.resolver)
    networks = tuple(_option("--allow", addresses.network, text) for text in allow or ())
    host = None if public_host is None else _option("--public-host", addresses.public_host, public_host)
    aws = (
        terms.aws
        if region is None
        else Aws(**{**dict(terms.aws), "region": _option("--region", values.region, region)})
    )
    return Terms(
        public_host=host or terms.public_host,
        public_ip=terms.public_ip if host is None else None,
        allow=networks or terms.allow,
        aws=aws,
        resolver=terms.resolver,
    )


def _option(name: str, parse: Callable[[object], T], text: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!a} {error}", param_hint=name) from None


def _rules(file: str | None) -> Rules:
    from natproxy.netfilter import parse_iptables_save, parse_nft, read_rules  # noqa: PLC0415

    if file is None:
        return read_rules()
    text = _text(file)
    return parse_nft(text) if text.lstrip().startswith("{") else parse_iptables_save(text)


def _text(file: str) -> str:
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MOST_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) and error.strerror else "its name is not one a file can have"
        )
        raise typer.BadParameter(f"{file!a} cannot be read: {reason}", param_hint="FILE") from None
    if len(content) > MOST_BYTES:
        raise typer.BadParameter(f"{file!a} is larger than {MOST_BYTES >> 20} MiB", param_hint="FILE")
    return content.decode("utf-8-sig", errors="replace")


def _account(aws: Aws, resolver: tuple[str, ...] | None, *, is_offline: bool) -> Account:
    import asyncio  # noqa: PLC0415

    from natproxy.importing.account import NOT_ASKED, ask_account  # noqa: PLC0415

    if is_offline:
        return NOT_ASKED
    try:
        return asyncio.run(ask_account(aws, resolver))
    except DiscoveryError as error:
        raise DiscoveryError(
            error.reason, f"AWS could not be asked which nodes there are: {error}; --offline does without"
        ) from None
