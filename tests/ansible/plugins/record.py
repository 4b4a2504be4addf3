"""A callback plugin of Ansible's that writes down what became of each task, one JSON line each. I/O: writes a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: record
type: aggregate
short_description: Writes down what became of each task
description: One JSON line for each, into the file that NATPROXY_RECORD names.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Told of each result by Ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "record"

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._write("skipped", result)

    def _write(self, outcome: str, result: Any) -> None:
        task = result._task
        line = {
            "host": result._host.get_name(),
            "name": task.get_name().rpartition(" : ")[2],
            "outcome": outcome,
            "result": json.loads(self._dump_results(result._result)),
        }
        if "diff" in result._result:  # left out above
            line["result"]["diff"] = result._result["diff"]
        with Path(os.environ["NATPROXY_RECORD"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")
