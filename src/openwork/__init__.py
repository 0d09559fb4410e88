"""openwork: an inference engine for decoder-only Transformers whose every step is open to inspection.

The public names are resolved when they are first used, so that ``import openwork`` costs almost nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openwork.core import version

if TYPE_CHECKING:
    from openwork.core.budget import Budget
    from openwork.core.constraint import Constraint
    from openwork.core.errors import (
        BackendError,
        EngineError,
        MemoryTooSmall,
        ModelError,
        OpenworkError,
        PromptTooLong,
        RequestError,
        UnsupportedModel,
    )
    from openwork.core.output import Chosen, Chunk, Completion, Found, Logprob, Option, Output, SearchReport, Timings
    from openwork.core.penalty import Penalty
    from openwork.core.request import SamplingParams
    from openwork.core.search import Beam, BestFirst, Search
    from openwork.llm import LLM

__version__ = version.VERSION

_HOME = {
    "LLM": "openwork.llm",
    "SamplingParams": "openwork.core.request",
    "Constraint": "openwork.core.constraint",
    "Penalty": "openwork.core.penalty",
    "Repetition": "openwork.core.repetition",
    "Budget": "openwork.core.budget",
    **dict.fromkeys(("Beam", "BestFirst", "Search"), "openwork.core.search"),
    **dict.fromkeys(
        ("Chosen", "Chunk", "Completion", "Found", "Logprob", "Option", "Output", "SearchReport", "Timings"),
        "openwork.core.output",
    ),
    **dict.fromkeys(
        (
            "BackendError",
            "EngineError",
            "MemoryTooSmall",
            "ModelError",
            "OpenworkError",
            "PromptTooLong",
            "RequestError",
            "UnsupportedModel",
        ),
        "openwork.core.errors",
    ),
}

__all__ = [
    "LLM",
    "BackendError",
    "Beam",
    "BestFirst",
    "Budget",
    "Chosen",
    "Chunk",
    "Completion",
    "Constraint",
    "EngineError",
    "Found",
    "Logprob",
    "MemoryTooSmall",
    "ModelError",
    "OpenworkError",
    "Option",
    "Output",
    "Penalty",
    "PromptTooLong",
    "Repetition",
    "RequestError",
    "SamplingParams",
    "Search",
    "SearchReport",
    "Timings",
    "UnsupportedModel",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'openwork' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
