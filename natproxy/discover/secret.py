"""One secret, as it stands in Secrets Manager now. I/O: talks to Secrets Manager, in the thread that may block.

Imported, and used, in the discovery thread only. What is returned is written nowhere, and is in no error's text.
"""

from __future__ import annotations

import threading

from natproxy.discover.failures import failure_of
from natproxy.discover.session import CutShortError, Sessions
from natproxy.errors import DiscoveryError
from natproxy.model import DiscoveryFailure

OPERATION = "GetSecretValue"


def ask_secret(sessions: Sessions, arn: str, stop: threading.Event) -> str:
    """Return the secret's text. Raises DiscoveryError.

    Credentials that AWS no longer takes are looked up afresh, once, before they count as a failure.
    """
    is_fresh = not sessions.has_client
    try:
        return _ask(sessions, arn, stop)
    except DiscoveryError as error:
        if is_fresh or error.reason != DiscoveryFailure.CREDENTIALS:
            raise
    sessions.forget()
    return _ask(sessions, arn, stop)


def _ask(sessions: Sessions, arn: str, stop: threading.Event) -> str:
    try:
        answer = sessions.secrets(stop, region_of(arn)).get_secret_value(SecretId=arn)
    except CutShortError:
        raise DiscoveryError(DiscoveryFailure.TIMEOUT, "the call was cut short") from None
    except Exception as error:
        reason, text = failure_of(error)
        message = f"{OPERATION}: {text}"
        raise DiscoveryError(reason, message) from None
    text = answer.get("SecretString")
    if not isinstance(text, str):
        message = f"{OPERATION}: the secret holds bytes, not text"
        raise DiscoveryError(DiscoveryFailure.NONSENSE, message)
    return text


def region_of(arn: str) -> str:
    """Return the region that an ARN names (``arn:aws:secretsmanager:REGION:...``); empty where it is no ARN."""
    parts = arn.split(":")
    return parts[3] if len(parts) >= 6 and parts[0] == "arn" else ""
