"""openwork choose and openwork search on the embedded model: what they print, and what they refuse."""

import json
import math

import pytest

QUESTION = ("choose", "one day, tim found a ", "--at-once", "1")
OPTIONS = "big box, big dog,red ball,little bird,shiny rock,old key"


def test_the_winner_comes_first_and_then_the_table(run):
    lines = run(*QUESTION, "--options", OPTIONS).stdout.splitlines()
    assert lines[:3] == ["big box", "", "option           logprob  probability"]
    assert lines[3].startswith("'big box'") and " to " in lines[3]
    assert sum("<" in line for line in lines) == 2, "two were not needed"


def test_json_holds_all_that_is_certain(run, tmp_path):
    file = tmp_path / "options.txt"
    file.write_text("big box\nbig dog\r\nred ball\n")
    record = json.loads(run(*QUESTION, "--options-file", str(file), "--json", "--score-all").stdout)
    assert record["text"] == "big box" and record["proved"] is True and record["gap"] == 0
    assert record["nodes"] == record["num_nodes"] and record["elapsed_s"] > 0
    assert [option["text"] for option in record["options"]] == ["big box", "big dog", "red ball"]
    assert math.fsum(option["probability_low"] for option in record["options"]) == pytest.approx(1)
    assert record["logprob"] == record["upper_bound"] == record["options"][0]["logprob"]


def test_a_budget_that_is_too_small_says_so(run, watched):
    watched("stderr")
    result = run(*QUESTION, "--options", OPTIONS, "--nodes", "1")
    assert result.stdout.startswith("(nothing yet)\n")
    assert "not proved: nodes used up" in result.stderr
    record = json.loads(run(*QUESTION, "--options", OPTIONS, "--nodes", "1", "--json").stdout)
    assert record["text"] is None and record["logprob"] is None and record["ended_by"] == "nodes"


def test_the_tree_shows_what_was_looked_at(run):
    text = run(*QUESTION, "--options", OPTIONS, "--show").stdout
    tree = text[text.index("(prompt)") :].splitlines()
    assert tree[1].startswith("├─ ' big'") and tree[2].startswith("│  ├─ ' box'") and tree[2].endswith("found")
    assert tree[-1].startswith("└─ ' old'") and tree[-1].endswith("at most, not looked at")
    ended = run("choose", "the dog was ", "--options", "big,big and red", "--show").stdout
    assert "(end)" in ended


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "give either --options or --options-file"),
        (("--options", "a", "--options-file", "x"), "give either"),
        (("--options-file", "not-there.txt"), "cannot be read"),
        (("--options", "a,a"), "twice"),
        (("--options", "a,a b", "--no-end"), "beginning of another"),
        (("--options", "a", "--at-once", "0"), "at_once: must be"),
    ],
)
def test_questions_that_cannot_be_answered(run, arguments, problem):
    result = run("choose", "x ", *arguments)
    assert result.exit_code == 2 and problem in result.stderr and result.stdout == ""


def test_an_empty_line_is_no_option(run, tmp_path):
    file = tmp_path / "options.txt"
    file.write_text("a\n\nb\n")
    assert "line 2" in run("choose", "x ", "--options-file", str(file)).stderr


SEARCH = ("search", "the cat", "--max-tokens", "4")


def test_a_search_prints_the_best_with_their_scores(run, watched):
    lines = run(*SEARCH, "--min-tokens", "4", "-n", "2").stdout.splitlines()
    assert len(lines) == 2 and all("the cat" in line for line in lines)
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores, reverse=True)
    watched("stderr")
    assert "proved: nothing scores higher" in run(*SEARCH, "--min-tokens", "4").stderr
    assert "at most" in run(*SEARCH, "--min-tokens", "4", "--nodes", "4").stderr
    assert "a beam proves nothing" in run(*SEARCH, "--beam", "2").stderr


def test_search_as_json(run):
    record = json.loads(run(*SEARCH, "--min-tokens", "4", "-n", "3", "--json").stdout)
    assert record["proved"] is True and record["upper_bound"] == record["logprob"] == record["score"]
    assert len(record["sequences"]) == 3 and record["sequences"][0]["text"] == record["text"]
    assert math.fsum(record["sequences"][0]["token_logprobs"]) == pytest.approx(record["logprob"])
    beam = json.loads(run(*SEARCH, "--beam", "3", "--early-stopping", "never", "--json").stdout)
    assert beam["proved"] is False and beam["upper_bound"] is None and beam["ended_by"] == "complete"


def test_penalties_from_the_command_line(run):
    arguments = (*SEARCH, "--min-tokens", "4", "--json")
    plain = json.loads(run(*arguments).stdout)
    covered = json.loads(run(*arguments, "--coverage", "30", "--phrase", " happy").stdout)
    assert " happy" in covered["text"] and " happy" not in plain["text"]
    by_length = json.loads(run(*arguments, "--length", "power", "--alpha", "1").stdout)
    assert by_length["score"] == pytest.approx(by_length["logprob"] / 4)


def test_the_tree_of_a_search(run):
    text = run(*SEARCH, "--min-tokens", "4", "--show").stdout
    assert "(prompt)" in text and "found" in text and "at most, not looked at" in text and " more" in text


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ((), "must be given for a best-first search"),
        (("--max-tokens", "3", "--beam", "0"), "width: must be"),
        (("--max-tokens", "3", "--beam", "2", "-n", "3"), "n: is 3, above the beam's width 2"),
        (("--max-tokens", "3", "--min-tokens", "1", "--coverage", "2"), "goes together with phrases"),
    ],
)
def test_searches_that_cannot_be_carried_out(run, arguments, problem):
    result = run("search", "x ", *arguments)
    assert result.exit_code == 2 and problem in result.stderr and result.stdout == ""


def test_the_likeliest_text_of_a_form(run):
    result = run("search", "tom has ", "--regex", "(the|a) (big|little) (cat|dog|bird)", "--json")
    found = json.loads(result.stdout)
    assert found["proved"] and found["gap"] == 0 and found["text"].startswith(("the ", "a "))
    refused = run("search", "tom has ", "--regex", "a+", "--ignore-eos")
    assert refused.exit_code == 2 and "constraint" in refused.stderr
