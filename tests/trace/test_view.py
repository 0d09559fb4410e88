"""The documents of the microscope: what they say is what was recorded, or follows from rows with the bits served."""

import base64
import json

import looked_into
import numpy as np
import pytest
from looked_into import ALONE, BOUND, FILTERED, FORKED, HOSTILE_ID, SEARCHED

from openwork.build import build
from openwork.core.errors import RequestError
from openwork.core.request import Limits
from openwork.core.settings import LoadSettings, ScheduleSettings
from openwork.trace.recording import Recording
from openwork.trace.view.costs import Shape, shape_of
from openwork.trace.view.documents import View, requests_document
from openwork.trace.view.file import file_documents
from openwork.trace.view.fork import fork_document, fork_request
from openwork.trace.view.lamp import Lamp
from openwork.trace.view.others import without


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return Recording.open(looked_into.record(tmp_path_factory.mktemp("recording")))


@pytest.fixture(scope="module")
def built():
    made = build(None, LoadSettings(kv_cache_bytes=8 << 20), ScheduleSettings())
    yield made
    made.engine.close()


@pytest.fixture(scope="module")
def lamp(built):
    info, shape = built.info, shape_of(built.examiner)
    assert shape == Shape(built.spec, info.read_bytes_per_token, info.kv_bytes / (info.num_blocks * info.block_size))
    text = built.tokenizer.piece
    return Lamp(examiner=built.examiner, text_of=lambda token: text(token).decode("utf-8", "replace"), shape=shape)


@pytest.fixture(scope="module")
def look(recording, lamp):
    views = {}

    def at(id):
        if id not in views:
            views[id] = View(recording, id, lamp)
        return views[id]

    return at


def values(document):
    return np.frombuffer(base64.b64decode(document["float32"]), "<f4").reshape(document["shape"])


def test_a_request_is_told_as_it_was_recorded(look, recording):
    told, story = look(FORKED).document("request"), recording.request(FORKED)
    assert told["prompt"]["ids"] == list(story.request.prompt)
    assert [line["ids"] for line in told["sequences"]] == [story.lines[i].tokens for i in (0, 1)]
    assert told["cached"] == story.cached > 0
    assert told["missing"] == []
    for sources, line in zip(told["sources"], told["sequences"], strict=True):
        assert [s["first"] for s in sources[1:]] == [s["end"] for s in sources[:-1]], "every position has one source"
        assert sources[0]["first"] == 0 and sources[-1]["end"] == len(told["prompt"]["ids"]) + len(line["ids"])
    whats = {each["what"] for each in told["story"]}
    assert {"admit", "share", "copy", "take", "finish"} <= whats


def test_a_preemption_is_told_with_what_it_cost(look, recording):
    assert recording.request(FILTERED).preemptions == 1
    story = look(FILTERED).document("request")["story"]
    gone = [place for place, each in enumerate(story) if each["what"] == "preempt"]
    assert len(gone) == 1 and "blocks ran out" in story[gone[0]]["cause"]
    assert [each["what"] for each in story[gone[0] :]].count("admit") == 1, "it came back"
    moves = look(FILTERED).document("timeline")["memory"]["moves"]
    assert {"take", "copy", "share", "give", "evict"} <= {move[1] for move in moves}


def test_every_document_is_json(look):
    for id in (ALONE, FORKED, HOSTILE_ID, BOUND, SEARCHED):
        for path in ("request", "costs", "timeline", "strip/0", "row/0/3", "layer/0/5/2", "heads/0/5"):
            json.dumps(look(id).document(path), allow_nan=False)


