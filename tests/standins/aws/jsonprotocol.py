"""AWS's JSON protocol (1.1), which Secrets Manager speaks, both ways, from botocore's own service models. Pure.

As in render.py, what the model does not know is refused with RenderError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from botocore.model import ListShape, OperationModel, ServiceModel, Shape, StructureShape

from tests.standins.aws.render import QueryError, RenderError

CONTENT_TYPE = "application/x-amz-json-1.1"
_CODES = {
    "AccessDenied": "AccessDeniedException",
    "ExpiredToken": "ExpiredTokenException",
    "InvalidAction": "UnknownOperationException",
    "InvalidClientTokenId": "UnrecognizedClientException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "Throttling": "ThrottlingException",
}
"""What is called so in the query protocol, and how services of this one call it."""


def operation_of(service: ServiceModel, target: str) -> str:
    """Return the operation that ``X-Amz-Target`` names; empty where it is none of the service's."""
    prefix, _, name = target.partition(".")
    is_known = prefix == service.metadata.get("targetPrefix") and name in service.operation_names
    return name if is_known else ""


def parse_json(operation: OperationModel, body: bytes) -> dict[str, object]:
    """Parse a request's body; raises QueryError for a parameter that the operation does not have, or lacks."""
    try:
        params = json.loads(body)
    except ValueError:
        params = None
    if not isinstance(params, dict):
        raise QueryError("the body is no JSON object")
    shape = operation.input_shape
    members = shape.members if isinstance(shape, StructureShape) else {}
    required = shape.required_members if isinstance(shape, StructureShape) else ()
    if unknown := sorted(params.keys() - members.keys()):
        message = f"{operation.name} has no parameter {', '.join(unknown)}"
        raise QueryError(message)
    if missing := [name for name in required if name not in params]:
        message = f"{operation.name} needs {', '.join(missing)}"
        raise QueryError(message)
    return params


def render_json(operation: OperationModel, output: Mapping[str, object]) -> bytes:
    """Render an operation's output as the body of a 200 answer."""
    shape = operation.output_shape
    if shape is None:
        message = f"{operation.name} answers nothing"
        raise RenderError(message)
    return json.dumps(_plain(shape, output, operation.name)).encode()


def render_json_error(code: str, message: str) -> bytes:
    """Render an error answer."""
    return json.dumps({"__type": _CODES.get(code, code), "Message": message}).encode()


def _plain(shape: Shape, value: object, path: str) -> object:
    """Return a value as JSON has it; times are seconds."""
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        if unknown := sorted(value.keys() - shape.members.keys()):
            message = f"{path}: unknown members {unknown}"
            raise RenderError(message)
        return {name: _plain(shape.members[name], item, f"{path}.{name}") for name, item in value.items()}
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_plain(shape.member, item, path) for item in value]
    if shape.type_name == "timestamp" and isinstance(value, datetime):
        return value.timestamp()
    if shape.type_name == "string" and isinstance(value, str):
        return value
    message = f"{path}: {value!r} is no {shape.type_name}, or one that is not rendered here"
    raise RenderError(message)
