"""The protocol that EC2 speaks, both ways, from botocore's own service model. Pure.

As in render.py, what the model does not know is refused with RenderError.
"""

from __future__ import annotations

from urllib.parse import parse_qsl
from xml.etree import ElementTree

from botocore.model import ListShape, OperationModel, Shape, StructureShape

from tests.standins.aws.render import REQUEST_ID, QueryError, document, fill, parse_value

Tree = dict[str, "Tree | str"]

_CODES = {
    "AccessDenied": "UnauthorizedOperation",
    "ExpiredToken": "RequestExpired",
    "InvalidClientTokenId": "AuthFailure",
    "SignatureDoesNotMatch": "AuthFailure",
    "Throttling": "RequestLimitExceeded",
}
"""What is called so in the query protocol, and how EC2 calls it."""


def parse_ec2(operation: OperationModel, body: str) -> dict[str, object]:
    """Parse a request's form body to typed parameters; raises QueryError for one the operation does not have."""
    tree: Tree = {}
    for name, value in parse_qsl(body, keep_blank_values=True, strict_parsing=True):
        if name not in ("Action", "Version"):
            _put(tree, name.split("."), value)
    shape = operation.input_shape
    if shape is None:
        return {}
    params = _typed(shape, tree, operation.name)
    assert isinstance(params, dict)
    return params


def render_ec2(operation: OperationModel, output: dict[str, object], request_id: str = REQUEST_ID) -> bytes:
    """Render an operation's output as the body of a 200 answer."""
    namespace = operation.service_model.metadata.get("xmlNamespace", "")
    root = ElementTree.Element(f"{operation.name}Response", xmlns=namespace)
    ElementTree.SubElement(root, "requestId").text = request_id
    if operation.output_shape is not None:
        fill(root, operation.output_shape, output, operation.name)
    return document(root)


def render_ec2_error(code: str, message: str, request_id: str = REQUEST_ID) -> bytes:
    """Render an error answer."""
    root = ElementTree.Element("Response")
    error = ElementTree.SubElement(ElementTree.SubElement(root, "Errors"), "Error")
    ElementTree.SubElement(error, "Code").text = _CODES.get(code, code)
    ElementTree.SubElement(error, "Message").text = message
    ElementTree.SubElement(root, "RequestID").text = request_id
    return document(root)


def _put(tree: Tree, path: list[str], value: str) -> None:
    for step in path[:-1]:
        deeper = tree.setdefault(step, {})
        assert isinstance(deeper, dict)
        tree = deeper
    tree[path[-1]] = value


def _typed(shape: Shape, value: Tree | str, path: str) -> object:
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        members = {_wire_name(name, member): (name, member) for name, member in shape.members.items()}
        if unknown := sorted(value.keys() - members.keys()):
            message = f"{path} has no parameter {', '.join(unknown)}"
            raise QueryError(message)
        return {
            members[wire][0]: _typed(members[wire][1], item, f"{path}.{members[wire][0]}")
            for wire, item in value.items()
        }
    if isinstance(shape, ListShape) and isinstance(value, dict):
        return [_typed(shape.member, value[number], path) for number in sorted(value, key=int)]
    if isinstance(value, str) and not isinstance(shape, StructureShape | ListShape):
        return parse_value(path, shape, value)
    message = f"{path} is no {shape.type_name}"
    raise QueryError(message)


def _wire_name(name: str, shape: Shape) -> str:
    """How a member is called in a request."""
    told = shape.serialization.get("queryName")
    if told is not None:
        return str(told)
    written = str(shape.serialization.get("name", name))
    return written[0].upper() + written[1:]
