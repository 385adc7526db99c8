"""The JSON Schema of an answer; ``python -m predictor.report.schema`` prints it."""

import json
import sys
from typing import Any

from predictor.answer import SCHEMA_VERSION, Estimate

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_ABOUT = (
    "Every key carries its unit; docs/reference/json.md explains each. Numbers are finite. "
    "Later versions only add keys, so a reader should pass over keys it does not know."
)


def json_schema() -> dict[str, Any]:
    """The schema, made from the answer's own types."""
    made = Estimate.model_json_schema(mode="serialization")
    _open(made)
    made["properties"]["schema_version"] = {"const": SCHEMA_VERSION, "type": "integer"}
    return {"$schema": _DRAFT} | made | {"title": "predictor estimate", "description": _ABOUT}


def _open(node: Any) -> None:
    """Allow keys of later versions, and drop titles that only repeat a key."""
    if isinstance(node, dict):
        node.pop("additionalProperties", None)
        if isinstance(node.get("title"), str):
            del node["title"]
        for part in node.values():
            _open(part)
    elif isinstance(node, list):
        for part in node:
            _open(part)


def text() -> str:
    """The schema as it is kept in docs/reference/estimate.schema.json."""
    return json.dumps(json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
