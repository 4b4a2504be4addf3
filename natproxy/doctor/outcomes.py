"""What may become of dialling an address. Pure."""

from __future__ import annotations

import errno
from typing import Literal

Outcome = Literal["open", "refused", "timeout", "unreachable", "no-name"]
"""``no-name``: there was no address to dial."""


def outcome_of(error: OSError) -> Outcome:
    """Say which outcome a failed dial is."""
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return "timeout"
    return "unreachable"
