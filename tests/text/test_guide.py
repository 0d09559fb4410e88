"""What a constraint allows: a text that is finished is one that was asked for, whatever was chosen on the way."""

from __future__ import annotations

import json
import re
from random import Random
from threading import Thread

import jsonschema
import numpy as np
import pytest
import schemas

from openwork.build import source
from openwork.core.constraint import Constraint
from openwork.core.errors import RequestError
from openwork.testing.byte_tokenizer import VOCAB_SIZE, write_byte_tokenizer
from openwork.text import grammar
from openwork.text.guide import Guide
from openwork.text.tokenizer import Tokenizer

END = 1
FORMATS = ("date", "ipv4", "email", "uuid")  # what jsonschema checks as strictly as it is meant


@pytest.fixture(scope="module")
def stories():
    return Tokenizer.load(source.resolve(None))


@pytest.fixture(scope="module")
def guide(stories):
    """The vocabulary of the embedded model, and ten ids above it that stand for nothing."""
    return Guide(lambda: stories, stories.vocab_size + 10, frozenset({END}))


def allowed_ids(mask: bytes) -> list[int]:
    return np.flatnonzero(np.unpackbits(np.frombuffer(mask, np.uint8), bitorder="little")).tolist()


class Closing:
    """Brings a JSON text to its end: of what is allowed, a quote inside a string, and a bracket outside."""

    def __init__(self) -> None:
        self.is_string = self.is_escaped = False

    def see(self, piece: bytes) -> None:
        for char in piece:
            if self.is_escaped:
                self.is_escaped = False
            elif char == ord("\\"):
                self.is_escaped = self.is_string
            elif char == ord('"'):
                self.is_string = not self.is_string

    def choose(self, ids: list[int], tokenizer: Tokenizer, rng: Random) -> int:
        for char in '"' if self.is_string else '}]":':
            token = tokenizer.token_id(char)
            if token in ids:
                return token
        return rng.choice(ids)


def write(guide, tokenizer, constraint, rng, free=40, most=300, end=END):
    """A text: tokens chosen at random at first, then those that lead to its end. None when it did not get there."""
    matcher, tokens, closing = guide.begin(constraint), [], Closing()
    while len(tokens) < most:
        mask = matcher.mask()
        assert mask is not None, (constraint, tokenizer.decode(tokens))
        ids = allowed_ids(mask)
        is_late = len(tokens) >= free
        if end in ids and (is_late or len(ids) == 1 or rng.random() < 0.1):
            return b"".join(tokenizer.piece(token) for token in tokens).decode()
        if end in ids:
            ids.remove(end)
        token = closing.choose(ids, tokenizer, rng) if is_late and rng.random() < 0.9 else rng.choice(ids)
        assert not tokenizer.is_special(token) and token < tokenizer.vocab_size
        assert matcher.take([token]), (tokenizer.decode(tokens), token)
        closing.see(tokenizer.piece(token))
        tokens.append(token)
    return None


def check_schema(guide, tokenizer, schema, seed):
    """Returns how many texts were finished: of two."""
    constraint, rng = Constraint.json_schema(schema), Random(seed)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker(FORMATS))
    finished = 0
    for free in (rng.choice([0, 10, 60]), 30):
        text = write(guide, tokenizer, constraint, rng, free)
        if text is not None:
            finished += 1
            validator.validate(json.loads(text))
    return finished


@pytest.mark.parametrize("name", schemas.BY_HAND)
def test_what_people_write_is_followed(guide, stories, name):
    for seed in range(5):
        check_schema(guide, stories, schemas.BY_HAND[name], seed)


def test_every_finished_document_is_valid(guide, stories, is_long):
    finished = refused = 0
    count = 4000 if is_long else 300
    for seed in range(count):
        try:
            finished += check_schema(guide, stories, schemas.draw(seed), seed)
        except RequestError:
            refused += 1
    assert refused <= count // 20
    assert finished >= 1.5 * (count - refused), "most texts must have been finished, or nothing was shown"


