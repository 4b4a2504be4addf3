"""The AWS stand-in as a server: real boto3 talks to it, signed, paged, and with faults on order. I/O: HTTP, a thread.

    world = AwsWorld()
    world.add_replication_group("my-redis", replicas=2)
    with AwsServer(world) as aws:
        client = boto3.client("elasticache", endpoint_url=aws.endpoint_url, region_name=world.region, ...)
        # or, for a process: env = aws.environ           (static keys)
        #                    env = aws.instance_environ  (no keys: found through instance metadata)
        aws.fault("DescribeCacheClusters", "throttle", times=2)
        aws.wait_for("DescribeCacheClusters", 3)         # blocks; in async code: await aws.wait_for_async(...)
        aws.calls("DescribeCacheClusters")[0].params     # {"ShowCacheNodeInfo": True, ...}
        aws.go_down(); aws.go_up()                       # nobody listens; the same port again

If the world holds what AWS could not answer (an invented field), the request gets a 500 and ``stop`` raises
RenderError.
The control API (POST /_control, and the Unix socket ``control_path``) is described in control.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.standins.aws.control import answer_control
from tests.standins.aws.faults import Fault, FaultKind, Faults
from tests.standins.aws.http import HttpServer, Reply, Request
from tests.standins.aws.imds import InstanceMetadata
from tests.standins.aws.keys import AwsError, Credentials, Keyring, Signed, verify
from tests.standins.aws.operations import Context, denial
from tests.standins.aws.protocols import answer, error_reply, understand
from tests.standins.aws.world import AwsWorld
from tests.standins.loop import LoopThread

CONTROL_PATH = "/_control"
INVALID_TOKEN = AwsError(403, "InvalidClientTokenId", "The security token included in the request is invalid.")
EXPIRED_TOKEN = AwsError(403, "ExpiredToken", "The security token included in the request is expired")
ANSWERED_AS_ERROR = {
    "throttle": AwsError(400, "Throttling", "Rate exceeded"),
    "server-error": AwsError(503, "ServiceUnavailable", "Service is unable to handle request."),
    "internal-error": AwsError(500, "InternalFailure", "An unknown error occurred"),
    "expired": EXPIRED_TOKEN,
    "invalid-key": INVALID_TOKEN,
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request that was received."""

    operation: str
    """An operation's name; ``imds`` for instance metadata, whose ``params`` hold ``method`` and ``path``."""
    params: dict[str, object]
    access_key: str = ""


