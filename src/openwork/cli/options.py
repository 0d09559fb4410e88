"""Options that subcommands share, declared once, and how they become SamplingParams.

An option that is not given is None and leaves the checkpoint's own recommendation in place; every limit is checked by
SamplingParams itself, so that no limit is written down twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from openwork.core.constraint import MAX_SOURCE_BYTES, Constraint
from openwork.core.errors import RequestError
from openwork.core.request import SamplingParams


class Order(StrEnum):
    first_come = "first-come"
    priority = "priority"
    deadline = "deadline"


class First(StrEnum):
    decode = "decode"
    prefill = "prefill"


class Dtype(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"
    int8_channel = "int8-channel"
    int4 = "int4"


class KVDtype(StrEnum):
    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    int8 = "int8"


class Backend(StrEnum):
    auto = "auto"
    cpu = "cpu"
    reference = "reference"


_OWN = "[dim]Default: the model's own"
_MODEL, _SAMPLING, _ENDING, _OUTPUT = "The model", "Choosing tokens", "Ending the text", "Output"
_FORM = "What the text must be"


def _option(help: str, panel: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, show_default=False, metavar=metavar)


_RECORDING = "Recording"

# ---------------------------------------------------------------- the model

Model = Annotated[
    str | None,
    _option(
        "A directory, or a name on the hub such as org/name. [dim]Default: the embedded openwork/stories.[/]",
        _MODEL,
        "--model",
        "-m",
    ),
]
WeightType = Annotated[
    Dtype, _option("Numbers that weights are kept in. [dim]Default: auto, as the checkpoint has them.[/]", _MODEL)
]
KVType = Annotated[
    KVDtype, _option("Numbers that keys and values are kept in. [dim]Default: auto, bfloat16 or float32.[/]", _MODEL)
]
WeightCache = Annotated[
    bool,
    _option(
        "Keep the packed weights of a big model in $OPENWORK_CACHE for the next start. [dim]Default: yes.[/]",
        _MODEL,
        "--weight-cache/--no-weight-cache",
    ),
]
Record = Annotated[
    Path | None,
    _option("Record the engine here, to be looked at with openwork trace.", _RECORDING, "--record", metavar="DIR"),
]
RecordPrompts = Annotated[
    bool,
    _option("Keep in it what is written. [dim]Default: yes.[/]", _RECORDING, "--record-prompts/--no-record-prompts"),
]
RecordBytes = Annotated[
    str | None,
    _option("Room for all recordings there; the oldest go first. [dim]Default: 256MiB.[/]", _RECORDING, metavar="SIZE"),
]
RecordLayers = Annotated[
    int | None,
    _option(
        "Of so many tokens, record one layer by layer, so that openwork replay can name the layer that differs: 1 is "
        "every token, 0 none. Needs prompts kept. [dim]Default: as many as take 2 bytes a token.[/]",
        _RECORDING,
        metavar="N",
    ),
]
Engine = Annotated[
    Backend, _option("What computes. [dim]Default: auto, the C++ core where it is installed, else NumPy.[/]", _MODEL)
]
CacheSize = Annotated[
    str | None,
    _option(
        "Memory for keys and values, e.g. 512MiB. [dim]Default: 32 full sequences, in half of what is free.[/]", _MODEL
    ),
]
Context = Annotated[
    int | None, _option("Longest sequence in tokens. [dim]Default: what model and cache allow.[/]", _MODEL)
]
Threads = Annotated[int | None, _option("Threads that compute. [dim]Default: one for each core.[/]", _MODEL)]

Speculate = Annotated[
    str | None,
    _option(
        "ngram, or a smaller model with the same tokens: guess what comes, verify many tokens at once. The text stays"
        " the same.",
        _MODEL,
        metavar="ngram|MODEL",
    ),
]
MaxDraft = Annotated[int | None, _option("Tokens to guess in one step at most. [dim]Default: 15.[/]", _MODEL)]

# ---------------------------------------------------------------- choosing tokens

Temperature = Annotated[
    float | None,
    _option(f"Lower is safer, higher is wilder; 0 always takes the likeliest. {_OWN}, else 0.[/]", _SAMPLING),
]
TopP = Annotated[
    float | None, _option(f"Keep the likeliest tokens with this much probability. {_OWN}, else 1.[/]", _SAMPLING)
]
TopK = Annotated[
    int | None, _option(f"Keep this many of the likeliest tokens; 0 keeps all. {_OWN}, else 0.[/]", _SAMPLING)
]
MinP = Annotated[
    float | None,
    _option(f"Keep tokens at least this fraction as likely as the likeliest. {_OWN}, else 0.[/]", _SAMPLING),
]
Presence = Annotated[
    float | None,
    _option("Taken once from tokens already generated. [dim]Default: 0.[/]", _SAMPLING, "--presence-penalty"),
]
Frequency = Annotated[
    float | None,
    _option("Taken from generated tokens each time they came. [dim]Default: 0.[/]", _SAMPLING, "--frequency-penalty"),
]
Repetition = Annotated[
    float | None,
    _option(
        f"Above 1 makes tokens of prompt and text less likely. {_OWN}, else 1.[/]", _SAMPLING, "--repetition-penalty"
    ),
]
Bias = Annotated[
    list[str] | None,
    _option("ID=B: add B to the logit of token ID. May be given again.", _SAMPLING, "--logit-bias"),
]
Seed = Annotated[
    int | None, _option("The same seed gives the same text, alone or in any batch. [dim]Default: 0.[/]", _SAMPLING)
]

# ---------------------------------------------------------------- ending the text

MaxTokens = Annotated[
    int | None,
    _option("Tokens to generate at most. [dim]Default: until the context window is full.[/]", _ENDING, "--max-tokens"),
]
MinTokens = Annotated[
    int | None, _option("No end before this many tokens. [dim]Default: 0.[/]", _ENDING, "--min-tokens")
]
Stop = Annotated[
    list[str] | None, _option("End before this text, which is not printed. May be given again.", _ENDING, "--stop")
]
StopIds = Annotated[list[int] | None, _option("End at this token. May be given again.", _ENDING, "--stop-token-id")]
IgnoreEos = Annotated[bool | None, _option("Go on after the model's end token.", _ENDING, "--ignore-eos")]

# ---------------------------------------------------------------- what the text must be

JsonSchema = Annotated[
    Path | None, _option("A JSON schema: the text is a document that is valid under it.", _FORM, metavar="FILE")
]
Regex = Annotated[str | None, _option("A pattern that the whole text matches.", _FORM)]
Choice = Annotated[
    list[str] | None,
    _option("The text is one of these: --choice a,b. Given again, each is one, commas and all.", _FORM),
]
Lark = Annotated[Path | None, _option("A Lark grammar whose rule start the text follows.", _FORM, metavar="FILE")]


def merged(defaults: SamplingParams, given: Mapping[str, Any]) -> SamplingParams:
    """The defaults with what was given in their place. Raises RequestError naming the parameter."""
    return replace(defaults, **{name: value for name, value in given.items() if value is not None})


def parse_biases(texts: Sequence[str] | None) -> dict[int, float] | None:
    """["13=-5"] -> {13: -5.0}. Raises RequestError."""
    if not texts:
        return None
    biases = {}
    for text in texts:
        token, _, bias = text.partition("=")
        try:
            biases[int(token)] = float(bias)
        except ValueError:
            raise RequestError(f"must be ID=B such as 13=-5, not {text!r}", param="logit_bias") from None
    return biases


def parse_constraint(
    json_schema: Path | None, regex: str | None, choice: Sequence[str] | None, lark: Path | None
) -> Constraint | None:
    """What was asked for, or None. Raises RequestError when it is not one thing, or a file cannot be read."""
    if sum(each is not None and each != [] for each in (json_schema, regex, choice, lark)) > 1:
        raise RequestError("--json-schema, --regex, --choice and --lark exclude one another", "Give one of them.")
    if json_schema is not None:
        return Constraint.json_schema(_read_text(json_schema, "json_schema"))
    if regex is not None:
        return Constraint.regex(regex)
    if choice:
        return Constraint.choice(choice[0].split(",") if len(choice) == 1 else choice)
    return None if lark is None else Constraint.lark(_read_text(lark, "lark"))


def _read_text(path: Path, param: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_SOURCE_BYTES + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read as text: {error}", param=param) from None


def parse_ids(text: str) -> list[int]:
    """ "1, 5,9" -> [1, 5, 9]. Raises RequestError."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        hint = "Write it as --ids 1,5,9."
        raise RequestError(f"must be token ids with commas between, not {text[:80]!r}", hint, param="ids") from None