PATTERNS = [
    r"[0-9]{3}-[0-9]{4}", "(cat|dog)s?", r"[0-9]{1,3}(\.[0-9]{1,3}){3}", "[^a-z]{2,5}", "(a|b)*c", "a{3,5}",
    "é+ü", "😀{2}", r"\/\/[ -~]{1,10}", "x|", ".{0,9}", r"[a-z.]{1,9}@[a-z]{1,9}\.(com|org)",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_text_matches_its_pattern_as_a_whole(guide, stories, pattern):
    finished = 0
    for seed in range(8):
        text = write(guide, stories, Constraint.regex(pattern), Random(seed), free=12, most=60)
        if text is not None:
            finished += 1
            assert re.fullmatch(pattern, text), text
    assert finished


ODD = [
    "yes",
    "yes, sir",
    "no",
    'quo"te',
    "back\\slash",
    "a\nb",
    "\t",
    "\x7f",
    "\x01",
    "😀",
    "</s>",
    "%json {}",
    "/x/",
    " ",
]


def test_a_choice_is_one_of_the_texts_exactly(guide, stories):
    found = {write(guide, stories, Constraint.choice(ODD), Random(seed), free=20) for seed in range(200)}
    assert found == set(ODD)
    many = [f"option {i * 7919}" for i in range(1024)]
    assert write(guide, stories, Constraint.choice(many), Random(0)) in many


def test_a_grammar_is_followed(guide, stories):
    lark = 'start: sum\nsum: NUMBER | sum ("+"|"-") sum | "(" sum ")"\nNUMBER: /[1-9][0-9]{0,2}/'
    for seed in range(20):
        text = write(guide, stories, Constraint.lark(lark), Random(seed), free=20, most=200)
        assert text is None or isinstance(eval_sum(text), int)


def eval_sum(text: str) -> int:
    """The value of sums in brackets; an assertion fails when it is none."""
    while "(" in text:
        text, count = re.subn(r"\((-?\d+(?:[+-]-?\d+)*)\)", lambda m: str(eval_sum(m[1])), text)
        assert count, text
    assert re.fullmatch(r"-?\d+([+-]-?\d+)*", text), text
    return sum(int(part) for part in re.findall(r"-?\d+", text))


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "metaspace", "bytes"])
def test_the_same_on_every_kind_of_tokenizer(pairs, tmp_path, kind):
    """Bytes in printable characters, byte tokens, a mark for the space: the pieces are what counts."""
    tokenizer = Tokenizer.load(write_byte_tokenizer(tmp_path)) if kind == "bytes" else pairs[kind][0]
    end = next(found for name in ("</s>", "<|end|>") if (found := tokenizer.token_id(name)) is not None)
    guide = Guide(lambda: tokenizer, tokenizer.vocab_size, frozenset({end}))
    if kind != "metaspace":  # that vocabulary has no bracket
        schema = schemas.BY_HAND["tool call"]
        texts = [write(guide, tokenizer, Constraint.json_schema(schema), Random(seed), end=end) for seed in range(6)]
        assert any(texts)
        for text in filter(None, texts):
            jsonschema.validate(json.loads(text), schema)
    choice = Constraint.choice(["the cat", "milk"])
    assert {write(guide, tokenizer, choice, Random(seed), end=end) for seed in range(20)} == {"the cat", "milk"}


def test_no_special_token_and_no_empty_one_is_ever_allowed(guide, stories):
    ids = allowed_ids(guide.begin(Constraint.regex("(.|\n)*")).mask())
    assert END in ids and stories.bos_id not in ids
    assert max(ids) < stories.vocab_size


def test_every_end_token_of_the_model_ends_a_text(stories):
    guide = Guide(lambda: stories, stories.vocab_size, frozenset({1, 7}))
    matcher = guide.begin(Constraint.choice(["a"]))
    assert {1, 7}.isdisjoint(allowed_ids(matcher.mask()))
    assert matcher.take(stories.encode("a", add_special=False))
    assert allowed_ids(matcher.mask()) == [1, 7]


def test_a_token_that_is_not_allowed_ends_it_for_good(guide, stories):
    matcher = guide.begin(Constraint.choice(["abc"]))
    assert not matcher.take(stories.encode("xyz", add_special=False))
    assert matcher.mask() is None


def test_a_fork_stands_where_its_relative_stood(guide, stories):
    constraint = Constraint.json_schema(schemas.BY_HAND["person"])
    rng, matcher, masks, tokens = Random(3), guide.begin(constraint), [], []
    for _ in range(30):
        masks.append(matcher.mask())
        tokens.append(rng.choice([token for token in allowed_ids(masks[-1]) if token != END]))
        assert matcher.take(tokens[-1:])
    for undone in (1, 7, 30):
        fork = matcher.fork(undone)
        assert fork.mask() == masks[30 - undone]
        assert fork.take(tokens[30 - undone :]) and fork.mask() == matcher.mask()
    again = guide.begin(constraint)  # what is rebuilt from the tokens is the same
    assert again.take(tokens) and again.mask() == matcher.mask()


def test_many_constraints_stay_within_the_bytes(stories, is_long):
    guide = Guide(lambda: stories, stories.vocab_size, frozenset({END}), max_bytes=4 << 20)
    for number in range(10_000 if is_long else 200):
        guide.begin(Constraint.regex(f"[a-z]{{{number % 90 + 1}}}{number}")).mask()
        assert guide.num_bytes <= 4 << 20


def test_a_constraint_is_compiled_once_however_many_ask(stories, monkeypatch):
    compiled = []

    def count(vocabulary, constraint, compile=grammar.compile_constraint):
        compiled.append(constraint)
        return compile(vocabulary, constraint)

    monkeypatch.setattr(grammar, "compile_constraint", count)
    guide = Guide(lambda: stories, stories.vocab_size, frozenset({END}))
    threads = [Thread(target=guide.begin, args=(Constraint.regex("a+b"),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiled) == 1
    with pytest.raises(RequestError):
        guide.begin(Constraint.regex("("))
    with pytest.raises(RequestError):  # a failure is not kept here: what can fail was found out before
        guide.begin(Constraint.regex("("))


def test_a_checkpoint_without_a_tokenizer_says_so():
    with pytest.raises(RequestError, match="no tokenizer"):
        Guide(lambda: None, VOCAB_SIZE, frozenset({END})).begin(Constraint.regex("a"))


def test_what_was_prepared_is_there_and_an_error_waits(guide, monkeypatch):
    good, bad = Constraint.regex("prepared+"), Constraint.regex("prepared(")
    guide.prepare(good)
    guide.prepare(bad)
    guide._ahead.submit(lambda: None).result()  # all before it is done
    with pytest.raises(RequestError):
        guide.begin(bad)
    monkeypatch.setattr(grammar, "compile_constraint", None)
    assert guide.begin(good).mask() is not None
