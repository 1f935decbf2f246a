"""The OpenAPI document is true: whatever is sent to an operation, the answer is one that the document knows, and never
a failure of the server. What is sent is made from the document by schemathesis: what it allows, and what it does not.

The few requests of a usual run are the same every time; with INSTAVM_TEST_EXAMPLES, so many others are made for each
operation.
"""

from __future__ import annotations

import os
from pathlib import Path

import requests
import schemathesis
from conftest import World
from hypothesis import HealthCheck, settings
from patience import PATIENCE_SECONDS
from schemathesis.config import ChecksConfig, GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig
from schemathesis.config._checks import MissingRequiredHeaderConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "spec/openapi.json"
EXAMPLES = os.environ.get("INSTAVM_TEST_EXAMPLES")
EVENTS = "text/event-stream"
#: Commands of the daemon without guests are processes of this machine, so they are not made up.
HARMLESS = {"command": "true", "code": "true", "shell": "sh", "argv": ["true"], "language": "bash"}
RUNNING = ("/execute", "/pty/sessions")
EXCLUDED_CHECKS = [
    # The document cannot say all rules: those between fields, and of texts such as policies and host names.
    positive_data_acceptance,
    # A method that a path does not have is an unknown route (404).
    unsupported_method,
    # Asked below, once for each operation: who tries too often is told so (429).
    ignored_auth,
]

config = SchemathesisConfig(
    seed=None if EXAMPLES else 1,
    projects=ProjectsConfig(
        default=ProjectConfig(
            generation=GenerationConfig(
                max_examples=int(EXAMPLES or 8),
                deterministic=EXAMPLES is None,
                database="none",
                # The contract's clients send parameters that mean nothing, and are not refused.
                allow_extra_parameters=False,
            ),
            request_timeout=PATIENCE_SECONDS,
            checks=ChecksConfig(missing_required_header=MissingRequiredHeaderConfig(expected_statuses=["4xx"])),
        )
    ),
)
schemathesis.serializer.alias("application/x-tar", "application/octet-stream")
schema = schemathesis.openapi.from_path(DOCUMENT, config=config)


def test_opens_nothing_without_a_key_that_the_document_calls_closed(world: World) -> None:
    answers = {}
    for operation in (result.ok() for result in schema.get_all_operations()):
        if operation.definition.raw.get("security") != []:
            url = world.base_url + operation.path
            answers[operation.label] = requests.request(operation.method, url, timeout=PATIENCE_SECONDS).status_code
    assert len(answers) > 80
    assert set(answers.values()) == {401}, answers


def answers_of(operation: schemathesis.APIOperation) -> list[str]:
    return list(operation.definition.raw["responses"].get("200", {}).get("content", {}))


def is_endless(context: schemathesis.HookContext) -> bool:
    return answers_of(context.operation) == [EVENTS]


@schema.exclude(is_endless).parametrize()
@settings(suppress_health_check=list(HealthCheck), deadline=None)
def test_answers_as_documented(case: schemathesis.Case, world: World) -> None:
    address(case, world)
    is_keyless = case.meta is not None and case.meta.is_negative_at(ParameterLocation.HEADER)
    headers = {} if is_keyless else {"X-API-Key": world.api_key}
    # On the way, everything in a form is text, whatever it was made as.
    excluded = [*EXCLUDED_CHECKS, negative_data_rejection] if case.operation.path == "/upload" else EXCLUDED_CHECKS
    case.call_and_validate(base_url=world.base_url, headers=headers, excluded_checks=excluded)


def address(case: schemathesis.Case, world: World) -> None:
    """Makes a case be about what there is, where it is not about something else on purpose."""
    ids = world.ids_for(case.operation.label)
    parameters = case.path_parameters or {}
    if case.meta is None or not case.meta.is_negative_at(ParameterLocation.PATH):
        case.path_parameters = {name: ids.get(name, value) for name, value in parameters.items()}
    if EVENTS in answers_of(case.operation):
        # The answer would go on until the client has enough.
        case.query = {name: value for name, value in (case.query or {}).items() if name != "follow"}
    if not isinstance(case.body, dict):
        return
    known = ids | {"api_key": world.api_key}
    if any(path in case.operation.path for path in RUNNING):
        known |= HARMLESS
    case.body = {
        name: known[name] if name in known and type(value) is type(known[name]) else value
        for name, value in case.body.items()
    }
