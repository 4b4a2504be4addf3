"""Loads configs from their text, as the daemon would, for the tests of natproxy.config."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from natproxy.config import Config, load_config
from natproxy.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
ALLOW = "clients: {allow: [198.51.100.27/32]}\n"


def load(text: str | bytes) -> Config:
    """Load a config, or raise ConfigError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "natproxy.yaml")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(path)


def mistakes(text: str | bytes) -> list[str]:
    """Return every problem of a config as ``line: place: message``."""
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert all(problem.file.endswith("/natproxy.yaml") for problem in caught.value.problems)
    return [str(problem).partition("/natproxy.yaml:")[2] for problem in caught.value.problems]


def only_mistake(text: str | bytes) -> str:
    """Return the one problem of a config."""
    found = mistakes(text)
    assert len(found) == 1, found
    return found[0]


def refusal(parse: Callable[[object], object], value: object) -> str:
    """Return the words with which a parser refuses a value."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the words are what the caller looks at)
        parse(value)
    return str(caught.value)
