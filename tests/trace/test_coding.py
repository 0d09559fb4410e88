"""Records as plain data and back, and that no field of what is recorded is forgotten."""

import typing
from dataclasses import MISSING, dataclass, fields, is_dataclass

import msgspec
import pytest

from openwork.core.budget import Budget
from openwork.core.errors import TraceError
from openwork.core.event import Event, Miss, Token
from openwork.core.output import Logprob
from openwork.core.penalty import Penalty
from openwork.core.request import Limits, Request, SamplingParams
from openwork.core.search import Beam, BestFirst, Choose, Search
from openwork.core.step import Candidates, Choice, Copy, Draw, Expand, Outcome, Result, Score, Step, Why, Work
from openwork.core.terms import Terms
from openwork.decode.strategy import Generation, Leaf
from openwork.trace.coding import results
from openwork.trace.coding.decode import Decoder
from openwork.trace.coding.encode import Encoder
from openwork.trace.coding.plain import Reader, others, plain, table, unknown
from openwork.trace.coding.pseudonym import END, Hashes, Ids, KnownIds, StandIns
from openwork.trace.coding.results import KNOWN as OF_OUTCOME
from openwork.trace.coding.shape import WAITED, Bytes, rare
from openwork.trace.coding.works import KNOWN as OF_WORK
from openwork.trace.entry import WRITTEN, Began, Waited

TABLE = table(WRITTEN)
# What has a shorthand, and the fields that it says or that follow: a new one is to be thought of there.
SAID = {
    Step: {"number", "works", "copies", "why"},
    Why: {"order", "rows", "bound", "left_out"},
    Copy: {"source", "target"},
    Draw: {"params", "index", "position", "generated", "stop_ids", "history", "prompt_len", "output"},
    Score: {"targets", "top", "first"},
    Expand: {"top", "among", "without", "constraint", "output"},
    Result: {"step", "outcomes", "elapsed_s"},
    Choice: {"token", "logprob", "row_hash", "stamp"},
    Candidates: {"top", "among"},
    Logprob: {"token", "logprob", "rank", "top"},
    Token: {"request", "index", "position", "choice", "time"},
    Request: {"prompt", "params", "limits", "terms", "search"},
}


@pytest.mark.parametrize("kind", SAID)
def test_every_field_of_what_has_a_shorthand_is_said(kind):
    assert {field.name for field in fields(kind)} == SAID[kind], f"{kind.__name__}: the log would lose a field"


@pytest.mark.parametrize(("kind", "known"), [(Work, OF_WORK), (Outcome, OF_OUTCOME)])
def test_what_has_no_shorthand_goes_as_it_is(kind, known):
    assert known <= {field.name for field in fields(kind)}
    without = known - {fields(kind)[-1].name}
    value = filled(kind)
    assert set(others(value, unknown(kind, without))) == {fields(kind)[-1].name}
    assert not others(value, unknown(kind, known))


@pytest.mark.parametrize("kind", [*typing.get_args(Event), Began, Terms, SamplingParams], ids=lambda k: k.__name__)
def test_a_record_with_all_its_fields_comes_back(kind):
    value = filled(kind)
    said = msgspec.msgpack.decode(msgspec.msgpack.encode(plain(value)), strict=False)
    assert len(said) == len(fields(kind)), "every field was drawn unlike its default"
    assert Reader(TABLE).read(kind, said) == value


def filled(kind):
    """An instance with every field unlike its default, as far as it may be."""
    hints = typing.get_type_hints(kind)
    given = {}
    for field in fields(kind):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        given[field.name] = SPECIAL.get((kind.__name__, field.name)) or other(hints[field.name], default)
    return kind(**given)


