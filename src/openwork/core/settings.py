"""Settings: the numbers an operator chose. One small frozen record per component, checked when made, never changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from openwork.core.errors import OpenworkError, RequestError
from openwork.core.stamp import stamp_bytes

RECORD_BYTES = 256 << 20
STAMP_BYTES = 2  # a token, in the mean
LANES = 16  # a key tile of the cache holds this many tokens

MAX_DRAFT = 63
Order = Literal["first-come", "priority", "deadline"]
First = Literal["decode", "prefill"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """How a model is loaded. None and "auto" are resolved in the composition root, into values of their own.

    Raises RequestError, naming the parameter.
    """

    dtype: str = "auto"  # of the weights: a DType of ops/packed.py, or "auto": as the checkpoint is stored
    kv_dtype: str = "auto"  # "float32" | "bfloat16" | "int8" | "auto": float32 beside float32 weights, else bfloat16
    cache: bool = True  # keep the packed weights of a big model in a file, and map it the next time
    kv_cache_bytes: int | None = None  # None: enough for 32 full sequences, within half of the free memory
    threads: int | None = None  # None: the cores of this process
    context: int | None = None  # longest sequence; None: the longest that model and cache allow
    backend: str = "auto"  # "cpu" | "reference" | "auto": the C++ core where it is installed
    block_size: int = LANES

    def __post_init__(self) -> None:
        for name, high in (("kv_cache_bytes", 2**50), ("threads", 1024), ("context", 2**31 - 1)):
            value = getattr(self, name)
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if value is not None and not (is_whole and 1 <= value <= high):
                raise RequestError(f"must be a whole number from 1 to {high}, not {value!r}", param=name)


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """The paged cache: ``num_blocks`` blocks of ``block_size`` token slots.

    ``prefix`` keeps what sequences leave behind, for others that begin with the same tokens.
    """

    num_blocks: int
    block_size: int = 16
    prefix: bool = True

    def __post_init__(self) -> None:
        if self.num_blocks < 1:
            raise OpenworkError(f"the cache needs at least one block, not {self.num_blocks}")
        if self.block_size < LANES or self.block_size % LANES:
            raise OpenworkError(f"block_size is {self.block_size}", f"It must be a multiple of {LANES}.")

    @property
    def capacity(self) -> int:
        """Tokens the whole cache can hold."""
        return self.num_blocks * self.block_size


@dataclass(frozen=True, slots=True)
class SpeculationSettings:
    """Tokens are guessed, and verified together in one step (docs/speculation.md).

    guess      "ngram": as the sequence went on where it was like this before; else a smaller model with the same
               vocabulary: a directory, or a name on the hub
    max_draft  tokens guessed for one sequence in one step at most

    Raises RequestError, naming the parameter as an operator knows it.
    """

    guess: str = "ngram"
    max_draft: int = 15

    def __post_init__(self) -> None:
        if not isinstance(self.guess, str) or not self.guess:
            raise RequestError(f"is {self.guess!r}", 'Say "ngram", or name a draft model.', param="speculate")
        is_whole = isinstance(self.max_draft, int) and not isinstance(self.max_draft, bool)
        if not is_whole or not 1 <= self.max_draft <= MAX_DRAFT:
            raise RequestError(
                f"must be a whole number from 1 to {MAX_DRAFT}, not {self.max_draft!r}", param="max_draft"
            )

    @property
    def draft_model(self) -> str | None:
        return None if self.guess == "ngram" else self.guess

    @classmethod
    def wished(cls, speculate: str | None, max_draft: int | None) -> SpeculationSettings | None:
        """What somebody asks for who may leave either out. Raises RequestError, naming the parameter."""
        if speculate is None:
            if max_draft is not None:
                raise RequestError("is of use only where tokens are guessed", "Give speculate too.", param="max_draft")
            return None
        return cls(speculate) if max_draft is None else cls(speculate, max_draft)


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """How much goes into one step, and who comes first.

    max_step_tokens  bounds the rows of a step, so that a long prompt is cut into chunks and nobody waits for it
    max_running      bounds the sequences that hold blocks
    order            "first-come"; "priority": a level is worth ``patience_s`` of waiting; "deadline": who wants the
                     first token soonest, ``patience_s`` standing for no wish
    is_fair          tenants take turns by the tokens they were served, by weight; ``order`` holds inside a tenant
    first            "decode": running sequences get their row before prompts get the rest; "prefill": prompts first
    next_token_s     the time between tokens that steps are cut to; a request may ask for a shorter one
    stretch          how many times as long as without a prompt a step may take with one; None: no bound
    patience_s       whoever waited this long goes first and is not passed again
    speculation      whether and how tokens are guessed ahead; None: never
    """

    max_step_tokens: int = 512
    max_running: int = 128
    order: Order = "first-come"
    is_fair: bool = False
    first: First = "decode"
    next_token_s: float | None = None
    stretch: float | None = None
    patience_s: float = 60.0
    speculation: SpeculationSettings | None = None

    def __post_init__(self) -> None:
        if self.max_running < 1:
            raise OpenworkError(f"max_running is {self.max_running}", "At least one sequence must run.")
        if self.max_step_tokens < self.max_running + 1:
            raise OpenworkError(
                f"max_step_tokens is {self.max_step_tokens}, not above max_running {self.max_running}",
                "Every running sequence needs a row in each step, and a prompt at least one more.",
            )
        for name, known in (("order", get_args(Order)), ("first", get_args(First))):
            if getattr(self, name) not in known:
                raise OpenworkError(f"{name} is {getattr(self, name)!r}", f"Choose one of {', '.join(known)}.")
        if not 0 < self.patience_s < float("inf"):
            raise OpenworkError(f"patience_s is {self.patience_s}", "It must be seconds above 0.")
        if self.next_token_s is not None and not 0 < self.next_token_s < float("inf"):
            raise OpenworkError(f"next_token_s is {self.next_token_s}", "It must be seconds above 0, or None.")
        if self.stretch is not None and not 1 < self.stretch < float("inf"):
            raise OpenworkError(f"stretch is {self.stretch}", "It must be a number above 1, or None.")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionSettings:
    """What may wait, and how large one request may be. None: no bound.

    max_waiting         requests that have not begun
    max_waiting_tokens  their prompt tokens
    max_blocks          blocks that one request may need at its full length, all its sequences together
    max_logprobs        log-probabilities that one request may ask for, of prompt and output
    """

    max_waiting: int | None = None
    max_waiting_tokens: int | None = None
    max_blocks: int | None = None
    max_logprobs: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_waiting", "max_waiting_tokens", "max_blocks", "max_logprobs"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise OpenworkError(f"{name} is {value!r}", "It must be a whole number from 1 up, or None.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSettings:
    """Where an engine is recorded (docs/recorder.md).

    directory      of the recording; what is there already stays, until room is needed
    keeps_prompts  prompts and answers are kept as token ids; else nothing is kept that says what was written
    max_bytes      of all files together: the oldest go first
    layers         of so many rows that tokens are drawn from, one is stamped (core/stamp.py): 1 is every row, 0 none;
                   None: as many as take STAMP_BYTES a token. Only where prompts are kept
    """

    directory: str
    keeps_prompts: bool = False
    max_bytes: int = RECORD_BYTES
    layers: int | None = None

    def __post_init__(self) -> None:
        if not self.directory:
            raise RequestError("is empty", "Name a directory.", param="record")
        is_whole = isinstance(self.max_bytes, int) and not isinstance(self.max_bytes, bool)
        if not is_whole or not 1 << 20 <= self.max_bytes <= 2**50:
            raise RequestError(f"must be at least 1 MiB, not {self.max_bytes!r} bytes", param="record_bytes")
        layers = self.layers
        if layers is None:
            return
        if isinstance(layers, bool) or not isinstance(layers, int) or not 0 <= layers < 2**31:
            raise RequestError(f"must be a whole number from 0 on, not {layers!r}", param="record_layers")
        if layers and not self.keeps_prompts:
            raise RequestError(
                "stamps rows that whoever has the model could compute from a guessed prompt",
                "Keep prompts in the recording too, or leave record_layers out.",
                param="record_layers",
            )

    def stamp_every(self, num_layers: int) -> int:
        """Of how many rows one is stamped; 0: none is."""
        if not self.keeps_prompts:
            return 0
        return -(-stamp_bytes(num_layers) // STAMP_BYTES) if self.layers is None else self.layers
