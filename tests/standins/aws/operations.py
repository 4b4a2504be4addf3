"""The operations served: parameters and the world in, a botocore-shaped output out. Pure."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from tests.standins.aws import answers
from tests.standins.aws.answers import Answer
from tests.standins.aws.keys import AwsError, Credentials, Keyring
from tests.standins.aws.world import AwsWorld

Params = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Context:
    """What an operation may look at."""

    world: AwsWorld
    keyring: Keyring
    caller: Credentials
    page_size: int


def describe_cache_clusters(context: Context, params: Params) -> Answer:
    found = answers.cache_clusters(
        context.world,
        show_nodes=params.get("ShowCacheNodeInfo") is True,
        only_loose=params.get("ShowCacheClustersNotInReplicationGroups") is True,
    )
    found = _only(
        found, "CacheClusterId", params.get("CacheClusterId"), "CacheClusterNotFound", "CacheCluster not found"
    )
    return _page(context, params, "DescribeCacheClusters", "CacheClusters", found)


def describe_replication_groups(context: Context, params: Params) -> Answer:
    found = answers.replication_groups(context.world)
    wanted = params.get("ReplicationGroupId")
    found = _only(found, "ReplicationGroupId", wanted, "ReplicationGroupNotFoundFault", "ReplicationGroup not found")
    return _page(context, params, "DescribeReplicationGroups", "ReplicationGroups", found)


def describe_serverless_caches(context: Context, params: Params) -> Answer:
    found = answers.serverless_caches(context.world)
    wanted = params.get("ServerlessCacheName")
    found = _only(found, "ServerlessCacheName", wanted, "ServerlessCacheNotFoundFault", "Serverless cache not found")
    return _page(context, params, "DescribeServerlessCaches", "ServerlessCaches", found)


def describe_events(context: Context, params: Params) -> Answer:
    source_type, source, minutes = params.get("SourceType"), params.get("SourceIdentifier"), params.get("Duration", 60)
    if source is not None and source_type is None:
        message = "SourceType is required with SourceIdentifier"
        raise AwsError(400, "InvalidParameterCombination", message)
    found = answers.events(
        context.world,
        source_type=None if source_type is None else str(source_type),
        source=None if source is None else str(source),
        minutes=int(str(minutes)),
    )
    return _page(context, params, "DescribeEvents", "Events", found)


def list_tags_for_resource(context: Context, params: Params) -> Answer:
    arn = str(params["ResourceName"])
    prefix = context.world.arn("", "")[:-1]
    if not arn.startswith(prefix):
        raise AwsError(400, "InvalidARN", f"{arn} is not an ARN of ElastiCache in this account and region")
    found = answers.tag_list(context.world, arn)
    if found is None:
        kind, _, name = arn.removeprefix(prefix).partition(":")
        code = {"replicationgroup": "ReplicationGroupNotFoundFault", "serverlesscache": "ServerlessCacheNotFoundFault"}
        raise AwsError(404, code.get(kind, "CacheClusterNotFound"), f"{name} is either not present or not available.")
    return {"TagList": found}


def assume_role(context: Context, params: Params) -> Answer:
    role, session = str(params["RoleArn"]), str(params["RoleSessionName"])
    seconds = int(str(params.get("DurationSeconds", 3600)))
    if not 900 <= seconds <= 43200:
        raise AwsError(400, "ValidationError", "DurationSeconds must be between 900 and 43200")
    given = context.keyring.session(role.rpartition("/")[2], session, seconds)
    return {
        "Credentials": {
            "AccessKeyId": given.access_key,
            "SecretAccessKey": given.secret_key,
            "SessionToken": given.token,
            "Expiration": datetime.fromtimestamp(given.expires or 0, UTC),
        },
        "AssumedRoleUser": {"AssumedRoleId": f"AROA3XFRBF535EXAMPLE2:{session}", "Arn": given.arn},
    }


def get_caller_identity(context: Context, _params: Params) -> Answer:
    return {"UserId": context.caller.access_key, "Account": context.world.account, "Arn": context.caller.arn}


def get_secret_value(context: Context, params: Params) -> Answer:
    arn = str(params["SecretId"])
    if arn not in context.world.secrets:
        raise AwsError(400, "ResourceNotFoundException", "Secrets Manager can't find the specified secret.")
    return {
        "ARN": arn,
        "Name": arn.rpartition(":")[2],
        "SecretString": context.world.secrets[arn],
        "VersionStages": ["AWSCURRENT"],
        "CreatedDate": datetime.fromtimestamp(int(context.world.now()), UTC),
    }


OPERATIONS: Mapping[str, Mapping[str, Callable[[Context, Params], Answer]]] = {
    "elasticache": {
        "DescribeCacheClusters": describe_cache_clusters,
        "DescribeReplicationGroups": describe_replication_groups,
        "DescribeServerlessCaches": describe_serverless_caches,
        "DescribeEvents": describe_events,
        "ListTagsForResource": list_tags_for_resource,
    },
    "sts": {"AssumeRole": assume_role, "GetCallerIdentity": get_caller_identity},
}
JSON_OPERATIONS: Mapping[str, Mapping[str, Callable[[Context, Params], Answer]]] = {
    "secretsmanager": {"GetSecretValue": get_secret_value},
}
"""The same of services that speak AWS's JSON protocol."""

