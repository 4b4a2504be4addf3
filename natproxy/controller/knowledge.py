"""All that the controller knows, and how new facts change it: config, nodes, ports, addresses. I/O: the state file.

Decisions are ``plan``'s; this keeps their results, and sees to it that a port is written down before it is opened.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from natproxy.config import Config
from natproxy.controller.changes import Change, find_changes
from natproxy.controller.logs import event
from natproxy.controller.roles import Roles, Told
from natproxy.controller.statefile import State, StateFile
from natproxy.discover.parse import RawAnswers, parse_snapshot
from natproxy.errors import StateError
from natproxy.model import NodeId, NodeTls, PortEntry, PortMap, Role, RouteKey, Snapshot
from natproxy.plan.addresses import Addresses, observe, of_nodes, rotating_hosts
from natproxy.plan.guard import Known, hold_back, select
from natproxy.plan.ports import assign_ports, release_port
from natproxy.plan.routes import Desired, desired_routes, hosts_to_watch

_log = logging.getLogger(__name__)

SAVE_ADDRESSES_SECONDS = 30.0
"""Changed addresses alone are saved this often at most: names that rotate change all the time."""


class Knowledge:
    """What exists, as far as is known. ``clock`` is monotonic, ``unix_time`` the time of day.

    ``on_save_failure`` is called whenever the state file could not be written.
    """

    def __init__(
        self,
        config: Config,
        state_file: StateFile,
        state: State,
        *,
        on_save_failure: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self._state_file = state_file
        self._on_save_failure = on_save_failure
        self._clock = clock
        self.unix_time = unix_time
        self.known = select(Known(state.snapshot), config)
        self.portmap = state.portmap
        """As it is written down."""
        self.book: dict[str, Addresses] = {}
        self.name_failures: dict[str, str] = {}
        """Host -> why it does not resolve now."""
        self.desired = Desired(())
        self.save_error: str | None = None
        self.memcached_versions = dict(state.memcached_versions)
        """Book -> the version of it that its clients may have been told: written down before they are."""
        self._roles = Roles()
        self._rotating: frozenset[str] = frozenset()
        self._saved_at = float("-inf")
        self._saved_snapshot: Snapshot | None = None
        self._saved_hosts = frozenset(state.addresses)
        self._errors: Mapping[RouteKey, str] = {}
        for host, addresses in state.addresses.items():
            self.book[host] = observe(None, addresses, clock(), always_rotates=False)

    @property
    def snapshot(self) -> Snapshot:
        """What exists now."""
        return self.known.snapshot

    @property
    def filled(self) -> Snapshot:
        """The same, with the roles that engines told of where AWS tells none."""
        return self._roles.fill(self.snapshot)

    def role_of(self, node: NodeId) -> Role | None:
        """Return a node's role: AWS's word, else what an engine said last; None where nobody has told it."""
        return self._roles.of(node, self.snapshot)

    def is_rotating(self, host: str) -> bool:
        """Tell whether a name rotates among many addresses by nature."""
        return host in self._rotating

    def has_node_moved(self, host: str, before: Addresses) -> bool:
        """Tell whether ``host`` names a node, and one of the addresses from ``before`` is not its address any more."""
        names = (node.endpoint for cache in self.snapshot.caches for node in cache.nodes)
        if self.is_rotating(host) or not any(name is not None and name.host == host for name in names):
            return False
        comes_and_goes = self._clock() < self.book[host].rotating_until
        return not comes_and_goes and not {*before.current} <= {*self.book[host].current}

    # New facts.

    def take_answers(self, answers: RawAnswers) -> tuple[Change, ...]:
        """Take in what AWS said; return what is new in it."""
        before = self.snapshot
        fresh = parse_snapshot(answers, self.config)
        self.known = hold_back(self.known, fresh, self._clock(), self.config.aws.absent_after)
        changes = find_changes(before, self.snapshot, self.portmap)
        for cache in self.snapshot.caches:
            old = before.cache(cache.id)
            if old is not None and (old.tls is NodeTls.OFF) != (cache.tls is NodeTls.OFF):
                event(_log, logging.INFO, "cache changed its encryption in transit", cache=cache.id, tls=cache.tls)
        return changes

    def take_roles(self, cache_id: str, told: Iterable[Told]) -> tuple[Change, ...]:
        """Take in what an engine said of a cache's nodes, by host name or address; return which roles have moved."""
        cache = self.snapshot.cache(cache_id)
        return () if cache is None else self._roles.take(cache, self.book, told)

    def take_config(self, config: Config) -> None:
        """Go by another config from now on."""
        self.config = config
        self.known = select(self.known, config)

    def addresses_of(self, host: str, answer: tuple[str, ...]) -> tuple[str, ...]:
        """Return what may be dialled of the addresses that a name resolved to. An address in the config itself may."""
        named = {static.target.host for static in self.config.static}
        if host in named and answer == (host,):
            return answer
        return of_nodes(answer, may_be_local=self.config.is_loopback_only or host in named)

    def take_name(self, host: str, addresses: tuple[str, ...] | None, reason: str) -> bool:
        """Take in what a name resolved to (None: it did not, the last good set stays); True where that is new."""
        if addresses is None:
            is_new = self.name_failures.get(host) != reason
            self.name_failures[host] = reason
            return is_new
        had_failed = self.name_failures.pop(host, None) is not None
        old = self.book.get(host)
        new = self.book[host] = observe(old, addresses, self._clock(), host in self._rotating)
        return had_failed or old is None or old.current != new.current

    def release(self, name: str) -> PortEntry:
        """Give a gone node's port back. Raises ReleaseError, StateError; then nothing is changed."""
        portmap, entry = release_port(self.portmap, name)
        self._save(portmap)
        return entry

    # What follows from them.

    def settle(self) -> Desired:
        """Work out what should be served, write down new ports first, and return it."""
        assignment = assign_ports(self.portmap, self.snapshot, self.config, self.unix_time())
        errors = dict(assignment.errors)
        try:
            if self._is_unsaved(assignment.portmap):
                self._save(assignment.portmap)
        except StateError as error:
            errors.update(self._hold_unsaved(assignment.portmap, error))
        else:
            for warning in assignment.warnings:
                event(_log, logging.WARNING, "port map changed", detail=warning)
        for key, reason in errors.items():
            if self._errors.get(key) != reason:
                event(_log, logging.ERROR, "route has no port", route=key, reason=reason)
        self._errors = errors
        self.desired = desired_routes(self.config, self.snapshot, self.portmap, errors)
        self._rotating = rotating_hosts(self.desired.routes)
        return self.desired

    def _hold_unsaved(self, portmap: PortMap, error: StateError) -> dict[RouteKey, str]:
        """Go on with the ports that are written down; the others wait, or a restart could hand them to someone else."""
        if self.save_error != str(error):
            event(_log, logging.ERROR, "state cannot be saved, new ports stay closed", error=error)
        self.save_error = str(error)
        written = {entry.key: entry.port for entry in self.portmap.entries}
        reason = f"its port is not opened because it cannot be written down: {error}"
        return {entry.key: reason for entry in portmap.entries if written.get(entry.key) != entry.port}

    def hosts(self) -> frozenset[str]:
        """Name every host whose addresses matter; forget the others."""
        hosts = hosts_to_watch(self.desired.routes, self.filled)
        self.book = {host: addresses for host, addresses in self.book.items() if host in hosts}
        self.name_failures = {host: reason for host, reason in self.name_failures.items() if host in hosts}
        return hosts

    def unasked_names(self) -> frozenset[str]:
        """Name every host of which no address is known, nor why."""
        hosts = hosts_to_watch(self.desired.routes, self.filled)
        return hosts - self.book.keys() - self.name_failures.keys()

    def save_addresses(self, *, at_once: bool = False) -> None:
        """Write changed addresses down, not too often, but those of a host that has none written down at once.

        ``at_once``: before a stop. A failure is logged and shown, and tried again.
        """
        is_due = self._clock() - self._saved_at >= SAVE_ADDRESSES_SECONDS or self.save_error is not None
        if not (at_once or is_due or self.book.keys() - self._saved_hosts):
            return
        self._try_to_save()

    def save_versions(self, versions: Mapping[str, int]) -> None:
        """Write down the versions that clients of memcached are about to be told.

        Where that fails it is tried again later, and a start without them takes versions from the time of day.
        """
        self.memcached_versions.update(versions)
        self._try_to_save()

    def _try_to_save(self) -> None:
        try:
            self._save(self.portmap)
        except StateError as error:
            if self.save_error != str(error):
                event(_log, logging.ERROR, "state cannot be saved", error=error)
            self.save_error = str(error)

    def _is_unsaved(self, portmap: PortMap) -> bool:
        """Tell whether there is more to write down than addresses, which have their own pace."""
        return portmap != self.portmap or replace(self.snapshot, notes=()) != self._saved_snapshot

    def _save(self, portmap: PortMap) -> None:
        """Write all of it down; only then is ``portmap`` what counts."""
        snapshot = replace(self.snapshot, notes=())
        state = State(
            portmap=portmap,
            snapshot=snapshot,
            addresses={host: addresses.current for host, addresses in sorted(self.book.items())},
            memcached_versions=dict(self.memcached_versions),
        )
        try:
            self._state_file.save(state)
        except StateError:
            self._on_save_failure()
            raise
        self._saved_at = self._clock()
        self._saved_snapshot = snapshot
        self._saved_hosts = frozenset(state.addresses)
        self.portmap = portmap
        if self.save_error is not None:
            event(_log, logging.INFO, "state can be saved again")
            self.save_error = None
