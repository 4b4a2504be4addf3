"""The credentials the stand-in gave out, and AWS's Signature Version 4 checked against them. Pure.

The signature is computed here from AWS's description of it, not with botocore's signer.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import quote

from tests.standins.aws.http import Request

SKEW_SECONDS = 15 * 60
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8})/([^/,]+)/([^/,]+)/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)


class AwsError(Exception):
    """An error as AWS answers it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status = status
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")


@dataclass(frozen=True, slots=True)
class Credentials:
    """One key pair, with a session token and an end where it is temporary."""

    access_key: str
    secret_key: str
    arn: str
    """Who this is, as denials say it."""
    token: str | None = None
    expires: float | None = None

    @property
    def environ(self) -> dict[str, str]:
        """Environment variables by which boto3 uses these."""
        environ = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        return environ | ({"AWS_SESSION_TOKEN": self.token} if self.token else {})


class Keyring:
    """Every credential given out. May be used from any thread."""

    def __init__(self, now: Callable[[], float], account: str) -> None:
        self._now = now
        self._account = account
        self._keys: dict[str, Credentials] = {}
        self._lock = threading.Lock()

    def user(self, name: str) -> Credentials:
        """Give out a user's long-term keys."""
        arn = f"arn:aws:iam::{self._account}:user/{name}"
        return self.add(Credentials(_random_key("AKIA"), secrets.token_urlsafe(30), arn))

    def session(self, role: str, session: str, seconds: float) -> Credentials:
        """Give out temporary keys of a role that end after ``seconds``."""
        arn = f"arn:aws:sts::{self._account}:assumed-role/{role}/{session}"
        token = secrets.token_urlsafe(60)
        return self.add(Credentials(_random_key("ASIA"), secrets.token_urlsafe(30), arn, token, self._now() + seconds))

    def expire_sessions(self) -> None:
        """End every temporary credential now, whatever was said when it was given out."""
        with self._lock:
            for key, credentials in self._keys.items():
                if credentials.token is not None:
                    self._keys[key] = replace(credentials, expires=0.0)

    def revoke(self, access_key: str) -> None:
        """Make a key unknown."""
        with self._lock:
            del self._keys[access_key]

    def find(self, access_key: str, token: str | None) -> Credentials:
        """Return a key that is valid now, or raise the AwsError that AWS answers."""
        with self._lock:
            found = self._keys.get(access_key)
        if found is None or found.token != token:
            raise AwsError(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
        if found.expires is not None and found.expires <= self._now():
            raise AwsError(403, "ExpiredToken", "The security token included in the request is expired")
        return found

    def add(self, credentials: Credentials) -> Credentials:
        """Make a credential known."""
        with self._lock:
            self._keys[credentials.access_key] = credentials
        return credentials


@dataclass(frozen=True, slots=True)
class Signed:
    """Who signed a request, and for which service."""

    credentials: Credentials
    service: str


def verify(keyring: Keyring, region: str, now: float, request: Request) -> Signed:
    """Check a request's signature; raises AwsError as AWS answers it."""
    headers = request.headers
    authorization = headers.get("authorization")
    if authorization is None:
        raise AwsError(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
    match = _AUTHORIZATION.fullmatch(authorization)
    if match is None:
        raise AwsError(400, "IncompleteSignature", f"Authorization header is malformed: {authorization!r}")
    access_key, day, signed_region, service, signed_headers, signature = match.groups()
    credentials = keyring.find(access_key, headers.get("x-amz-security-token"))
    date = headers.get("x-amz-date", "")
    _check_date(date, day, now)
    if signed_region != region:
        raise AwsError(
            403, "SignatureDoesNotMatch", f"Credential should be scoped to a valid region, not {signed_region!r}."
        )
    names = signed_headers.split(";")
    if "host" not in names or (credentials.token and "x-amz-security-token" not in names):
        raise AwsError(403, "SignatureDoesNotMatch", "Headers that must be signed are not.")
    canonical = _canonical_request(request, names)
    scope = f"{day}/{signed_region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    if not hmac.compare_digest(_signature(credentials.secret_key, scope, to_sign), signature):
        raise AwsError(
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details.",
        )
    return Signed(credentials, service)


def _check_date(date: str, day: str, now: float) -> None:
    try:
        signed_at = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise AwsError(400, "IncompleteSignature", "Date must be in ISO-8601 'basic format'") from None
    if not date.startswith(day):
        raise AwsError(403, "SignatureDoesNotMatch", "Date in Credential scope does not match X-Amz-Date")
    behind = now - signed_at.timestamp()
    if abs(behind) > SKEW_SECONDS:
        what = "Signature expired" if behind > 0 else "Signature not yet current"
        raise AwsError(403, "SignatureDoesNotMatch", f"{what}: {date} is more than 15 min. from the service's clock")


def _canonical_request(request: Request, names: list[str]) -> str:
    path, _, query = request.target.partition("?")
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&")) if query else []
    lines = [
        request.method,
        quote(path, safe="/~"),  # encoded once more, as every service but S3 wants it
        "&".join(f"{key}={value}" for key, value in pairs),
        *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in names),
        "",
        ";".join(names),
        hashlib.sha256(request.body).hexdigest(),
    ]
    return "\n".join(lines)


def _signature(secret_key: str, scope: str, to_sign: str) -> str:
    key = f"AWS4{secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


def _random_key(prefix: str) -> str:
    return prefix + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16))
