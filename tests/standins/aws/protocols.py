"""The protocols of AWS's services side by side: which operations a service has, how it asks, how it answers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from botocore.model import OperationModel

from tests.standins.aws.answers import Answer
from tests.standins.aws.ec2operations import EC2_OPERATIONS
from tests.standins.aws.ec2protocol import parse_ec2, render_ec2, render_ec2_error
from tests.standins.aws.http import Reply, Request
from tests.standins.aws.jsonprotocol import CONTENT_TYPE, operation_of, parse_json, render_json, render_json_error
from tests.standins.aws.keys import AwsError
from tests.standins.aws.operations import JSON_OPERATIONS, OPERATIONS, Context, Params
from tests.standins.aws.render import QueryError, parse_query, render, render_error, service_model

EC2 = "ec2"
SERVICES: Mapping[str, Mapping[str, Callable[[Context, Params], Answer]]] = {
    **OPERATIONS,
    **JSON_OPERATIONS,
    EC2: EC2_OPERATIONS,
}
"""Service -> operation -> what answers it."""


def understand(request: Request, service: str) -> tuple[OperationModel, dict[str, object]]:
    """Find out what is asked; raises the AwsError that AWS answers."""
    if service in JSON_OPERATIONS:
        return _understand_json(request, service)
    if service not in SERVICES:
        raise AwsError(
            403, "SignatureDoesNotMatch", f"Credential should be scoped to a service served here, not {service}"
        )
    body = request.body.decode()
    action = next((part.removeprefix("Action=") for part in body.split("&") if part.startswith("Action=")), "")
    if request.method != "POST" or action not in SERVICES[service]:
        raise AwsError(400, "InvalidAction", f"Could not find operation {action}")
    operation = service_model(service).operation_model(action)
    try:
        return operation, (parse_ec2 if service == EC2 else parse_query)(operation, body)
    except QueryError as error:
        raise AwsError(400, "InvalidParameterValue", str(error)) from error


def answer(service: str, operation: OperationModel, context: Context, params: Params) -> Reply:
    """Answer what is asked; raises the AwsError that AWS answers, RenderError for what it could not."""
    if params.get("DryRun") is True:
        raise AwsError(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
    output = SERVICES[service][operation.name](context, params)
    if service in JSON_OPERATIONS:
        return Reply(200, render_json(operation, output), CONTENT_TYPE)
    return Reply(200, (render_ec2 if service == EC2 else render)(operation, output))


def error_reply(service: str, error: AwsError) -> Reply:
    """Answer an error as the service does."""
    if service in JSON_OPERATIONS:
        # this protocol has 400 for whatever is the caller's fault
        status = 400 if error.status < 500 else error.status
        return Reply(status, render_json_error(error.code, error.message), CONTENT_TYPE)
    if service == EC2:
        return Reply(error.status, render_ec2_error(error.code, error.message))
    known = service if service in OPERATIONS else "elasticache"
    namespace = str(service_model(known).metadata["xmlNamespace"])
    return Reply(error.status, render_error(namespace, error.code, error.message, is_sender=error.status < 500))


def _understand_json(request: Request, service: str) -> tuple[OperationModel, dict[str, object]]:
    model = service_model(service)
    name = operation_of(model, request.headers.get("x-amz-target", ""))
    if request.method != "POST" or name not in JSON_OPERATIONS[service]:
        raise AwsError(400, "InvalidAction", f"Could not find operation {name}")
    operation = model.operation_model(name)
    try:
        return operation, parse_json(operation, request.body)
    except QueryError as error:
        raise AwsError(400, "ValidationException", str(error)) from error
