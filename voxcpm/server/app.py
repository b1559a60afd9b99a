"""The ASGI application: routes of all parts around one state."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from voxcpm.provenance.c2pa.signer import signing_of
from voxcpm.server.access.keys import Keys
from voxcpm.server.errors import ApiError, unavailable
from voxcpm.server.guard import Guard, error_response
from voxcpm.server.metrics import CONTENT_TYPE, Metrics
from voxcpm.server.page import routes as page_routes
from voxcpm.server.process.link import EngineLink
from voxcpm.server.references.reader import ClipReader
from voxcpm.server.settings import ServerSettings
from voxcpm.server.speech import batch
from voxcpm.server.speech import routes as speech_routes
from voxcpm.server.speech.openapi import openapi
from voxcpm.server.state import ServerState
from voxcpm.server.voices import consent_routes
from voxcpm.server.voices import routes as voice_routes
from voxcpm.server.voices.checks import ConsentChecks
from voxcpm.server.voices.library import VoiceLibrary
from voxcpm.server.websocket import routes as websocket_routes
from voxcpm.watermark.speech import embedding_keys

log = logging.getLogger("voxcpm.server")


def build_state(settings: ServerSettings) -> ServerState:
    """Return the state of a server that is not started yet.

    Raises ValueError and FileNotFoundError for settings and key files that cannot be used.
    """
    settings.check()
    settings = settings.pinned()
    options = {
        "checkpoint": settings.checkpoint,
        "device": settings.device,
        "dtype": settings.dtype,
        "slots": settings.slots,
        "threads": settings.threads,
        "adapters": {name: str(folder) for name, folder in settings.adapters.items()},
    }
    link = EngineLink(
        settings.worker,
        msgspec.json.encode(options),
        hang_s=settings.hang_after,
        unload_s=settings.unload_after,
        loading_s=settings.load_within,
    )
    metrics = Metrics(settings.model_name, lambda: link.load, lambda: link.restarts)
    watermark_keys = embedding_keys(settings.watermark_key, off=settings.no_watermark)
    state = ServerState(settings, link, Keys(settings.keys), metrics, watermark_keys=watermark_keys)
    state.signing = signing_of(
        settings.sign_key, settings.sign_cert, settings.sign_training, settings.sign_tsa, marks=not settings.no_mark
    )
    folder = settings.voices / "consents" if settings.voices is not None else None
    checks = ConsentChecks(settings.consent_program, folder) if folder is not None else None
    permit = checks.permit if checks is not None and settings.require_consent else None
    state.references = reader = ClipReader(settings, link, permit)
    state.voices = VoiceLibrary(state, reader.cache, checks)
    return state


def common_routes(state: ServerState) -> list[BaseRoute]:
    """Return the routes about the server itself."""

    async def models(request: Request) -> Response:
        """List the names that `model` may have."""
        return JSONResponse({"object": "list", "data": [_model(state, name) for name in state.models]})

    async def model(request: Request) -> Response:
        """Describe one of these names."""
        name = request.path_params["name"]
        if name not in state.models:
            raise ApiError(404, "no such model: GET /v1/models lists them", param="model", code="model_not_found")
        return JSONResponse(_model(state, name))

    async def audio_models(request: Request) -> Response:
        """List the same names as Open WebUI asks for them."""
        return JSONResponse({"models": [{"id": name} for name in state.models]})

    async def health(request: Request) -> Response:
        """Return 200 if the server works, also while the model is being loaded."""
        failed = state.link.status == "failed"
        return JSONResponse({"status": state.link.status}, 503 if failed else 200)

    async def ready(request: Request) -> Response:
        """Return 200 if the server takes requests."""
        if state.draining:
            raise unavailable("the server is stopping")
        state.link.check()
        load = state.link.load
        # A model that was unloaded is loaded by the next request, which waits for it.
        return JSONResponse(
            {"status": state.link.status, "slots": load.slots, "running": load.running, "waiting": load.waiting}
        )

    async def metrics(request: Request) -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(state.metrics.text(), media_type=CONTENT_TYPE)

    async def document(request: Request) -> Response:
        """Return this document."""
        return JSONResponse(openapi("voxmill speech server", _version(), request.app.routes))

    return [
        Route("/v1/models", models, methods=["GET"]),
        Route("/v1/models/{name:path}", model, methods=["GET"]),
        Route("/v1/audio/models", audio_models, methods=["GET"]),
        Route("/health", health, methods=["GET"]),
        Route("/ready", ready, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/openapi.json", document, methods=["GET"]),
    ]


ROUTES: list[Callable[[ServerState], list[BaseRoute]]] = [
    batch.routes,
    websocket_routes.routes,
    speech_routes.routes,
    voice_routes.routes,
    consent_routes.routes,
    page_routes.routes,
    common_routes,
]
"""One function per part of the server; their routes are tried in this order."""


def make_app(state: ServerState) -> ASGIApp:
    """Return the application. Its lifespan starts and stops the engine process."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        state.link.start()
        try:
            yield
        finally:
            await state.link.stop()
            state.encoders.shutdown(wait=False, cancel_futures=True)

    app = Starlette(
        routes=[route for part in ROUTES for route in part(state)],
        lifespan=lifespan,
        exception_handlers={
            ApiError: _on_error,
            HTTPException: _on_http,
            ClientDisconnect: _on_left,
            Exception: _on_fault,
        },
    )
    guarded: ASGIApp = Guard(app, state)
    if not state.settings.cors:
        return guarded
    return CORSMiddleware(
        guarded,
        allow_origins=state.settings.cors,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],  # clients add their own, such as x-stainless-lang; cookies are never allowed
        expose_headers=[
            "x-request-id",
            "x-seed",
            "x-sample-rate",
            "x-ignored-fields",
            "x-synthetic",
            "x-watermark",
            "x-c2pa",
            "retry-after",
        ],
    )


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _on_http(request: Request, error: Exception) -> Response:
    """Answer for Starlette's own errors: a path or a method that does not exist, a form that cannot be read."""
    assert isinstance(error, HTTPException)
    words = {404: "no such path: GET /openapi.json lists them", 405: "this path has no such method"}
    message = words.get(error.status_code, "the request cannot be read")
    response = error_response(
        ApiError(error.status_code, message, code="not_found" if error.status_code == 404 else None)
    )
    for name, value in (error.headers or {}).items():
        response.headers[name] = value
    return response


async def _on_left(request: Request, error: Exception) -> Response:
    """Answer a client that left while it sent the body: nobody reads this, and the fault is not ours."""
    return Response(status_code=499)


async def _on_fault(request: Request, error: Exception) -> Response:
    """Answer for a fault of ours. The client learns nothing of it but the id, with which the log can be searched."""
    log.error("request %s failed: %s", request.scope.get("voxcpm.request_id"), type(error).__name__)
    return error_response(ApiError(500, "internal error", "server_error", code="internal_error"))


def _version() -> str:
    try:
        return importlib.metadata.version("voxmill")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _model(state: ServerState, name: str) -> dict[str, Any]:
    about: dict[str, Any] = {"id": name, "object": "model", "created": 0, "owned_by": "voxmill"}
    if state.link.loaded:
        about |= {
            "max_model_len": state.link.about.max_positions,
            "sample_rate": state.link.about.sample_rate,
            "checkpoint": state.link.about.digest_with(state.models[name]),
        }
    return about | {"root": state.settings.model_name, "adapter": state.models[name]}
