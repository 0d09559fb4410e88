from __future__ import annotations

import json
from pathlib import Path

import pytest

from openwork.core.constraint import Constraint
from openwork.core.request import SamplingParams


def test_writes_the_text_and_nothing_else(run, fake):
    result = run("generate", "Hello")
    assert (result.exit_code, result.stdout, result.stderr) == (0, " world.\n", "")
    assert fake.asked[0][0] == fake.tokenizer.encode("Hello")
    assert fake.is_closed


def test_a_text_that_ends_a_line_gets_no_second_newline(run, fake):
    fake.answers = ["line\n"]
    assert run("generate", "Hello").stdout == "line\n"


def test_options_reach_the_model(run, fake):
    run(
        "generate", "Hello", "--model", "org/name", "--dtype", "bfloat16", "--backend", "reference",
        "--kv-cache-bytes", "2MiB", "--context", "77", "--threads", "3", "--kv-dtype", "int8", "--no-weight-cache",
        "--speculate", "ngram", "--max-draft", "7", "--record", "here", "--record-bytes", "1MiB",
        "--record-layers", "3",
    )  # fmt: skip
    progress = fake.opened_with.pop("progress")
    assert callable(progress)
    assert fake.opened_with == {
        "model": "org/name",
        "dtype": "bfloat16",
        "kv_dtype": "int8",
        "backend": "reference",
        "kv_cache_bytes": "2MiB",
        "context": 77,
        "threads": 3,
        "weight_cache": False,
        "speculate": "ngram",
        "max_draft": 7,
        "record": Path("here"),
        "record_bytes": "1MiB",
        "record_prompts": True,
        "record_layers": 3,
    }


def test_what_is_not_given_stays_as_the_checkpoint_recommends(run, fake):
    run("generate", "Hello")
    assert fake.asked[0][1] == fake.defaults
    run("generate", "Hello", "--temperature", "0", "--max-tokens", "5")
    assert fake.asked[1][1] == SamplingParams(temperature=0, top_p=0.5, max_tokens=5)


