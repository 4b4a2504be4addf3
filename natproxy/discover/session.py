"""boto3 sessions and clients: region, role, renewal, and calls that can be cut short. I/O: STS, instance metadata.

Instance credentials that have expired do not come back by themselves: botocore extends near expiries and goes on
signing with dead keys, so the cure is a new Session (``forget``). An assumed role is renewed well before it expires, by
a new Session too. Imported, and used, in the discovery thread only (``interrupt`` may be called from any thread).
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.config import Config as BotoConfig
from botocore.exceptions import NoRegionError
from botocore.utils import IMDSRegionProvider

from natproxy.config import Aws

if TYPE_CHECKING:
    from mypy_boto3_elasticache import ElastiCacheClient

RENEW_BEFORE_SECONDS = 600.0
"""An assumed role is renewed this long before it expires, or after two thirds of its life where that is later."""

for _name in ("boto3", "botocore", "urllib3"):
    # At DEBUG botocore writes signed headers; at WARNING it repeats each failed refresh with a trace. natproxy itself
    # says what went wrong, once.
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class CutShortError(Exception):
    """The call was cut short on purpose."""


class _Made(NamedTuple):
    """A session, and its client of ElastiCache."""

    session: boto3.Session
    region: str
    client: ElastiCacheClient
    expires_at: float | None
    """When the session ends for certain (known for an assumed role only)."""


class Sessions:
    """Gives the clients that are good now: of ElastiCache, and of other services."""

    def __init__(
        self,
        aws: Aws,
        *,
        now: Callable[[], float],
        connect_seconds: float,
        read_seconds: float,
        attempts: int,
    ) -> None:
        self._aws = aws
        self._now = now
        self._options = BotoConfig(
            connect_timeout=connect_seconds,
            read_timeout=read_seconds,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            user_agent_extra="natproxy",
        )
        self._wires: weakref.WeakSet[AWSHTTPConnection | AWSHTTPSConnection] = weakref.WeakSet()
        self._stop = threading.Event()
        self._made: _Made | None = None
        self._renew_at: float | None = None
        self._others: dict[tuple[str, str], Any] = {}
        """Service and region -> the session's client there."""
        self.renewal_error: Exception | None = None
        """Why the role could not be renewed although the old session still serves; None where all is well."""

    @property
    def has_client(self) -> bool:
        """Whether a session from before is there."""
        return self._made is not None

    def client(self, stop: threading.Event) -> ElastiCacheClient:
        """Return a client whose calls end once ``stop`` is set; raises what boto3 raises where there can be none."""
        return self._good(stop).client

    def secrets(self, stop: threading.Event, region: str = "") -> Any:
        """Return a client of Secrets Manager, of the same session; ``region`` empty: where the caches are."""
        return self.service("secretsmanager", stop, region)

    def service(self, name: str, stop: threading.Event, region: str = "") -> Any:
        """Return a client of any service (``sts``, ``ec2`` ...), of the same session, in the same manner."""
        made = self._good(stop)
        place = name, region or made.region
        if place not in self._others:
            self._others[place] = self._new_client(made.session, *place)
        return self._others[place]

    def forget(self) -> None:
        """Let the next client come from a new Session, with credentials looked up afresh."""
        for client in (*([] if self._made is None else [self._made.client]), *self._others.values()):
            client.close()
        self._made = self._renew_at = self.renewal_error = None
        self._others.clear()

    def _good(self, stop: threading.Event) -> _Made:
        self._stop = stop
        now = self._now()
        if self._made is not None and (self._renew_at is None or now < self._renew_at):
            return self._made
        try:
            made = self._make()
        except Exception as error:
            if self._made is None or self._made.expires_at is None or now >= self._made.expires_at:
                self.forget()
                raise
            self.renewal_error = error
            return self._made
        self.forget()
        self._made = made
        if made.expires_at is not None:
            self._renew_at = max(made.expires_at - RENEW_BEFORE_SECONDS, now + (made.expires_at - now) * 2 / 3)
        return made

    def interrupt(self) -> None:
        """End every call under way: whoever waits for bytes gets an end of file. May be called from any thread."""
        for wire in list(self._wires):
            sock = wire.sock
            if isinstance(sock, socket.socket):
                try:
                    # not SSLSocket.shutdown: it takes the TLS object away from under the thread that reads
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:
                    continue  # not connected any more

    def _make(self) -> _Made:
        session, expires_at = boto3.Session(), None
        region = self._region(session)
        if self._aws.role_arn is not None:
            session, expires_at = self._assume(session, region, self._aws.role_arn)
        return _Made(session, region, self._new_client(session, "elasticache", region), expires_at)

    def _new_client(self, session: boto3.Session, service: Any, region: str) -> Any:
        client = session.client(service, region_name=region, endpoint_url=self._aws.endpoint_url, config=self._options)
        self._make_interruptible(client)
        return client

    def _assume(self, session: boto3.Session, region: str, role_arn: str) -> tuple[boto3.Session, float]:
        sts = self._new_client(session, "sts", region)
        try:
            credentials = sts.assume_role(RoleArn=role_arn, RoleSessionName="natproxy")["Credentials"]
        finally:
            sts.close()
        assumed = boto3.Session(
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials["SessionToken"],
        )
        return assumed, credentials["Expiration"].timestamp()

    def _region(self, session: boto3.Session) -> str:
        """The config's, else AWS_REGION, else what boto3 knows (AWS_DEFAULT_REGION, its files), else the instance's."""
        region = self._aws.region or os.environ.get("AWS_REGION") or session.region_name
        if region:
            return region
        core = session._session  # noqa: SLF001 - boto3 offers no other way to the botocore session it has made
        told = IMDSRegionProvider(core).provide() or ""
        # botocore only takes the last letter off the zone, which is not enough for a local zone (us-west-2-lax-1a)
        found = re.match(r"[a-z]{2,}(-[a-z]+)+-\d+", told)
        if found is None:
            raise NoRegionError
        return found.group()

    def _make_interruptible(self, client: Any) -> None:
        """Let ``interrupt`` reach this client's connections, and no request or retry begin once the round stops."""
        service = client.meta.service_model.service_id.hyphenize()
        client.meta.events.register_first(f"before-send.{service}", self._check)
        client.meta.events.register_first(f"needs-retry.{service}", self._check)
        http = client._endpoint.http_session  # noqa: SLF001 - no public way; a test notices when it goes
        http._pool_classes_by_scheme = self._pool_classes()  # noqa: SLF001
        http._manager.pool_classes_by_scheme = http._pool_classes_by_scheme  # noqa: SLF001

    def _check(self, **_: object) -> None:
        if self._stop.is_set():
            raise CutShortError

    def _pool_classes(self) -> dict[str, type]:
        """botocore's own connection pools, whose connections are known to ``interrupt`` while they are open."""
        wires, check = self._wires, self._check

        class Wire(AWSHTTPConnection):
            def connect(self) -> None:
                super().connect()
                wires.add(self)
                check()

        class TlsWire(AWSHTTPSConnection):
            def connect(self) -> None:
                super().connect()
                wires.add(self)
                check()

        class Pool(AWSHTTPConnectionPool):
            ConnectionCls = Wire

        class TlsPool(AWSHTTPSConnectionPool):
            ConnectionCls = TlsWire

        return {"http": Pool, "https": TlsPool}
