"""AWS's query protocol, both ways, from botocore's own service models: parameters in, XML out. Pure.

A member, type or enum value that the model does not know is refused with RenderError, so that no test invents a field.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import parse_qsl
from xml.etree import ElementTree

import botocore.session
from botocore.model import ListShape, OperationModel, ServiceModel, Shape, StructureShape

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

T = TypeVar("T")

REQUEST_ID = "2b1f0b5e-7d1c-4a5f-9f0e-000000000001"


class RenderError(Exception):
    """What was to be answered is not what botocore's model of AWS allows."""


class QueryError(Exception):
    """The request's parameters are not what botocore's model of the operation allows."""


@functools.cache
def service_model(service: str) -> ServiceModel:
    """Return botocore's model of a service such as ``elasticache``."""
    return botocore.session.get_session().get_service_model(service)


def render(operation: OperationModel, output: dict[str, object], request_id: str = REQUEST_ID) -> bytes:
    """Render an operation's output as the body of a 200 answer."""
    namespace = operation.service_model.metadata.get("xmlNamespace", "")
    root = ElementTree.Element(f"{operation.name}Response", xmlns=namespace)
    shape = operation.output_shape
    if shape is not None:
        wrapper = shape.serialization.get("resultWrapper")
        fill(ElementTree.SubElement(root, wrapper) if wrapper else root, shape, output, operation.name)
    elif output:
        message = f"{operation.name} answers nothing, but was given {sorted(output)}"
        raise RenderError(message)
    metadata = ElementTree.SubElement(root, "ResponseMetadata")
    ElementTree.SubElement(metadata, "RequestId").text = request_id
    return document(root)


def render_error(namespace: str, code: str, message: str, *, is_sender: bool, request_id: str = REQUEST_ID) -> bytes:
    """Render an error answer."""
    root = ElementTree.Element("ErrorResponse", xmlns=namespace)
    error = ElementTree.SubElement(root, "Error")
    ElementTree.SubElement(error, "Type").text = "Sender" if is_sender else "Receiver"
    ElementTree.SubElement(error, "Code").text = code
    ElementTree.SubElement(error, "Message").text = message
    ElementTree.SubElement(root, "RequestId").text = request_id
    return document(root)


def parse_query(operation: OperationModel, body: str) -> dict[str, object]:
    """Parse a request's form body to typed parameters; raises QueryError for one the operation does not have."""
    fields = dict(parse_qsl(body, keep_blank_values=True, strict_parsing=True))
    fields.pop("Action", None)
    fields.pop("Version", None)
    shape = operation.input_shape
    members: Mapping[str, Shape] = shape.members if isinstance(shape, StructureShape) else {}
    params: dict[str, object] = {}
    for name, value in fields.items():
        member, _, rest = name.partition(".")
        if member not in members:
            message = f"{operation.name} has no parameter {member}"
            raise QueryError(message)
        if rest:
            params.setdefault(member, {})[rest] = value  # type: ignore[index]
        else:
            params[member] = parse_value(member, members[member], value)
    missing = [
        name for name in (shape.required_members if isinstance(shape, StructureShape) else ()) if name not in params
    ]
    if missing:
        message = f"{operation.name} needs {', '.join(missing)}"
        raise QueryError(message)
    return params


def parse_value(name: str, shape: Shape, value: str) -> object:
    """Parse one parameter's text; raises QueryError."""
    try:
        match shape.type_name:
            case "integer" | "long":
                return int(value)
            case "boolean":
                return {"true": True, "false": False}[value]
            case "timestamp":
                return datetime.fromisoformat(value)
            case _:
                return value
    except (ValueError, KeyError):
        message = f"{value!r} is no {shape.type_name} for {name}"
        raise QueryError(message) from None


def fill(element: ElementTree.Element, shape: Shape, value: object, path: str) -> None:
    """Put a value of that shape into an element; raises RenderError."""
    if isinstance(shape, StructureShape):
        _fill_structure(element, shape, _expect(value, dict, path), path)
    elif isinstance(shape, ListShape):
        name = shape.member.serialization.get("name", "member")
        for number, item in enumerate(_expect(value, list, path)):
            fill(ElementTree.SubElement(element, name), shape.member, item, f"{path}[{number}]")
    else:
        element.text = _text(shape, value, path)


def _fill_structure(
    element: ElementTree.Element, shape: StructureShape, value: Mapping[str, object], path: str
) -> None:
    unknown = sorted(set(value) - set(shape.members))
    missing = sorted(set(shape.required_members) - set(value))
    if unknown or missing:
        message = f"{path}: unknown members {unknown}, missing members {missing}"
        raise RenderError(message)
    for name, item in value.items():
        member = shape.members[name]
        if isinstance(member, ListShape) and member.serialization.get("flattened"):
            message = f"{path}.{name}: flattened lists are not rendered here"
            raise RenderError(message)
        fill(ElementTree.SubElement(element, member.serialization.get("name", name)), member, item, f"{path}.{name}")


def _text(shape: Shape, value: object, path: str) -> str:
    match shape.type_name:
        case "string":
            text = str(_expect(value, str, path))
            enum = shape.metadata.get("enum")
            if (enum and text not in enum) or _NOT_XML.search(text):
                message = f"{path}: {text!r} is not allowed"
                raise RenderError(message)
            return text
        case "boolean":
            return "true" if _expect(value, bool, path) else "false"
        case "integer" | "long":
            if isinstance(value, bool):
                message = f"{path}: {value!r} is not a number"
                raise RenderError(message)
            return str(_expect(value, int, path))
        case "double" | "float":
            return repr(_expect(value, float, path))
        case "timestamp":
            date = _expect(value, datetime, path)
            if date.tzinfo is None:
                message = f"{path}: {date} has no time zone"
                raise RenderError(message)
            return date.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case _:
            message = f"{path}: {shape.type_name} is not rendered here"
            raise RenderError(message)


def _expect(value: object, kind: type[T], path: str) -> T:
    if not isinstance(value, kind):
        message = f"{path}: {value!r} is not of type {kind.__name__}"
        raise RenderError(message)
    return value


def document(root: ElementTree.Element) -> bytes:
    """Write an element as a document of its own."""
    return b'<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root)