def test_every_sampling_option_arrives(run, fake):
    result = run(
        "generate", "Hello", "--temperature", "0.5", "--top-p", "0.9", "--top-k", "40", "--min-p", "0.1",
        "--presence-penalty", "0.2", "--frequency-penalty", "-0.3", "--repetition-penalty", "1.1",
        "--logit-bias", "7=-5", "--logit-bias", "8=2.5", "--seed", "18446744073709551615", "-n", "2",
        "--max-tokens", "9", "--min-tokens", "4", "--stop", "END", "--stop", "\n\n", "--stop-token-id", "3",
        "--stop-token-id", "4", "--ignore-eos", "--logprobs", "2", "--prompt-logprobs", "0",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert fake.asked[0][1] == SamplingParams(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        presence_penalty=0.2,
        frequency_penalty=-0.3,
        repetition_penalty=1.1,
        logit_bias={7: -5.0, 8: 2.5},
        seed=2**64 - 1,
        n=2,
        max_tokens=9,
        min_tokens=4,
        stop=("END", "\n\n"),
        stop_token_ids=(3, 4),
        ignore_eos=True,
        logprobs=2,
        prompt_logprobs=0,
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("x", "--temperature", "101"), "temperature: must be"),
        (("x", "--seed", "-1"), "seed: must be"),
        (("x", "--logit-bias", "7"), "logit_bias: must be ID=B"),
        (("x", "--logit-bias", "7=nan"), "logit_bias: must be"),
        (("x", "--min-tokens", "5", "--max-tokens", "4"), "min_tokens: is 5, above"),
        (("x", "--stop", ""), "stop: strings must not be empty"),
        (("",), "prompt: is empty"),
        (("x", "--ids", "1"), "prompt: PROMPT, --ids and --lines exclude"),
        (("--ids", "1,,2"), "ids: must be token ids"),
        (("--ids", "1,two"), "ids: must be token ids"),
    ],
)
def test_a_wrong_wish_is_refused_before_a_model_is_loaded(run, fake, arguments, problem):
    result = run("generate", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {problem}")
    assert fake.opened_with == {}


def test_reads_a_pipe(run, fake):
    assert run("generate", input="two\nlines\n").exit_code == 0
    assert fake.asked[0][0] == fake.tokenizer.encode("two\nlines")


@pytest.mark.parametrize(
    ("data", "problem"), [(b"", "is empty"), (b"\n", "is empty"), (b"abc\xff", "not UTF-8 text: byte 3 is 0xff")]
)
def test_a_pipe_with_no_text_in_it(run, fake, data, problem):
    result = run("generate", input=data)
    assert result.exit_code == 2
    assert problem in result.stderr


def test_a_terminal_is_not_read_from(run, fake, watched):
    watched("stdin")
    result = run("generate")
    assert result.exit_code == 2
    assert "prompt: there is none" in result.stderr


def test_token_ids(run, fake):
    run("generate", "--ids", "1, 5,9")
    assert fake.asked[0][0] == [1, 5, 9]


def test_json(run, fake):
    result = run("generate", "Hé", "--json", "--seed", "7", "--logprobs", "2", "--prompt-logprobs", "0")
    record = json.loads(result.stdout)
    token = fake.tokenizer.encode(" ", add_special=False)[0]
    assert result.stdout.count("\n") == 1
    assert {key: value for key, value in record.items() if "logprobs" not in key} == {
        "model": "fake/model",
        "seed": 7,
        "prompt": "Hé",
        "prompt_ids": fake.tokenizer.encode("Hé"),
        "token_ids": fake.tokenizer.encode(" world.", add_special=False),
        "text": " world.",
        "finish_reason": "stop",
        "stop_reason": None,
        "timings": {"queued_s": 0.0, "prefill_s": 0.5, "decode_s": 1.0, "prefill_tok_s": 10.0, "decode_tok_s": 20.0},
        "kv_blocks": 3,
    }
    assert record["logprobs"][0] == {
        "token": token,
        "text": " ",
        "logprob": -0.5,
        "rank": 1,
        "top": [
            {"token": token, "text": " ", "logprob": -0.5},
            {"token": 2, "text": "</s>", "logprob": None},
        ],
    }
    assert record["prompt_logprobs"][0] is None
    assert record["prompt_logprobs"][2]["text"] == "\ufffd", "half of a character"


def test_json_has_a_line_for_each_text(run, fake):
    fake.answers = ["one", "two"]
    records = [json.loads(line) for line in run("generate", "Hello", "--json", "-n", "2").stdout.splitlines()]
    assert [(record["index"], record["text"]) for record in records] == [(0, "one"), (1, "two")]
    assert records[0]["logprobs"] is None
    assert "prompt_logprobs" not in records[0]


def test_json_of_ids_without_a_tokenizer(run, fake, monkeypatch):
    fake_json = run("generate", "--ids", "3,4", "--json", "--logprobs", "1")
    assert json.loads(fake_json.stdout)["prompt"] is None
    decoded = fake.tokenizer.encode(" world.", add_special=False)
    monkeypatch.setattr(fake, "generate", lambda *args, **kwargs: [_without_text(fake, decoded)])
    monkeypatch.setattr(fake, "tokenizer", None)
    record = json.loads(run("generate", "--ids", "3,4", "--json", "--logprobs", "1").stdout)
    assert record["logprobs"][0]["text"] is None


def _without_text(fake, tokens):
    from openwork.core.output import Completion, Logprob, Output, Timings

    logprobs = tuple(Logprob(token, -1.0, 1) for token in tokens)
    return Output(None, (3, 4), (Completion(0, "", tuple(tokens), "stop", None, logprobs),), Timings(0, 0, 0, 0, 0), 1)


def test_lines_are_a_batch(run, fake):
    fake.answers = ["one", "two\n"]
    result = run("generate", "--lines", "--no-echo", input="a\r\nb\n")
    assert result.stdout == "one\n---\ntwo\n"
    assert [ids for ids, _ in fake.asked] == [fake.tokenizer.encode("a"), fake.tokenizer.encode("b")]
    records = run("generate", "--lines", "--json", input="a\nb\n").stdout.splitlines()
    assert [json.loads(record)["prompt"] for record in records] == ["a", "b"]
    result = run("generate", "--lines", input="a\n\nb\n")
    assert result.exit_code == 2
    assert "line 2" in result.stderr


def test_several_texts_come_one_after_another_though_they_are_made_together(run, fake):
    fake.answers = ["first", "2nd\n", "the third"]
    assert run("generate", "Hello", "-n", "3").stdout == "first\n---\n2nd\n---\nthe third\n"


def test_the_prompt_is_shown_dim_to_people_only(run, fake, watched):
    assert run("generate", "Hello", "--echo").stdout == "Hello world.\n"
    assert run("generate", "--ids", "75,76", "--echo").stdout == "HI world.\n"
    watched("stdout", "stderr")
    result = run("generate", "Hello")
    assert result.stdout == "\x1b[2mHello\x1b[0m world.\n"
    assert "7 tokens in 1.50 s, 20.0 tokens/s; prompt 6 tokens in 0.50 s; ended by stop" in result.stderr
    assert run("generate", "Hello", "--no-echo").stdout == " world.\n"


def test_text_cannot_command_a_terminal(run, fake, watched):
    fake.answers = ["a\x1b[2Jb\x07\x9bc\ttab"]
    assert run("generate", "Hello").stdout == "a\x1b[2Jb\x07\x9bc\ttab\n", "a file gets what was generated"
    watched("stdout")
    assert run("generate", "Hello", "--no-echo").stdout == "a␛[2Jb␇\ufffdc\ttab\n"


def test_a_table_of_probabilities(run, fake):
    lines = run("generate", "Hé", "--logprobs", "1", "--prompt-logprobs", "0").stdout.splitlines()
    assert lines[:3] == [" world.", "", "prompt"]
    assert lines[3].split() == ["token", "logprob", "rank", "text"]
    assert lines[4].split() == ["75", "-1.500", "2", "'H'"]
    assert lines[9].split() == ["35", "-0.500", "1", "'", "'", "'", "'", "-0.50"], "the token and the likeliest there"
    assert len(lines) == 4 + 3 + 2 + 7


def test_what_was_written_stays_when_it_is_interrupted(run, fake):
    def interrupt(number):
        if number == 3:
            raise KeyboardInterrupt

    fake.before_chunk = interrupt
    result = run("generate", "Hello")
    assert result.exit_code == 130
    assert result.stdout.startswith(" wo")


def test_a_constraint_arrives(run, fake, tmp_path):
    schema, grammar = tmp_path / "schema.json", tmp_path / "grammar.lark"
    schema.write_text('{"type": "object"}')
    grammar.write_text('start: "a"')
    for options, constraint in (
        (("--json-schema", str(schema)), Constraint.json_schema('{"type": "object"}')),
        (("--regex", "a+"), Constraint.regex("a+")),
        (("--choice", "a cat,a dog"), Constraint.choice(["a cat", "a dog"])),
        (("--choice", "yes, sir", "--choice", "no"), Constraint.choice(["yes, sir", "no"])),
        (("--lark", str(grammar)), Constraint.lark('start: "a"')),
    ):
        assert run("generate", "Hello", *options).exit_code == 0
        assert fake.asked[-1][1].constraint == constraint


def test_a_constraint_that_is_wrong_is_told_before_a_model_is_loaded(run, fake, tmp_path):
    for options, said in (
        (("--regex", "a", "--choice", "a"), "exclude one another"),
        (("--json-schema", str(tmp_path / "none.json")), "cannot be read"),
        (("--choice", "a,,b"), "choice"),
        (("--regex", "a" * 5000), "regex"),
    ):
        result = run("generate", "Hello", *options)
        assert result.exit_code == 2 and said in result.stderr
    assert not fake.asked


def test_the_best_of_many(run):
    every = run(
        "generate", "the cat", "-n", "5", "--max-tokens", "12", "--temperature", "1", "--json", "--logprobs", "0"
    )
    records = [json.loads(line) for line in every.stdout.splitlines()]
    means = {each["text"]: sum(one["logprob"] for one in each["logprobs"]) / len(each["logprobs"]) for each in records}
    best = run("generate", "the cat", "--best-of", "5", "--max-tokens", "12", "--temperature", "1", "--no-echo")
    assert best.stdout.removesuffix("\n") == max(means, key=means.get)