def test_rows_are_those_that_were_served(look):
    for id, sequence in ((ALONE, 0), (FORKED, 0), (FORKED, 1), (FILTERED, 0), (BOUND, 0)):
        told, strip = look(id).document("request"), look(id).document(f"strip/{sequence}")
        assert strip["served"] == [True] * len(told["sequences"][sequence]["ids"])
        first = len(told["prompt"]["ids"]) - 1
        row = look(id).document(f"row/{sequence}/{first + 2}")
        assert row["served"] is True and row["hash"] == row["hash_served"]
        assert row["next"] == told["sequences"][sequence]["ids"][2]
        own = next(t for t in row["top"] if t["id"] == row["next"])
        assert own["logprob"] == pytest.approx(strip["logprob"][2], abs=1e-9)
        assert own["rank"] == strip["rank"][2]


def test_what_was_chosen_was_never_cut_away(look):
    for id in (ALONE, HOSTILE_ID, FILTERED, BOUND):
        told = look(id).document("request")
        first = len(told["prompt"]["ids"]) - 1
        for place, token in enumerate(told["sequences"][0]["ids"]):
            row = look(id).document(f"row/0/{first + place}")
            own = next(t for t in row["top"] if t["id"] == token)
            assert own["cut"] is None and own["share"] > 0, (id, place)
            gone = sum(each["mass"] for each in row["cut"])
            kept = [t for t in row["top"] if t["cut"] is None]
            assert gone + sum(np.exp(t["logprob"]) for t in kept) <= 1 + 1e-9
            assert row["unmasked"] == ""


def test_cuts_are_told_by_the_rule_that_made_them(look):
    greedy = look(ALONE).document(f"row/0/{look(ALONE).last_position(0)}")
    assert [each["by"] for each in greedy["cut"]] == ["temperature 0"]
    filtered = look(FILTERED).document(f"row/0/{look(FILTERED).last_position(0)}")
    assert {each["by"] for each in filtered["cut"]} == {"top_k", "top_p"}
    assert next(each["tokens"] for each in filtered["cut"] if each["by"] == "top_k") == 2048 - 40
    told = look(BOUND).document("request")
    bound = look(BOUND).document(f"row/0/{len(told['prompt']['ids']) - 1}")
    assert bound["cut"][0]["by"] == "constraint" and bound["cut"][0]["mass"] > 0.5


def test_attention_is_a_distribution_and_its_masses_are_its_own(look):
    position = look(FORKED).last_position(0)
    told, layer = look(FORKED).document("request"), look(FORKED).document(f"layer/0/{position}/3")
    weights = values(layer["weights"])
    assert weights.shape == (8, position + 1)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(values(layer["sources"]).sum(axis=1), 1, atol=1e-5)
    assert values(layer["sources"]).shape == (8, len(told["sources"][0]))
    heads = look(FORKED).document(f"heads/0/{position}")
    np.testing.assert_array_equal(values(heads["sources"])[3], values(layer["sources"]))
    spread = -(weights * np.log(weights, where=weights > 0, out=np.zeros_like(weights))).sum(axis=1)
    np.testing.assert_allclose(values(heads["entropy"])[3], spread, atol=1e-4)
    blocks = values(layer["blocks"])
    np.testing.assert_allclose(blocks[:, 1], weights[:, 16:32].sum(axis=1), atol=1e-6)
    for before, after in (("q_before", "q"), ("k_before", "k")):
        np.testing.assert_allclose(
            np.linalg.norm(values(layer[before]), axis=1), np.linalg.norm(values(layer[after]), axis=1), rtol=1e-4
        )  # rope turns and does not stretch


def test_the_lens_ends_in_the_row_itself(look):
    row = look(ALONE).document(f"row/0/{look(ALONE).last_position(0)}")
    assert len(row["lens"]) == 7
    last = row["lens"][-1][0]
    assert (last["id"], pytest.approx(last["logprob"], abs=1e-6)) == (row["top"][0]["id"], row["top"][0]["logprob"])


def test_costs_follow_from_the_model_and_the_recording(look, built):
    told, costs = look(FORKED).document("request"), look(FORKED).document("costs")
    assert [s["elapsed_s"] for s in costs["steps"]] == [s["elapsed_s"] for s in told["steps"]]
    alone = [s for s in look(ALONE).document("costs")["steps"] if s["rows"] == 1 and s["phase"] == "decode"]
    start = look(ALONE).document("request")["steps"][-1]["works"][0]["start"]
    assert alone[-1]["operations"] == built.spec.flops_per_token(start + 1)
    assert costs["ceilings"] is None and costs["missing"]
    assert sum(phase["steps"] for phase in costs["phases"]) == len(costs["steps"])


