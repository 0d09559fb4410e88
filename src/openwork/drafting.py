"""A draft model beside the large one: found, checked and loaded. What it guesses is run/drafter.py's.

It must speak the same tokens: every id that either tokenizer has stands for the same bytes in both, or, where there is
no tokenizer, both have as many ids. Its memory is known before any is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openwork import sizing
from openwork.core.errors import ModelError
from openwork.core.settings import CacheSettings, LoadSettings
from openwork.core.spec import ModelSpec
from openwork.load import assemble, source
from openwork.load.formats import choose_kv_dtype
from openwork.ops.paged import KVDType, PagedKV
from openwork.ops.reference import Reference
from openwork.run.drafter import Drafter
from openwork.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What a draft model will need. ``block_bytes`` are those that one block of the cache takes for it."""

    directory: Path
    spec: ModelSpec
    kv_dtype: KVDType
    packed_bytes: int
    block_bytes: int


def plan(name: str, settings: LoadSettings, large: ModelSpec, directory: Path) -> Plan:
    """Look at a draft model for the large one in ``directory``. Raises ModelError when it cannot guess for that."""
    found = source.resolve(name)
    survey = assemble.inspect(found, dtype=settings.dtype)
    spec, kv_dtype = survey.spec, choose_kv_dtype(settings.kv_dtype, survey.dtype)
    _check_vocabulary(directory, large, found, spec)
    size = PagedKV.block_bytes(spec.num_layers, spec.num_kv_heads, spec.head_dim, settings.block_size, kv_dtype)
    return Plan(found, spec, kv_dtype, survey.packed_bytes, size)


def load(plan: Plan, settings: LoadSettings, ops: Reference, large: ModelSpec, num_blocks: int) -> Drafter:
    """Load it, with a cache of as many blocks as the large one's. Raises ModelError, MemoryTooSmall."""
    use: assemble.CacheUse = "big" if settings.cache else "never"
    loaded = assemble.load(plan.directory, ops, dtype=settings.dtype, cache=use)
    kv = sizing.allocate(plan.spec, CacheSettings(num_blocks, settings.block_size), plan.kv_dtype)
    return Drafter(loaded.model, ops.bind(kv), large.vocab_size)


def _check_vocabulary(directory: Path, large: ModelSpec, draft_directory: Path, draft: ModelSpec) -> None:
    files = [each / "tokenizer.json" for each in (directory, draft_directory)]
    hint = "A draft model must have the tokenizer of the model that it guesses for."
    there = [file.is_file() for file in files]
    if not any(there):
        if large.vocab_size != draft.vocab_size:
            raise ModelError(
                f"has {draft.vocab_size} ids, but the model that it is to guess for {large.vocab_size}",
                hint,
                where=str(draft_directory),
            )
        return
    if not all(there):
        raise ModelError(
            "there is no such file, but the other model has one", hint, where=str(files[there.index(False)])
        )
    if files[0].read_bytes() == files[1].read_bytes():
        return
    one, other = (Tokenizer.load(each) for each in (directory, draft_directory))
    for token in range(max(one.vocab_size, other.vocab_size)):
        if one.piece(token) != other.piece(token) or one.is_special(token) != other.is_special(token):
            raise ModelError(
                f"token {token} is another one than in the model that it is to guess for", hint, where=str(files[1])
            )
