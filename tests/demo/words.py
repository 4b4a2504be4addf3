"""What natproxy logs, in the words of somebody who tells it. Pure.

natproxy's log is one line for each event, made to be searched: an event and its fields. Here they become sentences; an
event that is of no interest to the story gets none.
"""

from __future__ import annotations

from collections.abc import Mapping

Line = Mapping[str, object]
"""One line of the log: ``event`` and its fields."""

AWS_DOMAIN = ".cache.amazonaws.com"

SENTENCES = {
    "natproxy runs": "runs, in version {version}",
    "port opened": "opens port {port} for {route}",
    "port drains": "closes port {port} of {route} within {seconds:.0f} s: {reason}",
    "port closed": "has closed port {port}",
    "port not opened": "cannot open port {port} for {route}: {reason}",
    "node does not answer": "gets no answer from {route} and asks AWS and DNS where it is now",
    "node answers again": "gets answers from {route} again",
    "node added": "hears from AWS of a new node: {node}",
    "node returned": "hears from AWS that {node} is back",
    "node gone": "hears from AWS that {node} is gone",
    "node role-moved": "hears from AWS that {node} is {after} now, not {before}",
    "name resolves anew": "finds the name {host} at {after} now, no longer at {before}",
    "name does not resolve, its last addresses stay": "cannot resolve {host} and keeps its last address",
    "connections end": "ends the connections that still lead to {address}",
    "connection ended": "saw a connection to port {port} end: {outcome}, {client_bytes} bytes there, {node_bytes} back",
    "config reloaded": "has read its config again: {opened} ports opened, {changed} changed, {closed} closed",
    "reload refused, the old config stays": "refuses the new config and keeps the old one: {error}",
    "discovery failed, the last known routes stay": "cannot ask AWS ({reason}) and keeps what it knows",
    "discovery works again": "can ask AWS again",
    "worker is gone and is replaced, its connections are lost": "lost a worker process and starts another",
    "natproxy stops": "stops",
}


def sentence(line: Line) -> str | None:
    """Return what a log line tells, without its subject, which is natproxy; None where it is of no interest."""
    template = SENTENCES.get(str(line.get("event")))
    if template is None or line.get("node_bytes") == 0:  # who got no byte will try again, and again
        return None
    try:
        return template.format_map({key: _plain(value) for key, value in line.items()})
    except (KeyError, ValueError):  # a field that is not there: the event's own words will do
        return str(line["event"])


def _plain(value: object) -> object:
    """Write lists without brackets, and of AWS's long host names only the part that tells them apart."""
    if isinstance(value, list):
        return ", ".join(str(_plain(item)) for item in value)
    if isinstance(value, str) and value.endswith(AWS_DOMAIN):
        return value.partition(".")[0]
    return value