def test_a_search_is_told_with_its_bounds(look):
    search = look(SEARCHED).document("request")["search"]
    assert search["proved"] and len(search["found"]) == 3 and search["trace"][0]["parent"] is None
    assert all(each["bound"] <= search["upper_bound"] + 1e-9 for each in search["trace"] if each["state"] == "open")


def test_the_rows_by_which_a_search_chose_its_answers_are_those_that_were_served(look):
    for sequence in range(3):
        assert set(look(SEARCHED).document(f"strip/{sequence}")["served"]) == {True}


def test_the_timeline_is_about_the_request(look):
    timeline = look(FILTERED).document("timeline")
    assert timeline["replay"]["is_equal"]
    assert FILTERED in [each["name"] for each in timeline["requests"]]
    assert timeline["memory"]["num_blocks"] == 12


def test_two_requests_differ_where_their_tokens_do(look):
    found = look(FORKED).document(f"diff/{FILTERED}")
    ids = [each["ids"] for each in found["tokens"]]
    assert ids[0][: found["token"]] == ids[1][: found["token"]] and ids[0][found["token"]] != ids[1][found["token"]]
    assert found["what"] == "prompt" and found["row"] == found["token"] == found["look"]
    assert found["lit"]["apart"][0]["entries"] > 0, "another token was read: the embedding is another"
    assert [each["served"] for each in found["lit"]["sides"]] == [None, None], "rows of a prompt have no hashes"
    same = look(FORKED).document(f"diff/{FORKED}")
    assert same["what"] is None and same["rows_equal"] == same["rows_compared"] > 0


def test_a_branch_goes_on_from_what_was_said(look, built):
    view = look(ALONE)
    told = view.document("request")
    prompt, said = told["prompt"]["ids"], told["sequences"][0]["ids"]
    position = len(prompt) + 5
    asked = fork_request(view.journey, 0, position, said[5], built.limits)
    assert list(asked.prompt) == [*prompt, *said[:6]]
    stream, events = built.engine.submit(asked), []
    while not stream.has_ended:
        built.engine.turn()
        events += stream.take()
    branch = fork_document(said[5], events, lambda token: str(token))
    assert branch["ids"] == said[5:], "the token that was chosen leads to what was said"
    assert branch["logprob"] == pytest.approx(sum(view.document("strip/0")["logprob"][6:]), abs=1e-4)


def test_what_cannot_be_forked_says_why(look):
    limits = Limits(2048, 512)
    first = len(look(ALONE).document("request")["prompt"]["ids"])
    for id, sequence, position, token, param in (
        (ALONE, 1, first, 0, "sequence"),
        (ALONE, 0, first - 1, 0, "position"),
        (ALONE, 0, first + 24, 0, "position"),
        (ALONE, 0, first, 2048, "token"),
        (BOUND, 0, first, 0, "request"),
        (SEARCHED, 0, first, 0, "request"),
    ):
        with pytest.raises(RequestError) as error:
            fork_request(look(id).journey, sequence, position, token, limits)
        assert error.value.param == param


@pytest.mark.parametrize(
    "path",
    ["", "x", "row", "row/0", "row/0/999", "row/9/1", "row/-1/0", "row/0/1e3", "layer/0/1/6", "row/0/²", "diff/no"],
)
def test_a_path_that_names_nothing_says_so(look, path):
    with pytest.raises(RequestError):
        look(ALONE).document(path)


def test_without_a_model_the_recording_speaks_for_itself(recording):
    view = View(recording, ALONE, Lamp())
    assert view.document("request")["prompt"]["texts"][0] is None
    assert view.document("costs")["missing"] and view.document("timeline")["steps"]
    with pytest.raises(RequestError, match="No model"):
        view.document("row/0/3")


