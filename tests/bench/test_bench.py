"""The benchmark: each figure stands beside a ceiling, what cannot be measured is named, no checkpoint is needed."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from openwork import EngineError
from openwork.bench import limits, work
from openwork.bench.limits import Limits, beside
from openwork.bench.shapes import SHAPES
from openwork.build import build_shape
from openwork.cli.main import app
from openwork.core.settings import LoadSettings, ScheduleSettings
from openwork.load.invent import invent, survey
from openwork.ops.cpu import available
from openwork.ops.reference import Reference
from openwork.testing.checkpoint import _CONFIGS

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not installed")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Ceilings measured over so little that the figures mean nothing, and the tests take no time."""
    monkeypatch.setattr(limits, "READ_BYTES", 1 << 20)
    monkeypatch.setattr(limits, "PEAK_STEPS", 10_000)


@pytest.fixture
def tiny():
    built = build_shape("tiny", SHAPES["tiny"], LoadSettings(threads=2), ScheduleSettings(64, 8))
    yield built
    built.engine.close()


def test_a_share_is_taken_pair_by_pair():
    rates, ceilings = iter([1.0, 4.0, 3.0]), iter([2.0, 4.0, 4.0])
    share = beside(lambda: next(rates), lambda: next(ceilings), 3)
    assert (share.rate, share.limit, share.share) == (3.0, 4.0, 0.75)


def test_ceilings_are_positive_and_bfloat16_is_not_slower_than_float32(tiny):
    summary = Limits(tiny.ops).summary()
    assert all(value > 0 for value in summary.values())
    assert set(summary) == {"read_gb_s", "bf16_gflop_s", "f32_gflop_s"}


def test_work_is_measured_and_leaves_the_engine_idle(tiny):
    machine = Limits(tiny.ops)
    figures = [work.decode(tiny, machine, 3, 40, 2), work.prefill(tiny, machine, 100, 2), work.memory(tiny)]
    assert tiny.engine.is_idle
    for figure in figures[:2]:
        assert figure.tok_s > 0 and figure.limit_tok_s > 0 and figure.share > 0
    assert (figures[0].batch, figures[0].context) == (3, 40)
    assert figures[2].value > tiny.info.weight_bytes


def test_the_first_token_of_a_new_process_is_timed_and_a_failure_is_no_figure(tmp_path):
    assert 0 < work.first_token(None, "bfloat16", runs=1).value < 60
    with pytest.raises(EngineError, match="there is no such directory"):
        work.first_token(str(tmp_path / "nothing"), "bfloat16", runs=1)


@pytest.mark.parametrize("name", SHAPES)
def test_the_shapes_are_those_of_real_models(name):
    spec, packed_bytes = survey(SHAPES[name], "bfloat16")
    real = {"qwen3-0.6b": 596e6, "llama-3.2-1b": 1236e6, "llama-3.1-8b": 8030e6, "tiny": 0.65e6}
    assert spec.num_parameters == pytest.approx(real[name], rel=0.02)
    assert packed_bytes == pytest.approx(2 * spec.num_parameters, rel=0.02)


@pytest.mark.parametrize("architecture", _CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_noise_in_any_shape_gives_finite_logits(architecture, dtype):
    loaded = invent({"architectures": [architecture], **_CONFIGS[architecture]}, Reference(), dtype)
    hidden = np.random.default_rng(0).standard_normal((2, loaded.spec.hidden_size), np.float32)
    assert np.isfinite(loaded.model.logits(hidden)).all()
    assert loaded.model.logits(hidden).std() > 0


def run(*args):
    return CliRunner().invoke(app, ["bench", *args])


def test_the_command_prints_json_with_limits_and_results():
    done = run(
        "--shape", "tiny", "--batch", "1,2", "--context", "16,64,5000", "--prefill", "32", "--steps", "1", "--json"
    )
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["limits"]["read_gb_s"] > 0
    named = [(result["name"], result.get("batch"), result.get("context")) for result in record["results"]]
    assert named == [("memory", 1, 0), ("prefill", 1, 32), ("decode", 1, 16), ("decode", 2, 16), ("decode", 1, 64)]
    assert all(result["share"] > 0 for result in record["results"][1:])
    assert len(record["skipped"]) == 1 and "5000" in record["skipped"][0]


def test_the_command_prints_lines_for_people():
    done = run("--shape", "tiny", "--batch", "2", "--prefill", "32", "--steps", "1")
    assert done.exit_code == 0, done.output
    assert "ceiling" in done.stdout and "GB/s" in done.stdout and "%" in done.stdout


@pytest.mark.parametrize(
    "args",
    [("--shape", "huge"), ("--shape", "tiny", "--model", "x"), ("--batch", "0"), ("--batch", "a"), ("--context", "")],
)
def test_wrong_wishes_are_refused(args):
    assert run(*args).exit_code == 2
