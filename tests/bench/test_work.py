"""The parts that measure: ceilings, decoding and prefill through the engine, new processes, checkpoints of noise."""

import numpy as np
import pytest

from openwork import EngineError
from openwork.bench import checkpoint, limits, start, work
from openwork.bench.limits import Limits
from openwork.bench.shapes import SHAPES
from openwork.build import build, build_shape
from openwork.core.settings import LoadSettings, ScheduleSettings
from openwork.load.invent import invent, survey
from openwork.ops.cpu import available
from openwork.ops.reference import Reference
from openwork.testing.checkpoint import _CONFIGS

pytestmark = pytest.mark.skipif(not available(), reason="the native core is not installed")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(limits, "READ_BYTES", 1 << 20)
    monkeypatch.setattr(limits, "PEAK_STEPS", 10_000)


@pytest.fixture
def tiny():
    built = build_shape("tiny", SHAPES["tiny"], LoadSettings(threads=2), ScheduleSettings(64, 8))
    yield built
    built.engine.close()


def test_the_best_ceiling_of_the_run_is_kept(tiny):
    machine = Limits(tiny.ops)
    found = [machine.now(["bfloat16", "float32"]) for _ in range(3)]
    assert set(found[0].dots) == {"bfloat16", "float32"}
    summary = machine.summary()
    assert summary["read_gb_s"] == max(each.read for each in found) / 1e9
    assert summary["bf16_gflop_s"] == max(each.dots["bfloat16"] for each in found) / 1e9
    assert summary["int8_gop_s"] > 0  # what nobody asked for yet is measured for the summary


def test_work_is_measured_and_leaves_the_engine_idle(tiny):
    machine = Limits(tiny.ops)
    figures = [work.decode(tiny, machine, 3, 40, 2), work.prefill(tiny, machine, 100, 2)]
    assert tiny.engine.is_idle
    for figure in figures:
        assert figure.tok_s > 0 and figure.limit_tok_s > 0 and figure.share > 0
    assert (figures[0].batch, figures[0].context) == (3, 40)


def test_the_bytes_of_a_decode_step_grow_with_the_sequences(tiny):
    machine, held = Limits(tiny.ops), work.weights_of(tiny)
    bytes_ = {batch: work.decode(tiny, machine, batch, 40, 1).num_bytes for batch in (1, 2)}
    layers = tiny.spec.num_layers
    # the prompt, its first token, and the token of the step that was in flight when that one came
    assert bytes_[1] - held.read_bytes == pytest.approx(42 * layers * held.kv_bytes)
    assert bytes_[2] - held.read_bytes >= 2 * 42 * layers * held.kv_bytes


def test_the_first_token_of_a_new_process_is_timed_and_a_failure_is_no_figure(tmp_path):
    first, later = start.first_token([], {}, runs=1)
    assert 0 < first < 60 and 0 < later < 60
    with pytest.raises(EngineError, match="there is no such directory"):
        start.first_token(["--model", str(tmp_path / "nothing")], {}, runs=1)


def test_the_peak_of_a_new_process_is_its_own():
    ballast = np.ones(400 << 20, np.uint8)  # of this process, which a child must not inherit
    peak = start.peak_bytes([], {}, 64)
    assert peak is None or 20e6 < peak < ballast.nbytes


@pytest.mark.parametrize("name", SHAPES)
def test_the_shapes_are_those_of_real_models(name):
    spec, packed_bytes = survey(SHAPES[name], "bfloat16")
    real = {"qwen3-0.6b": 596e6, "llama-3.2-1b": 1236e6, "llama-3.1-8b": 8030e6, "tiny": 0.65e6}
    assert spec.num_parameters == pytest.approx(real[name], rel=0.02)
    assert packed_bytes == pytest.approx(2 * spec.num_parameters, rel=0.02)


def test_a_checkpoint_of_noise_is_one_that_loads(tmp_path):
    size = checkpoint.write(tmp_path, SHAPES["tiny"])
    assert size == (tmp_path / "model.safetensors").stat().st_size
    built = build(tmp_path, LoadSettings(backend="reference"), ScheduleSettings(64, 8))
    assert built.spec == survey(SHAPES["tiny"], "bfloat16")[0]
    built.engine.close()


@pytest.mark.parametrize("architecture", _CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_noise_in_any_shape_gives_finite_logits(architecture, dtype):
    loaded = invent({"architectures": [architecture], **_CONFIGS[architecture]}, Reference(), dtype)
    hidden = np.random.default_rng(0).standard_normal((2, loaded.spec.hidden_size), np.float32)
    assert np.isfinite(loaded.model.logits(hidden)).all()
    assert loaded.model.logits(hidden).std() > 0