class AwsServer:
    """Serves a world. ``page_size`` bounds every page, whatever the client asks for."""

    def __init__(
        self,
        world: AwsWorld,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        page_size: int = 3,
        control_path: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.world = world
        self.page_size = page_size
        self.now = now
        """The server's clock: signatures and expiries are judged by it."""
        self.keyring = Keyring(self._clock, world.account)
        self.user: Credentials = self.keyring.user("natproxy")
        self.imds = InstanceMetadata(self.keyring, world.region, world.account, world.network)
        self.faults = Faults()
        self.actions: dict[str, Callable[..., object]] = {}
        """More actions for the control API, by name."""
        self.errors: list[Exception] = []
        self._address, self._port, self._control_path = address, port, control_path
        self._thread = LoopThread("aws-standin")
        self._http = HttpServer(self._handle)
        self._control_http = HttpServer(self._handle_control)
        self._calls: list[Call] = []
        self._called = threading.Condition()

    # life

    def start(self) -> None:
        """Listen; the port is chosen at the first start where 0 was given."""
        self._thread.start()
        try:
            self.go_up()
            if self._control_path is not None:
                self._thread.call(self._control_http.listen_unix(self._control_path))
        except BaseException:
            self._thread.stop()
            raise

    def stop(self) -> None:
        """End everything; raises the first RenderError there was."""
        self.faults.heal()
        self._thread.call(self._http.close())
        self._thread.call(self._control_http.close())
        self._thread.stop()
        if self._control_path is not None:
            Path(self._control_path).unlink(missing_ok=True)
        if self.errors:
            raise self.errors[0]

    def go_down(self) -> None:
        """Let nobody listen, and cut every connection."""
        self._thread.call(self._http.close())

    def go_up(self) -> None:
        """Listen again, on the same port."""
        self._port = self._thread.call(self._http.listen(self._address, self._port))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # how to reach it

    @property
    def endpoint_url(self) -> str:
        """Where all services answer."""
        return f"http://{self._address}:{self._port}"

    @property
    def environ(self) -> dict[str, str]:
        """Environment of a process with a user's keys."""
        return {**self._common_environ, **self.user.environ, "AWS_REGION": self.world.region}

    @property
    def instance_environ(self) -> dict[str, str]:
        """Environment of a process on an instance: no keys and no region, only the metadata service."""
        service = f"http://{self._address}:{self._port}/"
        return {
            **self._common_environ,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": service,
            "AWS_EC2_METADATA_DISABLED": "false",
        }

    @property
    def _common_environ(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "NO_PROXY": self._address,
        }

    # faults and what was asked

    def fault(self, operation: str, kind: FaultKind, times: int | None = 1) -> Fault:
        """Order a fault; see faults.py."""
        return self.faults.add(operation, kind, times)

    def heal(self) -> None:
        """End every fault."""
        self.faults.heal()

    def calls(self, operation: str | None = None) -> list[Call]:
        """What was received so far, oldest first."""
        with self._called:
            return [call for call in self._calls if operation in (None, call.operation)]

    def wait_for(self, operation: str, count: int = 1, seconds: float = 10.0) -> list[Call]:
        """Block until an operation was received ``count`` times in all; raises TimeoutError."""
        with self._called:
            if not self._called.wait_for(lambda: self._count(operation) >= count, seconds):
                message = f"{operation} was received {self._count(operation)} times, not {count}, in {seconds} s"
                raise TimeoutError(message)
        return self.calls(operation)

    def wait_for_more(self, operation: str, more: int = 1, seconds: float = 10.0) -> list[Call]:
        """Block until an operation was received ``more`` times from now on; raises TimeoutError."""
        return self.wait_for(operation, len(self.calls(operation)) + more, seconds)

    async def wait_for_async(self, operation: str, count: int = 1, seconds: float = 10.0) -> list[Call]:
        """``wait_for`` for a running loop."""
        return await asyncio.to_thread(self.wait_for, operation, count, seconds)

    def _clock(self) -> float:
        return self.now()

    def _count(self, operation: str) -> int:
        return sum(call.operation == operation for call in self._calls)

    def _record(self, call: Call) -> None:
        with self._called:
            self._calls.append(call)
            self._called.notify_all()

    # requests

    async def _handle(self, request: Request) -> Reply:
        if request.path == CONTROL_PATH:
            return await self._handle_control(request)
        reply = await self._answer(request)
        return replace(reply, headers={"Date": formatdate(self.now(), usegmt=True), **reply.headers})

    async def _answer(self, request: Request) -> Reply:
        if request.path.startswith("/latest/"):
            self._record(Call("imds", {"method": request.method, "path": request.path}))
            return await self._spoil("imds", lambda: self.imds.answer(request), _plain)
        try:
            signed = verify(self.keyring, self.world.region, self.now(), request)
        except AwsError as error:
            return error_reply("elasticache", error)
        return await self._operate(request, signed)

    async def _operate(self, request: Request, signed: Signed) -> Reply:
        try:
            operation, params = understand(request, signed.service)
        except AwsError as error:
            return error_reply(signed.service, error)
        self._record(Call(operation.name, params, signed.credentials.access_key))
        context = Context(self.world, self.keyring, signed.credentials, self.page_size)

        def properly() -> Reply:
            try:
                with self.world.lock:
                    return answer(signed.service, operation, context, params)
            except AwsError as error:
                return error_reply(signed.service, error)
            except Exception as error:  # raised by stop(); the client gets a 500
                self.errors.append(error)
                return error_reply(signed.service, AwsError(500, "InternalFailure", repr(error)))

        def refuse(error: AwsError | None) -> Reply:
            return error_reply(signed.service, error or denial(context, signed.service, operation.name, params))

        return await self._spoil(operation.name, properly, refuse)

    async def _spoil(
        self, operation: str, answer: Callable[[], Reply], refuse: Callable[[AwsError | None], Reply]
    ) -> Reply:
        """Answer, or do what the fault for this operation says instead."""
        fault = self.faults.take(operation)
        if fault is None:
            return answer()
        if fault.kind in ("hang", "slow"):
            await _released(fault)
            return Reply(200, b"", ending="close") if fault.kind == "hang" else answer()
        if fault.kind in ("reset", "close"):
            return Reply(200, b"", ending=fault.kind)
        if fault.kind == "denied" or fault.kind in ANSWERED_AS_ERROR:
            return refuse(ANSWERED_AS_ERROR.get(fault.kind))
        return _spoilt(fault.kind, answer())

    async def _handle_control(self, request: Request) -> Reply:
        return await answer_control(self, self.actions, request)


async def _released(fault: Fault) -> None:
    """Wait for an event of another thread without holding the loop."""
    loop = asyncio.get_running_loop()
    released = asyncio.Event()

    def go_on() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(released.set)

    fault.when_released(go_on)
    await released.wait()


def _spoilt(kind: FaultKind, reply: Reply) -> Reply:
    match kind:
        case "truncated":
            return Reply(reply.status, reply.body[: len(reply.body) * 2 // 3])
        case "cut-off":
            return Reply(reply.status, reply.body, ending="cut-off")
        case "html":
            return Reply(
                200, b"<html><head><title>Sign in</title></head><body>Welcome to our network</body></html>", "text/html"
            )
        case "nonsense":
            return Reply(200, b"<Surprise><Answer>42</Answer></Surprise>")
        case _:
            return Reply(200, b"")


def _plain(error: AwsError | None) -> Reply:
    return Reply(error.status if error else 403, b"", "text/plain")
