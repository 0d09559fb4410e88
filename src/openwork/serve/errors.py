"""ApiError: what a client is told when something is wrong. One table, the same on every route.

Every answer that is not a success has the body ``{"error": {"message", "type", "param", "code"}}``. Messages come from
our own errors, which are written for people, or from this file; what is not expected becomes an opaque text, so that no
path, address or foreign text reaches a client. The status of an error that the client made is never 5xx, because
clients repeat those.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from openwork.core.errors import EngineUnavailable, ModelError, OpenworkError, Overloaded, PromptTooLong, RequestError
from openwork.core.output import Failure

OVERLOADED_RETRY_S = 1.0  # when nobody knows better


@dataclass(eq=False)
class ApiError(Exception):
    """A status and the four fields of the body. ``retry_after_s`` and ``headers`` become headers of the answer."""

    status: int
    type: str
    code: str | None
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def all_headers(self) -> dict[str, str]:
        waits = {} if self.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}
        return {**self.headers, **waits}


def bad_request(message: str, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    return ApiError(400, "invalid_request_error", code, message, param)


def unauthenticated(
    message: str = "The API key is missing or wrong. Give one as 'Authorization: Bearer KEY'.",
) -> ApiError:
    return ApiError(401, "authentication_error", "invalid_api_key", message, headers={"WWW-Authenticate": "Bearer"})


def forbidden(message: str, param: str | None = None) -> ApiError:
    return ApiError(403, "permission_error", "not_allowed", message, param)


def no_model(name: str) -> ApiError:
    """``name`` comes from the client and is shown to the client only, shortened."""
    shown = name if len(name) <= 80 else name[:77] + "..."
    return ApiError(
        404,
        "not_found_error",
        "model_not_found",
        f"There is no model {shown!r} here. GET /v1/models has a list.",
        "model",
    )


def rate_limited(message: str, retry_after_s: float, headers: Mapping[str, str] | None = None) -> ApiError:
    return ApiError(
        429, "rate_limit_error", "rate_limit_exceeded", message, retry_after_s=retry_after_s, headers=headers or {}
    )


def unavailable(code: str, message: str, retry_after_s: float | None = None) -> ApiError:
    """``code``: overloaded, draining, engine_unavailable, loading or microscope_unavailable."""
    wait = OVERLOADED_RETRY_S if retry_after_s is None else retry_after_s
    return ApiError(503, "server_error", code, message, retry_after_s=wait)


def deadline_exceeded(seconds: float) -> ApiError:
    return ApiError(
        504, "server_error", "deadline_exceeded", f"The request took longer than {seconds:g} seconds and was ended."
    )


def internal(request_id: str = "") -> ApiError:
    told = f" It is logged under {request_id}." if request_id else ""
    return ApiError(500, "server_error", "internal_error", f"Something failed on our side.{told}")


_UNAVAILABLE = {
    "microscope": ("microscope_unavailable", "The microscope gave no answer, or took too long for one."),
    "loading": ("loading", "The model is being loaded."),
    "restarting": ("engine_unavailable", "The engine is being restarted."),
    "draining": ("draining", "The server is shutting down and takes no new requests."),
    "closed": ("draining", "The server is shutting down and takes no new requests."),
}

_FAILURES: dict[Failure, tuple[str, str]] = {
    "numbers": ("numerical_error", "The model's numbers went wrong for this request, so it was ended."),
    "grammar": (
        "grammar_dead_end",
        "The constraint left no token to go on with, or grew too large, so the request was ended.",
    ),
    "step": ("internal_error", "A step of the engine failed and ended this request."),
    "quarantined": ("quarantined", "This request ended the engine's process more than once and is not tried again."),
    "closed": ("draining", "The server shut down before this request was complete."),
}


def from_failure(failure: Failure) -> ApiError:
    """What to say of a request that the engine ended with an error."""
    code, message = _FAILURES.get(failure, ("internal_error", "The engine ended this request with an error."))
    if failure == "grammar":  # it is the client's constraint, and trying again would end in the same way
        return bad_request(message, None, code)
    status = 503 if failure == "closed" else 500
    return ApiError(status, "server_error", code, message, retry_after_s=OVERLOADED_RETRY_S if status == 503 else None)


def from_exception(error: BaseException, request_id: str = "") -> ApiError:
    """The ApiError of anything that was raised; what is not one of ours tells nothing."""
    match error:
        case ApiError():
            return error
        case PromptTooLong():
            return bad_request(_words(error), error.param or None, "context_length_exceeded")
        case RequestError():
            return bad_request(_words(error), error.param or None)
        case Overloaded():
            if error.is_own:
                return rate_limited(_words(error), OVERLOADED_RETRY_S)
            return unavailable("overloaded", _words(error))
        case EngineUnavailable():
            code, message = _UNAVAILABLE.get(error.state, ("engine_unavailable", "There is no engine now."))
            return unavailable(code, message, error.retry_after_s)
        case ModelError():  # a template that fails or is missing: the message may name a file of the operator
            return bad_request("The model's chat template cannot be used for this conversation.", "messages")
        case _:
            return internal(request_id)


def _words(error: OpenworkError) -> str:
    """What happened and what to do, as sentences."""
    message = error.message if error.message.endswith((".", "?", "!")) else error.message + "."
    return f"{message} {error.hint}".strip()
