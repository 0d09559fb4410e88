"""Traffic without a server: traces, prompts, answers from bytes, figures, comparisons."""

import importlib
import json

import pytest


@pytest.fixture
def traffic(scripts):
    """Part of the package by name."""
    return lambda name: importlib.import_module(f"traffic.{name}")


def answer(traffic, due=0.0, times=(1.0, 1.1, 1.2), failure="", **more):
    told = {"completion_tokens": len(times), "prompt_tokens": 10} | more
    return traffic("answer").Answer(due, due, (times or (due + 1,))[-1], failure, tuple(times), **told)


# -- traces --------------------------------------------------------------------------------------------------------


def test_a_csv_of_azure_is_read(traffic, tmp_path):
    path = tmp_path / "azure.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:04.0000001,396,109\n"
        "2023-11-16 18:17:03.9799600,4808,10\n"
        "2023-11-16 18:18:03.9799600,0,0\n"
    )
    first, second, third = traffic("trace").read(path)
    assert (first.at_s, first.prompt_length, first.max_tokens, first.blocks) == (0.0, 4808, 10, ())
    assert second.at_s == pytest.approx(0.0200401, abs=1e-6) and third.at_s == pytest.approx(60)
    assert (third.prompt_length, third.max_tokens) == (1, 1)
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,2162,5\n")
    assert traffic("trace").read(path)[0].prompt_length == 2162


def test_json_lines_of_mooncake_are_read(traffic, tmp_path):
    path = tmp_path / "mooncake.jsonl"
    lines = [
        {"timestamp": 3500, "input_length": 600, "output_length": 5, "hash_ids": [1, 7]},
        {"timestamp": 500, "input_length": 512, "output_length": 9, "hash_ids": [1], "tenant": "a"},
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    first, second = traffic("trace").read(path)
    assert (first.at_s, first.tenant, first.blocks) == (0.0, "a", (1,))
    assert (second.at_s, second.blocks, second.max_tokens) == (3.0, (1, 7), 5)
    assert [each.at_s for each in traffic("trace").faster([first, second], 2)] == [0.0, 1.5]
    assert traffic("trace").within([first, second], 521) == [first]


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("x.csv", "TIMESTAMP,ContextTokens\n1,2\n", "no column GeneratedTokens"),
        ("x.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", "line 2"),
        ("x.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,-1,2\n", "negative"),
        ("x.jsonl", "", "no request"),
        ("x.jsonl", "{", "line 1"),
        ("x.jsonl", "[]", "not an object"),
        ("x.jsonl", '{"timestamp": 0, "input_length": 1}', "'output_length' is missing"),
        ("x.jsonl", '{"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [1]}', "1 hash_ids for 513"),
        ("x.jsonl", '{"timestamp": NaN, "input_length": 5, "output_length": 1}', "is not one"),
    ],
)
def test_what_is_no_trace_is_named_with_its_line(traffic, tmp_path, name, text, part):
    (tmp_path / name).write_text(text)
    with pytest.raises(traffic("trace").TraceError, match=part):
        traffic("trace").read(tmp_path / name)


def test_the_samples_are_what_their_generator_writes(traffic):
    samples = traffic("samples")
    for name in samples.SAMPLES:
        path = samples.FOLDER / f"{name}.jsonl"
        assert path.read_text() == "\n".join(samples.lines(name)) + "\n"
        assert len(traffic("trace").read(path)) == len(samples.lines(name))
    assert len(traffic("trace").read(samples.FOLDER / "shared-prefix.jsonl")) == 16


# -- prompts -------------------------------------------------------------------------------------------------------


def test_equal_hash_ids_give_equal_tokens_and_another_seed_shares_nothing(traffic):
    prompts, arrival = traffic("prompts"), traffic("trace").Arrival
    one, other = arrival(0, 1100, 4, (1, 2, 3)), arrival(0, 1030, 4, (1, 2, 9))
    wording = prompts.Wording("m", vocabulary=1000, seed="a")
    first, second = prompts.tokens(one, 0, wording), prompts.tokens(other, 1, wording)
    assert (len(first), len(second)) == (1100, 1030) and first[:1024] == second[:1024]
    assert first[1024:1030] != second[1024:]
    assert all(prompts.LOWEST <= each < 1000 for each in first)
    elsewhere = prompts.tokens(one, 0, prompts.Wording("m", vocabulary=1000, seed="b"))
    assert elsewhere[:16] != first[:16]
    alone = arrival(0, 40, 4)
    assert prompts.tokens(alone, 0, wording) != prompts.tokens(alone, 1, wording)


def test_a_longer_turn_of_a_chat_begins_with_the_shorter_one(traffic):
    prompts, arrival = traffic("prompts"), traffic("trace").Arrival
    wording = prompts.Wording("m")
    short, long = (
        prompts.tokens(arrival(0, length, 4, blocks), 0, wording) for length, blocks in ((300, (5,)), (700, (5, 6)))
    )
    assert long[:300] == short


