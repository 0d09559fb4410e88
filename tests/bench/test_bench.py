"""openwork bench: each figure beside a ceiling, what cannot be measured is named, no checkpoint is needed."""

import json
from typing import get_args

import pytest
from typer.testing import CliRunner

from openwork.bench import limits, plan
from openwork.bench.plan import Plan, carry_out
from openwork.cli.main import app
from openwork.core.errors import MemoryTooSmall, RequestError
from openwork.ops.cpu import available
from openwork.ops.packed import DType

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not installed")
SHORT = ("--shape", "tiny", "--prefill", "32", "--steps", "1")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Ceilings measured over so little that the figures mean nothing, and the tests take no time."""
    monkeypatch.setattr(limits, "READ_BYTES", 1 << 20)
    monkeypatch.setattr(limits, "PEAK_STEPS", 10_000)


def run(*args):
    return CliRunner().invoke(app, ["bench", *args])


@pytest.mark.parametrize("dtype", get_args(DType))
def test_the_command_prints_json_with_limits_and_results(dtype):
    done = run(*SHORT, "--dtype", dtype, "--batch", "1,2", "--context", "16,64,5000", "--json")
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert set(record["limits"]) == {"read_gb_s", "bf16_gflop_s", "f32_gflop_s", "int8_gop_s"}
    assert all(value > 0 for value in record["limits"].values())
    assert set(record["weights"]) == {dtype}
    results = record["results"]
    named = [(each["name"], each["batch"], each["context"]) for each in results]
    assert named == [("prefill", 1, 32), ("decode", 1, 16), ("decode", 2, 16), ("decode", 1, 64)]
    for each in results:
        assert each["dtype"] == dtype
        assert each["tok_s"] > 0 and each["share"] > 0
        assert each["limit_tok_s"] == min(each["memory_tok_s"], each["arithmetic_tok_s"])
        assert each["limit_tok_s"] == each[f"{each['bound']}_tok_s"]
        assert each["num_bytes"] > 0 and each["operations"] > 0
    assert "linear_share" in results[0] and "linear_share" not in results[1]
    assert len(record["skipped"]) == 1 and "5000" in record["skipped"][0]


def test_several_formats_run_one_after_the_other():
    done = run(*SHORT, "--dtype", "bfloat16,float32,bfloat16", "--batch", "1", "--json")
    record = json.loads(done.stdout)
    assert [each["dtype"] for each in record["results"]] == ["bfloat16"] * 2 + ["float32"] * 2
    sizes = {dtype: each["weight_bytes"] for dtype, each in record["weights"].items()}
    assert sizes["float32"] == pytest.approx(2 * sizes["bfloat16"], rel=0.01)  # norms stay float32


def test_a_format_too_large_for_this_machine_is_left_out_and_the_others_are_measured(monkeypatch):
    build_shape = plan.build_shape

    def refuse(name, config, settings, schedule):
        if settings.dtype == "float32":
            raise MemoryTooSmall("the weights need too much")
        return build_shape(name, config, settings, schedule)

    monkeypatch.setattr(plan, "build_shape", refuse)
    record = json.loads(run(*SHORT, "--dtype", "float32,bfloat16", "--batch", "1", "--json").stdout)
    assert "float32" in record["skipped"][0] and {each["dtype"] for each in record["results"]} == {"bfloat16"}
    assert run(*SHORT, "--dtype", "float32").exit_code != 0


def test_the_command_prints_lines_for_people():
    done = run(*SHORT, "--batch", "2")
    assert done.exit_code == 0, done.output
    assert "of memory" in done.stdout or "of arithmetic" in done.stdout
    assert "GB/s" in done.stdout and "by the matrices alone" in done.stdout


def test_a_window_shorter_than_the_usual_prompt_gets_half_of_it():
    found = carry_out(Plan(batches=(1,), contexts=(16,), steps=1, starts=False))  # the embedded model: 512 tokens
    figures = [value for kind, value in found if kind == "figure"]
    assert [(each.name, each.context) for each in figures] == [("prefill", 256), ("decode", 16)]


def test_a_shape_is_started_from_a_checkpoint_that_is_gone_afterwards(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("openwork.bench.start.RUNS", 1)
    found = list(carry_out(Plan(shape="tiny", batches=(1,), prefills=(16,), contexts=(16,), steps=1)))
    first, memory = (value for kind, value in found if kind == "figure" and value.name not in ("decode", "prefill"))
    assert 0 < first.seconds < 60 and first.first_seconds > 0
    assert memory.peak_bytes > memory.weight_bytes
    assert "beside the weights" in memory.line() and "very first" in first.line()
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_cannot_be_written_is_named(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plan.checkpoint, "write", full)
    found = list(carry_out(Plan(shape="tiny", batches=(1,), prefills=(16,), contexts=(16,), steps=1)))
    assert [value for kind, value in found if kind == "skipped" and "No space left" in value]


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (("--shape", "huge"), "qwen3-0.6b"),
        (("--shape", "tiny", "--model", "x"), "exclude"),
        (("--batch", "0"), "from 1 to"),
        (("--batch", "a"), "from 1 to"),
        (("--context", ""), "from 1 to"),
        (("--dtype", "int3"), "int4"),
        (("--dtype", "int8,,int4"), "bfloat16"),
    ],
)
def test_wrong_wishes_are_refused(args, part):
    done = run(*args)
    assert done.exit_code == 2
    assert part in " ".join(done.output.split())


def test_a_plan_refuses_what_contradicts_itself():
    with pytest.raises(RequestError):
        Plan(shape="tiny", model="x")
