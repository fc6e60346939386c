"""The application: routes, errors and the gate before them. Runs in any ASGI server."""

from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

import embedtune
from embedtune.files import visible
from embedtune.serving.gate import Gate
from embedtune.serving.keys import Keys
from embedtune.serving.models import Catalogue
from embedtune.serving.openai_routes import add_openai_routes
from embedtune.serving.operating_routes import add_operating_routes
from embedtune.serving.refusals import Refusal, refusal_for
from embedtune.serving.settings import ServerSettings

if TYPE_CHECKING:
    from embedtune.retrieve.answer.answering import Answerer


def create_app(
    settings: ServerSettings,
    catalogue: Catalogue,
    *,
    keys: Keys | None = None,
    answerer: "Answerer | None" = None,
) -> Gate:
    """The whole server as one ASGI application.

    Args:
        catalogue: The models, loaded.
        keys: Without any, everybody may ask.
        answerer: Adds ``/v1/chat/completions`` over an index.
    """
    app = FastAPI(
        title="embedtune",
        version=embedtune.__version__,
        summary="Embeddings as the OpenAI API has them.",
        docs_url=None,  # these pages fetch their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    keys = keys or Keys()
    gate = Gate(app, settings=settings, keys=keys, metrics=catalogue.metrics)
    add_openai_routes(app, catalogue, settings)
    add_operating_routes(app, catalogue, gate)
    if answerer is not None:
        from embedtune.serving.chat_routes import add_chat_routes

        add_chat_routes(app, answerer)
    _add_errors(app)
    _describe_keys(app, keys)
    return gate


def _add_errors(app: FastAPI) -> None:
    """All errors in the form of the OpenAI interface."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        return refusal.response()

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        return refusal_for(error).response()

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        path = visible(request.url.path)
        said = {
            404: f"there is no {path} here; see /openapi.json",
            405: f"{path} does not take {visible(request.method)}",
        }
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
        headers = dict(error.headers or {})
        message = said.get(error.status_code, str(error.detail))
        return Refusal(error.status_code, message, code=code, headers=headers).response()

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        faults = error.errors()
        if faults[0]["type"] == "json_invalid":
            return Refusal(400, "the body is not JSON", code="not_json").response()
        told = []
        for fault in faults[:5]:
            place = ".".join(str(part) for part in fault["loc"] if part != "body")
            told.append(f"{visible(place, 40)}: {fault['msg']}" if place else str(fault["msg"]))
        param = next((str(part) for part in faults[0]["loc"] if part != "body"), None)
        return Refusal(
            422, "; ".join(told), code="invalid_value", param=visible(param, 40) if param else None
        ).response()


def _describe_keys(app: FastAPI, keys: Keys) -> None:
    """Say in the description of the interface that a key is wanted."""
    make = app.openapi

    def described() -> dict[str, object]:
        if app.openapi_schema is None:
            schema = make()
            if keys.required or keys.can_administer:
                parts = schema.setdefault("components", {})
                parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
                schema["security"] = [{"key": []}] if keys.required else [{}, {"key": []}]
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]  # as FastAPI's manual has it