def test_bodies_ask_for_all_tokens_as_a_stream_in_each_form(traffic):
    prompts, arrival = traffic("prompts"), traffic("trace").Arrival(0, 3, 7)
    asked = {}
    for form in ("ids", "text", "chat"):
        wording = prompts.Wording("m", form, extra={"user": "u"})
        asked[form] = json.loads(prompts.bodies([arrival], wording)[0])
        assert asked[form]["max_tokens"] == 7 and asked[form]["stream"] and asked[form]["ignore_eos"]
        assert asked[form]["stream_options"] == {"include_usage": True} and asked[form]["user"] == "u"
        assert wording.route == ("/v1/chat/completions" if form == "chat" else "/v1/completions")
    assert len(asked["ids"]["prompt"]) == 3 and len(asked["text"]["prompt"].split()) == 3
    assert asked["chat"]["messages"] == [{"role": "user", "content": asked["text"]["prompt"]}]


# -- answers -------------------------------------------------------------------------------------------------------


def event(text=None, **more):
    held = {"choices": [{"index": 0, "text": text, "finish_reason": None}] if text is not None else [], **more}
    return b"data: " + json.dumps(held).encode() + b"\n\n"


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
STREAM = [event("a"), b": still here\n\n", event(""), event("b"), event(usage=USAGE), b"data: [DONE]\n\n"]


def chunked(parts):
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def response(parts, is_chunked, status=b"200 OK"):
    kind = b"Transfer-Encoding: chunked\r\n" if is_chunked else b""
    body = chunked(parts) if is_chunked else b"".join(parts)
    return b"HTTP/1.1 " + status + b"\r\nContent-Type: text/event-stream\r\n" + kind + b"\r\n" + body


def understood(traffic, data, cuts=(), failure=""):
    at = [0, *sorted(cuts), len(data)]
    pieces = [(float(number), data[at[number] : at[number + 1]]) for number in range(len(at) - 1)]
    return traffic("answer").understand(traffic("client").Exchange(0.0, 0.0, 99.0, pieces, failure))


@pytest.mark.parametrize("is_chunked", [True, False])
def test_an_answer_is_the_same_however_its_bytes_are_cut(traffic, is_chunked):
    data = response(STREAM, is_chunked)
    for cuts in ([], range(1, len(data)), *([at] for at in range(len(data)))):
        found = understood(traffic, data, cuts)
        assert (found.failure, found.text, found.cached_tokens, found.completion_tokens) == ("", "ab", 4, 3)
        assert len(found.text_times_s) == 2 and found.text_times_s == tuple(sorted(found.text_times_s))


def test_an_event_has_the_time_of_the_piece_that_completed_it(traffic):
    data = response(STREAM, False)
    middle = data.index(b'"b"')
    found = understood(traffic, data, [data.index(b": still"), middle])
    assert found.text_times_s == (0.0, 2.0) and found.gaps_s == [2.0] and found.first_s == 0.0


@pytest.mark.parametrize(
    ("parts", "status", "before", "failure"),
    [
        (STREAM[:-1], b"200 OK", "", "cut"),
        ([event("a"), event(error={"message": "no"})], b"200 OK", "", "error event"),
        ([b'{"error": {}}'], b"503 Service Unavailable", "", "status 503"),
        ([event("a"), b"data: {\n\n"], b"200 OK", "", "malformed"),
        ([b"data: [DONE]\n\n"], b"200 OK", "", "empty"),
        ([event("a")], b"200 OK", "timeout", "timeout"),
    ],
)
def test_failures_have_a_kind(traffic, parts, status, before, failure):
    assert understood(traffic, response(parts, False, status), failure=before).failure == failure


def test_chat_chunks_and_bytes_that_are_no_http(traffic):
    chat = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}, {"choices": [{"delta": {"content": "x"}}]}
    parts = [b"data: " + json.dumps(each).encode() + b"\n\n" for each in chat]
    assert understood(traffic, response([*parts, b"data: [DONE]\n\n"], True)).text == "x"
    assert understood(traffic, b"SSH-2.0-x\r\n\r\n").failure == "malformed"
    assert understood(traffic, b"").failure == "cut"


# -- figures -------------------------------------------------------------------------------------------------------


def test_percentiles_lie_between_the_ranks(traffic):
    figures = traffic("figures")
    assert figures.percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.5
    assert figures.percentile([5.0], 99) == 5.0
    assert figures.spread(range(101)) == {"mean": 50, "p50": 50, "p90": 90, "p99": 99, "max": 100}
    assert figures.spread([]) is None


