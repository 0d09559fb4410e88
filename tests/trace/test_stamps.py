"""Stamps: a fault planted where a request was served is named by a replay elsewhere, by layer and operation."""

import json
import shutil
import struct
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bits import prompt_of

from openwork import LLM, SamplingParams
from openwork.build import examiner, wire
from openwork.core.errors import RequestError
from openwork.core.event import Token
from openwork.core.request import Request
from openwork.core.settings import AdmissionSettings, LoadSettings, RecordSettings, ScheduleSettings
from openwork.core.stamp import ATTEND, EMBED, FEED_FORWARD, HEAD, OUTPUT, PROJECT, num_points
from openwork.core.terms import Tenants
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.models.decoder import Decoder
from openwork.run.stamping import AT_ONCE
from openwork.testing.checkpoint import ARCHITECTURES, write_checkpoint
from openwork.trace.recording import Recording
from openwork.trace.replay.bits import replay
from openwork.wiring import make_recorder

CONTEXT = {"threads": 1, "context": 160, "dtype": "float32"}
PROMPT = tuple(prompt_of(37, 4))
LAYERS = 3
# What of a tensor's name says which operation computes with it.
PARTS = {
    "q_proj": PROJECT,
    "k_proj": PROJECT,
    "v_proj": PROJECT,
    "qkv_proj": PROJECT,
    "c_attn": PROJECT,
    "query_key_value": PROJECT,
    "q_norm": PROJECT,
    "k_norm": PROJECT,
    "ln_1": PROJECT,
    "input_layernorm": PROJECT,
    "o_proj": OUTPUT,
    "attn.c_proj": OUTPUT,
    "attention.dense": OUTPUT,
    "gate_proj": FEED_FORWARD,
    "up_proj": FEED_FORWARD,
    "gate_up_proj": FEED_FORWARD,
    "down_proj": FEED_FORWARD,
    "mlp": FEED_FORWARD,
    "ln_2": FEED_FORWARD,
    "feedforward_layernorm": FEED_FORWARD,
    "post_attention_layernorm": FEED_FORWARD,
}


def part_of(architecture, name):
    """The operation of a layer that a tensor belongs to."""
    if architecture == "Gemma2ForCausalLM" and "post_attention_layernorm" in name:
        return OUTPUT
    return next(op for part, op in PARTS.items() if part in name)


