"""Answers that are no vectors: one exception, in the error form of the OpenAI interface."""

import json
import math
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response

from embedtune.errors import EmbedtuneError, ResourceError, ServiceError
from embedtune.files import clean_text, visible

LONGEST_MESSAGE = 600  # characters
BUSY_SECONDS = 5  # what a client is told to wait where nothing better is known


class ErrorDetail(BaseModel):
    """What was wrong, in the form that clients of the OpenAI API read."""

    message: str
    type: str = Field(examples=["invalid_request_error"])
    param: str | None = Field(description="The field that is at fault.")
    code: str | None


class ErrorAnswer(BaseModel):
    error: ErrorDetail


class Refusal(Exception):
    """A request that gets an error.

    Args:
        param: The field at fault.
        retry_after: Seconds; 429 and 503 always have it.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if retry_after is None and status in (429, 503):
            retry_after = BUSY_SECONDS
        if retry_after is not None:
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after)))

    @property
    def body(self) -> bytes:
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        message = clean_text(visible(self.message, LONGEST_MESSAGE))
        detail = {"message": message, "type": kind, "param": self.param, "code": self.code}
        return json.dumps({"error": detail}, ensure_ascii=False).encode()

    def response(self) -> Response:
        return Response(self.body, self.status, headers=self.headers, media_type="application/json")


def invalid(param: str, message: str) -> Refusal:
    """A field that holds what it may not."""
    return Refusal(422, f"{param}: {message}", code="invalid_value", param=param.partition("[")[0])


def too_large(message: str, param: str | None = None) -> Refusal:
    return Refusal(413, message, code="too_large", param=param)


def stopping() -> Refusal:
    return Refusal(
        503, "the server is stopping; ask another, or again in a moment", code="stopping"
    )


def left() -> Refusal:
    """Nobody reads it: the client went away before its answer."""
    return Refusal(499, "the client has left", code="client_left")


def refusal_for(error: Exception) -> Refusal:
    """What the client is told of an error that came up while its texts were embedded."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, ServiceError):
        return Refusal(503, f"the service behind this model: {error}", code="upstream_failed")
    if isinstance(error, ResourceError):
        return Refusal(503, str(error), code="out_of_resources")
    if isinstance(error, EmbedtuneError):
        return Refusal(500, str(error), code="model_failed")
    return Refusal(
        500,
        f"the server failed ({type(error).__name__}); its log, with --debug, says more",
        code="internal_error",
    )


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of a route in FastAPI: these refusals in their form."""
    told = {
        400: "Not JSON, or not HTTP",
        401: "No key, or a wrong one",
        403: "Not a key of the administrator",
        404: "No such model or path",
        408: "The request was not sent in time",
        409: "Something else is being done",
        413: "Larger than a limit",
        414: "The address is too long",
        422: "A field holds what it may not",
        429: "The queue is full",
        431: "The headers are too long",
        500: "The server failed",
        503: "Stopping, or the service behind the model failed",
    }
    waits = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return {
        status: {
            "model": ErrorAnswer,
            "description": told[status],
            **({"headers": waits} if status in (429, 503) else {}),
        }
        for status in statuses
    }