def test_goodput_counts_what_met_both_targets(traffic):
    figures, trace = traffic("figures"), traffic("trace")
    answers = [
        answer(traffic, times=(1.0, 1.1, 1.2)),  # good
        answer(traffic, times=(1.0, 1.01, 1.35)),  # good by the mean of its gaps only
        answer(traffic, times=(2.5, 2.6)),  # late
        answer(traffic, times=(0.5,)),  # one token has no gaps
        answer(traffic, times=(0.1, 4.0), failure="cut"),
    ]
    arrivals = [trace.Arrival(0, 10, 3)] * 5
    found = figures.summary(arrivals, answers, figures.Targets(2.0, 0.2))
    assert (found["requests"], found["whole"], found["errors"]) == (5, 4, {"cut": 1})
    assert found["duration_s"] == 4.0 and found["goodput"] == 3 / 4 and found["goodput_strict"] == 2 / 4
    assert found["met"] == 3 / 5 and found["tok_s"] == 9 / 4 and found["hit_rate"] is None
    assert found["first_s"]["p50"] == 1.0 and found["gap_s"]["max"] == pytest.approx(0.34)
    nothing = figures.summary(arrivals[:1], [answer(traffic, times=(), failure="refused")], figures.Targets())
    assert nothing["first_s"] is None and nothing["goodput"] == 0


def test_the_hit_rate_is_of_prompt_tokens_where_it_is_told(traffic):
    figures, trace = traffic("figures"), traffic("trace")
    answers = [answer(traffic, cached_tokens=5), answer(traffic, cached_tokens=0), answer(traffic)]
    assert figures.summary([trace.Arrival(0, 10, 3)] * 3, answers, figures.Targets())["hit_rate"] == 5 / 20


def test_fair_shares_are_max_min_and_jain_is_one_when_all_are_equal(traffic):
    figures = traffic("figures")
    assert figures.fair_shares({"a": 100, "b": 10, "c": 100}, 90) == {"b": 10, "a": 40, "c": 40}
    assert figures.jain([2, 2, 2]) == 1 and figures.jain([1, 0, 0, 0]) == 0.25 and figures.jain([]) == 1


def test_a_flood_that_is_served_first_is_unfair(traffic):
    figures, arrival = traffic("figures"), traffic("trace").Arrival
    arrivals = [arrival(0, 10, 2, tenant=tenant) for tenant in "aaab"]
    first = [answer(traffic, times=(at, at + 0.1)) for at in (1, 2, 3, 4)]
    in_turn = [answer(traffic, times=(at, at + 0.1)) for at in (1, 3, 4, 2)]
    assert figures.fairness(arrivals, first) == pytest.approx(0.5)
    assert figures.fairness(arrivals, in_turn) == pytest.approx(1.0)
    assert figures.fairness(arrivals[:3], first[:3]) is None


def test_medians_and_ratios_are_taken_turn_by_turn(traffic):
    compare = traffic("compare")
    ours = [{"goodput": 4.0, "first_s": {"p50": 1.0}}, {"goodput": 6.0, "first_s": {"p50": 3.0}}]
    other = [{"goodput": 2.0, "first_s": {"p50": 2.0}}, {"goodput": 0.0, "first_s": None}]
    replays = [
        {"server": name, "trace": "t", "speed": speed, **held}
        for speed in (1.0, 2.0)
        for name, turns in (("ours", ours), ("other", other))
        for held in turns
    ]
    slow, _ = compare.compare(replays, ["ours", "other"])
    assert slow["medians"]["ours"]["goodput"] == 5.0 and slow["medians"]["other"]["first_s.p50"] == 2.0
    assert slow["ratios"]["other"]["goodput"] == 2.0  # the second turn has nothing to divide by
    assert slow["ratios"]["other"]["first_s.p50"] == 2.0 and slow["ratios"]["other"]["gap_s.p99"] is None
    assert compare.best_goodput([slow], "t") == {"ours": (5.0, 1.0), "other": (1.0, 1.0)}


def test_what_others_took_is_the_machine_less_us(traffic, monkeypatch):
    quiet = traffic("quiet")
    told = iter([(1000.0, 400.0), (1000.0 + 30, 400.0 + 30), None, None])
    monkeypatch.setattr(quiet.Watch, "_busy_s", lambda self: next(told))
    with quiet.Watch() as only_us:
        pass
    with quiet.Watch() as unknown:
        pass
    assert only_us.others == 0 and unknown.others is None and unknown.stalled_s >= 0


def test_processes_of_this_machine_are_found(traffic):
    quiet = traffic("quiet")
    with quiet.Watch() as watch:
        busy = watch._busy_s()
    if busy is None:
        pytest.skip("nothing is known where there is no /proc")
    assert 0 <= busy[1] <= busy[0] and watch.others is not None