def other(hint, default):
    """A value of a type that is not the default."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if is_dataclass(hint):
        return filled(hint)
    if hint is bool:
        return not default
    if hint in (int, float):
        return hint(1 if default in (MISSING, None, 0) else default / 2 or 1)
    if hint is str:
        return "text"
    if origin is typing.Literal:
        return next(each for each in inner if each != default)
    if origin is tuple:
        return (other(inner[0], MISSING),) if inner[1:] == (...,) else tuple(other(each, MISSING) for each in inner)
    if origin is frozenset:
        return frozenset({other(inner[0], MISSING)})
    if inner and (origin is dict or "Mapping" in str(origin)):
        return {other(inner[0], MISSING): other(inner[1], MISSING)}
    return other(next(each for each in inner if each is not type(None)), default)


SPECIAL = {
    ("SamplingParams", "max_tokens"): 9,
    ("SamplingParams", "best_of"): 7,
    ("SamplingParams", "n"): 3,
    ("SamplingParams", "min_tokens"): 2,
    ("Repetition", "min_count"): 5,
    ("Repetition", "min_pattern_size"): 2,
    ("Repetition", "max_pattern_size"): 6,
    ("Constraint", "source"): "{}",
    ("Constraint", "kind"): "lark",
    ("ScheduleSettings", "max_step_tokens"): 300,
    ("ScheduleSettings", "stretch"): 1.5,
    ("CacheSettings", "block_size"): 32,
    ("CacheSettings", "num_blocks"): 3,
    ("BestFirst", "at_once"): 7,
    ("SpeculationSettings", "guess"): "ngram",
    ("Miss", "cause"): "evicted",
}


def test_what_a_search_is_asked_comes_back():
    beam = Beam(width=4, length_penalty=0.5, early_stopping="never", patience=2.0, groups=2, diversity=0.5)
    penalty = Penalty(length="gnmt", alpha=0.5, repetition=1.0, ngram=2, coverage=1.0, phrases=((1, 2),), rerank=True)
    choose = Choose(
        options=((1, 2), (3,)),
        end=True,
        score_all=True,
        at_once=3,
        budget=Budget(nodes=1, tokens=2, seconds=3.5, blocks=4),
    )
    for search in (
        Search(beam=beam, trace=7),
        Search(best_first=BestFirst(at_once=2), penalty=penalty),
        Search(choose=choose),
    ):
        assert Reader(TABLE).read(Search, plain(search)) == search


def test_a_field_is_known_by_its_name_and_not_by_its_number():
    @dataclass(frozen=True)
    class Mixed:
        """As if the fields of Miss had been written in another order."""

        time: float | None = None
        token: int = 0
        cause: str = "cold"

    written = {"Miss": [field.name for field in fields(Mixed)]}
    assert Reader(written).read(Miss, plain(Mixed(1.5, 3, "evicted"))) == Miss("evicted", 3, None, 1.5)


@pytest.mark.parametrize(
    "said", [None, 5, "x", [], {0: "cold"}, {0: "warm", 1: 2}, {0: "cold", 1: "2"}, {9: 1}, {"a": 1}]
)
def test_what_cannot_be_a_record_is_refused(said):
    with pytest.raises(TraceError):
        Reader(TABLE).read(Miss, said)


def test_stand_ins_are_equal_where_whole_lines_are():
    writer, reader = Hashes(), StandIns(50)
    lines = [(7, 7, 8), (7, 7, 9), (8, 7, 9), (7, 7, 8)]
    read = []
    for line in lines:
        words, _ = writer.walk(writer.root, line)
        read.append(tuple(reader.walk(reader.root, memoryview(words).cast("I"))[0]))
    assert read == [(0, 0, 0), (0, 0, 1), (1, 0, 0), (0, 0, 0)]
    other, _ = Hashes().walk(Hashes().root, lines[0])
    assert other != writer.walk(writer.root, lines[0])[0], "every process has a key of its own"


def test_a_token_that_ends_lines_stands_at_the_end_of_the_vocabulary():
    writer, reader = Hashes(), StandIns(50)
    words = writer.next(writer.root, (5, 3, 6), frozenset({3}))
    assert [word & END != 0 for word in words] == [False, True, False]
    assert [reader.next(reader.root, word) for word in words] == [0, 49, 2] and reader.end(3) == 49


@pytest.mark.parametrize("for_guess", [True, False])
def test_what_was_waited_for_is_said_and_in_older_logs_taken_from_what_happened(for_guess):
    line = Encoder(keeps_tokens=False).waited(1.5, (), for_guess)
    assert Decoder(TABLE, False, 50).decode(line) == Waited(1.5, (), for_guess)
    older = TABLE | {"Outcome": [name for name in TABLE["Outcome"] if name != "row_hashes"]}
    assert Decoder(older, False, 50).decode(rare(WAITED, 1.5, [])) == Waited(1.5, (), True)


def test_a_decision_comes_back_against_its_parents_and_alone_behind_a_key():
    """Lines are stand-ins, equal where lines are; a key makes the writer say whole lines again."""
    writer, reader = Encoder(keeps_tokens=False), Decoder(TABLE, False, 50)
    search = Search(beam=Beam(width=4, groups=2, diversity=1.0))
    request = Request((1, 2), SamplingParams(max_tokens=9), Limits(50, 20, frozenset({3})), search=search)
    reader.decode(writer.submitted(0.0, 7, "a", request, None, ""))
    asks = Expand(8, (), frozenset({3}))
    first = Generation((Leaf(1, (5,), asks, 1, 0), Leaf(2, (6,), asks, 1, 0)))
    second = Generation((Leaf(3, (5, 5), asks, 1, 1), Leaf(4, (5, 6), asks, 1, 1)), agreed=(5,))
    third = Generation((Leaf(5, (5, 6, 5), asks, 1, 4), Leaf(6, (5, 5), asks, 0)), agreed=())
    ends = reader.mirror.asked[7].ends
    found = []
    for decision, worths in ((first, {}), (second, {1: -2.5, 9: -1.0, 8: -2.5}), (third, {})):
        line = writer.decided(1.0, 7, decision, worths)
        if decision is third:
            sizes = [len(line)]
            writer.key(2.0)
            sizes.append(len(writer.decided(1.0, 7, decision, worths)))
            assert sizes[1] > sizes[0]
        found.append(reader.decode(line))
    lines = [[leaf.line for leaf in each.generation.leaves] for each in found]
    assert lines == [[(0,), (1,)], [(0, 0), (0, 1)], [(0, 1, 0), (0, 0)]]
    assert found[1].generation.agreed == (0,) and found[1].worths == ((1, 0), (9, 1), (8, 0))
    assert [leaf.parent for leaf in found[2].generation.leaves] == [4, None]
    assert all(leaf.expand == Expand(8, (), ends) for each in found for leaf in each.generation.leaves)


def test_ids_beyond_the_vocabulary_are_refused():
    words, _ = Ids().walk(None, (1, 60))
    with pytest.raises(TraceError, match="0 to 49"):
        KnownIds(50).walk(None, memoryview(words).cast("I"))


def test_stamps_come_back_and_what_is_none_is_refused():
    choices = [Choice(1), Choice(2, stamp=(7, 2**32 - 1)), Choice(3), Choice(4, stamp=(9,) * 300), Choice(5, stamp=())]
    said = results._stamps(choices)
    assert results._read_stamps(Bytes(said), 5) == {1: (7, 2**32 - 1), 3: (9,) * 300, 4: ()}
    assert results._stamps([Choice(1), Choice(2)]) == b""
    with pytest.raises(TraceError, match="of no token"):
        results._read_stamps(Bytes(said), 4)
    for cut in range(len(said)):
        with pytest.raises(TraceError):
            results._read_stamps(Bytes(said[:cut]), 5)
