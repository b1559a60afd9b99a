"""GET /openapi.json: the routes, and the fields of a speech request from their declarations."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from starlette.routing import BaseRoute, Route

from voxcpm.server.encode import FORMATS
from voxcpm.server.speech.fields import UNSUPPORTED, SpeechFields

MEDIA_TYPES = (*(form.media_type for form in FORMATS.values()), "text/event-stream")
ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")},
        }
    },
}


def openapi(title: str, version: str, routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """Return the document (OpenAPI 3.1)."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        if not isinstance(route, Route) or not route.include_in_schema:
            continue
        for method in sorted((route.methods or set()) - {"HEAD"}):
            paths.setdefault(route.path, {})[method.lower()] = _operation(route, method)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": {"SpeechRequest": speech_schema(), "Error": ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def speech_schema() -> dict[str, Any]:
    """Return the JSON schema of a speech request, without the fields that are always refused."""
    schema = SpeechFields.model_json_schema(
        by_alias=False, ref_template="#/components/schemas/SpeechRequest/$defs/{model}"
    )
    for name in UNSUPPORTED:
        schema["properties"].pop(name, None)
    schema["properties"]["response_format"]["enum"] = [*FORMATS, None]
    return schema


def _operation(route: Route, method: str) -> dict[str, Any]:
    words = " ".join((getattr(route.endpoint, "__doc__", None) or route.name).split())
    operation: dict[str, Any] = {
        "summary": words.rstrip("."),
        "responses": {
            "200": {"description": "OK"},
            "default": {
                "description": "Error",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            },
        },
    }
    if names := re.findall(r"{(\w+)", route.path):
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if (route.path, method) == ("/v1/audio/speech", "POST"):
        reference = {"$ref": "#/components/schemas/SpeechRequest"}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": reference}}}
        operation["responses"]["200"]["content"] = {media: {} for media in MEDIA_TYPES}
    return operation