def test_without_prompts_nothing_is_computed_again(tmp_path, lamp):
    recording = Recording.open(looked_into.record(tmp_path, keeps_prompts=False))
    view = View(recording, ALONE, lamp)
    told = view.document("request")
    assert set(told["prompt"]["texts"]) == {None} and told["missing"]
    with pytest.raises(RequestError, match="keeps no prompts"):
        view.document("row/0/3")


def test_others_are_not_there_for_a_tenant(recording, lamp):
    with pytest.raises(RequestError, match="names no request"):
        View(recording, ALONE, lamp, lambda tenant: tenant == "alice")
    assert requests_document(recording, lambda tenant: tenant == "alice") == {"requests": [], "left_out": 0}


def test_the_whole_recording_is_a_timeline_of_its_own(look, monkeypatch):
    view = look(BOUND)
    whole = view.document("timeline/all/0/1000")
    assert view.document("timeline/0/1000")["window"] == whole["window"], "of a short recording all is around"
    monkeypatch.setattr("openwork.trace.recording.AROUND_BYTES", 0)
    around = view.document("timeline/0/1000")
    assert (
        around["window"]["total"] <= whole["window"]["total"] == view.document("timeline/all/0/1000")["window"]["total"]
    )
    assert [each["place"] for each in view.document("timeline/all/3/5")["steps"]] == [3, 4, 5, 6, 7]
    for path in ("timeline/all/0", "timeline/all/x/3", "timeline/whole/0/3", "timeline/all/0/3/1"):
        with pytest.raises(RequestError):
            view.document(path)


def test_a_file_is_bounded_and_says_what_is_left_out(recording, look):
    whole, _ = file_documents(look(BOUND), 1 << 30)
    part, said = file_documents(look(BOUND), 400_000)
    assert part.keys() < whole.keys() and "rows" in said and "layers" in said
    last = look(BOUND).last_position(0)
    assert {f"row/0/{p}" for p in range(last + 1)} <= whole.keys()
    assert {f"layer/0/{last}/{layer}" for layer in range(6)} <= whole.keys()
    assert len(json.dumps(part)) < 600_000
    assert len(part["requests"]["requests"]) + part["requests"]["left_out"] == len(recording.ids)


def tagged(document):
    """The document as if another tenant had done everything but the requests that are listed."""
    memory = document["memory"]
    moves = [[*move[:5], "mallory", "mallory", *move[7:]] for move in memory["moves"]]
    sampled = [{**each, "by_tenant": {"mallory": {}}} for each in memory["in_time"]]
    start = [[state, "mallory"] for state, _ in memory["start"]]
    return document | {
        "memory": memory | {"moves": moves, "in_time": sampled, "start": start},
        "processes": [{**each, "tenants": ["mallory"]} for each in document["processes"]],
        "replay": {**document["replay"], "difference": "what mallory said"},
    }


def test_a_timeline_for_one_tenant_names_nobody_else(recording, look):
    document = look(FORKED).document("timeline")
    own = next(each["id"] for each in document["requests"] if each["name"] == FORKED)
    hidden = {each["id"] for each in document["requests"]} - {own}
    assert hidden
    told = without(document, hidden)
    assert [each["name"] for each in told["requests"]] == [FORKED]
    assert {work[0] for step in told["steps"] for work in step["works"]} == {own, None}
    assert all(each["request"] in (own, None) and each.get("by") in (own, None) for each in told["events"])
    assert {move[3] for move in told["memory"]["moves"]} <= {own, None}
    named = json.dumps(without(tagged(document), hidden))
    assert "mallory" not in named, "no tenant's name is left, wherever it stood"
    assert [len(step["works"]) for step in told["steps"]] == [len(step["works"]) for step in document["steps"]]
    assert len(told["memory"]["moves"]) == len(document["memory"]["moves"]), "where blocks went is seen by everybody"
