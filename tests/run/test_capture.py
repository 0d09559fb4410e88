"""Examinations: a row that is computed again and watched has the bits that were served, in every architecture."""

import numpy as np
import pytest
from bits import prompt_of

from openwork import MemoryTooSmall, RequestError, SamplingParams
from openwork.build import build, examiner
from openwork.core.event import Token
from openwork.core.request import Request
from openwork.core.settings import LoadSettings, ScheduleSettings
from openwork.core.stamp import num_points
from openwork.ops.cpu import available
from openwork.ops.paged import PagedKV
from openwork.testing.checkpoint import ARCHITECTURES, write_checkpoint

ISAS = ("reference", *available())
KINDS = (("float32", "float32"), ("bfloat16", "bfloat16"), ("int8", "int8"))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: write_checkpoint(root / name, name, seed=5, eos_token_id=None) for name in ARCHITECTURES}


def settings(isa, kinds, monkeypatch):
    if isa != "reference":
        monkeypatch.setenv("OPENWORK_ISA", isa)
    backend = "reference" if isa == "reference" else "cpu"
    return LoadSettings(dtype=kinds[0], kv_dtype=kinds[1], backend=backend, threads=2, kv_cache_bytes=2**24)


def served(directory, load, prompts, **how):
    """What an engine gives for some prompts, in one batch of small chunks: tokens, hashes and stamps of each."""
    built = build(directory, load, ScheduleSettings(max_step_tokens=19, max_running=4), hashes=True, stamp_every=1)
    params = SamplingParams(max_tokens=9, **how)
    streams = [built.engine.submit(Request(tuple(each), params, built.limits)) for each in prompts]
    built.engine.drain()
    found = []
    for stream in streams:
        choices = [event.choice for event in stream.take() if isinstance(event, Token)]
        found.append(([c.token for c in choices], [c.row_hash for c in choices], [c.stamp for c in choices]))
    built.engine.close()
    return found


@pytest.mark.parametrize("kinds", KINDS, ids=lambda kinds: kinds[0])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_seen_has_the_bits_that_were_served(architecture, isa, kinds, checkpoints, monkeypatch):
    directory, load = checkpoints[architecture], settings(isa, kinds, monkeypatch)
    prompts = [prompt_of(270 if isa == ISAS[-1] else 41, 1), prompt_of(23, 2), prompt_of(7, 3)]
    examines = examiner(directory, load)
    for prompt, (tokens, hashes, stamps) in zip(prompts, served(directory, load, prompts, temperature=0), strict=True):
        examination = examines.examine([*prompt, *tokens])
        drawn = range(len(prompt) - 1, len(prompt) - 1 + len(tokens))
        rows = {at: (row.copy(), row_hash) for at, row, row_hash in examination.rows(len(prompt) - 1, drawn)}
        assert [rows[at][1] for at in drawn] == hashes  # prefilled again, whole
        assert [examination.stamps[at] for at in drawn] == stamps
        assert len(set(stamps[0])) == len(stamps[0]) == num_points(examination.spec.num_layers)
        for i in (0, 4, 8):
            position = len(prompt) - 1 + i
            row = examination.row(position)
            assert row.logits.row_hash == hashes[i]  # decoded again, watched
            assert examination.stamp(position) == (stamps[i], hashes[i])
            assert row.logits.row.tobytes() == rows[position][0].tobytes()
            assert row.logits.top_ids[0] == tokens[i]
            check_row(examination, row, kinds[1])
        again = examination.row(len(prompt) - 1, layers=[1], heads=[3, 0])  # and the cache is as it was
        assert again.logits.row_hash == hashes[0]
        assert examination.disagreement(len(prompt) + 4) is None  # of whole layers with single operations


def check_row(examination, row, kv_dtype):
    """What hangs together in a row."""
    spec = examination.spec
    heads, size = spec.num_heads, spec.head_dim
    assert row.layers == tuple(range(spec.num_layers)) and row.heads == tuple(range(heads))
    assert row.q.shape == row.q_before.shape == row.mixed.shape == (spec.num_layers, heads, size)
    assert row.k.shape == row.k_before.shape == row.v.shape == (spec.num_layers, spec.num_kv_heads, size)
    assert row.attention.shape == (spec.num_layers, heads, row.position + 1)
    assert row.residual.shape == (spec.num_layers + 1, spec.hidden_size)
    assert np.abs(row.attention.sum(axis=-1) - 1).max() < 1e-5
    close = {"float32": 1e-5, "bfloat16": 0.01, "int8": 0.03}[kv_dtype]
    for layer in range(spec.num_layers):
        window = spec.windows[layer]
        for head in range(heads):
            weights = row.attention[layer, head]
            if window is not None:
                assert not weights[: max(0, row.position - window + 1)].any()
            values = examination.values(layer, head)[: row.position + 1]
            assert np.abs(weights @ values - row.mixed[layer, head]).max() < close * np.abs(values).max()
            key, own = examination.keys(layer, head)[row.position], row.k[layer, head * spec.num_kv_heads // heads]
            assert np.abs(key - own).max() <= close * np.abs(own).max()
    if spec.rope is None:
        assert np.array_equal(row.q, row.q_before) and np.array_equal(row.k, row.k_before)
    else:
        assert not np.array_equal(row.q, row.q_before)


def test_a_part_of_a_row_is_that_part_of_the_whole(checkpoints, monkeypatch):
    load = settings(ISAS[-1], KINDS[0], monkeypatch)
    examination = examiner(checkpoints["Qwen3ForCausalLM"], load).examine(prompt_of(40, 1))
    whole, part = examination.row(30), examination.row(30, layers=[2, 0], heads=[3, 1])
    for name in ("q", "q_before", "mixed", "attention"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[[2, 0]][:, [3, 1]])
    for name in ("k", "k_before", "v"):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[[2, 0]])
    assert np.array_equal(part.residual, whole.residual)
    none = examination.row(30, layers=[])
    assert none.attention.shape == (0, 4, 31) and none.logits.row_hash == whole.logits.row_hash