def with_a_bit_changed(directory, target, name, row=0):
    """A copy of a checkpoint with one bit of one number of a tensor changed."""
    shutil.copytree(directory, target)
    path = next(Path(target).glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    (size,) = struct.unpack("<Q", data[:8])
    about = json.loads(data[8 : 8 + size])[name]
    width = about["shape"][-1] if len(about["shape"]) > 1 else 1
    at = 8 + size + about["data_offsets"][0] + 4 * (row * width + width // 2)
    data[at + 2] ^= 1 << 6  # of the number's fraction, the highest bit but one
    path.write_bytes(data)
    return str(target)


def names_of(directory):
    path = next(Path(directory).glob("*.safetensors"))
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return [name for name in json.loads(data[8 : 8 + size]) if name != "__metadata__"]


@contextmanager
def serving(directory, model, layers=1, max_tokens=6, **how):
    """An engine that is recorded, turned by hand; the request that it serves is 0."""
    record = RecordSettings(directory=str(directory), keeps_prompts=True, layers=layers)
    schedule = ScheduleSettings(max_step_tokens=16, max_running=8)
    wired = wire(model, LoadSettings(**CONTEXT), schedule, AdmissionSettings(), Tenants(), record=record)
    engine = Engine(Loop(wired.scheduler, wired.runner, wired.clock, make_recorder(record, wired, pytest.fail)))
    params = SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True, **how)
    stream = engine.submit(Request(PROMPT, params, wired.limits))
    yield SimpleNamespace(engine=engine, wired=wired, stream=stream)
    engine.drain()
    engine.close()


def served(directory, model, **how):
    with serving(directory, model, **how):
        pass


def replayed(directory, model, token=None):
    recording = Recording.open(directory)
    began = replace(next(recording.entries()), weights=None)  # as if the files had been those, when it began
    return replay(examiner(model, LoadSettings(**CONTEXT)), began, recording.request("0"), token)


def first_of(directory, model):
    first = replayed(directory, model).first_difference
    return None if first is None else (first.layer, first.op, first.seen_at - first.token)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_bit_of_a_weight_is_named_by_layer_and_operation(architecture, tmp_path):
    sound = str(write_checkpoint(tmp_path / "sound", architecture, seed=5))
    tried = set()
    for number, name in enumerate(names_of(sound)):
        if ".1." not in name:
            continue
        wrong = with_a_bit_changed(sound, tmp_path / str(number), name)
        served(tmp_path / f"{number}-recording", wrong)
        expected = part_of(architecture, name)
        assert first_of(tmp_path / f"{number}-recording", sound) == (1, expected, 0), name
        tried.add(expected)
    assert tried == {PROJECT, OUTPUT, FEED_FORWARD}


@pytest.mark.parametrize(
    ("name", "row", "place"),
    [
        ("model.embed_tokens.weight", PROMPT[-1], (0, EMBED, 0)),
        ("model.embed_tokens.weight", PROMPT[3], (0, ATTEND, 0)),  # read there, and met again in the cache
        ("model.norm.weight", 0, (LAYERS, HEAD, 0)),
        ("lm_head.weight", 9, (LAYERS, HEAD, 0)),
    ],
)
def test_the_ends_of_the_model_are_named_too(name, row, place, tmp_path):
    assert PROMPT[3] not in PROMPT[4:]
    sound = str(write_checkpoint(tmp_path / "sound", seed=5, tie_word_embeddings=False))
    served(tmp_path / "recording", with_a_bit_changed(sound, tmp_path / "wrong", name, row))
    assert first_of(tmp_path / "recording", sound) == place


def test_the_next_row_that_was_stamped_names_it_where_the_first_was_not(tmp_path):
    sound = str(write_checkpoint(tmp_path / "sound", seed=5))
    wrong = with_a_bit_changed(sound, tmp_path / "wrong", "model.layers.1.self_attn.o_proj.weight")
    recording = tmp_path / "recording"
    served(recording, wrong, layers=6, max_tokens=18)
    stamps = Recording.open(recording).request("0").lines[0].stamps
    token = stamps.index(None)
    at = next(i for i in range(token, 18) if stamps[i] is not None)
    assert token > 0 and at > token
    assert first_of(recording, sound) == (1, OUTPUT, 0)
    first = replayed(recording, sound, token=token).first_difference  # as if it were the first
    assert (first.token, first.layer, first.op, first.seen_at) == (token, 1, OUTPUT, at)
    assert f"seen at token {at}" in first.finding and "had not passed" in first.finding
    served(tmp_path / "none", wrong, layers=0)
    first = replayed(tmp_path / "none", sound).first_difference
    assert (first.layer, first.op, first.seen_at) == (None, None, None) and "--record-layers 1" in first.finding


@pytest.mark.parametrize(("layer", "what"), [(0, "keys"), (1, "values"), (2, "keys")])
def test_a_slot_of_the_cache_that_was_damaged_is_named(layer, what, tmp_path):
    model = str(write_checkpoint(tmp_path / "model", seed=5))
    for every in (1, 9):
        recording = tmp_path / f"recording-{every}"
        with serving(recording, model, layers=every, max_tokens=24) as each:
            num_given = 0
            while num_given < 7:
                each.engine.turn()
                num_given += sum(isinstance(event, Token) for event in each.stream.take())
            array = getattr(each.wired.kv, what)
            block = next(block for block in range(array.shape[1]) if array[layer, block].any())
            array[layer, block] *= np.float32(1.25)
        first = replayed(recording, model).first_difference
        assert (first.layer, first.op) == (layer, ATTEND), first
        assert "cache of this layer" in first.finding
        assert first.token in (7, 8) and (first.seen_at == first.token) == (every == 1)


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_fault_that_passed_is_seen_in_what_it_left_in_the_cache(layer, tmp_path, monkeypatch):
    """One row of one step, behind one layer; the row itself was not stamped."""
    model, recording, right = str(write_checkpoint(tmp_path / "model", seed=5)), tmp_path / "recording", Decoder.forward
    rows = []

    def wrong(self, ids, rows_of_step, kv, see=None):
        rows.append(len(ids))

        def spoil(passed, x):
            if passed == layer + 1:
                x[:, 5] += np.float32(0.5)

        is_it = len(ids) == 1 and rows.count(1) == 6  # the first is the model's fingerprint
        return right(self, ids, rows_of_step, kv, spoil if is_it else see)

    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "forward", wrong)
        served(recording, model, layers=9, max_tokens=22)
    stamps = Recording.open(recording).request("0").lines[0].stamps
    first = replayed(recording, model).first_difference
    assert stamps[first.token] is None
    at = next(i for i in range(first.token, 22) if stamps[i] is not None)
    if layer + 1 < LAYERS:
        assert (first.layer, first.op, first.seen_at) == (layer + 1, ATTEND, at)
        assert "layer below" in first.finding
    else:
        assert first.layer is None and "left nothing in the cache" in first.finding