DENIED_ON = {
    "DescribeCacheClusters": "cluster:*",
    "DescribeReplicationGroups": "replicationgroup:*",
    "DescribeServerlessCaches": "serverlesscache:*",
    "DescribeEvents": "*",
}
"""Which resource AWS names when it denies a list call."""


def denial(context: Context, service: str, operation: str, params: Params) -> AwsError:
    """Word a denial as AWS does."""
    world = context.world
    if operation == "ListTagsForResource":
        resource = str(params.get("ResourceName"))
    elif operation == "GetSecretValue":
        resource = str(params.get("SecretId"))
    elif operation == "AssumeRole":
        resource = str(params.get("RoleArn"))
    else:
        resource = DENIED_ON.get(operation, "*")
        resource = resource if resource == "*" else f"arn:aws:elasticache:{world.region}:{world.account}:{resource}"
    action = f"{service}:{operation}"
    if service == "ec2":
        message = (
            f"You are not authorized to perform this operation. User: {context.caller.arn} is not authorized to "
            f"perform: {action} because no identity-based policy allows the {action} action"
        )
        return AwsError(403, "AccessDenied", message)
    message = (
        f"User: {context.caller.arn} is not authorized to perform: {action} on resource: {resource} "
        f"because no identity-based policy allows the {action} action"
    )
    return AwsError(403, "AccessDenied", message)


def _only(found: list[Answer], key: str, wanted: object, code: str, message: str) -> list[Answer]:
    if wanted is None:
        return found
    chosen = [answer for answer in found if answer.get(key) == str(wanted).lower()]
    if not chosen:
        raise AwsError(404, code, f"{message}: {wanted}")
    return chosen


def _page(context: Context, params: Params, operation: str, member: str, found: list[Answer]) -> Answer:
    """Cut one page: at most ``page_size`` however many were asked for, as AWS may answer less than that too."""
    is_token = operation == "DescribeServerlessCaches"
    asked_key, marker_key = ("MaxResults", "NextToken") if is_token else ("MaxRecords", "Marker")
    least, most = (1, 50) if is_token else (20, 100)
    asked = int(str(params.get(asked_key, most)))
    if not least <= asked <= most:
        message = f"The parameter {asked_key} must be between {least} and {most}"
        raise AwsError(400, "InvalidParameterValue", message)
    if context.world.is_partial("empty", operation):
        return {member: []}
    start = _position(operation, str(params[marker_key])) if marker_key in params else 0
    end = start + min(asked, context.page_size)
    answer: Answer = {member: found[start:end]}
    if end < len(found):
        answer[marker_key] = base64.urlsafe_b64encode(f"{operation}:{end}".encode()).decode()
    return answer


def _position(operation: str, marker: str) -> int:
    try:
        of_operation, _, position = base64.urlsafe_b64decode(marker).decode().partition(":")
        if of_operation != operation:
            raise ValueError
        return int(position)
    except ValueError:
        raise AwsError(400, "InvalidParameterValue", "The specified marker is not valid.") from None
