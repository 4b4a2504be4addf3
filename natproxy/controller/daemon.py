"""The composition root: startup, main loop, shutdown. I/O: everything, by way of the other modules.

The way of the state: AWS's answers, names and the config change what is known (knowledge.py); ``_settle`` works out
what should be served and has it done (serving.py). A reload takes the same way; any error keeps the old state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from natproxy import __version__, messages
from natproxy.config import Config, kept_until_restart, load_config
from natproxy.controller.changes import Change
from natproxy.controller.documents import ReloadVerdict
from natproxy.controller.knowledge import Knowledge
from natproxy.controller.logs import event, set_up_logs
from natproxy.controller.metrics import Metrics, NodeChange
from natproxy.controller.overview import route_statuses
from natproxy.controller.reconcile import Discovery, Taken
from natproxy.controller.serving import Serving
from natproxy.controller.sockets import Sockets
from natproxy.controller.statefile import State, StateFile, make_directory
from natproxy.controller.status import ports_document, routes_document, status_line
from natproxy.controller.systemd import Notifier
from natproxy.controller.web import Admin
from natproxy.controller.workers import Workers
from natproxy.discover.elasticache import ElastiCache
from natproxy.discover.names import Names
from natproxy.discover.parse import Failure, RawAnswers
from natproxy.errors import ConfigError, NatproxyError
from natproxy.model import DiscoveryFailure, Kind, Outcome, Route
from natproxy.tasks import TaskOwner

_log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
FIRST_NAMES_SECONDS = 1.5
"""How long a start waits for names that no address is known of."""
_ENDED_BY_NODE = frozenset({Outcome.NODE_CLOSED.value, Outcome.NODE_RESET.value, Outcome.NODE_TIMEOUT.value})
STATE_FILE = "state.json"
CONTROL_SOCKET = "control.sock"


def run(path: Path) -> int:
    """Be the daemon with the config at ``path``; return the exit status. Raises ConfigError, NatproxyError."""
    config = load_config(path)
    set_up_logs(config.log.format, config.log.level)
    _allow_many_sockets()
    return uvloop.run(Daemon(config).run())


def _allow_many_sockets() -> None:
    """Every port needs a descriptor for each address; the soft limit is 1,024 for the sake of select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Daemon:
    """One run of natproxy."""

    def __init__(self, config: Config, environ: Mapping[str, str] = os.environ) -> None:
        self._config = config
        self._notifier = Notifier(environ)
        self._metrics = Metrics(__version__, CollectorRegistry())
        self._stopping = asyncio.Event()
        self._name_came = asyncio.Event()
        self._is_discovered = False
        self._discovering: asyncio.Task[None] | None = None
        self._last_failure: Failure | None = None
        self._status = ""
        self._tasks = TaskOwner(self._task_failed)
        self._has_failed = False

    async def run(self) -> int:
        """Start, serve until stopped, stop. Returns the exit status."""
        try:
            await self._startup()
        except BaseException:
            await self._shutdown()
            raise
        try:
            await self._main_loop()
        except Exception as error:
            self._task_failed("main loop", error)
        self._knowledge.save_addresses(at_once=True)
        await self._shutdown()
        return 1 if self._has_failed else 0

    # Startup.

    async def _startup(self) -> None:
        config = self._config
        for warning in config.warnings:
            event(_log, logging.WARNING, "config warns", detail=warning)
        state_file, state = _load_state(config.state_dir)
        self._knowledge = Knowledge(config, state_file, state, on_save_failure=self._metrics.record_state_save_failure)
        self._sockets = Sockets(config.listen.address)
        self._workers = Workers(config.worker_count, self._heard, self._lost)
        self._serving = Serving(self._knowledge, self._sockets, self._workers)
        self._names = Names(config.resolver, self._name_answered)
        self._aws = ElastiCache(config.aws)
        self._discovery = Discovery(
            self._fetch, self._take_answers, self._count_failure, lambda: self._config.aws.refresh
        )
        self._admin = Admin(self)
        await self._open_admin()
        self._watch_signals()
        await self._workers.start()
        self._set_policy()
        self._settle(is_reload=False)
        await self._first_names()
        self._discover_if_asked_to()
        self._show()
        self._notifier.ready(self._status)
        event(
            _log,
            logging.INFO,
            "natproxy runs",
            version=__version__,
            config=config.path,
            routes=len(self._serving.current),
        )

    async def _first_names(self) -> None:
        """Give names of which nothing is known a moment to resolve: whoever connects at READY is to be served."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_NAMES_SECONDS):
                while self._knowledge.has_unasked_names():
                    self._name_came.clear()
                    await self._name_came.wait()

    def _discover_if_asked_to(self) -> None:
        """Ask AWS now and from now on, unless there is nothing to ask for."""
        if not self._config.caches:
            if self._discovering is not None:
                self._discovering.cancel()
            self._discovering = self._last_failure = None
        elif self._discovering is None:
            self._discovering = self._tasks.start("discovery", self._discovery.run())
        else:
            self._discovery.hurry()

    async def _open_admin(self) -> None:
        admin = self._config.admin
        await self._admin.start(admin.address, admin.port)
        try:
            await self._admin.start_control(self._config.state_dir / CONTROL_SOCKET)
        except NatproxyError as error:
            if os.access(self._config.state_dir, os.W_OK):
                raise
            # What is written down is served all the same; SIGHUP still reloads.
            event(_log, logging.ERROR, "control socket not opened", error=error)

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._asked_to_reload)

    def _asked_to_stop(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            event(_log, logging.WARNING, "natproxy stops at once", signal=number.name)
            self._workers.kill_all()
            os._exit(1)
        event(_log, logging.INFO, "natproxy stops", signal=number.name)
        self._stopping.set()

    def _asked_to_reload(self) -> None:
        self._tasks.start("reload", self._reload_by_signal())

    async def _reload_by_signal(self) -> None:
        await self.reload()

    # Main loop.

    async def _main_loop(self) -> None:
        tick_seconds = min(TICK_SECONDS, self._notifier.watchdog_seconds or TICK_SECONDS)
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(tick_seconds):
                    await self._stopping.wait()
            except TimeoutError:
                self._tick()

    def _tick(self) -> None:
        self._workers.kill_silent()
        self._serving.tick()
        self._knowledge.save_addresses()
        self._settle_if_unsaved()
        self._show()
        self._notifier.watchdog()

    def _settle_if_unsaved(self) -> None:
        # Ports that could not be written down wait for nothing but the disk.
        if self._knowledge.save_error is None and self._is_held_back:
            self._settle(is_reload=False)

    def _show(self) -> None:
        statuses = route_statuses(self._knowledge, self._serving)
        unplaced = self._knowledge.desired.unplaced
        self._metrics.show_routes(statuses, [one.key for one in unplaced])
        self._metrics.show_workers(self._workers.running)
        status = status_line(statuses, unplaced=len(unplaced), waiting=self._waiting())
        if status != self._status:
            self._status = status
            self._notifier.status(status)

    def _waiting(self) -> str:
        if self._is_discovered or not self._config.caches:
            return ""
        if self._last_failure is None:
            return "the first answer of AWS"
        return f"the first answer of AWS ({self._last_failure.reason}: {self._last_failure.message})"

    # Facts come in.

    async def _fetch(self) -> RawAnswers:
        return await self._aws.fetch(any(entry.tags is not None for entry in self._config.caches))

    def _take_answers(self, answers: RawAnswers) -> Taken:
        changes = self._knowledge.take_answers(answers)
        for change in changes:
            self._tell_change(change)
        for note in self._knowledge.snapshot.notes:
            if note not in self._told_notes:
                event(_log, logging.WARNING, "discovery notes", detail=note)
        self._told_notes = frozenset(self._knowledge.snapshot.notes)
        is_complete = self._knowledge.snapshot.is_complete
        if is_complete:
            self._is_discovered = True
            self._last_failure = None
            self._metrics.record_discovery(None)
        self._settle(is_reload=False)
        for change in changes:
            if change.what is NodeChange.ROLE:
                self._hurry_endpoints(change.key.cache)
        self._show()
        return Taken(bool(changes), is_complete)

    _told_notes: frozenset[str] = frozenset()

    def _tell_change(self, change: Change) -> None:
        self._metrics.record_change(change.what)
        event(
            _log,
            logging.INFO,
            f"node {change.what}" if change.key.node is not None else f"endpoint {change.what}",
            cache=change.key.cache,
            node=change.key.node,
            kind=change.key.kind,
            before=change.before,
            after=change.after,
        )

    def _hurry_endpoints(self, cache_id: str) -> None:
        """A role has moved: the names that follow roles will tell something else."""
        cache = self._knowledge.snapshot.cache(cache_id)
        endpoints = {} if cache is None else cache.endpoints
        for kind in (Kind.PRIMARY, Kind.READER):
            if kind in endpoints:
                self._names.hurry(endpoints[kind].host)

    def _count_failure(self, failure: Failure) -> None:
        self._last_failure = failure
        self._metrics.record_discovery(DiscoveryFailure(failure.reason))

    def _name_answered(self, host: str, addresses: tuple[str, ...] | None, reason: str) -> None:
        self._name_came.set()
        if addresses is not None:
            good = self._knowledge.addresses_of(host, addresses)
            reason = "" if good else f"it leads to {addresses[0]}, which cannot be the address of a node"
            addresses = good or None
        if addresses is None:
            self._metrics.record_name_failure()
        before = self._knowledge.book.get(host)
        if not self._knowledge.take_name(host, addresses, reason):
            return
        if addresses is None:
            event(_log, logging.WARNING, "name does not resolve, its last addresses stay", host=host, reason=reason)
            return
        if before is not None and before.current != self._knowledge.book[host].current:
            level = logging.DEBUG if self._knowledge.is_rotating(host) else logging.INFO
            event(_log, level, "name resolves anew", host=host, before=before.current, after=addresses)
            if self._knowledge.has_node_moved(host, before):
                self._metrics.record_change(NodeChange.ADDRESS)
        self._serving.names_changed([host])

    def _heard(self, worker: int, message: messages.Up) -> None:
        match message:
            case messages.Counts():
                self._metrics.record_counts(worker, message)
                self._serving.counted(worker, message)
                self._look_after_names(message)
            case messages.Finished():
                for connection in message.connections:
                    _log_connection(connection)
            case messages.DialFailed():
                self._dial_failed(message)
            case messages.DialRecovered():
                route = self._serving.dial_recovered(message.port)
                if route is not None:
                    event(_log, logging.INFO, "node answers again", port=message.port, route=route.key)
            case _:
                pass

    def _dial_failed(self, message: messages.DialFailed) -> None:
        news = self._serving.dial_failed(message.port, message.detail)
        if news is not None:
            event(
                _log,
                logging.WARNING,
                "node does not answer",
                port=message.port,
                route=news.key,
                reason=message.outcome,
                detail=message.detail,
            )
        route = self._serving.current.get(message.port)
        if route is not None:
            self._ask_anew(route)

    def _look_after_names(self, counts: messages.Counts) -> None:
        """A node that ends connections may have moved, or lost its role: its name tells, and costs little to ask."""
        for counted in counts.routes:
            route = self._serving.current.get(counted.port)
            if route is not None and route.target is not None and counted.ended.keys() & _ENDED_BY_NODE:
                self._names.hurry(route.target.host)

    def _ask_anew(self, route: Route) -> None:
        """The node may have moved: look at its name, and at what AWS says."""
        for name in (route.target, *route.fallback):
            if name is not None:
                self._names.hurry(name.host)
        self._discovery.hint()

    def _lost(self, worker: int, why: str) -> None:
        event(_log, logging.ERROR, "worker is gone and is replaced, its connections are lost", worker=worker, why=why)
        self._metrics.record_worker_loss(worker)
        self._serving.worker_lost(worker)

    def _settle(self, *, is_reload: bool) -> tuple[int, int, int]:
        desired = self._knowledge.settle()
        self._is_held_back = self._knowledge.save_error is not None
        changed = self._serving.apply(desired.routes, is_reload=is_reload)
        self._names.watch(self._knowledge.hosts())
        return changed

    _is_held_back = False

    def _set_policy(self) -> None:
        self._workers.set_policy(messages.Policy(log_connections=_log.isEnabledFor(logging.INFO)))

    def _task_failed(self, name: str, error: BaseException) -> None:
        # A part that is not there any more must not go unnoticed: whoever started natproxy starts it anew.
        event(_log, logging.CRITICAL, "natproxy stops, a task failed", task=name, exc_info=error)
        self._has_failed = True
        self._stopping.set()

    # What the admin side asks for (web.AdminSource).

    def metrics(self) -> tuple[bytes, str]:
        """Return the metrics and their content type."""
        return self._metrics.render()

    def health(self) -> tuple[bool, str]:
        """Say whether the controller and its workers answer."""
        silent = self._workers.silent()
        if silent:
            return False, f"worker {silent[0]} does not answer"
        if self._workers.running < self._config.worker_count:
            return False, f"{self._workers.running} of {self._config.worker_count} workers run"
        return True, "ok"

    def readiness(self) -> tuple[bool, str]:
        """Say whether discovery has succeeded at least once, where there is anything to discover."""
        waiting = self._waiting()
        return not waiting, f"waiting for {waiting}" if waiting else "ready"

    def routes(self) -> dict[str, Any]:
        """Return the routes document."""
        return routes_document(
            self._config,
            self._knowledge.snapshot,
            route_statuses(self._knowledge, self._serving),
            datetime.now(UTC),
            unplaced={one.key: one.reason for one in self._knowledge.desired.unplaced},
            waiting=self._waiting(),
        )

    def ports(self) -> dict[str, Any]:
        """Return the port map as a document."""
        return ports_document(self._knowledge.portmap, datetime.now(UTC))

    async def reload(self) -> ReloadVerdict:
        """Read the config again, all or nothing."""
        self._notifier.reloading(self._status)
        try:
            verdict = self._reload()
        except ConfigError as error:
            event(_log, logging.ERROR, "reload refused, the old config stays", error=error)
            verdict = ReloadVerdict(False, str(error))
        self._metrics.record_reload(is_accepted=verdict.ok)
        self._show()
        self._notifier.ready(self._status)
        return verdict

    def _reload(self) -> ReloadVerdict:
        config, restart_needed = kept_until_restart(self._config, load_config(self._config.path))
        self._config = config
        self._knowledge.take_config(config)
        set_up_logs(config.log.format, config.log.level)
        self._set_policy()
        self._names.reconfigure(config.resolver)
        opened, changed, closed = self._settle(is_reload=True)
        self._discover_if_asked_to()
        message = f"reloaded: {opened} routes opened, {changed} changed, {closed} closed"
        event(_log, logging.INFO, "config reloaded", opened=opened, changed=changed, closed=closed)
        for warning in config.warnings:
            event(_log, logging.WARNING, "config warns", detail=warning)
        if restart_needed:
            event(_log, logging.WARNING, "config needs a restart for some values", keys=restart_needed)
        return ReloadVerdict(True, message, restart_needed)

    def release(self, name: str) -> str:
        """Give a gone node's port back."""
        entry = self._knowledge.release(name)
        event(_log, logging.INFO, "port released", port=entry.port, route=entry.key)
        self._settle(is_reload=False)
        return f"port {entry.port} of {entry.key} is free again"

    # Shutdown.

    async def _shutdown(self) -> None:
        self._notifier.stopping("letting connections end")
        await self._tasks.cancel_all()
        if hasattr(self, "_serving"):
            self._sockets.close_all()
            await self._workers.stop(self._config.timeouts.stop)
            await self._serving.close()
            await self._names.close()
            await self._aws.close()
            await self._admin.stop()
        event(_log, logging.INFO, "natproxy has stopped")


def _load_state(state_dir: Path) -> tuple[StateFile, State]:
    make_directory(state_dir)
    state_file = StateFile(state_dir / STATE_FILE)
    result = state_file.load()
    if result.warning is not None:
        event(_log, logging.ERROR, "state damaged, starting without it", detail=result.warning)
    return state_file, result.state


def _log_connection(connection: messages.FinishedConnection) -> None:
    event(
        _log,
        logging.INFO,
        "connection ended",
        port=connection.port,
        cache=connection.cache,
        kind=connection.kind,
        node=connection.node or None,
        client=connection.client,
        address=connection.address or None,
        client_bytes=connection.client_bytes,
        node_bytes=connection.node_bytes,
        seconds=connection.seconds,
        outcome=Outcome(connection.outcome),
        detail=connection.detail or None,
    )
