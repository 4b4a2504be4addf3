"""Reads the kernel's own rules, and changes nothing. I/O: runs iptables-save, ip6tables-save and nft, as root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from natproxy.errors import NetfilterError
from natproxy.netfilter.iptables import parse_iptables_save
from natproxy.netfilter.model import Rules
from natproxy.netfilter.nftables import parse_nft

SECONDS = 10.0
"""How long each program may take; it waits for another one that holds xtables' lock."""
WHERE = ("/usr/sbin", "/sbin", "/usr/local/sbin")
"""Looked into besides PATH, on which a login shell often has no sbin."""

_SAVES = tuple(f"{family}{variant}-save" for family in ("iptables", "ip6tables") for variant in ("", "-nft", "-legacy"))
"""The programs that show rules. The plain name is one of the two variants, or the only one there is."""


def read_rules(path: str | None = None) -> Rules:
    """Return the rules of this network namespace, of whichever of the programs are there. ``path`` replaces PATH.

    Raises NetfilterError where none is there, where they may not be asked (they need root), or where one fails.
    """
    saves, nft = _saves(path), _found("nft", path)
    if not saves and nft is None:
        raise NetfilterError("neither iptables-save nor nft is installed here, so their rules cannot be read")
    if os.geteuid() != 0:
        raise NetfilterError("only root may read the firewall's rules: run this with sudo")
    rules, is_nft_read = Rules(), False
    for save, file in saves.items():
        text = _output([file])  # without -t, which would load a table's module into the kernel
        is_nft_read = is_nft_read or "(nf_tables)" in text.partition("\n")[0]
        if text.strip():
            rules = rules.joined(parse_iptables_save(text, save.removesuffix("-save")))
    if nft is not None:
        rules = rules.joined(parse_nft(_output([nft, "-j", "list", "ruleset"]), without_iptables=is_nft_read))
    return rules


def _saves(path: str | None) -> dict[str, str]:
    """Return the programs that are there, each once, by the name under which it is called."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for name in _SAVES:
        file = _found(name, path)
        if file is not None:
            family = name.partition("tables")[0]
            found.setdefault((family, os.path.realpath(file)), (name, file))
    return dict(found.values())


def _found(name: str, path: str | None) -> str | None:
    searched = os.environ.get("PATH", "") if path is None else path
    return shutil.which(name, path=os.pathsep.join((searched, *(WHERE if path is None else ()))))


def _output(argv: Sequence[str]) -> str:
    """Run a program that only reads, and return what it prints. Raises NetfilterError."""
    try:
        done = subprocess.run(  # noqa: S603 - a list of words, none of them from outside
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise NetfilterError(f"{argv[0]} did not answer within {SECONDS:g} s") from None
    except OSError as error:
        raise NetfilterError(f"{argv[0]} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise NetfilterError(f"{argv[0]} failed with {done.returncode}: {said[0] if said else 'it did not say why'}")
    return done.stdout.decode(errors="replace")
