"""The command that finds out what is wrong. I/O: talks to the terminal; natproxy.doctor does the work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from natproxy.cli.daemon import DEFAULT_CONFIG
from natproxy.cli.output import BAD_ANSWER, DONE, SETTINGS, USAGE, AsJson, show

if TYPE_CHECKING:
    from natproxy.doctor.findings import Finding

app = typer.Typer(**SETTINGS)

Config = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        envvar="NATPROXY_CONFIG",
        metavar="FILE",
        readable=False,  # one that may not be read is a finding
        help="The config file.",
        show_default=str(DEFAULT_CONFIG),
    ),
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show what is good, too.")]
FromClient = Annotated[
    str | None,
    typer.Option("--from-client", metavar="HOST", help="Look from a client's computer at natproxy on HOST."),
]
Ports = Annotated[
    str | None,
    typer.Option(
        "--ports",
        metavar="PORTS",
        help="With --from-client: the ports to try, such as 6379,11211-11213. Default: 6379-6388,11211-11220.",
    ),
]
Routes = Annotated[
    Path | None,
    typer.Option(
        "--routes", metavar="FILE", help="With --from-client: take the ports from what `natproxy routes --json` said."
    ),
]
Bundle = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="FILE", help="With --from-client: the bundle that `natproxy pki issue` made."),
]
Ca = Annotated[
    Path | None, typer.Option("--ca", metavar="FILE", help="With --from-client: the CA that vouches for natproxy.")
]
Certificate = Annotated[
    Path | None, typer.Option("--cert", metavar="FILE", help="With --from-client: the client's certificate.")
]
Key = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="With --from-client: its key.")]


@app.command(
    epilog="Exit codes: 0 nothing is bad; 1 something is; 2 the config cannot be used.\n\n"
    "Example: sudo natproxy doctor, or on a laptop: "
    "natproxy doctor --from-client cache.dev.example.com --bundle dev1.zip"
)
def doctor(  # noqa: PLR0917 - Typer calls it, by name
    config: Config = None,
    as_json: AsJson = False,
    is_verbose: Verbose = False,
    from_client: FromClient = None,
    ports: Ports = None,
    routes: Routes = None,
    bundle: Bundle = None,
    ca: Ca = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Find out what is wrong, and how to mend it.

    Looks at the config, AWS (credentials, permissions, caches, security groups, the Elastic IP), each node (name,
    reach, TLS), this host (ports, left-over rules, limits) and the certificates, in the order in which they fail in
    real life. Nothing is changed, anywhere. What needs root is left out without it: sudo sees more.
    """
    if from_client is not None:
        from natproxy.doctor.findings import Check, Verdict  # noqa: PLC0415
        from natproxy.doctor.fromclient import findings_from_client  # noqa: PLC0415

        findings = findings_from_client(
            from_client,
            ports,
            bundle=bundle,
            ca=ca,
            certificate=certificate,
            key=key,
            routes=routes,
            config=config,
        )
        if not as_json:
            for check in dict.fromkeys(finding.check for finding in findings):
                _show_section([finding for finding in findings if finding.check == check], is_verbose=is_verbose)
        is_usable = not any(one.check is Check.CONFIG and one.verdict is Verdict.BAD for one in findings)
        _end(findings, from_client, as_json=as_json, is_config_readable=is_usable)
    given = [
        name
        for name, value in (
            ("--ports", ports),
            ("--routes", routes),
            ("--bundle", bundle),
            ("--ca", ca),
            ("--cert", certificate),
            ("--key", key),
        )
        if value is not None
    ]
    if given:
        raise typer.BadParameter("it needs --from-client HOST", param_hint=given[0])
    _examine(config or DEFAULT_CONFIG, as_json=as_json, is_verbose=is_verbose)


def _examine(config: Path, *, as_json: bool, is_verbose: bool) -> None:
    """Examine this host, and exit."""
    import asyncio  # noqa: PLC0415

    from natproxy.doctor.checkup import Checkup  # noqa: PLC0415

    def tell(findings: Sequence[Finding]) -> None:
        if not as_json:
            _show_section(findings, is_verbose=is_verbose)

    checkup = Checkup(config, tell)
    asyncio.run(checkup.run())
    _end(checkup.findings, str(config), as_json=as_json, is_config_readable=checkup.is_config_readable)


def _show_section(findings: Sequence[Finding], *, is_verbose: bool) -> None:
    from natproxy.doctor.report import section  # noqa: PLC0415

    for line in section(findings, is_verbose=is_verbose):
        show(line)


def _end(findings: Sequence[Finding], subject: str, *, as_json: bool, is_config_readable: bool = True) -> None:
    """Print what is to be printed at the end, and exit."""
    import msgspec  # noqa: PLC0415

    from natproxy.doctor.findings import Verdict  # noqa: PLC0415
    from natproxy.doctor.report import document, overall, summary  # noqa: PLC0415

    if as_json:
        print(msgspec.json.format(msgspec.json.encode(document(findings)), indent=2).decode())
    else:
        for line in summary(findings, subject):
            show(line)
    bad = BAD_ANSWER if overall(findings) is Verdict.BAD else DONE
    raise typer.Exit(bad if is_config_readable else USAGE)
