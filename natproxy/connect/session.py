"""The life of ``natproxy connect``: ask the portal, serve, look again until told to stop. I/O: all of it.

The directory is asked for now and then (``schedule``), and at once when something on the way says that it is out of
date. Where it cannot be had, what was served is served on.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from natproxy import messages
from natproxy.connect.aside import aside
from natproxy.connect.directory import Directory, fetch
from natproxy.connect.faults import Attempt, RefusedError, not_agreed
from natproxy.connect.papers import Papers, read_papers
from natproxy.connect.ports import beyond
from natproxy.connect.renewal import Renewal
from natproxy.connect.routes import NODE_CA, chosen, remotes
from natproxy.connect.schedule import Schedule
from natproxy.connect.serving import Serving
from natproxy.connect.shown import called, happened, summary, where
from natproxy.connect.troubles import BY_CERTIFICATE, Troubles
from natproxy.documents import ConnectEvent, LocalRoute
from natproxy.errors import BundleError, NatproxyError, PortalError, unforeseen
from natproxy.model import Outcome
from natproxy.worker.inprocess import WorkerThread, start_worker

SOONEST_SECONDS = 2.0
"""Between two looks, whatever happens."""
LOOK_SECONDS = 2.0
"""Between two looks at the bundle's file."""
ANSWER_SECONDS = 8.0
"""For the portal, for each step of the way."""
STOP_SECONDS = 0.5
"""How long connections may go on after Ctrl-C."""
STUCK_SECONDS = 1.0
"""What is told should have been taken by then."""
_CUT = frozenset((Outcome.NODE_RESET, Outcome.NODE_TIMEOUT))
"""Ends of connections that natproxy may have a reason for: a failover."""


class OffsetError(NatproxyError):
    """The offset takes a port to none."""


