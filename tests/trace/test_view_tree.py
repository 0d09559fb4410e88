"""The tree of a search that was not asked for it: from the rows it read, the same places, and all probability told."""

from math import exp, fsum

import pytest

from openwork import LLM, SamplingParams
from openwork.core.budget import Budget
from openwork.core.search import Beam, BestFirst, Search
from openwork.trace.recording import Recording
from openwork.trace.view.documents import View
from openwork.trace.view.lamp import Lamp

HOW = {
    "beam": Search(beam=Beam(width=4)),
    "diverse": Search(beam=Beam(width=4, groups=2, diversity=0.5, length_penalty=1.0)),
    "best_first": Search(best_first=BestFirst(budget=Budget(nodes=300))),
    "traced": Search(best_first=BestFirst(budget=Budget(nodes=300)), trace=1000),
}


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    directory = tmp_path_factory.mktemp("recording")
    with LLM(record=directory, kv_cache_bytes=8 << 20) as llm:
        for how in HOW.values():
            llm.search("once upon a time", how, SamplingParams(min_tokens=3, max_tokens=5, n=2))
        llm.choose("the cat sat on the", [" mat and slept", " mat and ate", " bed and slept", " bed and ate"])
    recording = Recording.open(directory)
    names = [*HOW, "choose"]
    return {name: View(recording, str(i), Lamp()).document("request")["search"] for i, name in enumerate(names)}


def lines(trace, state="expanded"):
    """The tokens up to each place of a state."""
    found = []
    for each in trace:
        if each["state"] == state:
            line, at = [], each
            while at["parent"] is not None:
                line[:0] = at["ids"]
                at = trace[at["parent"]]
            found.append(tuple(line))
    return found


@pytest.mark.parametrize("name", ["beam", "diverse", "best_first", "choose"])
def test_all_probability_is_told(searches, name):
    search = searches[name]
    trace = search["trace"]
    assert search["tree_by"] == "rows" and not search["tree_left_out"]
    assert trace[0]["parent"] is None and trace[0]["logprob"] == 0.0
    assert all(each["parent"] is None or each["parent"] < place for place, each in enumerate(trace))
    expanded = lines(trace)
    assert len(set(expanded)) == len(expanded) > 1
    assert all(len(each["hash"]) == 16 for each in trace if each["state"] == "expanded" and each["hash"] is not None)
    for place, each in enumerate(trace):
        below = [other for other in trace if other["parent"] == place and other["logprob"] is not None]
        if any(other["state"] == "rest" for other in below):  # a found line may begin with another that went on
            words = {tuple(other["ids"]): exp(other["logprob"] - each["logprob"]) for other in below}
            assert fsum(words.values()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", ["beam", "diverse", "best_first"])
def test_what_was_found_hangs_where_its_last_token_was_chosen(searches, name):
    search = searches[name]
    assert sorted(lines(search["trace"], "found")) == sorted(tuple(each["ids"]) for each in search["found"])


def test_it_is_the_tree_that_a_search_tells_itself(searches):
    own, read = searches["traced"], searches["best_first"]
    assert own["tree_by"] == "the search"
    assert set(lines(own["trace"])) == set(lines(read["trace"]))
    known = dict(zip(lines(read["trace"]), read["trace"], strict=False))
    for line, each in zip(lines(own["trace"]), own["trace"], strict=False):
        assert known[line]["logprob"] == pytest.approx(each["logprob"], abs=1e-9)
