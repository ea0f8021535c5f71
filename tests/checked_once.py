"""A JSON schema that was found right isn't checked again: for the form of a flow that takes a quarter of a second."""

from __future__ import annotations

import json
from typing import Any

from jsonschema.validators import Draft202012Validator
from prefect.utilities.schema_tools.validation import _VALIDATOR


def check_schemas_once() -> None:
    """Whatever Prefect checks in this process from now on, at a deployment and at each of its runs."""
    for validator in (Draft202012Validator, _VALIDATOR):
        _check_once(validator)


def _check_once(validator: Any) -> None:
    check, right = validator.check_schema, set[str]()

    def check_schema(schema: Any, *args: Any, **options: Any) -> None:
        text = json.dumps(schema)
        if text not in right:
            check(schema, *args, **options)
            right.add(text)

    validator.check_schema = check_schema
