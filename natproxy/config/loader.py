"""YAML text -> plain values, with the line of each. Pure.

What is taken from YAML 1.2 and what is left out, so that a file means what it seems to mean:

* only ``true`` and ``false`` are booleans, only ``null``, ``~`` and nothing are null; all else is text as it was
  written (``on``, ``no``, ``1.2``, ``0644`` and ``12:30`` too), and whoever uses it says what it must be;
* a key written twice is an error;
* anchors and aliases (``&name``, ``*name``) work, up to a cap on what they add up to;
* merge keys (``<<``), tags (``!name``), keys that are not text, and second documents are errors.

PyYAML's parser gives the events; its composer and constructor, which do otherwise, are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import yaml

from natproxy.config.places import Finding, Place, Plain

MAX_VALUES = 50_000
MAX_DEPTH = 32
MAX_TEXT = 4096

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_CONTROL = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content."""

    value: Plain = None
    """Fresh lists and mappings throughout: the reader may change them."""
    lines: dict[Place, int] = field(default_factory=dict)
    """The 1-based line of every value; for a value in a mapping, of its key."""
    findings: tuple[Finding, ...] = ()
    """Mistakes that left the rest readable."""
    is_readable: bool = True
    """False where reading had to stop: then ``value`` is None."""


@dataclass(frozen=True, slots=True)
class _Marked:
    """A value with its line, and the number of values in it, itself included."""

    content: bool | str | list[_Marked] | dict[str, tuple[int, _Marked]] | None
    """A mapping's keys have a line of their own."""
    line: int
    size: int = 1
    depth: int = 0
    """How many levels of lists and mappings it has."""


class _UnreadableError(Exception):
    """Reading stops here."""

    def __init__(self, place: Place, line: int, message: str) -> None:
        self.finding = Finding(place, message, line)
        super().__init__(message)


def load_document(text: str) -> Document:
    """Read one YAML document; whatever is wrong with it is in ``findings``."""
    reader = _Reader(text)
    try:
        root = reader.read()
    except _UnreadableError as error:
        return Document(findings=(*reader.findings, error.finding), is_readable=False)
    lines: dict[Place, int] = {}
    return Document(_plain(root, (), root.line, lines), lines, tuple(reader.findings))


def _plain(marked: _Marked, place: Place, line: int, lines: dict[Place, int]) -> Plain:
    lines[place] = line
    if isinstance(marked.content, list):
        return [_plain(item, (*place, index), item.line, lines) for index, item in enumerate(marked.content)]
    if isinstance(marked.content, dict):
        return {key: _plain(item, (*place, key), at, lines) for key, (at, item) in marked.content.items()}
    return marked.content


class _Reader:
    """Builds the tree from the parser's events."""

    def __init__(self, text: str) -> None:
        self.findings: list[Finding] = []
        self._text = text
        self._events = yaml.parse(text, Loader=yaml.SafeLoader)
        self._line = 1
        self._anchors: dict[str, _Marked] = {}

    def read(self) -> _Marked:
        self._next()
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            return _Marked(None, 1)
        root = self._value(self._next(), ())
        self._next()
        end = self._next()
        if not isinstance(end, yaml.StreamEndEvent):
            raise _UnreadableError((), _line(end), "a second document begins here (---): a config file is one document")
        return root

    def _next(self) -> yaml.Event:
        try:
            event = next(self._events)
        except yaml.reader.ReaderError as error:
            line = self._text.count("\n", 0, error.position) + 1
            raise _UnreadableError((), line, "has a character that YAML does not allow") from None
        except yaml.MarkedYAMLError as error:
            raise _UnreadableError((), *_explained(error)) from None
        except (ValueError, OverflowError):
            # PyYAML gives the digits of an escape or of a %YAML line to chr() and int() unchecked.
            raise _UnreadableError(
                (), self._line, "not YAML: a number beyond all bounds, here or further down"
            ) from None
        self._line = _line(event)
        return event

    def _value(self, event: yaml.Event, place: Place) -> _Marked:
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor, place, line)
        _refuse_depth(place, 0, line)
        if getattr(event, "tag", None) is not None:
            raise _UnreadableError(
                place, line, "tags (!name) have no meaning here: put a value that begins with ! in quotes"
            )
        if isinstance(event, yaml.ScalarEvent):
            marked = _Marked(_scalar(event, place), line)
        elif isinstance(event, yaml.SequenceStartEvent):
            marked = self._list(place, line)
        else:
            marked = self._mapping(place, line)
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            self._anchors[event.anchor] = marked
        return marked

    def _alias(self, name: str | None, place: Place, line: int) -> _Marked:
        if name is None or name not in self._anchors:
            raise _UnreadableError(place, line, "an alias (*name) needs an anchor (&name) that ends before it")
        anchored = self._anchors[name]
        _refuse_depth(place, anchored.depth, line)
        return _Marked(anchored.content, line, anchored.size, anchored.depth)

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        while not isinstance(event := self._next(), end):
            yield event

    def _list(self, place: Place, line: int) -> _Marked:
        items: list[_Marked] = []
        size = 1
        for event in self._until(yaml.SequenceEndEvent):
            items.append(self._value(event, (*place, len(items))))
            size = self._grown(size, items[-1])
        return _Marked(items, line, size, 1 + max((item.depth for item in items), default=0))

    def _mapping(self, place: Place, line: int) -> _Marked:
        items: dict[str, tuple[int, _Marked]] = {}
        size = 1
        for event in self._until(yaml.MappingEndEvent):
            key, at = self._key(event, place), _line(event)
            marked = self._value(self._next(), (*place, key))
            size = self._grown(size, marked)
            if key == "<<":
                message = (
                    "merge keys (<<) are not YAML 1.2: write the keys out, or give a whole value by its alias (*name)"
                )
                raise _UnreadableError((*place, key), at, message)
            if key in items:
                self.findings.append(Finding((*place, key), f"is written twice: first on line {items[key][0]}", at))
            else:
                items[key] = (at, marked)
        return _Marked(items, line, size, 1 + max((item.depth for _, item in items.values()), default=0))

    def _key(self, event: yaml.Event, place: Place) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.tag is not None or event.anchor is not None:
            raise _UnreadableError(
                place, _line(event), "a key must be plain text (put a key that begins with & * ! { [ in quotes)"
            )
        return _text(event, place)

    def _grown(self, size: int, item: _Marked) -> int:
        if size + item.size > MAX_VALUES:
            raise _UnreadableError(
                (), item.line, f"the file holds more than {MAX_VALUES} values (aliases counted in full)"
            )
        return size + item.size


