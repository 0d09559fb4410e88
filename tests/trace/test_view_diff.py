"""Two runs side by side: the first bit that differs is the one that does, wherever it lies, and both runs are lit."""

import json
from dataclasses import replace

import pytest

from openwork import LLM, SamplingParams
from openwork.cli.seeing import Seeing
from openwork.core.errors import TraceError
from openwork.trace.story import Line
from openwork.trace.view.diff import diff_document, stamps_document

PROMPT = "Once upon a time there was a little girl named Lily. She"


def params(**how):
    return SamplingParams(**{"max_tokens": 16, "temperature": 0, **how})


def recorded(directory, *asked, **settings):
    with LLM(record=directory, **settings) as llm:
        for prompt, how in asked:
            llm.generate([prompt], how)
    return directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same prompt three times: as it is, in float32, and by the reference under another contract."""
    at = tmp_path_factory.mktemp("runs")
    both = [(PROMPT, params()), (PROMPT, params(temperature=1, seed=3))]
    more = [(PROMPT + " was", params()), (PROMPT, params(max_tokens=7)), (PROMPT, params(temperature=1, seed=4))]
    return {
        "plain": recorded(at / "plain", *both, *more),
        "again": recorded(at / "again", *both),
        "float32": recorded(at / "float32", *both, dtype="float32", kv_dtype="float32"),
        "reference": recorded(at / "reference", both[0], backend="reference"),
    }


def difference(runs, one, other, id="0", other_id="0"):
    with Seeing(runs[one], against=other_id, against_record=runs[other]) as seeing:
        found = seeing.documents(id, ["against", f"against/{other_id}"])
    json.dumps(found, allow_nan=False)
    return found[f"against/{other_id}"]


def test_the_same_run_twice_has_the_same_bits(runs):
    found = difference(runs, "plain", "again")
    assert found["what"] is None and found["rows_equal"] == found["rows_compared"] == 16
    assert [side["served"] for side in found["lit"]["sides"]] == [True, True]
    assert found["lit"]["first"] is None and not any(each["entries"] for each in found["lit"]["apart"])


@pytest.mark.parametrize("other", ["float32", "reference"])
def test_another_arithmetic_is_found_where_it_begins(runs, other):
    found = difference(runs, "plain", other)
    assert found["what"] == "row" and found["rows_equal"] == 0
    assert "contract_id" in found["settings_differ"] or "dtype" in found["settings_differ"]
    lit = found["lit"]
    assert [side["served"] for side in lit["sides"]] == [True, True], "each was lit as it was served"
    assert lit["sides"][0]["contract"] == found["settings"][0]["contract_id"]
    assert lit["sides"][1]["contract"] == found["settings"][1]["contract_id"]
    first = lit["first"]
    assert first["position"] == 0, "it began in the prompt, long before the first row that has a hash"
    assert first["values"][0] != first["values"][1] and first["ulps"] > 0
    assert lit["apart"][-1]["entries"] > 0 and lit["logits"]["most"] > 0


def test_a_seed_is_a_choice_and_no_other_bits(runs):
    with Seeing(runs["plain"]) as seeing:
        found = seeing.view("1").document("diff/4")
    assert found["what"] == "choice" and found["row"] is None
    assert found["rows_equal"] == found["rows_compared"] > 0
    assert found["look"] == found["token"] - 1
    tops = [side["top"] for side in found["lit"]["sides"]]
    assert tops[0] == tops[1] and found["lit"]["logits"]["entries"] == 0


def test_prompts_and_lengths_are_told_apart(runs):
    with Seeing(runs["plain"]) as seeing:
        prompt, shorter = seeing.view("1").document("diff/2"), seeing.view("0").document("diff/3")
        longer = seeing.view("0").document("diff/2")
    assert shorter["what"] == "length" and shorter["rows_equal"] == 7
    assert prompt["what"] == "prompt" and prompt["token"] == prompt["prompt_lens"][0]
    assert longer["what"] in ("prompt", "length", None), "what one said, the other was given"


def test_a_hash_that_differs_is_found_by_itself(runs):
    with Seeing(runs["plain"], has_model=False) as seeing:
        one = seeing.view("0").document("request")
    line = one["sequences"][0]
    hashes = [*line["hashes"][:5], f"{int(line['hashes'][5], 16) ^ 1:016x}", *line["hashes"][6:]]
    other = {**one, "sequences": [{**line, "hashes": hashes}]}
    found = diff_document(one, other)
    assert (found["what"], found["row"], found["rows_equal"]) == ("row", len(one["prompt"]["ids"]) + 4, 5)
    blind = diff_document(one, {**one, "sequences": [{**line, "hashes": [None] * 16}]})
    assert blind["what"] is None and blind["rows_compared"] == 0


def test_one_side_in_the_dark_is_said(runs, tmp_path):
    with Seeing(runs["plain"], against_record=runs["again"], has_model=False) as seeing:
        found = seeing.view("0").document("against/0")
    assert found["lit"]["why_not"] and "--no-model" in found["lit"]["sides"][0]["why"]
    with Seeing(runs["plain"], against_record=runs["again"]) as seeing:
        view, other = seeing.view("0"), seeing._other.view("0")
        other._lamp = replace(other._lamp, examiner=None, dark="It is elsewhere.")
        found = view.difference(other)
    assert found["lit"]["sides"][0]["served"] is True and found["lit"]["sides"][1]["why"] == "It is elsewhere."
    assert "one side" in found["lit"]["why_not"]


def test_the_most_alike_is_shown_first_and_an_unknown_one_refused(runs):
    with Seeing(runs["float32"], against_record=runs["plain"]) as seeing:
        told = seeing.view("1").document("against")
    assert told["beside"] == "1" and told["label"] == "plain" and len(told["requests"]) == 5
    with pytest.raises(TraceError, match="no request"):
        Seeing(runs["plain"], against="99", against_record=runs["again"])


def test_stamps_name_layer_and_op_without_a_model():
    def line(*stamps):
        return Line(tokens=[5] * len(stamps), stamps=list(stamps))

    plain = (1, 2, 3, 4, 5, 6, 7, 8, 9)  # of two layers
    bent = (*plain[:6], 77, *plain[7:])
    one, other = line(None, plain, plain, plain), line(plain, None, plain, bent)
    found = stamps_document([one, other], [10, 10], 99)
    assert found["compared"] == 2 and found["equal"] == 1
    assert found["first"] == {"position": 12, "layer": 1, "op": "attend"}
    assert stamps_document([one, other], [10, 10], 12)["first"] is None, "behind the first other token nothing is alike"
    assert stamps_document([line(None), line(plain)], [10, 10], 99) is None
    shifted = stamps_document([line(plain, plain), line(None, bent)], [11, 10], 99)
    assert shifted["first"]["position"] == 10, "what one was given, the other said"
    assert "layers" in stamps_document([line(plain), line(plain[:5])], [10, 10], 99)["why_not"]