def test_a_stamp_that_is_damaged_is_said_to_be(tmp_path):
    model, recording = str(write_checkpoint(tmp_path / "model", seed=5)), tmp_path / "recording"
    served(recording, model)
    opened = Recording.open(recording)
    story, began = opened.request("0"), next(opened.entries())
    line = story.lines[0]
    assert all(len(stamp) == num_points(LAYERS) for stamp in line.stamps)
    examines = examiner(model, LoadSettings(**CONTEXT))
    for changed, place in ((list(line.stamps[2]), (1, ATTEND, 2)), (list(line.stamps[2][:-4]), (None, None, None))):
        if place[0] is not None:
            changed[6] ^= 1
        stamps = [*line.stamps[:2], tuple(changed), *line.stamps[3:]]
        first = replay(examines, began, replace(story, lines={0: replace(line, stamps=stamps)})).first_difference
        assert (first.token, first.what) == (2, "stamp") and (first.layer, first.op, first.seen_at) == place
        assert "damaged" in first.finding
    without = replace(story, lines={0: replace(line, stamps=[None] * len(line.tokens))})
    assert replay(examines, began, without).equal


def test_stamps_change_no_token_and_no_hash(tmp_path):
    found = []
    for number, layers in enumerate((0, 1, 3, None)):
        with LLM(record=tmp_path / str(number), record_layers=layers, threads=1) as llm:
            params = [SamplingParams(max_tokens=20, seed=each, temperature=each / 2) for each in range(4)]
            llm.generate(["Once upon a time", "The cat", "One day", "Lily"], params)
        stories = Recording.open(tmp_path / str(number)).requests()
        found.append([(story.lines[0].tokens, story.lines[0].row_hashes) for story in stories])
        stamps = [stamp for story in stories for stamp in story.lines[0].stamps]
        num_tokens, num_stamped = len(stamps), len(stamps) - stamps.count(None)
        every = RecordSettings(directory="x", keeps_prompts=True, layers=layers).stamp_every(6)
        assert abs(num_stamped - (num_tokens / every if every else 0)) <= AT_ONCE and (num_stamped > 0) == (every > 0)
    assert found[0] == found[1] == found[2] == found[3]


def test_without_prompts_nothing_is_stamped(tmp_path):
    with pytest.raises(RequestError, match="record_layers"):
        RecordSettings(directory="x", keeps_prompts=False, layers=1)
    for wrong in (-1, True, 1.5, 2**31):
        with pytest.raises(RequestError, match="record_layers"):
            RecordSettings(directory="x", keeps_prompts=True, layers=wrong)
    assert RecordSettings(directory="x", keeps_prompts=False, layers=0).stamp_every(6) == 0
    with LLM(record=tmp_path, record_prompts=False) as llm:
        llm.generate("Once upon a time", SamplingParams(max_tokens=50))
    (story,) = Recording.open(tmp_path).requests()
    assert set(story.lines[0].stamps) == {None}
