"""Speculation changes nothing: whole answers, bit by bit, with guesses and without, for every way of decoding.

The engine that guesses is made eager: it guesses whenever it may, what repeats and what is drawn at random, whatever
that costs, so that right and wrong guesses stand in most of its steps.
"""

import shutil
from random import Random

import pytest

from openwork import LLM, Beam, Constraint, ModelError, SamplingParams
from openwork.core.event import Preempted
from openwork.core.request import Request
from openwork.core.settings import ScheduleSettings, SpeculationSettings
from openwork.decode.ngram import Ngram
from openwork.load.source import resolve
from openwork.run.drafter import Guesses
from openwork.testing.byte_tokenizer import write_byte_tokenizer
from openwork.testing.checkpoint import write_checkpoint

TEXT = "once upon a time there was a little cat who saw the dog and said no it ran to the park with Tom"
WORDS = TEXT.split()
CONSTRAINTS = [
    Constraint.regex("([a-z]{1,6} ){4,12}end"),
    Constraint.choice(["the cat sat", "the cat sat on the mat", "a dog"]),
    Constraint.json_schema({"type": "array", "items": {"enum": ["cat", "dog"]}, "minItems": 3, "maxItems": 9}),
]
NUM_REQUESTS, MANY = 300, 10_000


class Eager:
    """Sure of all it says: what an Ngram foretells, and anything where that is silent. Now and then it slips."""

    guess_s = 0.0

    def __init__(self, sequence, seed):
        self._ngram = Ngram(sequence.prompt_len)
        self._draw = Random(seed + sequence.id)
        self._recent = []

    def follow(self, tokens, known):
        self._ngram.follow(tokens, known)
        self._recent = tokens[max(0, known - 20) : known]

    def odds(self, most):
        return [0.999**place for place in range(1, most + 1)]

    def prepare(self, num):
        pass

    def propose(self, num):
        foretold = self._ngram.propose(num) if self._ngram.odds(1) else ()
        guess = [*foretold, *(self._draw.choice(self._recent) for _ in range(num - len(foretold)))]
        if self._draw.random() < 0.2:
            guess[self._draw.randrange(num)] = self._draw.choice(self._recent)
        return tuple(guess)


def make_eager(llm, seed=0):
    speculation = llm._engine._loop.scheduler._planner._speculation
    speculation._make_proposer = lambda sequence: Eager(sequence, seed)


class Sure(Guesses):
    """A draft model that is always asked."""

    def odds(self, most):
        return [0.999**place for place in range(1, most + 1)]


@pytest.fixture(scope="module")
def drafts(tmp_path_factory):
    """Models to guess with: the very one that is guessed for, and noise with the same tokens."""
    directory = tmp_path_factory.mktemp("noise")
    shutil.copy(resolve(None) / "tokenizer.json", directory)
    write_checkpoint(directory, vocab_size=2048, hidden_size=32, num_hidden_layers=1)
    return "openwork/stories", str(directory)


def make_sure(llm):
    speculation = llm._engine._loop.scheduler._planner._speculation
    (drafter,) = speculation._make_proposer.args
    speculation._make_proposer = lambda sequence: Sure(drafter, sequence)
    speculation._best = lambda num_tokens, candidates, seconds: len(candidates)


def open_both(draw, **more):
    schedule = {"max_step_tokens": draw.choice([40, 64, 512]), "max_running": draw.choice([4, 16, 32])}
    plain = LLM(schedule=ScheduleSettings(**schedule), **more)
    guessing = SpeculationSettings(max_draft=draw.choice([1, 4, 15]))
    eager = LLM(schedule=ScheduleSettings(**schedule, speculation=guessing), **more)
    make_eager(eager, draw.randrange(1000))
    return plain, eager


def any_prompt(draw):
    said = [draw.choice(WORDS) for _ in range(draw.randint(1, 12))]
    return " ".join(said * draw.choice([1, 1, 2, 4]))


