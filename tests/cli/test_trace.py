"""openwork trace ls and show: a recording at the command line."""

import json

import pytest

from openwork import LLM, SamplingParams


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    place = tmp_path_factory.mktemp("recorded")
    with LLM(record=place) as llm:
        params = SamplingParams(max_tokens=6, temperature=0, n=2)
        (output,) = llm.generate(["once upon a time"], params)
    return place, output


def test_ls_lists_requests(run, recorded):
    place, output = recorded
    done = run("trace", "ls", str(place))
    assert done.exit_code == 0 and done.stdout.splitlines()[0].split()[0] == "id"
    assert done.stdout.splitlines()[1].startswith("0 ") and "6+6" in done.stdout
    (request,) = json.loads(run("trace", "ls", str(place), "--json").stdout)["requests"]
    assert request["id"] == "0" and request["output_tokens"] == [6, 6] and request["is_whole"]
    assert request["prompt_tokens"] == len(output.prompt_ids)


def test_show_opens_one(run, recorded):
    place, output = recorded
    done = run("trace", "show", str(place), "0")
    assert done.exit_code == 0 and "sequence 1: 6 tokens, ended by length" in done.stdout
    shown = json.loads(run("trace", "show", str(place), "0", "--json").stdout)
    assert shown["prompt"] == list(output.prompt_ids)
    assert [each["tokens"] for each in shown["sequences"]] == [list(each.token_ids) for each in output.completions]
    assert all(len(row) == 16 for each in shown["sequences"] for row in each["row_hashes"])


def test_what_is_not_there_is_one_line(run, recorded, tmp_path):
    place, _ = recorded
    for arguments in (("ls", str(tmp_path)), ("show", str(place), "7"), ("ls", str(tmp_path / "no"))):
        done = run("trace", *arguments)
        assert done.exit_code == 1 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_damage_is_told_and_the_rest_is_shown(run, recorded, tmp_path):
    place, _ = recorded
    (path,) = place.glob("*.flight")
    (tmp_path / path.name).write_bytes(path.read_bytes()[:-5])
    done = run("trace", "ls", str(tmp_path))
    assert done.exit_code == 0 and done.stdout.splitlines()[1].startswith("0 ")
    assert "it ends in the middle of a line" in done.stderr


def test_generate_records_where_it_is_told_to(run, tmp_path):
    done = run("generate", "once", "--max-tokens", "3", "--record", str(tmp_path), "--no-record-prompts")
    assert done.exit_code == 0
    (request,) = json.loads(run("trace", "ls", str(tmp_path), "--json").stdout)["requests"]
    assert request["has_tokens"] is False and request["output_tokens"] == [3]
    assert run("generate", "once", "--record", str(tmp_path), "--record-bytes", "5").exit_code == 2
