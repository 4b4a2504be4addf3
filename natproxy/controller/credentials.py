"""The certificates, keys, CAs and revocation lists in use, and the watch over their files. I/O: reads the files.

What is in use changes only for something good: at a start or reload the files that the config names are all read before
anything is taken up; later, files that changed into something bad keep the old ones in use, which is logged, counted
and shown, until the files are good again.

A certificate and its key are two files, and whoever renews them writes one after the other. So changed files are read
once they have come to rest, and found bad only when that has lasted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from natproxy.config import Config
from natproxy.controller.expiring import Expiring
from natproxy.controller.logs import event
from natproxy.controller.tlsfiles import NOTHING, Loaded, files_of, new_files, read_files
from natproxy.controller.tlsmetrics import TlsCounts
from natproxy.errors import ConfigError
from natproxy.messages import Tls
from natproxy.tls.expiry import Expiry
from natproxy.tls.revocation import read_crl

_log = logging.getLogger(__name__)

REST_SECONDS = 0.5
"""Files that have looked the same for so long are read."""
PATIENCE_SECONDS = 3.0
"""Files that have been restless or bad for so long are read for the last time, and what they hold then counts."""
RETRY_SECONDS = 30.0
"""Bad files are read again after so long, though they look the same: it may have been the reading that failed."""

_Looks = tuple[tuple[int, ...], ...]


class Credentials:
    """What is in use. ``clock`` is monotonic, ``now`` the Unix time; both in seconds."""

    def __init__(
        self,
        counts: TlsCounts,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._counts = counts
        self._clock = clock
        self._now = now
        self._expiring = Expiring()
        self._unnamed: tuple[str, ...] = ()
        """Names that have been said to be missing in the certificate."""
        self._config: Config | None = None
        self.tls = NOTHING
        self.expiries: tuple[Expiry, ...] = ()
        """Of everything in use."""
        self.problem = ""
        """What is wrong with the files as they are now, for which older ones serve; empty where nothing is."""
        self._read: _Looks | None = None
        """What the files looked like when they were read last; None = they are to be read in any case."""
        self._read_at = 0.0
        self._seen: _Looks = ()
        self._seen_at = 0.0
        self._changing_since: float | None = None

    def load(self, config: Config) -> Tls:
        """Read all that ``config`` names and take it up. Raises ConfigError; then nothing has changed."""
        loaded, problems = read_files(config, NOTHING)
        if problems:
            self._counts.record_load(is_accepted=False)
            raise ConfigError(tuple(problems))
        self._config = config
        self._expiring.forget()
        self._unnamed = ()
        # The files may be changing just now, in a way that their looks do not tell: they are read once more.
        self._read = self._changing_since = None
        self.problem = ""
        self._take_up(config, loaded)
        self._tell_expiries()
        return self.tls

    def poll(self) -> Tls | None:
        """Look whether files have changed, and return what to go by from now on; None where that is nothing new.

        To be called about once a second: what changes is taken up within five.
        """
        tls = None
        if (config := self._config) is not None and self._is_due(files_of(config)):
            tls = self._reread(config)
        self._tell_expiries()
        return tls

    def _is_due(self, files: list[Path]) -> bool:
        """Tell whether the files should be read now."""
        if not files:
            return False
        looks, now = tuple(map(_look, files)), self._clock()
        if looks != self._seen:
            self._seen, self._seen_at = looks, now
        if self._changing_since is None:
            is_retry = bool(self.problem) and now - self._read_at >= RETRY_SECONDS
            if looks == self._read and not is_retry:
                return False
            self._changing_since = now
        if self._is_out_of_patience():
            return True
        return looks != self._read and now - self._seen_at >= REST_SECONDS

    def _is_out_of_patience(self) -> bool:
        return self._changing_since is not None and self._clock() - self._changing_since >= PATIENCE_SECONDS

    def _reread(self, config: Config) -> Tls | None:
        self._read, self._read_at = self._seen, self._clock()
        loaded, problems = read_files(config, self.tls)
        if problems and not self._is_out_of_patience():
            return None
        self._changing_since = None
        is_new, was_bad = loaded.tls != self.tls, bool(self.problem)
        self._judge("; ".join(f"{problem.path}: {problem.message}" for problem in problems))
        if is_new or (was_bad and not self.problem):
            self._take_up(config, loaded)
        return self.tls if is_new else None

    def _judge(self, problem: str) -> None:
        if problem and problem != self.problem:
            event(_log, logging.ERROR, "TLS files are bad, the old ones stay in use", detail=problem)
            self._counts.record_load(is_accepted=False)
        elif self.problem and not problem:
            event(_log, logging.INFO, "TLS files are good again")
        self.problem = problem
        self._counts.show_files(self.expiries, are_good=not problem)

    def _take_up(self, config: Config, loaded: Loaded) -> None:
        before, known = self.tls, frozenset(self.expiries)
        self.tls, self.expiries = loaded.tls, loaded.expiries
        if loaded.tls != NOTHING:
            self._counts.record_load(is_accepted=True)
        self._counts.show_files(loaded.expiries, are_good=not self.problem)
        for new in new_files(config, before, loaded):
            first = next((one for one in new.holds if one not in known), new.holds[0]) if new.holds else None
            event(
                _log,
                logging.INFO,
                "TLS file taken up",
                key=new.key,
                file=new.path,
                subject=None if first is None else first.subject,
                serial=None if first is None else first.serial or None,
                expires=None if first is None else _utc(first.expires),
                others=len(new.holds) - 1 if len(new.holds) > 1 else None,
                revoked=new.revoked,
            )
        if _has_older_list(before, self.tls):
            text = "revocation list is older than the one before it: who was revoked since may come in again"
            event(_log, logging.WARNING, text)
        if loaded.unnamed and loaded.unnamed != self._unnamed:
            event(_log, logging.WARNING, "certificate does not name what clients connect to", missing=loaded.unnamed)
        self._unnamed = loaded.unnamed

    def troubles(self) -> list[str]:
        """Say what of that which is in use keeps clients out."""
        now = self._now()
        ended = [one for one in self.expiries if one.expires <= now]
        said = [
            f"the revocation list of {one.subject} has expired: nobody with a certificate of that CA gets in"
            for one in ended
            if one.use == "crl"
        ]
        said += ["natproxy's certificate has expired" for one in ended if one.use == "certificate"]
        if self.problem:
            said.append(f"TLS files are bad, the old ones stay in use ({self.problem})")
        return said

    def _tell_expiries(self) -> None:
        for level, text, one in self._expiring.due(self.expiries, self._now()):
            event(
                _log,
                level,
                text,
                use=one.use,
                subject=one.subject,
                serial=one.serial or None,
                starts=_utc(one.starts) if one.starts > self._now() else None,
                expires=_utc(one.expires),
            )


def between(old: Tls, new: Tls) -> Tls:
    """Return what to go by while the ports are told of a new config: nobody gets in by a mixture of old and new.

    Where certificates are no longer asked for, they still are until each port knows who may connect without one. CAs
    of nodes stay until no port needs them.
    """
    is_loosened = _demands_certificate(old) and not _demands_certificate(new)
    return Tls(old.server if is_loosened else new.server, {**old.node_cas, **new.node_cas})


def _has_older_list(before: Tls, after: Tls) -> bool:
    old, new = (None if tls.server is None else tls.server.crl for tls in (before, after))
    return old is not None and new is not None and old != new and read_crl(new).is_older_than(read_crl(old))


def _demands_certificate(tls: Tls) -> bool:
    return tls.server is not None and tls.server.client_ca is not None


def _look(path: Path) -> tuple[int, ...]:
    """Return what a file looks like without reading it; it differs once the file is another, or not to be had."""
    try:
        status = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    # The time of the last change of any kind (ctime) tells of a new owner or mode, and of an mtime that was put back.
    return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
