"""What boto3 raised -> why AWS could not be asked, in words fit for the log. Pure.

The texts of foreign errors are cut to one short line: a signature mismatch repeats the signed headers (the session
token among them), and an answer that cannot be parsed is repeated whole.
"""

from __future__ import annotations

from botocore import exceptions as aws
from botocore.parsers import ResponseParserError

from natproxy.model import DiscoveryFailure

MAX_CHARACTERS = 300

_CREDENTIALS_HINT = "give this EC2 instance a role, or put keys where boto3 looks for them"

_THROTTLED = frozenset({"Throttling", "ThrottlingException", "ThrottledException", "RequestLimitExceeded", "SlowDown"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "OptInRequired"})
_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "AuthFailure",
        "SignatureDoesNotMatch",
        "InvalidSignatureException",
        "IncompleteSignature",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
    }
)
_BY_STATUS = {401: DiscoveryFailure.CREDENTIALS, 403: DiscoveryFailure.DENIED, 429: DiscoveryFailure.THROTTLED}

_BY_TYPE: tuple[tuple[tuple[type[Exception], ...], DiscoveryFailure], ...] = (
    (
        (
            aws.PartialCredentialsError,
            aws.CredentialRetrievalError,
            aws.MetadataRetrievalError,
            aws.TokenRetrievalError,
            aws.NoAuthTokenError,
            aws.SSOError,
            aws.RefreshWithMFAUnsupportedError,
            aws.ProfileNotFound,
            aws.InfiniteLoopConfigError,
        ),
        DiscoveryFailure.CREDENTIALS,
    ),
    ((aws.ReadTimeoutError,), DiscoveryFailure.TIMEOUT),
    ((aws.ResponseStreamingError, aws.IncompleteReadError), DiscoveryFailure.NONSENSE),
    ((aws.HTTPClientError, aws.ConnectionError), DiscoveryFailure.UNREACHABLE),
)


def failure_of(error: Exception) -> tuple[DiscoveryFailure, str]:
    """Say why a call to AWS failed, and how to tell the operator."""
    if isinstance(error, aws.ClientError):
        return _answered(error)
    if isinstance(error, aws.NoCredentialsError):
        return DiscoveryFailure.CREDENTIALS, f"no credentials are found: {_CREDENTIALS_HINT}"
    for types, reason in _BY_TYPE:
        if isinstance(error, types):
            return reason, _line(str(error) or type(error).__name__)
    if isinstance(error, aws.NoRegionError):
        hint = "set aws.region or AWS_REGION; the instance metadata tells none"
        return DiscoveryFailure.UNREACHABLE, f"the region is not known: {hint}"
    if isinstance(error, ResponseParserError):
        return DiscoveryFailure.NONSENSE, "the answer was cut short or is not XML"
    return DiscoveryFailure.NONSENSE, f"the answer is not one of AWS ({type(error).__name__})"


def error_code(error: Exception) -> str:
    """Return the code of an error that AWS answered; empty for any other error."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, aws.ClientError) else ""


def _answered(error: aws.ClientError) -> tuple[DiscoveryFailure, str]:
    code = error_code(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in ("SignatureDoesNotMatch", "InvalidSignatureException"):
        hint = "the secret key is wrong, or this host's clock is"
        return DiscoveryFailure.CREDENTIALS, f"{code}: AWS does not accept the signature: {hint}"
    text = _line(f"{code}: {error.response.get('Error', {}).get('Message') or 'no message'}")
    if code in _CREDENTIALS:
        return DiscoveryFailure.CREDENTIALS, text
    if code in _THROTTLED:
        return DiscoveryFailure.THROTTLED, text
    if code in _DENIED:
        return DiscoveryFailure.DENIED, text
    return _BY_STATUS.get(status, DiscoveryFailure.SERVER), text


def _line(text: str) -> str:
    """The first line, not too long, and without anything a terminal would act on."""
    first = next(iter(text.strip().splitlines()), "")
    clean = "".join(character if character.isprintable() else "?" for character in first)
    return clean if len(clean) <= MAX_CHARACTERS else clean[: MAX_CHARACTERS - 1] + "…"
