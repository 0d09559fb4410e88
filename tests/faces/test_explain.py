"""output.explain: what was inside when a token was chosen, from the library's face."""

import gc
import pickle
import threading

import numpy as np
import pytest

from openwork import LLM, EngineError, RequestError, SamplingParams


@pytest.fixture(scope="module")
def llm():
    with LLM(threads=2) as llm:
        yield llm


def test_the_row_behind_every_token_is_the_row_it_was_chosen_from(llm):
    seen = {}
    params = SamplingParams(temperature=0, max_tokens=12)
    with LLM(threads=2, tap=lambda sequence, position, row: seen.__setitem__(position, row.tobytes())) as watched:
        output = watched.generate("once upon a time", params)[0]
    mine = llm.generate("once upon a time", params)[0]
    assert mine.token_ids == output.token_ids
    for i, token in enumerate(mine.token_ids):
        row = mine.explain(i, layers=[0], heads=[0])
        assert row.position == len(mine.prompt_ids) - 1 + i
        assert row.logits.row.tobytes() == seen[row.position]
        assert row.logits.top_ids[0] == token
        assert row.attention.shape == (1, 1, row.position + 1)


def test_every_completion_and_what_is_asked_of_it(llm):
    output = llm.generate("one day", SamplingParams(temperature=1, seed=3, n=2, max_tokens=6))[0]
    rows = [output.explain(5, completion=index, lens=2, top=3) for index in range(2)]
    assert [row.token for row in rows] == [each.token_ids[4] for each in output.completions]
    assert rows[0].lens.ids.shape == (llm.spec.num_layers + 1, 2) and len(rows[0].logits.top_ids) == 3
    assert not np.array_equal(rows[0].residual, rows[1].residual)
    again = llm.explain(output, 5, completion=1, lens=2, top=3)
    assert again.logits.row_hash == rows[1].logits.row_hash


def test_the_engine_goes_on_beside_explaining(llm):
    params = SamplingParams(temperature=0, max_tokens=80)
    alone = llm.generate(["a cat", "a dog", "a house"], params)
    found, output = [], alone[0]
    thread = threading.Thread(target=lambda: found.extend(llm.generate(["a cat", "a dog", "a house"], params)))
    hashes = [output.explain(i, layers=[]).logits.row_hash for i in range(20)]
    thread.start()
    assert [output.explain(i, layers=[]).logits.row_hash for i in range(20)] == hashes
    thread.join()
    assert [each.token_ids for each in found] == [each.token_ids for each in alone]


def test_what_cannot_be_explained_is_refused(llm):
    output = llm.generate("one day", SamplingParams(max_tokens=3))[0]
    for i, how in ((3, {}), (-1, {}), (0, {"completion": 1}), (0, {"layers": [99]}), (0, {"heads": [-1]})):
        with pytest.raises(RequestError):
            output.explain(i, **how)
    with pytest.raises(EngineError, match="is gone"):
        pickle.loads(pickle.dumps(output)).explain(0)
    nothing = llm.generate("one day", SamplingParams(max_tokens=0))[0]
    with pytest.raises(RequestError, match="has 0 tokens"):
        nothing.explain(0)


def test_an_output_keeps_no_model():
    llm = LLM(threads=1)
    output = llm.generate("one day", SamplingParams(max_tokens=3))[0]
    output.explain(0)
    llm.close()
    with pytest.raises(EngineError, match="closed"):
        output.explain(0)
    with pytest.raises(EngineError, match="closed"):
        llm.explain(output)
    del llm
    gc.collect()
    with pytest.raises(EngineError, match="gone"):
        output.explain(0)
    from openwork.core.output import Completion, Output, Timings

    made = Output(None, (3,), (Completion(0, "", (4,), "stop"),), Timings(0, 0, 0, 0, 0), 1)
    with pytest.raises(RequestError, match="only outputs of an LLM"):
        made.explain(0)