def any_params(draw):
    """Every way of choosing a token, and mixtures."""
    how = {"max_tokens": draw.choice([1, 2, 9, 30, 60]), "seed": draw.randrange(2**32)}
    how |= draw.choice(
        [
            {"temperature": 0},
            {"temperature": 0},
            {"temperature": 0.7},
            {"temperature": 1.3, "top_k": 30},
            {"temperature": 1.0, "top_p": 0.8},
            {"temperature": 1.0, "min_p": 0.1},
        ]
    )
    for part, chance in (
        ({"repetition_penalty": 1.2}, 0.15),
        ({"presence_penalty": 0.5, "frequency_penalty": 0.3}, 0.15),
        ({"logit_bias": {7: 4.0, 11: -100.0}}, 0.1),
        ({"min_tokens": how["max_tokens"] // 2}, 0.2),
        ({"n": draw.choice([2, 3])}, 0.2),
        ({"logprobs": draw.choice([0, 3])}, 0.3),
        ({"prompt_logprobs": 1}, 0.1),
        ({"stop": [draw.choice([" the", "and", ".", "t"])]}, 0.2),
        ({"stop_token_ids": [draw.randrange(2000)]}, 0.1),
        ({"ignore_eos": True}, 0.4),
        ({"constraint": draw.choice(CONSTRAINTS)}, 0.15),
    ):
        if draw.random() < chance:
            how |= part
    return SamplingParams(**how)


def said(output):
    """All that must not change; floats are compared as they are."""
    return output.completions, output.prompt_logprobs


@pytest.fixture(scope="module")
def block_bytes():
    with LLM() as llm:
        return llm.info.kv_bytes // llm.info.num_blocks


@pytest.mark.parametrize("num_blocks", [None, 24])
def test_ten_thousand_requests_have_the_tokens_they_have_without(is_long, num_blocks, block_bytes):
    kv_cache_bytes = None if num_blocks is None else num_blocks * block_bytes
    draw = Random(17)
    left = (MANY if is_long else NUM_REQUESTS) // 2
    accepted = drafted = 0
    while left > 0:
        plain, eager = open_both(draw, kv_cache_bytes=kv_cache_bytes)
        with plain, eager:
            for _ in range(4 if not is_long else 20):
                num = min(left, draw.choice([1, 3, 12, 25]))
                prompts = [any_prompt(draw) for _ in range(num)]
                params = [any_params(draw) for _ in range(num)]
                left -= num
                if not num:
                    break
                for one, other in zip(plain.generate(prompts, params), eager.generate(prompts, params), strict=True):
                    assert said(one) == said(other), (one.prompt, params[prompts.index(one.prompt)])
                    accepted += other.guessed.accepted
                    drafted += other.guessed.drafted
    assert 0 < accepted < drafted, "both right and wrong guesses were made"


@pytest.mark.parametrize("num_blocks", [None, 24])
@pytest.mark.parametrize("which", [0, 1])
def test_whatever_a_draft_model_guesses_the_tokens_stay(is_long, drafts, which, num_blocks, block_bytes):
    draw = Random(which)
    kv_cache_bytes = None if num_blocks is None else num_blocks * block_bytes
    # Both share the memory: as many blocks need more of it.
    with LLM(kv_cache_bytes=kv_cache_bytes) as plain:
        bytes_of_both = None if kv_cache_bytes is None else 2 * kv_cache_bytes
        with LLM(kv_cache_bytes=bytes_of_both, speculate=drafts[which], max_draft=4) as guessing:
            make_sure(guessing)
            guessed = []
            for _ in range(20 if is_long else 3):
                prompts = [any_prompt(draw) for _ in range(12)]
                params = [any_params(draw) for _ in prompts]
                pairs = zip(plain.generate(prompts, params), guessing.generate(prompts, params), strict=True)
                for one, other in pairs:
                    assert said(one) == said(other)
                    guessed.append(other.guessed)
    drafted, accepted = sum(each.drafted for each in guessed), sum(each.accepted for each in guessed)
    assert drafted > 100
    assert accepted > 0.3 * drafted if which == 0 else accepted < 0.1 * drafted


def test_a_draft_model_takes_its_part_of_the_memory(block_bytes):
    with (
        LLM(kv_cache_bytes=30 * block_bytes) as plain,
        LLM(kv_cache_bytes=30 * block_bytes, speculate="openwork/stories") as both,
    ):
        assert (plain.info.num_blocks, both.info.num_blocks) == (30, 15)


def test_a_draft_model_must_speak_the_same_tokens(drafts, tmp_path):
    with pytest.raises(ModelError, match="no such file, but the other model has one"):
        LLM(speculate=str(write_checkpoint(tmp_path / "bare", vocab_size=2048)))
    other = write_byte_tokenizer(write_checkpoint(tmp_path / "bytes"))
    with pytest.raises(ModelError, match="token 0 is another one"):
        LLM(speculate=str(other))
    with pytest.raises(ModelError, match="no such directory"):
        LLM(speculate="nowhere")


def overhear(stream, seen):
    put = stream.put
    stream.put = lambda event: (seen.append(event), put(event))


def test_under_pressure_sequences_give_way_and_say_the_same(block_bytes):
    prompts = [f"the cat and the dog {word} the cat and the dog" for word in WORDS[:8]]
    params = SamplingParams(temperature=0.8, max_tokens=60, ignore_eos=True, logprobs=1)
    outputs, preempted = [], []
    for speculation in (None, SpeculationSettings()):
        with LLM(kv_cache_bytes=20 * block_bytes, schedule=ScheduleSettings(64, 8, speculation=speculation)) as llm:
            if speculation is not None:
                make_eager(llm)
            streams = [llm._follower.submit(llm._request(prompt, params), prompt) for prompt in prompts]
            seen = []
            for stream, _ in streams:
                overhear(stream, seen)
            for _ in llm._follower.follow(streams, None):
                pass
            outputs.append([said(answer.output) for _, answer in streams])
            preempted.append(sum(isinstance(event, Preempted) for event in seen))
    assert outputs[0] == outputs[1]
    assert min(preempted) > 0


def test_a_stream_and_one_that_is_left_early():
    params = SamplingParams(temperature=0, max_tokens=50, ignore_eos=True)
    prompt = "the cat saw the dog and the cat saw the dog and the cat"
    with LLM() as plain, LLM(speculate="ngram", max_draft=6) as eager:
        make_eager(eager)
        whole = plain.generate(prompt, params)[0]
        chunks = list(eager.stream(prompt, params))
        assert "".join(chunk.text for chunk in chunks) == whole.text
        assert chunks[-1].output.guessed.accepted > 0
        for number, _ in enumerate(eager.stream(prompt, params)):
            if number == 5:
                break
        assert eager.generate(prompt, params)[0].token_ids == whole.token_ids


def test_a_search_beside_it_finds_the_same():
    params = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    prompt = "Tom and the cat and Tom and the cat and"
    answers = []
    for speculate in (None, "ngram"):
        with LLM(speculate=speculate) as llm:
            if speculate:
                make_eager(llm)
            search = Request(
                tuple(llm.tokenizer.encode("once upon")), SamplingParams(max_tokens=8), llm._limits, search=_beam()
            )
            running = [
                llm._follower.submit(llm._request(prompt, params), prompt),
                llm._follower.submit(search, "once upon"),
            ]
            for _ in llm._follower.follow(running, None):
                pass
            answers.append([said(answer.output) for _, answer in running])
    assert answers[0] == answers[1]


def _beam():
    from openwork.core.search import as_search

    return as_search(Beam(width=3))


def test_a_request_goes_on_where_another_engine_was_interrupted():
    params = SamplingParams(temperature=0.9, max_tokens=40, ignore_eos=True, seed=4)
    prompt = "a little cat saw a little dog and a little cat"
    with LLM() as plain, LLM(speculate="ngram") as eager:
        make_eager(eager)
        whole = plain.generate(prompt, params)[0].token_ids
        request = eager._request(prompt, params)
        stream = eager._engine.submit(request, {0: whole[:17]})
        tokens = []
        while not stream.has_ended or stream.has_events:
            if not stream.has_events:
                eager._engine.turn()
            tokens += [event.choice.token for event in stream.take() if type(event).__name__ == "Token"]
        assert whole[:17] + tuple(tokens) == whole
