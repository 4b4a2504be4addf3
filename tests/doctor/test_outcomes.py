from __future__ import annotations

import errno
import socket

import pytest

from natproxy.doctor.outcomes import Outcome, outcome_of


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "refused"),
        (TimeoutError("timed out"), "timeout"),
        (OSError(errno.ETIMEDOUT, "Connection timed out"), "timeout"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "unreachable"),
        (PermissionError(errno.EPERM, "Operation not permitted"), "unreachable"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "unreachable"),
    ],
)
def test_what_a_failed_dial_is(error: OSError, outcome: Outcome) -> None:
    assert outcome_of(error) == outcome
