"""Generates the OpenAPI 3.1 document from the endpoints, and from the models of requests and answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

import draupnir
from draupnir.api.endpoints import PAGE, Body, Endpoint
from draupnir.api.problems import ROUTING_CODES
from draupnir.api.schemas.answers import Problems
from draupnir.roles import KEPT, OWNED, PERSONAL, PUBLIC, RESERVED, SHARED, Access
from draupnir_helper.wire import MAX_ID

Schema = dict[str, object]

AUDIENCES: Mapping[Access, str] = {
    PUBLIC: "no token",
    SHARED: "users",
    KEPT: "uploaders, admins",
    OWNED: "owner, admins",
    PERSONAL: "users, for themselves",
    RESERVED: "admins",
}
_REF = "#/components/schemas/{model}"
_DESCRIPTION = (
    'Errors have the form `{"errors": [{"status", "code", "title", "detail"}]}`; `code` is stable. Later versions may'
    " add routes, attributes of answers and codes; they remove and rename none."
)


class _Generator(GenerateJsonSchema):
    """Omits noise: titles of fields, and defaults of None."""

    def field_title_should_be_set(self, schema: object) -> bool:
        """Omit titles."""
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Omit a default of None, which cannot be sent."""
        return (
            self.generate_inner(schema["schema"]) if schema.get("default") is None else super().default_schema(schema)
        )


def describe(endpoints: Iterable[Endpoint]) -> Schema:
    """Return the document."""
    listed = tuple(endpoints)
    bodies = {each.body.attributes: TypeAdapter(each.body.attributes) for each in listed if each.body}
    answers: dict[object, TypeAdapter[object]] = {
        kind: TypeAdapter(kind) for each in listed for kind in each.answers.values() if _is_json(kind)
    }
    schemas, definitions = TypeAdapter.json_schemas(
        [
            *((kind, "validation", adapter) for kind, adapter in bodies.items()),
            *((kind, "serialization", adapter) for kind, adapter in answers.items()),
            (Problems, "serialization", TypeAdapter(Problems)),
        ],
        ref_template=_REF,
        schema_generator=_Generator,
    )
    codes = {code for each in listed for codes in each.codes().values() for code in codes}
    components: dict[str, JsonSchemaValue] = definitions["$defs"]
    components["Problem"]["properties"]["code"]["enum"] = sorted({*codes, *ROUTING_CODES})
    for schema in components.values():
        if "enum" in schema:
            # Docstrings describe the code, so they are removed here.
            schema.pop("description", None)
    known: dict[object, Schema] = {kind: schema for (kind, _), schema in schemas.items()}
    paths: dict[str, Schema] = {}
    for each in listed:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, known)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Draupnir", "version": draupnir.__version__, "description": _DESCRIPTION},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _is_json(kind: object) -> bool:
    return kind is not None and kind is not PAGE


def _operation(endpoint: Endpoint, known: Mapping[object, Schema]) -> Schema:
    audience = AUDIENCES[endpoint.access]
    operation: Schema = {
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method.lower()}{endpoint.path}").strip("_"),
        "summary": endpoint.does,
        "description": f"For: {audience}.",
        "parameters": [*_parameters(endpoint)],
        "responses": {str(status): answer for status, answer in sorted(_responses(endpoint, known).items())},
    }
    if endpoint.access.is_public:
        operation["security"] = []
    if endpoint.body is not None:
        operation["requestBody"] = _request(endpoint.body, known)
    return operation


def _parameters(endpoint: Endpoint) -> Iterable[Schema]:
    for name in re.findall(r"\{(\w+)\}", endpoint.path):
        schema = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    for each in endpoint.parameters:
        yield {"name": each.name, "in": each.place, "required": each.required, "schema": each.schema}


def _request(body: Body, known: Mapping[object, Schema]) -> Schema:
    """Return the schema of the envelope; its type may be absent or empty, for clients of the Go program."""
    ids: list[Schema] = [{"const": ""}]
    if body.has_id:
        ids += [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[1-9][0-9]{0,18}$"}]
    data = {
        "type": "object",
        "properties": {
            "type": {"enum": [body.kind, ""]},
            "id": {"anyOf": ids},
            "attributes": known[body.attributes],
        },
        "required": ["attributes"],
    }
    schema = {"type": "object", "properties": {"data": data}, "required": ["data"]}
    example = {"data": {"type": body.kind, "attributes": body.example}}
    return {
        "required": body.required,
        "content": {"application/json": {"schema": schema, "example": example}},
    }


def _responses(endpoint: Endpoint, known: Mapping[object, Schema]) -> dict[int, Schema]:
    bodies: dict[int, dict[str, list[Schema]]] = {}
    told: dict[int, list[str]] = {}
    for status, kind in endpoint.answers.items():
        bodies[status], told[status] = {}, [HTTPStatus(status).phrase]
        if kind is PAGE:
            bodies[status][PAGE] = [{"type": "string"}]
        elif kind is not None:
            bodies[status]["application/json"] = [known[kind]]
    for status, codes in endpoint.codes().items():
        content = bodies.setdefault(status, {})
        content.setdefault("application/json", []).append(known[Problems])
        if endpoint.for_people:
            content[PAGE] = [{"type": "string"}]
        told.setdefault(status, []).append(", ".join(f"`{code}`" for code in sorted(codes)))
    return {status: _response(". ".join(told[status]), bodies[status]) for status in bodies}


def _response(description: str, bodies: Mapping[str, list[Schema]]) -> Schema:
    content = {kind: {"schema": each[0] if len(each) == 1 else {"anyOf": each}} for kind, each in bodies.items()}
    return {"description": description, **({"content": content} if content else {})}