class Session:
    """One run. ``tell`` is called with all that happens, as it happens."""

    def __init__(
        self,
        papers: Papers,
        host: str,
        port: int,
        tell: Callable[[ConnectEvent], None],
        *,
        caches: Sequence[str] = (),
        offset: int = 0,
    ) -> None:
        self._host = host
        self._port = port
        self._tell = tell
        self._caches = tuple(caches)
        self._offset = offset
        self._wake = asyncio.Event()
        self._is_serving = False
        self._is_over = False
        self._failure: Exception | None = None
        """What this run cannot go on after."""
        self._renewal = Renewal(papers, self._say)
        self._troubles = Troubles(self._say, self._name_of)
        self._worker: WorkerThread | None = None
        self._serving: Serving | None = None
        self._schedule = Schedule()
        self._telling_since: float | None = None

    # life

    async def run(self) -> None:
        """Serve until SIGINT or SIGTERM. Raises PortalError, OffsetError where it cannot begin.

        OSError where what is told cannot be written.
        """
        loop, work = asyncio.get_running_loop(), asyncio.current_task()

        def signalled(*_: object) -> None:
            self._look_whether_stuck()
            loop.call_soon_threadsafe(self._asked_to_stop, work)

        # By hand: one of the loop's own is not called while the loop waits for who reads what it tells.
        before = {number: signal.signal(number, signalled) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            await self._start()
            await self._go_on()
        except asyncio.CancelledError:
            if not self._is_over:
                raise
        finally:
            await self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _look_whether_stuck(self) -> None:
        """End a telling that nobody listens to, in the midst of it. Raises BrokenPipeError, as if he had hung up."""
        if self._telling_since is not None and time.monotonic() - self._telling_since > STUCK_SECONDS:
            raise BrokenPipeError

    def _asked_to_stop(self, work: asyncio.Task[None] | None) -> None:
        if work is not None and not self._is_over:
            self._is_over = True
            work.cancel()

    async def _start(self) -> None:
        directory = await self._fetch()
        caches = chosen(directory.document, self._caches)
        ports = [one.view.port for one in remotes(caches) if one.view.port is not None]
        if not ports:
            message = f"the certificate of {self._renewal.papers.name} may use no cache now: ask the operator"
            raise PortalError(message)
        if (port := beyond(ports, self._offset)) is not None:
            message = f"--port-offset {self._offset} takes port {port} to {port + self._offset}, and there is none such"
            raise OffsetError(message)
        self._worker = worker = start_worker(self._heard, self._worker_ended)
        self._show_papers(worker)
        self._serving = serving = Serving(worker, self._host, self._happened, offset=self._offset)
        serving.apply(caches, directory)
        self._is_serving = True
        line = summary(self._host, self._renewal.papers.name, self._renewal.papers.expires_on, serving.routes)
        self._happened("serving", line, serving.routes)
        self._renewal.look_at_dates()

    async def _go_on(self) -> None:
        self._plan()
        while self._failure is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_SECONDS, max(0.0, self._schedule.due - time.monotonic()))):
                    await self._wake.wait()
            self._renewal.look_at_dates()
            if self._look_at_bundle() or self._wake.is_set() or time.monotonic() >= self._schedule.due:
                self._wake.clear()
                await self._refresh()
                self._plan()
                await asyncio.sleep(SOONEST_SECONDS)
        raise self._failure

    async def _stop(self) -> None:
        if self._serving is not None:
            self._serving.close()
        if self._worker is not None:
            await self._worker.stop(STOP_SECONDS)
        if self._is_over and self._is_serving and self._failure is None:
            self._happened("ended", "natproxy connect has ended: nothing listens here any more", ())

    def _plan(self) -> None:
        """The portal has been asked."""
        troubles = self._troubles
        self._schedule.asked(time.monotonic(), is_lost=troubles.is_portal_lost, is_refused=troubles.is_refused)
        if not self._schedule.heeds_hints:
            self._wake.clear()  # what came meanwhile is of the same cause

    def _hinted(self) -> None:
        if self._schedule.heeds_hints:
            self._wake.set()

    # the portal

    @property
    def _attempt(self) -> Attempt:
        papers = self._renewal.papers
        return Attempt(self._host, self._port, papers.name, papers.expires_on, papers.host)

    async def _fetch(self) -> Directory:
        attempt, context = self._attempt, self._renewal.papers.context()
        try:
            async with asyncio.timeout(4 * ANSWER_SECONDS):
                return await aside("natproxy-portal", lambda: fetch(attempt, context, ANSWER_SECONDS))
        except TimeoutError as error:
            raise not_agreed(attempt, error) from error

    async def _refresh(self) -> None:
        """Ask again; what cannot be had changes nothing."""
        try:
            directory = await self._fetch()
            caches = chosen(directory.document, self._caches, is_lenient=True)
        except (PortalError, BundleError) as error:
            self._troubles.portal_failed(str(error), is_refusal=isinstance(error, RefusedError))
            return
        if self._serving is not None:
            self._serving.apply(caches, directory)
            self._troubles.forget_all_but(route.local_port for route in self._serving.routes if route.local_port)
        self._troubles.portal_answered(self._attempt)

    # the bundle

    def _look_at_bundle(self) -> bool:
        """Take up a bundle that has been replaced; return whether it was."""
        if not self._renewal.look_at_bundle():
            return False
        if self._worker is not None:
            self._show_papers(self._worker)
        self._troubles.bundle_renewed()
        return True

    def _show_papers(self, worker: WorkerThread) -> None:
        worker.send(messages.Tls(None, {NODE_CA: self._renewal.papers.ca}, self._renewal.papers.own))

    # what the worker says

    def _heard(self, message: messages.Up) -> None:
        match message:
            case messages.DialFailed():
                self._dial_failed(message.port, Outcome(message.outcome), message.detail)
            case messages.DialRecovered():
                self._troubles.dial_recovered(message.port)
                self._schedule.let_in()
            case messages.Hint():
                self._hinted()
            case messages.Finished():
                for ended in message.connections:
                    self._ended(ended)

    def _dial_failed(self, port: int, outcome: Outcome, detail: str) -> None:
        if self._troubles.dial_failed(port, outcome, detail, time.monotonic()):
            self._hinted()

    def _ended(self, ended: messages.FinishedConnection) -> None:
        outcome = Outcome(ended.outcome)
        self._troubles.ended(ended.port, outcome)
        if outcome is Outcome.NODE_TLS:  # of a refused handshake the worker tells as of a dial
            self._dial_failed(ended.port, outcome, ended.detail)
        elif outcome in _CUT:
            self._hinted()
        is_answered = ended.node_bytes > 0 and outcome not in BY_CERTIFICATE
        if is_answered and self._troubles.got_through(ended.port, time.monotonic() - ended.seconds):
            self._schedule.let_in()

    def _worker_ended(self, error: BaseException | None) -> None:
        if not self._is_over:
            reason = unforeseen(error) if isinstance(error, Exception) else repr(error)
            self._fail(NatproxyError(f"the part that moves the bytes has ended: {reason}"))

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._wake.set()

    # what is told

    def _name_of(self, local_port: int) -> str:
        route = None if self._serving is None else self._serving.route_at(local_port)
        return f"port {local_port}" if route is None else f"{where(route)} ({called(route)})"

    def _say(self, event: str, line: str) -> None:
        self._happened(event, line, ())

    def _happened(self, event: str, line: str, routes: Sequence[LocalRoute]) -> None:
        if not self._is_serving:
            return
        self._telling_since = time.monotonic()
        try:
            self._tell(happened(event, line, time.time(), routes))
        except OSError as error:  # nobody reads along any more
            self._fail(error)
        finally:
            self._telling_since = None


def run(
    bundle: Path,
    host: str | None,
    port: int | None,
    tell: Callable[[ConnectEvent], None],
    *,
    caches: Sequence[str] = (),
    offset: int = 0,
) -> None:
    """Serve until SIGINT or SIGTERM; what is not given of host and port is the bundle's.

    Raises BundleError, PortalError, OffsetError where that cannot begin.
    """
    papers = read_papers(bundle, time.time())
    dialled = (host or papers.host or "").rstrip(".")
    if not dialled:
        message = f"{bundle} does not say what to dial: natproxy connect HOST --bundle {bundle}"
        raise BundleError(message)

    async def serve() -> None:
        await Session(papers, dialled, port or papers.portal_port, tell, caches=caches, offset=offset).run()

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core would hold the key
    asyncio.run(serve())
