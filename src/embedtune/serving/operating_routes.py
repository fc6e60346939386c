"""Routes for those who run the server: health, figures, and new versions of models."""

from typing import Any

from fastapi import FastAPI, Response
from pydantic import BaseModel

from embedtune.serving.gate import Gate
from embedtune.serving.models import Catalogue, Served, Version
from embedtune.serving.refusals import Refusal, documented, stopping

EVERYWHERE = (408, 414, 431, 500, 503)
FIGURES = "text/plain; version=0.0.4; charset=utf-8"


class Health(BaseModel):
    status: str


class Change(BaseModel):
    """What is served now, and what `rollback` would bring back."""

    model: str
    revision: str
    previous: str | None


def add_operating_routes(app: FastAPI, catalogue: Catalogue, gate: Gate) -> None:
    @app.get("/healthz", summary="The process lives", responses=documented(*EVERYWHERE))
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get("/readyz", summary="New requests are accepted", responses=documented(*EVERYWHERE))
    async def readyz() -> Health:
        if gate.stopping:
            raise stopping()
        return Health(status="ready")

    @app.get(
        "/metrics",
        summary="Figures for Prometheus",
        response_class=Response,
        responses={
            **documented(401, *EVERYWHERE),
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        },
    )
    async def metrics() -> Response:
        return Response(catalogue.metrics.shown(), headers={"content-type": FIGURES})

    changing: dict[str, Any] = {
        "response_model": Change,
        "responses": documented(400, 401, 403, 404, 409, 413, 422, 429, *EVERYWHERE),
    }

    @app.post("/admin/models/{model:path}/reload", summary="Load the files anew", **changing)
    async def reload(model: str) -> Change:
        served = _named(catalogue, model)
        await catalogue.reload(served)
        return _change(served)

    @app.post("/admin/models/{model:path}/rollback", summary="Back to the version before",
              **changing)  # fmt: skip
    async def rollback(model: str) -> Change:
        served = _named(catalogue, model)
        await catalogue.roll_back(served)
        return _change(served)


def _named(catalogue: Catalogue, model: str) -> Served:
    served, alias = catalogue.find(model)
    if alias:
        raise Refusal(404, "give the name of the model, without the role", code="model_not_found")
    return served


def _change(served: Served) -> Change:
    previous: Version | None = served.previous
    return Change(
        model=served.source.name,
        revision=served.current.revision,
        previous=previous.revision if previous else None,
    )
