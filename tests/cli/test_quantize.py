"""openwork quantize: makes the file, says what it costs, and refuses before it does anything heavy."""

import json
import os
import warnings

import pytest

from openwork.load import assemble
from openwork.run import memory

STORY = (
    "once upon a time, there was a little girl named lily. she loved to play outside in the park with her friends. " * 4
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENWORK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "packed"


@pytest.fixture
def story(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text(STORY)
    return path


def record(result):
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int8-channel", "int4"])
def test_the_file_and_the_figures(run, checkpoint, story, home, dtype):
    first = record(run("quantize", "--model", checkpoint, "--dtype", dtype, "--text", str(story), "--json"))
    assert first["dtype"] == dtype and first["kv_dtype"] == "bfloat16" and not first["was_there"]
    assert os.path.getsize(first["file"]) > first["weight_bytes"] > first["read_bytes_per_token"] > 0
    assert [os.path.dirname(first["file"])] == [str(home)]
    quality = first["quality"]
    assert 0 < quality["kl_mean"] < quality["kl_p99"] <= quality["kl_max"] and 0 <= quality["same_top"] <= 1
    assert quality["tokens"] == len(STORY)
    second = record(run("quantize", "--model", checkpoint, "--dtype", dtype, "--text", str(story), "--json"))
    assert second["was_there"] and second["quality"] == quality


def test_the_embedded_model_keeps_its_quality(run, story):
    """On a few of its own words; the bounds for a long text are in docs/quantization.md."""
    for dtype, most in (("bfloat16", 1e-4), ("int8", 2e-3), ("int4", 5e-2)):
        found = record(run("quantize", "--dtype", dtype, "--text", str(story), "--json"))
        assert 0 < found["quality"]["kl_mean"] <= most


def test_keys_and_values_count_too(run, checkpoint, story):
    options = ["quantize", "--model", checkpoint, "--dtype", "float32", "--text", str(story), "--json"]
    exact = record(run(*options))
    assert exact["kv_dtype"] == "float32" and exact["quality"]["kl_max"] == 0
    assert record(run(*options, "--kv-dtype", "int8"))["quality"]["kl_mean"] > 0


def test_a_part_of_the_text_is_enough(run, checkpoint, story):
    found = record(run("quantize", "--model", checkpoint, "--text", str(story), "--max-tokens", "50", "--json"))
    assert found["quality"]["tokens"] == 50


def test_without_a_text_the_file_is_made(run, checkpoint, home):
    result = run("quantize", "--model", checkpoint)
    assert result.exit_code == 0 and "not measured" in result.stdout and "in int8" in result.stdout
    assert len([*home.glob("*-int8-*.packed")]) == 1


def test_the_page_is_for_people(run, checkpoint, story):
    text = run("quantize", "--model", checkpoint, "--dtype", "int4", "--text", str(story)).stdout
    assert f"{checkpoint} in int4\n" in text
    for word in ("weights", "KL divergence", "perplexity", "same likeliest token"):
        assert word in text


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe", "not UTF-8 text at byte 0"), (b"", "0 tokens"), (None, "cannot be read")],
)
def test_a_text_that_cannot_be_used(run, checkpoint, tmp_path, home, content, message):
    path = tmp_path / "text"
    if content is not None:
        path.write_bytes(content)
    result = run("quantize", "--model", checkpoint, "--text", str(path))
    assert result.exit_code == 2 and message in result.stderr
    assert not home.exists()


def test_a_wrong_question(run, checkpoint, tmp_path):
    assert run("quantize", "--max-tokens", "1").exit_code == 2
    assert run("quantize", "--dtype", "int3").exit_code == 2
    assert run("quantize", "--model", str(tmp_path / "nowhere")).exit_code == 1


@pytest.mark.filterwarnings("always:The packed weights could not be kept")
def test_no_file_is_a_failure(run, checkpoint, home, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command puts its own there
    home.parent.mkdir(parents=True)
    home.write_bytes(b"")
    result = run("quantize", "--model", checkpoint)
    assert result.exit_code == 1 and result.stderr.startswith("warning: The packed weights could not be kept in ")
    assert result.stderr.endswith("hint: The warning above says why.\n")


def test_the_float32_model_must_fit_beside_it(run, checkpoint, story, monkeypatch):
    needed = assemble.inspect(assemble.Path(checkpoint), "float32").packed_bytes
    monkeypatch.setattr(memory, "available_bytes", lambda: needed)
    result = run("quantize", "--model", checkpoint, "--text", str(story))
    assert result.exit_code == 1 and "in float32 too" in result.stderr