def _scalar(event: yaml.ScalarEvent, place: Place) -> bool | str | None:
    text = _text(event, place)
    if event.style is not None:
        return text
    return None if text in _NULLS else _BOOLEANS.get(text, text)


def _text(event: yaml.ScalarEvent, place: Place) -> str:
    text = str(event.value)
    if len(text) > MAX_TEXT:
        raise _UnreadableError(place, _line(event), f"is longer than {MAX_TEXT} characters")
    if _CONTROL.search(text):
        raise _UnreadableError(place, _line(event), "has a control character, or half of a surrogate pair")
    return text


def _refuse_depth(place: Place, depth: int, line: int) -> None:
    if len(place) + depth > MAX_DEPTH:
        raise _UnreadableError(place[:3], line, f"is nested more than {MAX_DEPTH} levels deep")


def _line(event: yaml.Event) -> int:
    return 1 if event.start_mark is None else int(event.start_mark.line) + 1


_PLAIN_WORDS = (
    ("found character '\\t'", "a tab, where YAML allows only spaces: indent with spaces"),
    ("found character '", "a value cannot begin with this character (@ ` %): put it in quotes"),
    (
        "mapping values are not allowed",
        "a key and its ':' are not expected here: look at the indentation, or quote a value that contains ': '",
    ),
    ("could not find expected ':'", "a line without a ':', where a key is expected"),
    ("expected <block end>", "the indentation fits none of the lines above"),
    ("expected ',' or ']'", "a list in [ ] is not closed, or a comma is missing in it"),
    ("expected ',' or '}'", "a mapping in { } is not closed, or a comma is missing in it"),
    ("found unexpected end of stream", "a quote is not closed"),
    ("found unexpected document separator", "a quote is not closed"),
    ("found unknown escape character", "an unknown escape (\\) in double quotes: use single quotes, or write \\\\"),
    ("expected escape sequence", "an escape (\\) in double quotes with wrong digits: use single quotes, or write \\\\"),
    ("found incompatible YAML document", "a %YAML line of a version that nobody knows"),
    ("found undefined tag handle", "tags (!name) have no meaning here: put a value that begins with ! in quotes"),
)


def _explained(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    """Return the line and the plain words for what the parser says; never a piece of the file itself."""
    said = error.problem or ""
    words = next((words for start, words in _PLAIN_WORDS if said.startswith(start)), "this line cannot be read")
    mark = error.problem_mark or error.context_mark
    line = 1 if mark is None else int(mark.line) + 1
    opened = error.context_mark
    if "not closed" in words and opened is not None and int(opened.line) + 1 != line:
        words += f" (it begins on line {int(opened.line) + 1})"
    return line, f"not YAML: {words}"
