"""The library face: what users rely on, on a real engine over a tiny random model."""

import gc
import math
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from openwork import LLM, EngineError, MemoryTooSmall, ModelError, PromptTooLong, RequestError, SamplingParams
from openwork.testing.byte_tokenizer import write_byte_tokenizer
from openwork.testing.checkpoint import write_checkpoint

GREEDY = SamplingParams(temperature=0, max_tokens=12)
PROMPTS = ["a", "the quick brown fox", "zwölf", "x" * 150]


def tokens(outputs):
    return [[completion.token_ids for completion in output.completions] for output in outputs]


def test_one_prompt_many_prompts_text_and_ids(llm):
    one = llm.generate("hello", GREEDY)
    assert len(one) == 1 and one[0].prompt == "hello" and len(one[0].token_ids) == 12
    ids = llm.tokenizer.encode("hello")
    assert tokens(llm.generate(ids, GREEDY)) == tokens(one)
    assert llm.generate([ids], GREEDY)[0].prompt is None
    assert [output.prompt for output in llm.generate(["a", "b"], GREEDY)] == ["a", "b"]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_gives_what_each_gives_alone(llm, temperature):
    how = [SamplingParams(temperature=temperature, max_tokens=20 + i, seed=i, n=1 + i % 3) for i in range(4)]
    together = llm.generate(PROMPTS, how)
    alone = [llm.generate(prompt, each)[0] for prompt, each in zip(PROMPTS, how, strict=True)]
    assert tokens(together) == tokens(alone)


def test_a_stream_gives_what_generate_gives(llm):
    how = SamplingParams(temperature=0.9, max_tokens=30, n=3, logprobs=2, seed=5)
    whole = llm.generate("stream", how)[0]
    chunks = list(llm.stream("stream", how))
    assert chunks[-1].output.completions == whole.completions
    for completion in whole.completions:
        own = [chunk for chunk in chunks if chunk.index == completion.index and chunk.output is None]
        assert "".join(chunk.text for chunk in own) == completion.text
        assert tuple(t for chunk in own for t in chunk.token_ids) == completion.token_ids
        assert tuple(p for chunk in own for p in chunk.logprobs or ()) == completion.logprobs
        assert [chunk.finish_reason for chunk in own if chunk.finish_reason] == [completion.finish_reason]


def test_seeds_and_indices_differ_and_repeat(llm):
    def run(seed):
        return tokens(llm.generate("seed", SamplingParams(max_tokens=16, seed=seed, n=4)))[0]

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert len(set(run(1))) == 4


def test_sample_i_of_n_is_sample_i_of_more(llm):
    few = llm.generate("n", SamplingParams(max_tokens=10, n=2, seed=3))[0]
    more = llm.generate("n", SamplingParams(max_tokens=10, n=5, seed=3))[0]
    assert more.completions[:2] == few.completions


def test_stop_ids_and_end_tokens(llm):
    free = llm.generate("stop", SamplingParams(temperature=0, max_tokens=20, ignore_eos=True))[0].token_ids
    target = free[7]
    cut = llm.generate("stop", SamplingParams(temperature=0, max_tokens=20, stop_token_ids=[target]))[0]
    assert cut.token_ids == free[: free.index(target) + 1]
    assert cut.finish_reason == "stop" and cut.completions[0].stop_reason == target


def test_stop_strings_cut_the_text_and_end_the_sequence(llm):
    how = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    text = llm.generate("cut", how)[0].text
    part = next(text[i : i + 2] for i in range(8, len(text) - 2) if "\ufffd" not in text[i : i + 2])
    cut = llm.generate("cut", SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, stop=[part]))[0]
    assert cut.text == text[: text.index(part)]
    assert (cut.finish_reason, cut.completions[0].stop_reason) == ("stop", part)
    assert len(cut.token_ids) < 40


def test_min_tokens_holds_end_tokens_off(llm):
    first = llm.generate("min", SamplingParams(temperature=0, max_tokens=9, ignore_eos=True))[0].token_ids[0]
    how = {"temperature": 0, "max_tokens": 9, "ignore_eos": True, "stop_token_ids": [first]}
    assert len(llm.generate("min", SamplingParams(**how))[0].token_ids) == 1
    held = llm.generate("min", SamplingParams(**how, min_tokens=5))[0].token_ids
    assert len(held) >= 5 and first not in held[:5]


