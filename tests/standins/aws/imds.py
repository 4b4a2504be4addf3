"""The instance metadata service, version 2: token, region, role credentials, interfaces. Pure."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime

from tests.standins.aws.http import Reply, Request
from tests.standins.aws.keys import Credentials, Keyring
from tests.standins.aws.network import THIS_INSTANCE, Network

TOKEN_HEADER = "x-aws-ec2-metadata-token"
TTL_HEADER = "x-aws-ec2-metadata-token-ttl-seconds"
CREDENTIALS_PATH = "/latest/meta-data/iam/security-credentials/"


class InstanceMetadata:
    """An instance with an instance profile, in the first zone of its region."""

    def __init__(self, keyring: Keyring, region: str, account: str, network: Network) -> None:
        self.role = "natproxy-instance"
        self.credential_seconds = 6 * 3600.0
        """How long role credentials last; those given out already keep their end."""
        self.is_stuck = False
        """True: the same old credentials are answered, expired or not, as IMDS does in an outage."""
        self._keyring = keyring
        self._region = region
        self._account = account
        self._network = network
        self._tokens: set[str] = set()
        self._current: Credentials | None = None

    def answer(self, request: Request) -> Reply:
        """Answer a request below ``/latest/``."""
        if request.path == "/latest/api/token":
            return self._token(request)
        if request.headers.get(TOKEN_HEADER) not in self._tokens:
            return _text(401, "Unauthorized")
        path = request.path.rstrip("/")
        if path == f"{CREDENTIALS_PATH}{self.role}":
            return _text(200, json.dumps(self._credentials()))
        known = {
            CREDENTIALS_PATH.rstrip("/"): self.role,
            "/latest/meta-data/placement/region": self._region,
            "/latest/meta-data/placement/availability-zone": f"{self._region}a",
            "/latest/dynamic/instance-identity/document": json.dumps(self._identity()),
            **{f"/latest/meta-data/{name}": text for name, text in self._instance().items()},
        }
        return _text(200, known[path]) if path in known else _text(404, "Not Found")

    def _token(self, request: Request) -> Reply:
        if request.method != "PUT":
            return _text(405, "Method Not Allowed")
        seconds = request.headers.get(TTL_HEADER, "")
        if not seconds.isdigit() or not 1 <= int(seconds) <= 21600:
            return _text(400, "Bad Request")
        token = secrets.token_urlsafe(40)
        self._tokens.add(token)
        return Reply(200, token.encode(), "text/plain", headers={TTL_HEADER: seconds})

    def _credentials(self) -> dict[str, str]:
        if self._current is None or not self.is_stuck:
            self._current = self._keyring.session(self.role, THIS_INSTANCE, self.credential_seconds)
        given = self._current
        ends = datetime.fromtimestamp(int(given.expires or 0), UTC)
        return {
            "Code": "Success",
            "Type": "AWS-HMAC",
            "LastUpdated": datetime.fromtimestamp(int(ends.timestamp() - self.credential_seconds), UTC).strftime(
                "%FT%TZ"
            ),
            "AccessKeyId": given.access_key,
            "SecretAccessKey": given.secret_key,
            "Token": given.token or "",
            "Expiration": ends.strftime("%FT%TZ"),
        }

    def _instance(self) -> dict[str, str]:
        """What is told of the instance and its interfaces; what it does not have is not there."""
        with self._network.lock:
            interfaces = self._network.this
            first = interfaces[0]
            told = {
                "instance-id": THIS_INSTANCE,
                "mac": first.mac,
                "local-ipv4": first.address,
                "security-groups": "\n".join(self._network.groups[group].name for group in first.groups),
                "network/interfaces/macs": "\n".join(f"{interface.mac}/" for interface in interfaces),
            }
            if first.public is not None:
                told["public-ipv4"] = first.public
            for number, interface in enumerate(interfaces):
                below = f"network/interfaces/macs/{interface.mac}"
                told |= {
                    f"{below}/device-number": str(number),
                    f"{below}/interface-id": interface.id,
                    f"{below}/local-ipv4s": interface.address,
                    f"{below}/security-group-ids": "\n".join(interface.groups),
                    f"{below}/vpc-id": interface.vpc,
                }
                if interface.public is not None:
                    told[f"{below}/public-ipv4s"] = interface.public
            return told

    def _identity(self) -> dict[str, str]:
        return {
            "accountId": self._account,
            "availabilityZone": f"{self._region}a",
            "instanceId": THIS_INSTANCE,
            "instanceType": "t4g.nano",
            "privateIp": self._network.this[0].address,
            "region": self._region,
        }


def _text(status: int, text: str) -> Reply:
    return Reply(status, text.encode(), "text/plain")