def test_the_lens_ends_where_the_model_does(checkpoints, monkeypatch):
    load = settings(ISAS[-1], KINDS[0], monkeypatch)
    for architecture in ("Gemma2ForCausalLM", "GPT2LMHeadModel"):
        examination = examiner(checkpoints[architecture], load).examine(prompt_of(40, 1))
        row = examination.row(17, lens=4, top=4)
        assert row.lens.ids.shape == row.lens.logits.shape == (4, 4)
        assert row.lens.ids[-1].tolist() == row.logits.top_ids.tolist()
        assert row.lens.logits[-1].tolist() == row.logits.top_logits.tolist()
        assert row.lens.logsumexp[-1] == row.logits.logsumexp
        assert len({tuple(ids) for ids in row.lens.ids.tolist()}) > 1
        several = examination.lens(16, 19, 4)
        assert [len(each.ids) for each in several] == [4, 4, 4]
        assert several[1].ids.tolist() == row.lens.ids.tolist() and (several[1].logits == row.lens.logits).all()


def test_what_is_said_of_the_logits(checkpoints, monkeypatch):
    load = settings(ISAS[-1], KINDS[0], monkeypatch)
    logits = examiner(checkpoints["LlamaForCausalLM"], load).examine(prompt_of(12, 1)).row(11, layers=[], top=3).logits
    p = np.exp(logits.row.astype(np.float64) - logits.logsumexp)
    order = np.argsort(-logits.row, kind="stable")
    assert logits.top_ids.tolist() == order[:3].tolist()
    assert logits.margin == pytest.approx(float(logits.row[order[0]] - logits.row[order[1]]))
    assert p.sum() == pytest.approx(1) and logits.entropy == pytest.approx(-(p * np.log(p)).sum())


def test_what_cannot_be_examined_is_refused(checkpoints, monkeypatch):
    examines = examiner(checkpoints["LlamaForCausalLM"], settings(ISAS[-1], KINDS[0], monkeypatch))
    for tokens in ([], [5] * 513, [5, 259], [-1]):
        with pytest.raises(RequestError, match="tokens"):
            examines.examine(tokens)
    needed = examines.num_bytes(40)
    with pytest.raises(MemoryTooSmall, match=f"{needed:,} bytes"):
        examines.examine([5] * 40, max_bytes=needed - 1)
    examination = examines.examine([5] * 40, max_bytes=needed)
    for wrong in ({"layers": [3]}, {"heads": [-1]}, {"heads": [1.5]}):
        with pytest.raises(RequestError, match=next(iter(wrong))):
            examination.row(3, **wrong)
    for ask in (lambda: examination.row(40), lambda: examination.keys(3, 0), lambda: examination.values(0, 4)):
        with pytest.raises(RequestError):
            ask()
    for first, last in ((-1, 3), (3, 41), (5, 5)):
        with pytest.raises(RequestError):
            examination.lens(first, last, 2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("head_dim", "block_size"), [(16, 16), (20, 32), (64, 16), (128, 48)])
def test_a_line_of_the_cache_is_what_its_slots_hold(dtype, head_dim, block_size):
    rng, count = np.random.default_rng(0), 3 * block_size + 5
    kv, table = PagedKV.empty(2, 6, 3, head_dim, block_size, dtype), np.array([4, 1, 5, 0], np.int32)
    at = np.arange(count)
    k, v = (rng.standard_normal((count, 3, head_dim), dtype=np.float32) for _ in range(2))
    kv.put(1, table[at // block_size], at % block_size, k, v)
    k, v = kv.take(1, table[at // block_size], at % block_size)
    for head in range(3):
        assert np.array_equal(kv.key_line(1, head, table, count), k[:, head])
        assert np.array_equal(kv.value_line(1, head, table, count), v[:, head])
