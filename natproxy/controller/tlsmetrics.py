"""What is counted and shown of TLS. Pure: makes metric families for metrics.py.

Every label has a closed set of values, or names a certificate that is loaded; a client's certificate is none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from natproxy.messages import RouteCounts
from natproxy.tls.expiry import Expiry

Handshakes = Counter[tuple[str, str]]
"""(client | node, ``ok`` or a HandshakeFailure) -> how many, on one port."""


class TlsCounts:
    """What concerns no single port."""

    def __init__(self) -> None:
        self._sessions: Counter[tuple[str, str, str, bool]] = Counter()
        self._loads: Counter[str] = Counter()
        self._expiries: tuple[Expiry, ...] = ()
        self._are_files_good = True

    def record_sessions(self, sessions: Iterable[tuple[str, str, str, bool, int]]) -> None:
        """Add what a worker tells in ``Counts.sessions``."""
        for side, version, cipher, is_resumed, number in sessions:
            self._sessions[side, version, cipher, is_resumed] += number

    def record_load(self, *, is_accepted: bool) -> None:
        """Count one reading of the files."""
        self._loads["accepted" if is_accepted else "refused"] += 1

    def show_files(self, expiries: Iterable[Expiry], *, are_good: bool) -> None:
        """Take these as all that is in use; ``are_good``: and what the files hold now is no worse."""
        self._expiries = tuple(expiries)
        self._are_files_good = are_good

    def families(self) -> Iterator[Metric]:
        """Return all families but the handshakes."""
        yield self._session_family()
        yield from self._expiry_families()
        yield GaugeMetricFamily(
            "natproxy_tls_files_good",
            "0 where the files of certificates, keys, CAs and revocation lists have become bad and the old ones serve.",
            value=self._are_files_good,
        )
        loads = CounterMetricFamily(
            "natproxy_tls_file_loads",
            "Times that those files were read because they were new or had changed, by result.",
            labels=["result"],
        )
        for result in ("accepted", "refused"):
            loads.add_metric([result], self._loads[result])
        yield loads

    def _session_family(self) -> Metric:
        family = CounterMetricFamily(
            "natproxy_tls_sessions",
            "TLS handshakes that succeeded, by what was agreed on.",
            labels=["side", "version", "cipher", "resumed"],
        )
        for (side, version, cipher, is_resumed), number in self._sessions.items():
            family.add_metric([side, version, cipher, "true" if is_resumed else "false"], number)
        return family

    def _expiry_families(self) -> Iterator[Metric]:
        certificates = GaugeMetricFamily(
            "natproxy_certificate_expiry_timestamp_seconds",
            "Unix time at which a certificate in use expires, by what it is used for.",
            labels=["use", "subject", "serial"],
        )
        lists = GaugeMetricFamily(
            "natproxy_crl_next_update_timestamp_seconds",
            "Unix time from which a revocation list holds no longer, and certificates of its issuer are refused.",
            labels=["issuer"],
        )
        for one in self._expiries:
            if one.use == "crl":
                lists.add_metric([one.subject], one.expires)
            else:
                certificates.add_metric([one.use, one.subject, one.serial], one.expires)
        yield from (certificates, lists)


def add_handshakes(handshakes: Handshakes, counts: RouteCounts) -> None:
    """Add what a worker counted on one port."""
    for side, results in (("client", counts.client_handshakes), ("node", counts.node_handshakes)):
        for result, number in results.items():
            handshakes[side, result] += number


def handshake_family(ports: Iterable[tuple[list[str], Handshakes]], route_labels: Iterable[str]) -> Metric:
    """Return the handshakes of all ports, each given by the values of ``route_labels``."""
    family = CounterMetricFamily(
        "natproxy_handshakes",
        "TLS handshakes with clients and nodes; a reason appears once it has happened.",
        labels=[*route_labels, "side", "result", "reason"],
    )
    for labels, handshakes in ports:
        for (side, result), number in handshakes.items():
            outcome = ["ok", ""] if result == "ok" else ["failed", result]
            family.add_metric([*labels, side, *outcome], number)
    return family
