"""Beam search against `transformers`, in float32: the same sequences and scores, whatever ends the search.

Tiny random checkpoints whose end tokens are likely, so that beams finish early, late and never. Skipped where torch and
transformers are not installed.
"""

from itertools import product

import numpy as np
import pytest
from agreement import read, torch

from openwork import LLM, Constraint, SamplingParams
from openwork.core.request import Request
from openwork.core.search import Beam, Search
from openwork.testing.checkpoint import write_checkpoint

ARCHITECTURES = ("LlamaForCausalLM", "GPT2LMHeadModel", "Qwen3ForCausalLM")
VOCAB = 23
ENDS = (2, 5)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("beam")
    heads = {} if request.param == "GPT2LMHeadModel" else {"num_hidden_layers": 2}
    write_checkpoint(directory, request.param, seed=3, vocab_size=VOCAB, **heads)
    with LLM(directory, dtype="float32", kv_cache_bytes=1 << 22) as llm:
        yield llm, read(directory)


CASES = list(product((1, 2, 5), (0.0, 1.0, -1.0), (True, False, "never")))


@pytest.mark.parametrize(("width", "length_penalty", "early_stopping"), CASES)
def test_beams_are_those_of_transformers(pair, width, length_penalty, early_stopping):
    llm, oracle = pair
    torch.set_num_threads(1)
    for case, (ends, shortest) in enumerate((((2,), 0), (ENDS, 0), (ENDS, 3), ((), 0))):
        prompt = [(7 * i + 3 * case + width) % VOCAB for i in range(5 + case)]
        theirs = oracle.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=width,
            num_return_sequences=width,
            do_sample=False,
            max_new_tokens=9,
            min_new_tokens=shortest,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            eos_token_id=list(ends) or None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_scores=True,
        )
        params = SamplingParams(n=width, max_tokens=9, min_tokens=shortest, ignore_eos=True, stop_token_ids=ends)
        how = Beam(width=width, length_penalty=length_penalty, early_stopping=early_stopping)
        found = llm.search(prompt, how, params).search.found
        assert len(found) == width
        for place, each in enumerate(found):
            line = theirs.sequences[place][len(prompt) :].tolist()
            assert list(each.token_ids) == line[: len(each.token_ids)]
            assert set(line[len(each.token_ids) :]) <= {0, *ends}, "only padding follows"
            if width > 1:  # one beam is greedy to them, without scores
                assert each.score == pytest.approx(theirs.sequences_scores[place].item(), rel=1e-4, abs=1e-4)


def legal(line):
    """A language of at most six tokens: what may follow depends on the sum of those before, and so does an end."""
    if len(line) == 6:
        return [2]
    at = sum(line) + len(line)
    return [token for token in range(3, VOCAB) if (token * 7 + at) % 3 != 0] + ([2] if at % 4 == 0 else [])


class Following:
    """A matcher of that language."""

    gave_up = False

    def __init__(self, line=()):
        self.line = list(line)

    def take(self, tokens):
        self.line += tokens
        return True

    def mask(self):
        bits = np.zeros(VOCAB, np.uint8)
        bits[legal(self.line)] = 1
        return np.packbits(bits, bitorder="little").tobytes()

    def fork(self, undone):
        return Following(self.line[: len(self.line) - undone])


class Guide:
    end_ids = frozenset({2})

    def begin(self, constraint):
        return Following()


@pytest.mark.parametrize(("width", "length_penalty", "early_stopping"), CASES[9:])
def test_masked_beams_are_those_of_transformers(pair, monkeypatch, width, length_penalty, early_stopping):
    llm, oracle = pair
    torch.set_num_threads(1)
    monkeypatch.setattr(llm._engine._loop._runner._masks, "_guide", Guide())
    for case in range(3):
        prompt = [(5 * i + 3 * case + width) % VOCAB for i in range(5 + case)]

        def allowed(_, line, size=5 + case):
            return legal(line[size:].tolist())

        theirs = oracle.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=width,
            num_return_sequences=width,
            do_sample=False,
            max_new_tokens=9,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            eos_token_id=[2],
            pad_token_id=0,
            prefix_allowed_tokens_fn=allowed,
            return_dict_in_generate=True,
            output_scores=True,
        )
        search = Search(beam=Beam(width=width, length_penalty=length_penalty, early_stopping=early_stopping))
        params = SamplingParams(n=width, max_tokens=9, constraint=Constraint.regex(str(case)))
        found = llm._follower.run([(Request(tuple(prompt), params, llm._limits, search=search), prompt)], None)[
            0
        ].search.found
        assert len(found) == width
        for place, each in enumerate(found):
            line = theirs.sequences[place][len(prompt) :].tolist()
            assert list(each.token_ids) == line[: len(each.token_ids)]
            assert each.score == pytest.approx(theirs.sequences_scores[place].item(), rel=1e-4, abs=1e-4)
