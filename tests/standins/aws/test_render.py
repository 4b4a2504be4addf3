from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore.model import ListShape, OperationModel, Shape, StructureShape
from botocore.parsers import create_parser

from tests.standins.aws.operations import OPERATIONS
from tests.standins.aws.render import (
    QueryError,
    RenderError,
    parse_query,
    render,
    render_error,
    service_model,
)

DATE = datetime(2026, 2, 3, 4, 5, 6, 789000, tzinfo=UTC)
SERVED = [(service, name) for service, operations in OPERATIONS.items() for name in operations]


def operation(name: str, service: str = "elasticache") -> OperationModel:
    return service_model(service).operation_model(name)


def parsed(model: OperationModel, body: bytes, status: int = 200) -> dict[str, Any]:
    assert model.output_shape is not None
    response = {"status_code": status, "headers": {}, "body": body}
    return dict(create_parser("query").parse(response, model.output_shape))


def sample(shape: Shape) -> Any:
    """Build a value with every member the model knows, at every depth."""
    if isinstance(shape, StructureShape):
        return {name: sample(member) for name, member in shape.members.items()}
    if isinstance(shape, ListShape):
        return [sample(shape.member), sample(shape.member)]
    values: dict[str, Any] = {"boolean": True, "integer": 17, "timestamp": DATE, "double": 0.5}
    if shape.type_name == "string":
        return shape.metadata["enum"][-1] if "enum" in shape.metadata else "a <&>\"' é\n text"
    return values[shape.type_name]


def dated(shape: Shape | None, value: Any) -> Any:
    """Turn the text of a documented example's timestamps into dates, which botocore's parser returns."""
    if isinstance(shape, StructureShape):
        return {name: dated(shape.members[name], member) for name, member in value.items()}
    if isinstance(shape, ListShape):
        return [dated(shape.member, member) for member in value]
    if shape is not None and shape.type_name == "timestamp" and isinstance(value, str):
        date = datetime.fromisoformat(value)
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return value


def documented(service: str, version: str) -> list[Any]:
    """Every output that botocore's documentation gives as an example."""
    directory = Path(botocore.__file__).parent / "data" / service / version
    file = directory / "examples-1.json"
    text = file.read_bytes() if file.exists() else gzip.decompress((directory / "examples-1.json.gz").read_bytes())
    return [
        pytest.param(service, name, example["output"], id=f"{name}-{number}")
        for name, examples in json.loads(text)["examples"].items()
        for number, example in enumerate(examples)
        if "output" in example
    ]


@pytest.mark.parametrize(("service", "name"), SERVED)
def test_a_whole_output_comes_back_from_botocores_parser_as_it_was(service: str, name: str) -> None:
    model = operation(name, service)
    output = sample(model.output_shape) if model.output_shape else {}
    answer = parsed(model, render(model, output, "request-7"))
    assert answer.pop("ResponseMetadata")["RequestId"] == "request-7"
    assert answer == output


@pytest.mark.parametrize(
    ("service", "name", "output"), documented("elasticache", "2015-02-02") + documented("sts", "2011-06-15")
)
def test_every_documented_example_comes_back_as_it_was(service: str, name: str, output: Any) -> None:
    model = operation(name, service)
    output = dated(model.output_shape, output)
    answer = parsed(model, render(model, output))
    del answer["ResponseMetadata"]
    assert answer == output


def test_empty_lists_and_missing_members_stay_apart() -> None:
    model = operation("DescribeCacheClusters")
    clusters: list[dict[str, object]] = [{"CacheClusterId": "a", "CacheNodes": []}, {"CacheClusterId": "b"}]
    answer = parsed(model, render(model, {"CacheClusters": clusters}))
    assert answer["CacheClusters"] == clusters


@pytest.mark.parametrize(
    "cluster",
    [
        {"Roles": "primary"},
        {"CacheNodes": [{"Adress": "10.0.1.230"}]},
        {"NumCacheNodes": "3"},
        {"NumCacheNodes": True},
        {"AuthTokenEnabled": "false"},
        {"AuthTokenEnabled": 0},
        {"TransitEncryptionMode": "off"},
        {"CacheClusterId": 7},
        {"CacheClusterId": None},
        {"CacheClusterId": "bell\x07"},
        {"CacheNodes": {"CacheNodeId": "0001"}},
        {"CacheNodes": ["0001"]},
        {"CacheClusterCreateTime": "2026-02-03"},
        {"CacheClusterCreateTime": DATE.replace(tzinfo=None)},
    ],
    ids=str,
)
def test_what_aws_does_not_know_is_refused(cluster: dict[str, object]) -> None:
    with pytest.raises(RenderError, match=r"CacheClusters\[0\]"):
        render(operation("DescribeCacheClusters"), {"CacheClusters": [cluster]})


def test_a_required_member_may_not_be_missing() -> None:
    with pytest.raises(RenderError, match="Unit"):
        render(
            operation("DescribeServerlessCaches"),
            {"ServerlessCaches": [{"CacheUsageLimits": {"DataStorage": {"Maximum": 5}}}]},
        )


def test_errors_are_read_by_botocore() -> None:
    model = operation("DescribeCacheClusters")
    body = render_error("http://elasticache.amazonaws.com/doc/2015-02-02/", "Throttling", "Rate <x>", is_sender=True)
    answer = parsed(model, body, status=400)
    assert answer["Error"] == {"Type": "Sender", "Code": "Throttling", "Message": "Rate <x>"}


def test_parameters_get_their_types() -> None:
    body = (
        "Action=DescribeEvents&Version=2015-02-02&Duration=5&StartTime=2026-02-03T04%3A05%3A06Z&SourceIdentifier=a%20b"
    )
    assert parse_query(operation("DescribeEvents"), body) == {
        "Duration": 5,
        "StartTime": datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC),
        "SourceIdentifier": "a b",
    }
    body = "Action=DescribeCacheClusters&ShowCacheNodeInfo=true"
    assert parse_query(operation("DescribeCacheClusters"), body) == {"ShowCacheNodeInfo": True}


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("DescribeCacheClusters", "ClusterId=a", "no parameter ClusterId"),
        ("DescribeCacheClusters", "ShowCacheNodeInfo=yes", "no boolean"),
        ("DescribeCacheClusters", "MaxRecords=many", "no integer"),
        ("ListTagsForResource", "Action=ListTagsForResource", "needs ResourceName"),
    ],
)
def test_parameters_that_the_operation_does_not_have_are_refused(name: str, body: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        parse_query(operation(name), body)
