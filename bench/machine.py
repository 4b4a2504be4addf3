"""Where and with what was measured. I/O: asks the system and the programs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.programs import PATH

BUILD = """
import platform, ssl, sys, sysconfig
is_pgo = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
by = "the distribution's" if sys.base_prefix == "/usr" else f"built with{'' if is_pgo else 'out'} PGO"
print(platform.python_version(), f"({by}, {platform.python_compiler()}, {ssl.OPENSSL_VERSION})")
"""
ROOT = Path(__file__).parents[1]
VERSIONS = {
    "HAProxy": (["haproxy", "-v"], r"version (\S+)"),
    "nginx": (["nginx", "-v"], r"nginx/(\S+)"),
    "socat": (["socat", "-V"], r"socat version (\S+)"),
    "stunnel": (["stunnel", "-version"], r"stunnel (\S+)"),
    "redis-server": (["redis-server", "--version"], r"v=(\S+)"),
    "cc": (["cc", "--version"], r"^.* (\S+)$"),
}


def describe(python: Sequence[str] = ()) -> dict[str, str]:
    """Return the machine and the versions."""
    found = {"processor": _processor(), platform.system(): platform.release()}
    found["processors"] = str(os.cpu_count())
    revision = _said(["git", "-C", str(ROOT), "describe", "--always", "--dirty=, with changes"], r"(.+)")
    found["natproxy"] = _said([sys.executable, "-c", "import natproxy; print(natproxy.__version__)"], r"(\S+)")
    found["natproxy"] += f" ({revision})" if revision else ""
    found["Python"] = _said([*(python or [sys.executable]), "-c", BUILD], r"(.+)")
    found |= {name: _said(command, pattern) for name, (command, pattern) in VERSIONS.items()}
    return {name: value for name, value in found.items() if value}


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.machine()
    found = re.search(r"model name\s*: (.+)", text)
    return found.group(1) if found else platform.machine()


def _said(command: Sequence[str], pattern: str) -> str:
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=20, env={**os.environ, "PATH": PATH}
        )
    except OSError:
        return ""
    found = re.search(pattern, done.stdout + done.stderr, re.MULTILINE)
    return found.group(1) if found else ""
