"""Makes the Grafana dashboard: ``python -m monitoring.grafana.dashboard`` writes natproxy.json. I/O: that file.

Grafana 10 and later import it. Its queries name the data source by the variable ``datasource``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from monitoring.grafana.panels import MARKS, ROWS, VARIABLES, Json, Mark, Panel, Query

PATH = Path(__file__).with_name("natproxy.json")
WIDTH = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OPTIONS: dict[str, Json] = {
    "timeseries": {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "auto",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "bargauge": {
        "displayMode": "basic",
        "orientation": "horizontal",
        "showUnfilled": True,
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
    },
    "table": {"showHeader": True, "cellHeight": "sm"},
}


def dashboard() -> Json:
    """Return the whole, as Grafana imports it."""
    return {
        "id": None,
        "uid": "natproxy",
        "title": "natproxy",
        "description": "ElastiCache from outside its VPC: ports, nodes, clients, and what asks for attention.",
        "tags": ["natproxy", "elasticache"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "links": [],
        "annotations": {"list": [_mark(name, mark) for name, mark in MARKS.items()]},
        "templating": {"list": [_source(), *(_variable(name, query) for name, query in VARIABLES.items())]},
        "panels": list(_panels()),
    }


def _mark(name: str, mark: Mark) -> Json:
    return {
        "name": name,
        "datasource": SOURCE,
        "enable": True,
        "iconColor": mark.colour,
        "expr": mark.expr,
        "step": "30s",
        "useValueForTime": mark.is_time,
        "titleFormat": name,
        "textFormat": "{{instance}}",
    }


def _source() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "current": {},
        "hide": 0,
        "refresh": 1,
    }


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _panels() -> Iterable[Json]:
    number, top = 1, 0
    for title, panels in ROWS.items():
        place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        number, top, left = number + 1, top + 1, 0
        height = 4 if title == "Overview" else 8
        for panel in panels:
            if left + panel.width > WIDTH:
                left, top = 0, top + height
            yield _panel(panel, number, {"h": height, "w": panel.width, "x": left, "y": top})
            number, left = number + 1, left + panel.width
        top += height


def _panel(panel: Panel, number: int, place: Json) -> Json:
    steps = [{"value": value, "color": colour} for value, colour in panel.steps]
    defaults = {
        "unit": panel.unit,
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "thresholds": {"mode": "absolute", "steps": steps},
        **panel.more,
    }
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": list(panel.overrides)},
        "options": OPTIONS[panel.kind] | panel.options,
        "targets": [_target(query, chr(ord("A") + index)) for index, query in enumerate(panel.queries)],
        "transformations": list(panel.transformations),
    }


def _target(query: Query, letter: str) -> Json:
    return {
        "refId": letter,
        "datasource": SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": query.instant,
        "range": not query.instant,
        "format": "table" if query.table else "time_series",
    }


def text() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
