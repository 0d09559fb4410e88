"""``decoding`` over HTTP, recorded: openwork replay derives each search again, bit for bit, from the file."""

import json

import pytest
from serve.api import MODEL, Api
from typer.testing import CliRunner

from openwork.build import build
from openwork.cli.main import app
from openwork.core.settings import LoadSettings, RecordSettings, ScheduleSettings
from openwork.engine.face import Facts
from openwork.testing.local import LocalEngine

FOUR = {"min_tokens": 4, "max_tokens": 4}
PENALTY = {"repetition": 1.0, "coverage": 2.0, "phrases": ["dog"]}
ASKED = (
    {"decoding": {"strategy": "choose", "options": ["big box", "big dog", "red ball", "little bird"]}},
    {"decoding": {"strategy": "beam", "width": 4}, "max_tokens": 8, "n": 2},
    {"decoding": {"strategy": "beam", "width": 4, "groups": 2, "diversity": 0.5}, "max_tokens": 8},
    {"decoding": {"strategy": "best_first"}, **FOUR},
    {"decoding": {"strategy": "best_first", "penalty": PENALTY}, **FOUR},
    {
        "decoding": {"strategy": "best_first"},
        "structured_outputs": {"regex": "(big|little|red) (box|dog|ball)"},
        "max_tokens": 12,
    },
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The directory of a recording, and the answers by id."""
    directory = tmp_path_factory.mktemp("recording")
    record = RecordSettings(directory=str(directory), keeps_prompts=True)
    built = build(None, LoadSettings(kv_cache_bytes=32 << 20, threads=1), ScheduleSettings(), record=record)
    facts = Facts(MODEL, built.limits, built.generation.as_params(), built.info.directory, built.info.contract_id)
    with Api(LocalEngine(built.engine, facts)) as api:
        answers = [api.complete(prompt="one day, tim found a ", **asked).json() for asked in ASKED]
    return directory, answers


def replayed(directory, id, *more):
    return CliRunner().invoke(app, ["replay", id, "--record", str(directory), *more], env={"COLUMNS": "200"})


def test_every_search_of_a_server_is_equal(recorded):
    directory, answers = recorded
    for answer in answers:
        done = replayed(directory, answer["id"], "--json")
        assert done.exit_code == 0, done.stderr
        verdict = json.loads(done.stdout)
        assert verdict["equal"] and verdict["unhashed"] == 0 and verdict["first_difference"] is None
        assert verdict["rows"] >= answer["search"][0]["nodes"] >= 1
        assert verdict["tokens"] >= 1


def test_it_is_told_in_words_and_by_token(recorded):
    directory, answers = recorded
    done = replayed(directory, answers[1]["id"])
    assert done.exit_code == 0 and "rows that the search read" in done.stdout
    done = replayed(directory, answers[1]["id"], "--step", "7")
    assert done.exit_code == 0 and "1 row by which token 7 of the best answer was chosen" in done.stdout
    done = replayed(directory, answers[1]["id"], "--step", "8")
    assert done.exit_code == 3 and "has no token 8" in done.stderr
