"""What it means to agree with transformers: logits, whole and in chunks, and greedy tokens, within one tolerance.

Importing this skips the test module where torch and transformers are not installed.
"""

import os
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from one_sequence import OneSequence

from openwork.load.assemble import load

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

TOLERANCE = 1e-5  # largest difference over the range of the logits
GREEDY = 64


@dataclass(frozen=True)
class Case:
    architecture: str
    overrides: dict = field(default_factory=dict)
    context: int | None = None
    prompt: int = 73

    def __str__(self):
        changed = ",".join(f"{name}={value}" for name, value in self.overrides.items())
        return f"{self.architecture.removesuffix('ForCausalLM')}-{changed[:60]}"


def read(directory):
    """The oracle's model, in float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    )
    return model.eval()


def logits(oracle, ids):
    with torch.no_grad():
        return oracle(torch.tensor([ids])).logits[0].numpy()


def distance(ours, theirs):
    return np.abs(ours - theirs).max() / (theirs.max() - theirs.min())


def prompt(vocab, count, seed=5):
    return np.random.default_rng(seed).integers(3, vocab, count).tolist()


def compare(directory, ops, case, oracle):
    loaded = load(directory, ops, context=case.context)
    ids = prompt(loaded.spec.vocab_size, case.prompt)
    theirs = logits(oracle, ids)
    assert distance(OneSequence(loaded.model).feed(ids), theirs) <= TOLERANCE

    chunked = OneSequence(loaded.model)
    cuts = [0, 1, 18, 33, len(ids)]
    parts = [chunked.feed(ids[start:stop]) for start, stop in pairwise(cuts)]
    assert distance(np.concatenate(parts), theirs) <= TOLERANCE

    # Greedy tokens equal, by induction: given our prefix, the oracle's best next token is ours at every place.
    ours = OneSequence(loaded.model).greedy(ids, GREEDY)
    best = logits(oracle, ids + ours[:-1])[len(ids) - 1 :].argmax(-1)
    assert best.tolist() == ours
