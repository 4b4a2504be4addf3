"""The composition root, and the daemon's life: startup, main loop, shutdown. I/O: everything, by its parts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import faulthandler
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

import uvloop
from prometheus_client import CollectorRegistry

from natproxy import __version__
from natproxy.config import Config, load_config
from natproxy.controller.children import Spawner, give_way
from natproxy.controller.desk import Desk
from natproxy.controller.engine import Engine
from natproxy.controller.keeping import Keeping
from natproxy.controller.linewriter import LineWriter
from natproxy.controller.logs import event, set_up_logs
from natproxy.controller.metrics import Metrics
from natproxy.controller.portal import Portal
from natproxy.controller.sockets import Sockets
from natproxy.controller.statefile import State, StateFile, make_directory
from natproxy.controller.stateformat import STATE_FILE
from natproxy.controller.systemd import Notifier, inherited, is_open, take_environ
from natproxy.controller.web import Admin
from natproxy.controller.webtls import WebTls
from natproxy.errors import NatproxyError
from natproxy.model import Endpoint
from natproxy.tasks import TaskOwner

_log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
STOP_MARGIN_SECONDS = 15.0
"""How much longer than ``timeouts.stop`` a stop may take: workers that do not end are killed, the rest is closed."""
LAST_LINES_SECONDS = 0.2
"""How long an exit at once waits for the log."""
CONTROL_RETRY_SECONDS = 5.0
"""How often the control socket is tried again where the disk refused it."""
CONTROL_SOCKET = "control.sock"
_DISK_REFUSES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


def run(path: Path) -> int:
    """Be the daemon with the config at ``path``; return the exit status. Raises ConfigError, NatproxyError."""
    config = load_config(path)
    environ = take_environ(os.environ)
    _allow_many_sockets()
    _leave_no_core()
    faulthandler.enable()  # systemd's watchdog aborts who hangs: the journal is to tell where
    spawner = Spawner()
    give_way()  # before any other thread is started
    with LineWriter(sys.stderr) as log:
        set_up_logs(config.log.format, config.log.level, stream=log)
        daemon = Daemon(config, environ, spawner=spawner, exit_at_once=lambda: _exit_at_once(log))
        return uvloop.run(daemon.run())


def _exit_at_once(log: LineWriter) -> NoReturn:
    log.drain(LAST_LINES_SECONDS)
    os._exit(1)


def _allow_many_sockets() -> None:
    """Every port needs a descriptor for each address; the soft limit is 1,024 for the sake of select(2)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _leave_no_core() -> None:
    """A core would hold keys, and the credentials of AWS."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Daemon:
    """One run of natproxy."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str] = os.environ,
        *,
        spawner: Spawner | None = None,
        exit_at_once: Callable[[], NoReturn] = lambda: os._exit(1),
    ) -> None:
        self._config = config
        self._spawner = spawner
        self._exit_at_once = exit_at_once
        # What is not open now may soon be something of our own.
        self._descriptors = [(fd, name) for fd, name in inherited(environ, os.getpid()) if is_open(fd)]
        self._notifier = Notifier(environ)
        self._metrics = Metrics(__version__, CollectorRegistry())
        self._stopping = asyncio.Event()
        self._tasks = TaskOwner(self._task_failed)
        self._has_failed = False
        self._engine: Engine | None = None
        self._admin: Admin | None = None
        self._portal: Portal | None = None
        self._control_due = float("inf")
        """When the control socket is to be tried again, by the loop's clock."""

    @property
    def engine(self) -> Engine:
        """What serves, once the state has been read."""
        if self._engine is None:
            raise NatproxyError("natproxy has not started")
        return self._engine

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
        await self._shutdown()
        return 1 if self._has_failed else 0

    async def _startup(self) -> None:
        config = self._config
        for warning in config.warnings:
            event(_log, logging.WARNING, "config warns", detail=warning)
        state_file, state = _load_state(config.state_dir)
        sockets = Sockets(config.listen.address, Keeping(self._notifier))
        sockets.adopt(self._descriptors)
        self._engine = engine = Engine(
            config,
            state_file,
            state,
            sockets=sockets,
            metrics=self._metrics,
            notifier=self._notifier,
            tasks=self._tasks,
            spawner=self._spawner,
        )
        desk = Desk(engine)
        tls = WebTls(lambda: engine.credentials.tls)
        self._admin = Admin(desk, self._metrics.admin)
        await self._open_admin(self._admin, tls)
        if (portal := config.portal) is not None and portal.port is not None:
            self._portal = Portal(desk, tls, self._metrics.portal)
            self._portal.listen(config.listen.address, portal.port, portal.allow)
        self._watch_signals()
        await engine.start()
        self._admin.open_tls()
        if self._portal is not None:
            self._portal.open()
        self._notifier.ready(engine.status)
        event(
            _log,
            logging.INFO,
            "natproxy runs",
            version=__version__,
            config=config.path,
            routes=len(engine.serving.current),
            admin=Endpoint(config.admin.address, config.admin.port),
            portal=config.portal_port,
        )

    async def _open_admin(self, side: Admin, tls: WebTls) -> None:
        admin = self._config.admin
        await side.start(admin.address, admin.port, allow=admin.allow, tls=tls if admin.tls else None)
        try:
            await side.start_control(self._config.state_dir / CONTROL_SOCKET)
        except NatproxyError as error:
            if not _is_of_the_disk(error) and os.access(self._config.state_dir, os.W_OK):
                raise
            # What is written down is served all the same; SIGHUP still reloads.
            event(_log, logging.ERROR, "control socket not opened, it will be tried again", error=error)
            self._control_due = asyncio.get_running_loop().time() + CONTROL_RETRY_SECONDS

    async def _open_control_again(self, side: Admin) -> None:
        try:
            await side.start_control(self._config.state_dir / CONTROL_SOCKET)
        except NatproxyError:
            self._control_due = asyncio.get_running_loop().time() + CONTROL_RETRY_SECONDS
        else:
            event(_log, logging.INFO, "control socket opened")

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._asked_to_reload)

    def _asked_to_stop(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            event(_log, logging.WARNING, "natproxy stops at once", signal=number.name)
            self.engine.workers.kill_all()
            self._exit_at_once()
        event(_log, logging.INFO, "natproxy stops", signal=number.name)
        self._stopping.set()

    def _asked_to_reload(self) -> None:
        self._tasks.start("reload", self._reload_by_signal())

    async def _reload_by_signal(self) -> None:
        await self.engine.reload()

    async def _main_loop(self) -> None:
        tick_seconds = min(TICK_SECONDS, self._notifier.watchdog_seconds or TICK_SECONDS)
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(tick_seconds):
                    await self._stopping.wait()
            except TimeoutError:
                self._tick()

    def _tick(self) -> None:
        self.engine.tick()
        if self._admin is not None and asyncio.get_running_loop().time() >= self._control_due:
            self._control_due = float("inf")
            self._tasks.start("control socket", self._open_control_again(self._admin))
        for side in (self._admin, self._portal):
            if side is not None:
                side.tick()
        self._notifier.alive()

    def _task_failed(self, name: str, error: BaseException) -> None:
        # A part that is not there any more must not go unnoticed: whoever started natproxy starts it anew.
        event(_log, logging.CRITICAL, "natproxy stops, a task failed", task=name, exc_info=error)
        self._has_failed = True
        self._stopping.set()

    async def _shutdown(self) -> None:
        config = self._config if self._engine is None else self._engine.config
        self._notifier.stopping("letting connections end", seconds=config.timeouts.stop + STOP_MARGIN_SECONDS)
        await self._tasks.cancel_all()
        if self._engine is not None:
            await self._engine.stop()
        for side in (self._portal, self._admin):
            if side is not None:
                await side.stop()
        event(_log, logging.INFO, "natproxy has stopped")


def _is_of_the_disk(error: NatproxyError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in _DISK_REFUSES


def _load_state(state_dir: Path) -> tuple[StateFile, State]:
    make_directory(state_dir)
    state_file = StateFile(state_dir / STATE_FILE)
    result = state_file.load()
    if result.warning is not None:
        event(_log, logging.ERROR, "state damaged, starting without it", detail=result.warning)
    return state_file, result.state
