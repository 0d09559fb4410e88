"""What a recording can be asked on the command line."""

import json
from pathlib import Path

import pytest
from taped import drawn_to


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    found = tmp_path_factory.mktemp("recording")
    drawn_to(found, 4, keeps_prompts=True)
    return str(found)


def test_a_schedule_is_checked(run, directory):
    done = run("trace", "check", directory)
    assert done.exit_code == 0 and "all equal" in done.stdout
    document = json.loads(run("trace", "check", directory, "--json").stdout)
    assert document["equal"] and document["steps"] > 10 and not document["differences"] and not document["unread"]


def test_a_schedule_that_differs_is_told_from_one_that_cannot_be_compared(run, directory, tmp_path, monkeypatch):
    (path,) = Path(directory).glob("*.flight")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / path.name).write_bytes(data)
    done = run("trace", "check", str(tmp_path))
    assert done.exit_code == 3 and "differ" not in done.stdout
    assert "1 part cannot be read" in done.stderr
    document = json.loads(run("trace", "check", str(tmp_path), "--json").stdout)
    assert not document["equal"] and not document["differences"] and document["damage"]
    monkeypatch.setattr("openwork.trace.replay.schedule.Rerun._compare", lambda rerun, recorded: ("events", 1, 2))
    done = run("trace", "check", directory)
    assert done.exit_code == 1 and "a difference" in done.stdout


def test_what_if_is_answered_beside_what_was_measured(run, directory):
    done = run("trace", "what-if", directory, "--kv-blocks", "77", "--next-token-ms", "50", "--stretch", "none")
    assert done.exit_code == 0, done.stderr
    assert "-> 77" in done.stdout and "-> 0.05" in done.stdout
    assert "measured  simulated" in done.stdout and "simulated, not measured" in done.stdout
    document = json.loads(run("trace", "what-if", directory, "--policy", "priority", "--fair", "--json").stdout)
    assert document["asked"]["order"] == "priority" and document["asked"]["is_fair"]
    assert {each["name"] for each in document["figures"]} >= {"first_token_p99_s", "gap_p99_s", "hit_rate"}
    assert all(set(each) >= {"interval", "is_good"} for each in document["figures"])


def test_values_are_swept_side_by_side(run, directory):
    words = ("--sweep", "kv-blocks=0.5x,1x", "--sweep", "stretch=1.5,none", "--tenant", "a:weight=2,max_running=3")
    done = run("trace", "what-if", directory, *words, "--clients", "answers", "--disturbances", "none")
    assert done.exit_code == 0, done.stderr
    assert all(
        f"kv-blocks {one}, stretch {other}" in done.stdout for one in ("0.5x", "1x") for other in ("1.5", "none")
    )
    document = json.loads(run("trace", "what-if", directory, *words, "--json").stdout)
    assert document["kind"] == "openwork.sweep" and len(document["rows"]) == 4
    twice = run("trace", "what-if", directory, "--sweep", "step-rows=1", "--max-running", "4")
    assert "cannot be" in twice.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kv-blocks", "few"], "kv-blocks"),
        (["--kv-blocks", "0x"], "kv-blocks"),
        (["--stretch", "-1"], "stretch"),
        (["--next-token-ms", "soon"], "next-token-ms"),
        (["--prefix-cache", "perhaps"], "prefix-cache"),
        (["--max-running", "-2"], "max-running"),
        (["--speculate", "luck"], "speculate"),
        (["--tenant", "chat:wait=2"], "tenant"),
        (["--sweep", "kv-blocks"], "NAME=VALUE"),
        (["--sweep", "colour=red"], "colour"),
        (["--sweep", "policy=loud"], "policy"),
    ],
)
def test_settings_that_cannot_be_are_refused(run, directory, words, said):
    done = run("trace", "what-if", directory, *words)
    assert done.exit_code == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_timeline_is_written(run, directory):
    document = json.loads(run("trace", "timeline", directory, "--first", "5", "--count", "3").stdout)
    assert [step["place"] for step in document["steps"]] == [5, 6, 7]


@pytest.mark.parametrize("form", ["json", "perfetto", "mooncake"])
def test_exports_go_to_standard_output_or_a_file(run, directory, form, tmp_path):
    printed = run("trace", "export", directory, "--format", form).stdout
    path = tmp_path / "out"
    assert run("trace", "export", directory, "--format", form, "-o", str(path)).exit_code == 0
    assert path.read_text() == printed and printed
    done = run("trace", "export", directory, "--format", form, "-o", str(tmp_path / "none" / "out"))
    assert done.exit_code == 2 and "cannot be written" in done.stderr


def test_a_report_is_written(run, directory):
    done = run("report", directory, "--no-what-if")
    assert done.exit_code == 0 and "Every step was replayed" in done.stdout
    assert json.loads(run("report", directory, "--json").stdout)["kind"] == "openwork.report"


@pytest.mark.parametrize(("words", "code"), [(("trace", "check"), 3), (("trace", "export"), 1), (("report",), 1)])
def test_no_recording_is_one_line(run, tmp_path, words, code):
    done = run(*words, str(tmp_path))
    assert done.exit_code == code and "no recording" in done.stderr


@pytest.mark.parametrize("words", [["--first", "-5"], ["--count", "0"], ["--count", "1001"]])
def test_a_timeline_that_cannot_be_is_refused(run, directory, words):
    assert run("trace", "timeline", directory, *words).exit_code == 2


def test_no_subcommand_is_answered_with_help(run):
    done = run("trace")
    assert done.exit_code == 2 and "what-if" in done.stdout and not done.stderr
