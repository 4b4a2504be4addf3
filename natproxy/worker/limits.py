"""How many descriptors this process may have. I/O: asks the kernel, and asks it for more."""

from __future__ import annotations

import resource

_MACOS_MOST = 10240
"""OPEN_MAX of macOS's sys/syslimits.h: there the hard limit is infinity, but no more than this is granted."""


def descriptor_limit() -> int:
    """Return how many descriptors this process may have open at once."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def raise_descriptor_limit() -> None:
    """Have as many as this user may; each connection takes two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, _MACOS_MOST):
        if soft == hard or (wanted != hard and wanted <= soft):
            return
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (ValueError, OSError):
            continue
        return
