"""The one small tree of exceptions.

    OpenworkError
    ├── ModelError          a checkpoint, config, tokenizer or template cannot be used
    │   └── UnsupportedModel    it is well formed, but asks for something that is not there
    ├── RequestError        one request is wrong; nobody else is touched
    │   └── PromptTooLong       it can never fit the context window
    ├── Overloaded          too much is waiting already; the same request may be served later
    ├── MemoryTooSmall      the machine or the given budget cannot hold what was asked for
    ├── BackendError        the native core is missing, or cannot do what was asked for
    ├── TraceError          a recording cannot be written or read, or does not hold what is asked of it
    └── EngineError         the engine failed or was closed; the message names the step
        └── EngineUnavailable   there is no engine to take a request now: it loads, restarts, drains or has ended

Every message says what happened, where, and what to do. Nothing here knows who will print it.
"""

from __future__ import annotations


class OpenworkError(Exception):
    """Root of everything this library raises on purpose.

    ``message`` says what happened and where, ``hint`` what to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message} {hint}".strip())


class ModelError(OpenworkError):
    """A checkpoint file cannot be used. ``where`` names the file, ``field`` the entry in it."""

    def __init__(self, message: str, hint: str = "", *, where: str = "", field: str = "") -> None:
        self.where = where
        self.field = field
        place = ": ".join(part for part in (where, field) if part)
        super().__init__(f"{place}: {message}" if place else message, hint)


class UnsupportedModel(ModelError):
    """The checkpoint is well formed but needs something openwork does not have."""


class RequestError(OpenworkError):
    """A request is wrong. ``param`` is the name of the parameter at fault."""

    def __init__(self, message: str, hint: str = "", *, param: str = "") -> None:
        self.param = param
        super().__init__(f"{param}: {message}" if param else message, hint)


class PromptTooLong(RequestError):
    """The prompt leaves no room for a single new token in the context window."""


class Overloaded(OpenworkError):
    """The queue is full, for everybody or for one tenant: nothing is wrong with the request, ask again later."""

    def __init__(self, message: str, hint: str = "", *, is_own: bool) -> None:
        self.is_own = is_own  # the tenant's own bound, not the engine's
        super().__init__(message, hint)


class MemoryTooSmall(OpenworkError):
    """Too little memory: the message names the bytes needed and the bytes there are."""


class BackendError(OpenworkError):
    """The asked-for backend, instruction set or number format is not available here.

    ``is_missing`` is true when the native core was never built, so that the reference can stand in for it.
    """

    def __init__(self, message: str, hint: str = "", *, is_missing: bool = False) -> None:
        self.is_missing = is_missing
        super().__init__(message, hint)


class TraceError(OpenworkError):
    """A recording cannot be written or read, or what is asked of it is not in it. The message names request or file."""


class EngineError(OpenworkError):
    """The engine could not carry out a step, or is closed.

    ``outputs`` holds what all requests of the call produced, the failed ones included, so that nothing is lost.
    """

    def __init__(self, message: str, hint: str = "", *, outputs: tuple[object, ...] = ()) -> None:
        self.outputs = outputs
        super().__init__(message, hint)


class EngineUnavailable(EngineError):
    """No engine can take a request now. ``state`` says why, ``retry_after_s`` when to ask again, if that is known."""

    def __init__(self, message: str, hint: str = "", *, state: str, retry_after_s: float | None = None) -> None:
        self.state = state
        self.retry_after_s = retry_after_s
        super().__init__(message, hint)
