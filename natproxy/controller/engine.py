"""What natproxy does with what it learns: answers of AWS, names, words of the workers, a new config. I/O: by its parts.

The way of the state: each of these changes what is known (knowledge.py); ``_settle`` works out what should be served
and has it done (serving.py). A reload takes the same way; any error keeps the old state.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from natproxy import messages
from natproxy.config import Config, kept_until_restart, load_config
from natproxy.controller.changes import Change
from natproxy.controller.children import Spawner
from natproxy.controller.credentials import Credentials, between
from natproxy.controller.documents import ReloadVerdict
from natproxy.controller.hearsay import Hearsay
from natproxy.controller.knowledge import Knowledge
from natproxy.controller.logins import Logins
from natproxy.controller.logs import event, log_connection, set_up_logs
from natproxy.controller.metrics import Metrics, NodeChange
from natproxy.controller.overview import route_statuses
from natproxy.controller.reconcile import Discovery, Taken
from natproxy.controller.roleasker import RoleAsker, targets_of
from natproxy.controller.serving import Serving
from natproxy.controller.sockets import Sockets
from natproxy.controller.statefile import State, StateFile
from natproxy.controller.status import RouteStatus, status_line
from natproxy.controller.systemd import Notifier
from natproxy.controller.workers import Workers
from natproxy.discover.elasticache import ElastiCache
from natproxy.discover.names import Names
from natproxy.discover.parse import Failure, RawAnswers
from natproxy.errors import ConfigError
from natproxy.model import DiscoveryFailure, Kind, Outcome, Route
from natproxy.tasks import TaskOwner
from natproxy.wire.rewriter import Hint

_log = logging.getLogger(__name__)

FIRST_NAMES_SECONDS = 1.5
"""How long a start waits for names that no address is known of."""
OPEN_TOGETHER_SECONDS = 0.1
"""How long ports whose names have answered wait for others that are about to be opened."""
_ENDED_BY_NODE = frozenset({Outcome.NODE_CLOSED.value, Outcome.NODE_RESET.value, Outcome.NODE_TIMEOUT.value})


class Engine:
    """Joins the parts that learn, know and serve. ``tasks`` owns what it runs in the background."""

    def __init__(
        self,
        config: Config,
        state_file: StateFile,
        state: State,
        *,
        sockets: Sockets,
        metrics: Metrics,
        notifier: Notifier,
        tasks: TaskOwner,
        spawner: Spawner | None = None,
    ) -> None:
        self.config = config
        self.metrics = metrics
        self.knowledge = Knowledge(config, state_file, state, on_save_failure=metrics.record_state_save_failure)
        self.credentials = Credentials(metrics.tls)
        self.sockets = sockets
        self.workers = Workers(config.worker_count, self._heard, self._lost, spawner=spawner)
        self.serving = Serving(self.knowledge, self.sockets, self.workers)
        self.names = Names(config.resolver, self._name_answered)
        self.discovery = Discovery(
            self._fetch, self._take_answers, self._count_failure, lambda: self.config.aws.refresh
        )
        self._aws = ElastiCache(config.aws)
        self._hearsay = Hearsay(self.knowledge, metrics, self._ask_cache_anew, self._tell_changes)
        self._role_asker = RoleAsker(Logins(self._aws.secret), self._hearsay.answered)
        self._notifier = notifier
        self._tasks = tasks
        self._name_came = asyncio.Event()
        self._awaited_names: frozenset[str] = frozenset()
        """Names that ports wait for to be opened."""
        self._opening: asyncio.TimerHandle | None = None
        """Will open those whose names have answered."""
        self._has_started = asyncio.Event()
        self._is_stopping = False
        self._is_discovered = False
        self._is_held_back = False
        self._discovering: asyncio.Task[None] | None = None
        self._last_failure: Failure | None = None
        self._told_notes: frozenset[str] = frozenset()
        self.status = ""
        """How all stands, in one line."""

    # Life.

    async def start(self) -> None:
        """Serve what is known, and begin to ask.

        Raises ConfigError where a certificate or the like cannot be used, NatproxyError where no worker can be started.
        """
        self.workers.set_tls(self.credentials.load(self.config))
        await self.workers.start()
        self._set_policy()
        self._settle_known()
        await self._first_names()
        self._settle(is_reload=False)
        self.sockets.close_unclaimed()
        self._discover_if_asked_to()
        self._show()
        self._has_started.set()

    def _settle_known(self) -> None:
        """Serve the caches of which it is known where all their routes lead.

        The others' ports wait for their names: whoever is in the queue of a kept socket would be turned away.
        """
        desired = self.knowledge.settle()
        unasked = self.knowledge.unasked_names()
        unknown = {route.key.cache for route in desired.routes if route.target and route.target.host in unasked}
        self.serving.apply((route for route in desired.routes if route.key.cache not in unknown), is_reload=False)
        self.names.watch(self.knowledge.hosts())

    async def _first_names(self) -> None:
        """Give names of which nothing is known a moment to resolve: whoever connects at READY is to be served."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_NAMES_SECONDS):
                while self.knowledge.unasked_names():
                    self._name_came.clear()
                    await self._name_came.wait()

    def _discover_if_asked_to(self) -> None:
        """Ask AWS now and from now on, unless there is nothing to ask for."""
        if not self.config.caches:
            if self._discovering is not None:
                self._discovering.cancel()
            self._discovering = self._last_failure = None
        elif self._discovering is None:
            self._discovering = self._tasks.start("discovery", self.discovery.run())
        else:
            self.discovery.hurry()

    def tick(self) -> None:
        """Do what time asks for; to be called about once a second."""
        self.workers.kill_silent()
        if (tls := self.credentials.poll()) is not None:
            self.workers.set_tls(tls)
        self.serving.tick()
        self.sockets.tick()
        targets = targets_of(self.config, self.knowledge.snapshot, self.knowledge.book)
        self._role_asker.watch(targets, self.credentials.tls.node_cas, self.config.aws.refresh)
        self.knowledge.save_addresses()
        self._settle_if_unsaved()
        self._show()

    async def stop(self) -> None:
        """Stop accepting, let connections end for as long as the config gives them, end all."""
        self._is_stopping = True
        if self._opening is not None:
            self._opening.cancel()
        self.knowledge.save_addresses(at_once=True)
        self.sockets.close_all()
        await self.workers.stop(self.config.timeouts.stop)
        await self.serving.close()
        await self._role_asker.close()
        await self.names.close()
        await self._aws.close()

    # How it stands.

    def statuses(self) -> list[RouteStatus]:
        """Return how each route stands, by port."""
        return route_statuses(self.knowledge, self.serving)

    def _settle_if_unsaved(self) -> None:
        # Ports that could not be written down wait for nothing but the disk.
        if self.knowledge.save_error is None and self._is_held_back:
            self._settle(is_reload=False)

    def _show(self) -> None:
        statuses = self.statuses()
        unplaced = self.knowledge.desired.unplaced
        self.metrics.show_routes(statuses, [one.key for one in unplaced])
        self.metrics.show_workers(self.workers.running)
        status = status_line(statuses, unplaced=len(unplaced), waiting=self.waiting())
        if status != self.status:
            self.status = status
            self._notifier.status(status)

    def waiting(self) -> str:
        """Say what the first discovery waits for; empty once it has succeeded, or where there is nothing to ask."""
        if self._is_discovered or not self.config.caches:
            return ""
        if self._last_failure is None:
            return "the first answer of AWS"
        return f"the first answer of AWS ({self._last_failure.reason}: {self._last_failure.message})"

    def troubles(self) -> list[str]:
        """Say what is not as it should be while what was good before is served on."""
        troubles = []
        if self._is_discovered and (failure := self._last_failure) is not None:
            why = f"({failure.reason}: {failure.message})"
            troubles.append(f"AWS cannot be asked, what was known is served {why}")
        return troubles + self.credentials.troubles()

    # Facts come in.

    async def _fetch(self) -> RawAnswers:
        return await self._aws.fetch(any(entry.tags is not None for entry in self.config.caches))

    def _take_answers(self, answers: RawAnswers) -> Taken:
        changes = self.knowledge.take_answers(answers)
        self._tell_changes(changes)
        for note in self.knowledge.snapshot.notes:
            if note not in self._told_notes:
                event(_log, logging.WARNING, "discovery notes", detail=note)
        self._told_notes = frozenset(self.knowledge.snapshot.notes)
        is_complete = self.knowledge.snapshot.is_complete
        if is_complete:
            self._is_discovered = True
            self._last_failure = None
            self.metrics.record_discovery(None)
        self._settle(is_reload=False, waits_for_names=True)
        self._show()
        return Taken(bool(changes), is_complete)

    def _tell_changes(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._tell_change(change)
            if change.what is NodeChange.ROLE:
                self._hurry_endpoints(change.key.cache)

    def _tell_change(self, change: Change) -> None:
        self.metrics.record_change(change.what)
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
        cache = self.knowledge.snapshot.cache(cache_id)
        endpoints = {} if cache is None else cache.endpoints
        for kind in (Kind.PRIMARY, Kind.READER):
            if kind in endpoints:
                self.names.hurry(endpoints[kind].host)

    def _count_failure(self, failure: Failure) -> None:
        self._last_failure = failure
        self.metrics.record_discovery(DiscoveryFailure(failure.reason))

    def _name_answered(self, host: str, addresses: tuple[str, ...] | None, reason: str) -> None:
        self._name_came.set()
        if addresses is not None:
            good = self.knowledge.addresses_of(host, addresses)
            reason = "" if good else f"it leads to {addresses[0]}, which cannot be the address of a node"
            addresses = good or None
        if addresses is None:
            self.metrics.record_name_failure()
        before = self.knowledge.book.get(host)
        is_new = self.knowledge.take_name(host, addresses, reason)
        self._open_awaited(host)
        if not is_new:
            return
        if addresses is None:
            event(_log, logging.WARNING, "name does not resolve, its last addresses stay", host=host, reason=reason)
            return
        if before is not None and before.current != self.knowledge.book[host].current:
            level = logging.DEBUG if self.knowledge.is_rotating(host) else logging.INFO
            event(_log, level, "name resolves anew", host=host, before=before.current, after=addresses)
            if self.knowledge.has_node_moved(host, before):
                self.metrics.record_change(NodeChange.ADDRESS)
        self.serving.names_changed([host])

    def _heard(self, worker: int, message: messages.Up) -> None:
        match message:
            case messages.Counts():
                self.metrics.record_counts(worker, message)
                self.serving.counted(worker, message)
                self._look_after_names(message)
            case messages.Finished():
                for connection in message.connections:
                    log_connection(_log, connection)
            case messages.DialFailed():
                self._dial_failed(message)
            case messages.DialRecovered():
                route = self.serving.dial_recovered(message.port)
                if route is not None:
                    event(_log, logging.INFO, "node answers again", port=message.port, route=route.key)
            case messages.Hint():
                if (route := self.serving.current.get(message.port)) is not None:
                    self._hearsay.hinted(route, Hint(message.hint))
            case messages.Learnt():
                self._hearsay.learnt(message)
            case _:
                pass

    def _dial_failed(self, message: messages.DialFailed) -> None:
        news = self.serving.dial_failed(message.port, message.outcome, message.detail)
        is_distrusted = message.outcome == Outcome.NODE_HANDSHAKE
        if news is not None:
            event(
                _log,
                logging.WARNING,
                "TLS handshake with node fails" if is_distrusted else "node does not answer",
                port=message.port,
                route=news.key,
                reason=message.outcome,
                detail=message.detail,
            )
        route = self.serving.current.get(message.port)
        if route is not None:
            self._ask_anew(route)

    def _look_after_names(self, counts: messages.Counts) -> None:
        """A node that ends connections may have moved, or lost its role: its name tells, and costs little to ask."""
        for counted in counts.routes:
            route = self.serving.current.get(counted.port)
            if route is not None and route.target is not None and counted.ended.keys() & _ENDED_BY_NODE:
                self.names.hurry(route.target.host)

    def _ask_anew(self, route: Route) -> None:
        """The node may have moved: look at its name, and at what AWS and the other nodes say."""
        names = (name.host for name in (route.target, *route.fallback) if name is not None)
        self._ask_cache_anew(route.key.cache, names)

    def _ask_cache_anew(self, cache_id: str, names: Iterable[str]) -> None:
        for name in names:
            self.names.hurry(name)
        self.discovery.hint()
        self._role_asker.hurry(cache_id)

    def _lost(self, worker: int, why: str) -> None:
        event(_log, logging.ERROR, "worker is gone and is replaced, its connections are lost", worker=worker, why=why)
        self.metrics.record_worker_loss(worker)
        self.serving.worker_lost(worker)

    def _open_awaited(self, host: str) -> None:
        """Open the ports that waited for this name: now where they were the last, else a moment later with others.

        Names of hundreds of nodes answer one after another, and each time all routes are looked at.
        """
        if self._is_stopping or host not in self._awaited_names:
            return
        if not self._awaited_names & self.knowledge.unasked_names():
            self._settle_awaited()
        elif self._opening is None:
            self._opening = asyncio.get_running_loop().call_later(OPEN_TOGETHER_SECONDS, self._settle_awaited)

    def _settle_awaited(self) -> None:
        self._settle(is_reload=False, waits_for_names=True)

    def _settle(self, *, is_reload: bool, waits_for_names: bool = False) -> tuple[int, int, int]:
        """Serve what is known; ``waits_for_names``: a port whose name was never asked for opens with its answer.

        Clients are sent to a port of which the address book tells, and would find that it leads nowhere yet.
        """
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        desired = self.knowledge.settle()
        self._is_held_back = self.knowledge.save_error is not None
        unasked = self.knowledge.unasked_names() if waits_for_names else frozenset()
        awaited = {
            route.port: route.target.host
            for route in desired.routes
            if route.target and route.target.host in unasked and route.port not in self.serving.current
        }
        self._awaited_names = frozenset(awaited.values())
        changed = self.serving.apply(
            (route for route in desired.routes if route.port not in awaited), is_reload=is_reload
        )
        self.names.watch(self.knowledge.hosts())
        return changed

    def _set_policy(self) -> None:
        self.workers.set_policy(messages.Policy(log_connections=_log.isEnabledFor(logging.INFO)))

    # What the operator asks for.

    async def reload(self) -> ReloadVerdict:
        """Read the config again, all or nothing, once the start is done: it says READY=1, and serves all names."""
        await self._has_started.wait()
        if self._is_stopping:
            return ReloadVerdict(False, "natproxy is stopping")
        self._notifier.reloading(self.status)
        try:
            verdict = self._reload()
        except ConfigError as error:
            event(_log, logging.ERROR, "reload refused, the old config stays", error=error)
            verdict = ReloadVerdict(False, str(error))
        self.metrics.record_reload(is_accepted=verdict.ok)
        self._show()
        self._notifier.ready(self.status)
        return verdict

    def _reload(self) -> ReloadVerdict:
        config, restart_needed = kept_until_restart(self.config, load_config(self.config.path))
        tls_before, tls = self.credentials.tls, self.credentials.load(config)
        self.config = config
        self.knowledge.take_config(config)
        set_up_logs(config.log.format, config.log.level)
        self._set_policy()
        self.names.reconfigure(config.resolver)
        self.workers.set_tls(between(tls_before, tls))
        opened, changed, closed = self._settle(is_reload=True)
        self.workers.set_tls(tls)
        self._discover_if_asked_to()
        message = f"reloaded; routes opened: {opened}, changed: {changed}, closed: {closed}"
        event(_log, logging.INFO, "config reloaded", opened=opened, changed=changed, closed=closed)
        for warning in config.warnings:
            event(_log, logging.WARNING, "config warns", detail=warning)
        if restart_needed:
            event(_log, logging.WARNING, "config needs a restart for some values", keys=restart_needed)
        return ReloadVerdict(True, message, restart_needed)

    def release(self, name: str) -> str:
        """Give a gone node's port back."""
        entry = self.knowledge.release(name)
        event(_log, logging.INFO, "port released", port=entry.port, route=entry.key)
        self._settle(is_reload=False)
        return f"port {entry.port} of {entry.key} is free again"
