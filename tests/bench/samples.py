"""Results as a bench would have found them. Pure."""

from __future__ import annotations

from bench.results import COMPILED, HAPROXY, NATPROXY, NGINX, Curve, Part, Point, Reading, Row

READINGS = {
    NATPROXY: [Reading(10.0, 0.5, 1.0, 1000.0), Reading(12.0, 0.5, 1.0, 1100.0), Reading(11.0, 0.5, 1.0, 1200.0)],
    HAPROXY: [Reading(9.0, 0.5, 2.0, 1000.0), Reading(6.0, 0.4, 2.0, 1000.0), Reading(11.0, 0.3, 2.0, 1000.0)],
    NGINX: [Reading(20.0), Reading(12.0), Reading(22.0)],
    COMPILED: [Reading(4.5), Reading(3.0), Reading(5.5)],
}
"""The rounds' ratios of cost are 0.9, 0.5 and 1.0; each reading is cost, p50, p99, rate."""

ROW = Row("GET, 50 clients", "us", READINGS, reach=0.95, aim=1.05)
MEMORY = Row(
    "memory of an idle connection", "KB", {NATPROXY: [Reading(1.5)], HAPROXY: [Reading(3.0)]}, "value", reach=3.5
)
CURVE = Curve(
    "cost-by-value",
    "bytes of a value",
    "CPU, us",
    [Point(16, {NATPROXY: [1.0, 3.0, 2.0], HAPROXY: [4.0]}), Point(1 << 20, {NATPROXY: [2000.0]})],
)
PART = Part(
    "python -m bench relay",
    "2026-01-02",
    12.5,
    {"processors": "2", "processor": "some", "HAProxy": "2.6"},
    [ROW],
    [CURVE],
    {"socat": "not installed: socat"},
)
