"""What a checkpoint says about generating: end tokens, and the sampling its authors recommend.

generation_config.json is read when it is there, config.json for what it leaves open. Values are given as they are
written, checked for type and range; what to do with them is for the caller to decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openwork.core.request import SamplingParams
from openwork.load.document import read_object
from openwork.models.config import Config

_MAX_ID = 2**31 - 1
_MAX_EOS = 64


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """None: the checkpoint does not say."""

    eos_ids: tuple[int, ...] = ()
    bos_id: int | None = None
    pad_id: int | None = None
    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    def as_params(self) -> SamplingParams:
        """The recommended sampling. Greedy unless the checkpoint says do_sample: that is what the file means."""
        given = {name: getattr(self, name) for name in ("top_k", "top_p", "min_p", "repetition_penalty")}
        given = {name: value for name, value in given.items() if value is not None}
        if not self.do_sample:
            return SamplingParams(temperature=0.0, repetition_penalty=given.get("repetition_penalty", 1.0))
        return SamplingParams(temperature=1.0 if self.temperature is None else self.temperature, **given)


def generation_defaults(directory: Path, config: Config) -> GenerationDefaults:
    """The defaults of a checkpoint directory. Raises ModelError for values of a wrong type or out of range."""
    path = directory / "generation_config.json"
    own = Config(read_object(path), str(path)) if path.is_file() else Config({}, str(path))

    def source(name: str) -> Config:
        return own if own.has(name) else config

    def token(name: str) -> int | None:
        return source(name).whole(name, 0, _MAX_ID) if source(name).has(name) else None

    def real(name: str, high: float, or_low: bool = False) -> float | None:
        return own.real(name, 0, high, or_low=or_low) if own.has(name) else None

    return GenerationDefaults(
        eos_ids=_eos(source("eos_token_id")),
        bos_id=token("bos_token_id"),
        pad_id=token("pad_token_id") if own.has("pad_token_id") else None,
        do_sample=own.flag("do_sample", False) if own.has("do_sample") else None,
        temperature=real("temperature", 100, or_low=True),
        top_k=own.whole("top_k", 0, _MAX_ID) if own.has("top_k") else None,
        top_p=real("top_p", 1),
        min_p=real("min_p", 1, or_low=True),
        repetition_penalty=real("repetition_penalty", 100),
    )


def _eos(source: Config) -> tuple[int, ...]:
    name = "eos_token_id"
    if not source.has(name):
        return ()
    value = source.data[name]
    ids = value if isinstance(value, list) else [value]
    if not ids or len(ids) > _MAX_EOS:
        raise source.error(name, f"lists {len(ids)} tokens; 1 to {_MAX_EOS} are allowed")
    return tuple(Config({name: each}, source.where).whole(name, 0, _MAX_ID) for each in ids)