def test_log_probabilities_of_output_and_prompt(llm):
    how = SamplingParams(temperature=0, max_tokens=6, logprobs=3, prompt_logprobs=2)
    output = llm.generate("logprobs", how)[0]
    for token, entry in zip(output.token_ids, output.logprobs, strict=True):
        assert entry.token == token and entry.rank == 1 and entry.top[0] == (token, entry.logprob)
        assert len(entry.top) == 3 and entry.logprob <= 0
        assert sum(math.exp(logprob) for _, logprob in entry.top) <= 1 + 1e-6
    assert output.prompt_logprobs[0] is None
    assert [entry.token for entry in output.prompt_logprobs[1:]] == list(output.prompt_ids[1:])
    # What was generated and is then scored as a prompt has the same log-probabilities, to the bit.
    longer = [*output.prompt_ids, *output.token_ids]
    scored = llm.generate(longer, SamplingParams(max_tokens=0, prompt_logprobs=3))[0]
    assert [entry.logprob for entry in scored.prompt_logprobs[-6:]] == [entry.logprob for entry in output.logprobs]
    assert scored.token_ids == () and scored.finish_reason == "length"


def test_prompt_log_probabilities_survive_chunks_and_pressure(checkpoint):
    prompts = [[3 + (i * 7 + j) % 250 for j in range(90)] for i in range(6)]
    how = SamplingParams(temperature=0, max_tokens=30, prompt_logprobs=1, ignore_eos=True)
    with (
        LLM(checkpoint) as roomy,
        LLM(checkpoint, kv_cache_bytes=roomy.info.kv_bytes // roomy.info.num_blocks * 12) as tight,
    ):
        assert tight.info.num_blocks == 12
        wide, narrow = roomy.generate(prompts, how), tight.generate(prompts, how)
    assert tokens(wide) == tokens(narrow)
    assert [o.prompt_logprobs for o in wide] == [o.prompt_logprobs for o in narrow]


def test_timings_blocks_and_progress(llm):
    seen = []
    output = llm.generate(["x" * 200, "y"], GREEDY, progress=lambda *args: seen.append(args))[0]
    assert output.kv_blocks == -(-(len(output.prompt_ids) + 11) // 16)
    assert output.timings.prefill_s > 0 and output.timings.decode_s > 0
    assert math.isclose(output.timings.prefill_tok_s, len(output.prompt_ids) / output.timings.prefill_s)
    total = len(output.prompt_ids) + 2
    assert ("prefill", total, total) in seen and seen[-1] == ("requests", 2, 2)


def test_abandoned_streams_are_cancelled(llm):
    stream = llm.stream("gone", SamplingParams(max_tokens=400, ignore_eos=True))
    next(stream)
    stream.close()
    llm.generate("next", GREEDY)
    assert llm._engine.num_requests == 0
    unread = llm.stream("never read", GREEDY)
    del unread
    assert llm._engine.num_requests == 0


def test_two_streams_can_be_read_in_turns(llm):
    how = SamplingParams(temperature=0, max_tokens=25, ignore_eos=True)
    want = tokens(llm.generate(["one", "two"], how))
    one, two = llm.stream("one", how), llm.stream("two", how)
    got = {}
    for pair in zip(one, two, strict=True):
        for name, chunk in zip(("one", "two"), pair, strict=True):
            got.setdefault(name, []).extend(chunk.token_ids)
    assert [tuple(got["one"]), tuple(got["two"])] == [want[0][0], want[1][0]]


def test_threads_may_generate_at_the_same_time(llm):
    prompts = [f"thread {i}" for i in range(6)]
    want, got = tokens(llm.generate(prompts, GREEDY)), {}

    def work(i):
        got[i] = llm.generate(prompts[i], GREEDY)[0]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert tokens(got[i] for i in range(6)) == want


def test_chat_follows_the_template(llm):
    messages = [{"role": "user", "content": "hi"}]
    assert bytes(t - 3 for t in llm.chat_prompt(messages)) == b"[user]hi\n"
    assert llm.chat(messages, GREEDY).prompt_ids == tuple(llm.chat_prompt(messages))


@pytest.mark.parametrize("prompt", ["", [], [[]], [300], [-1], "\ud800", [1.5], [True]])
def test_bad_prompts_are_refused_and_the_engine_goes_on(llm, prompt):
    with pytest.raises(RequestError, match="prompt"):
        llm.generate(prompt, GREEDY)
    assert len(llm.generate("fine", GREEDY)[0].token_ids) == 12


def test_a_bad_prompt_in_a_batch_refuses_the_batch_before_anything_runs(llm):
    with pytest.raises(RequestError):
        llm.generate(["good", "", "good"], GREEDY)
    assert llm._engine.num_requests == 0


def test_a_prompt_longer_than_the_window(llm):
    with pytest.raises(PromptTooLong, match="512"):
        llm.generate("x" * 600, GREEDY)
    with pytest.raises(RequestError, match="bytes"):
        llm.generate("x" * 2_000_000, GREEDY)
    full = llm.generate("x" * 509, SamplingParams(temperature=0, ignore_eos=True))[0]
    assert len(full.token_ids) == 2 and full.finish_reason == "length"


def test_parameters_one_for_all_or_one_for_each(llm):
    with pytest.raises(RequestError, match="params"):
        llm.generate(["a", "b"], [GREEDY])


@pytest.mark.parametrize(
    ("wishes", "error"),
    [
        ({"kv_cache_bytes": 100}, MemoryTooSmall),
        ({"kv_cache_bytes": 1 << 49}, MemoryTooSmall),
        ({"kv_cache_bytes": 20_000, "context": 500}, MemoryTooSmall),
        ({"context": 100_000}, ModelError),
        ({"context": 0}, RequestError),
        ({"threads": 0}, RequestError),
        ({"kv_cache_bytes": -1}, RequestError),
        ({"backend": "gpu"}, Exception),
        ({"dtype": "int3"}, Exception),
    ],
)
def test_wishes_that_cannot_be_met(checkpoint, wishes, error):
    with pytest.raises(error) as caught:
        LLM(checkpoint, **wishes)
    assert caught.type.__module__ == "openwork.core.errors"


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_a_limit_on_the_process_is_an_error_of_ours(checkpoint):
    code = (
        "import resource; from openwork import LLM, MemoryTooSmall\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        f"try: LLM({str(checkpoint)!r}, kv_cache_bytes=5 << 30)\n"
        "except MemoryTooSmall as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "kv_cache_bytes" in done.stdout, done.stderr


def test_a_checkpoint_without_a_tokenizer_serves_ids(tmp_path):
    write_checkpoint(tmp_path, "GPT2LMHeadModel")
    with LLM(tmp_path) as llm:
        output = llm.generate([5, 6, 7], GREEDY)[0]
        assert len(output.token_ids) == 12 and output.text == "" and llm.tokenizer is None
        with pytest.raises(RequestError, match=r"tokenizer\.json"):
            llm.generate("text", GREEDY)
        with pytest.raises(RequestError, match="stop"):
            llm.generate([5], SamplingParams(stop="x"))


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path):
    write_checkpoint(tmp_path, vocab_size=200)
    write_byte_tokenizer(tmp_path)
    with pytest.raises(ModelError, match=r"tokenizer\.json.*258.*200"):
        LLM(tmp_path)


def test_damaged_weights_fail_the_request_and_not_the_engine(tmp_path, checkpoint):
    write_checkpoint(tmp_path)
    write_byte_tokenizer(tmp_path)
    path = tmp_path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-4096:] = np.full(1024, 3e38, np.float32).tobytes()  # finite, and no sum of them is
    path.write_bytes(bytes(data))
    with LLM(tmp_path) as llm:
        with pytest.raises(EngineError, match="not finite") as caught:
            llm.generate(["a", "b"], GREEDY)
        assert [o.finish_reason for o in caught.value.outputs] == ["error", "error"]
        assert llm._engine.num_requests == 0


def test_closed_means_closed(checkpoint):
    llm = LLM(checkpoint)
    llm.close()
    llm.close()
    with pytest.raises(EngineError, match="closed"):
        llm.generate("x", GREEDY)


def test_an_llm_that_is_dropped_ends_its_thread_and_frees_its_weights(checkpoint):
    llm = LLM(checkpoint)
    llm.generate("x", GREEDY)
    thread = llm._engine._loop._runner._thread
    weights = weakref.ref(llm._engine._loop._runner._model)
    del llm
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    gc.collect()
    assert weights() is None


def test_nothing_is_said_at_exit_when_nobody_closes(checkpoint):
    code = f"from openwork import LLM; llm = LLM({str(checkpoint)!r}); llm.generate([5], None); print('done')"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
