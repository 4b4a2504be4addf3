"""The config file: YAML -> a validated Config, or every mistake at once. I/O: reads the config file.

Reading order::

    places      where something stands in the file, and what is wrong there
    loader      YAML text -> plain values with their lines
    values      durations, numbers, port ranges, names
    addresses   addresses, networks, hosts, targets
    model       every key and its default; Config
    structure   plain values -> Written, with every key that is unknown or misspelt
    checks      what does not go together
    doubts      what is allowed, and worth a warning
    document    what ``natproxy check --json`` prints
    reading     I/O: load_config and its kin
"""

from natproxy.config.model import (
    Admin,
    Aws,
    CacheEntry,
    Clients,
    Config,
    Listen,
    Log,
    Nodes,
    Portal,
    Probe,
    StaticEntry,
    Timeouts,
    Tls,
)
from natproxy.config.reading import DEFAULT_STATE_DIR, kept_until_restart, load_config, read_state_dir
from natproxy.config.values import PortRange

__all__ = [
    "DEFAULT_STATE_DIR",
    "Admin",
    "Aws",
    "CacheEntry",
    "Clients",
    "Config",
    "Listen",
    "Log",
    "Nodes",
    "PortRange",
    "Portal",
    "Probe",
    "StaticEntry",
    "Timeouts",
    "Tls",
    "kept_until_restart",
    "load_config",
    "read_state_dir",
]
