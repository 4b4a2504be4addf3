"""What ansible/README.md and the examples say is what the role does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from natproxy.config import load_config
from tests.ansible.playing import ROLE, ROOT

README = (ROOT / "ansible/README.md").read_text(encoding="utf-8")
SPECS: dict[str, dict[str, Any]] = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text(encoding="utf-8"))[
    "argument_specs"
]["main"]["options"]
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
ROW = re.compile(r"^\| `(natproxy_\w+)` \| (.*?) \| (.*?) \| (.*) \|$", re.MULTILINE)


def plain(markup: str) -> str:
    """Return a sentence of argument_specs as the table has it: V(x), C(x), O(x) and RV(x) are code."""
    return (
        re.sub(r"\b(?:V|C|O|RV)\(([^)]*)\)", lambda match: f"`{match[1]}`", markup)
        .replace('`"', "`")
        .replace('"`', "`")
    )


def default(value: object) -> str:
    return "" if value in ("", [], {}) else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def table() -> list[tuple[str, str, str, str]]:
    """Return the rows that the table should have."""
    rows = []
    for name, spec in SPECS.items():
        kind = (
            " \\| ".join(spec["choices"])
            if "choices" in spec
            else {"raw": "list or true"}.get(spec["type"], spec["type"])
        )
        rows.append((name, kind, default(spec["default"]), plain(" ".join(spec["description"]))))
    return rows


def test_the_table_of_variables_is_that_of_the_argument_specs() -> None:
    assert ROW.findall(README) == table()


def test_the_defaults_are_those_of_the_argument_specs() -> None:
    assert {name: spec["default"] for name, spec in SPECS.items()} == DEFAULTS


def test_every_file_that_natproxy_tls_files_may_name_has_a_place() -> None:
    constants = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    assert set(SPECS["natproxy_tls_files"]["options"]) == set(constants["__natproxy_tls_names"])


def test_the_unit_s_own_paths_are_those_of_the_role() -> None:
    constants = yaml.safe_load((ROLE / "vars/main.yml").read_text(encoding="utf-8"))
    unit = (ROLE / "files/natproxy.service").read_text(encoding="utf-8")
    run = (
        f"ExecStart={constants['__natproxy_home']}/current/bin/natproxy run -c {constants['__natproxy_config_path']}\n"
    )
    assert run in unit
    assert f"EnvironmentFile=-{constants['__natproxy_environment_path']}\n" in unit
    assert f"User={constants['__natproxy_user']}\n" in unit
    assert "StateDirectory=natproxy\n" in unit


def test_the_example_s_config_is_good(tmp_path: Path) -> None:
    inventory = yaml.safe_load((ROOT / "ansible/inventory.example.yml").read_text(encoding="utf-8"))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(inventory["natproxy"]["vars"]["natproxy_config"]), encoding="utf-8")
    assert load_config(path).warnings == ()
    assert set(inventory["natproxy"]["vars"]) <= set(SPECS)


def test_the_readme_s_variables_exist() -> None:
    mentioned = set(re.findall(r"\bnatproxy_[a-z_]+", README)) - {"natproxy_node_info"}
    assert mentioned <= set(SPECS)
