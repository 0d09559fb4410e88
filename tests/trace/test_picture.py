"""Pictures: a replay that begins in the middle decides as the one that began at the beginning."""

from dataclasses import fields, replace
from random import Random

import msgspec
import pytest
from recorded import LIMITS, Recorded

from openwork import LLM, SamplingParams
from openwork.core.request import Request
from openwork.core.search import Beam, BestFirst, Choose, Search
from openwork.core.sequence import Sequence
from openwork.core.settings import CacheSettings, ScheduleSettings, SpeculationSettings
from openwork.decode.ngram import Ngram
from openwork.decode.search import strategy_of
from openwork.kv.cache import KVCache
from openwork.kv.prefix import Node
from openwork.schedule.roster import Entry, Group, Tally
from openwork.schedule.scheduler import Scheduler
from openwork.trace import log
from openwork.trace.coding.shape import PICTURE
from openwork.trace.coding.state import APART, DERIVED, FIELDS
from openwork.trace.entry import Began, Pictured, Planned
from openwork.trace.recording import Recording
from openwork.trace.replay.schedule import check
from openwork.trace.segments import MAGIC, MARK, Segment, SegmentReader, frame


@pytest.fixture
def often(monkeypatch):
    """Pictures wherever a key stands, and keys every few hundred bytes."""
    monkeypatch.setattr(log, "KEY_EVERY_BYTES", 300)
    monkeypatch.setattr(log, "KEY_SHARE", 100.0)
    monkeypatch.setattr(log.Album, "is_due", lambda self, num_bytes, now_s: True)


class World(Recorded):
    """A world whose guesses are made as an engine makes them, so that a replay makes them too."""

    def _guesser(self, sequence):
        return Ngram(sequence.prompt_len)


def recorded(directory, seed, keeps_prompts=True):
    """The lines of a world, and what it was."""
    world = World(seed, directory, keeps_prompts=keeps_prompts).run()
    assert [told for kept in world.kept for told in kept.told] == []
    return world, list(Recording.open(directory).entries())


def from_picture(entries, at):
    """What a reader has who has lost everything before a picture."""
    began = next(entry for entry in reversed(entries[:at]) if isinstance(entry, Began))
    end = next((i for i in range(at, len(entries)) if isinstance(entries[i], Began)), len(entries))
    return [began, replace(entries[at], known=()), *entries[at + 1 : end]]


def test_a_replay_from_any_picture_decides_the_same(tmp_path, often, is_long):
    num_pictures = 0
    for seed in range(1000 if is_long else 12):
        _, entries = recorded(tmp_path / str(seed), seed)
        places = [at for at, entry in enumerate(entries) if isinstance(entry, Pictured)]
        for at in Random(seed).sample(places, min(len(places), 5)):
            rest = from_picture(entries, at)
            checked = check(rest)
            assert checked.is_equal, f"seed {seed}, line {at}: {checked.differences or checked.gaps}"
            assert checked.steps == sum(isinstance(entry, Planned) for entry in rest)
            num_pictures += 1
    assert num_pictures > 40


def test_a_replay_from_a_picture_without_tokens_decides_the_same(tmp_path, often, is_long):
    num_pictures = 0
    for seed in range(1000 if is_long else 12):
        _, entries = recorded(tmp_path / str(seed), seed, keeps_prompts=False)
        places = [at for at, entry in enumerate(entries) if isinstance(entry, Pictured)]
        for at in Random(seed).sample(places, min(len(places), 5)):
            checked = check(from_picture(entries, at))
            assert checked.is_equal, f"seed {seed}, line {at}: {checked.differences or checked.gaps}"
            num_pictures += 1
    assert num_pictures > 30


@pytest.mark.parametrize("keeps_prompts", [True, False])
def test_a_recording_whose_beginning_is_gone_replays_from_its_first_picture(keeps_prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(log, "LEAST_SEGMENT_BYTES", 6000)
    monkeypatch.setattr(log, "SEGMENTS", 1 << 20)
    num_checked = 0
    for seed in range(8):
        directory = tmp_path / str(seed)
        _, entries = recorded(directory, seed, keeps_prompts)
        files = sorted(directory.glob("*.flight"))
        gone = Random(seed).randrange(1, len(files)) if len(files) > 1 else 0
        if not gone or files[gone].name.endswith("-000000.flight") or not check(entries).is_equal:
            continue
        for path in files[:gone]:
            path.unlink()
        recording = Recording.open(directory)
        rest = list(recording.entries())
        first = next((at for at, entry in enumerate(rest) if isinstance(entry, Pictured)), None)
        if first is None or any(isinstance(entry, Began) for entry in rest[1:first]):
            continue
        checked = check(rest)
        assert not checked.differences and not recording.damage, f"seed {seed}: {checked.differences}"
        assert checked.unread <= first - 1 and len(checked.since) == 1, f"seed {seed}: {checked}"
        assert checked.steps == sum(isinstance(entry, Planned) for entry in rest[first:])
        num_checked += 1
    assert num_checked > 0


@pytest.mark.parametrize("keeps_prompts", [True, False])
def test_behind_what_is_damaged_a_replay_goes_on_at_the_next_picture(keeps_prompts, tmp_path, often):
    num_resumed = 0
    for seed in range(10):
        directory = tmp_path / str(seed)
        _, entries = recorded(directory, seed, keeps_prompts)
        path = max(directory.glob("*.flight"), key=lambda path: path.stat().st_size)
        data, draw = bytearray(path.read_bytes()), Random(seed)
        if len(data) < 20_000 or not check(entries).is_equal:
            continue
        for _ in range(3):
            data[draw.randrange(6000, len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        recording = Recording.open(directory)
        checked = check(recording.entries())
        assert recording.damage and not checked.differences, f"seed {seed}: {checked.differences}"
        num_resumed += bool(checked.since)
    assert num_resumed > 1


# -- what is in a picture --------------------------------------------------------------------------------------------


def test_every_field_of_the_pure_half_has_its_place():
    """Whoever gives a part of the scheduler another field says here whether a picture holds it."""
    settings = ScheduleSettings(32, 8, speculation=SpeculationSettings())
    scheduler = Scheduler(settings, KVCache(CacheSettings(10)))
    roster, planner, cache = scheduler._roster, scheduler._planner, scheduler.cache
    parts = [scheduler, roster, roster.waiting, scheduler._shares, scheduler._policy, planner, planner.budget]
    parts += [planner._speculation, planner._speculation._pace, cache, cache.pool, cache.eviction, cache.tree]
    how = [Search(beam=Beam(width=2)), Search(best_first=BestFirst()), Search(choose=Choose(options=((1,), (2,))))]
    for search in how:
        params = SamplingParams(min_tokens=1 if search.best_first else 0, max_tokens=None if search.choose else 4)
        parts.append(strategy_of(Request((1,), params, LIMITS, search=search)))
    found = {type(part): set(vars(part)) for part in parts}
    found |= {kind: {each.name for each in fields(kind)} for kind in (Sequence, Entry, Tally, Group)}
    found[Node] = set(Node.__slots__)
    for kind, names in found.items():
        said = [set(FIELDS.get(kind, ())), APART.get(kind, set()), DERIVED.get(kind, set())]
        assert set.union(*said) == names, f"{kind.__name__}: {set.union(*said) ^ names}"
        assert sum(map(len, said)) == len(names), f"{kind.__name__}: a field is in two places"
    assert set(found) == set(FIELDS) | set(APART) | set(DERIVED)


def test_a_picture_without_tokens_tells_nothing_of_them(tmp_path, often):
    words = "a very secret thing indeed"
    with LLM(record=tmp_path, record_prompts=False) as llm:
        outputs = llm.generate([words, words + " of old"], SamplingParams(max_tokens=30, temperature=0, logprobs=2))
        llm.generate([words], SamplingParams(max_tokens=8, seed=1, prompt_logprobs=2, n=3))
    data = b"".join(path.read_bytes() for path in sorted(tmp_path.glob("*.flight")))
    assert sum(isinstance(entry, Pictured) for entry in Recording.open(tmp_path).entries()) > 10
    for output in outputs:
        for line in (output.prompt_ids, output.token_ids):
            for width in (2, 4, 8):
                assert b"".join(token.to_bytes(width, "little") for token in line[:3]) not in data
            assert msgspec.msgpack.encode(line[:4])[1:] not in data
    assert check(Recording.open(tmp_path).entries()).is_equal


def test_a_request_whose_arrival_is_gone_is_known_from_a_picture(tmp_path, often):
    with LLM(record=tmp_path) as llm:
        (output,) = llm.generate(["once upon a time"], SamplingParams(max_tokens=60, temperature=0, ignore_eos=True))
    entries = list(Recording.open(tmp_path).entries())
    pictured = [entry for entry in entries if isinstance(entry, Pictured)]
    (path,) = tmp_path.glob("*.flight")
    data = path.read_bytes()
    marks = [at for at in range(len(data)) if data.startswith(MARK, at)]
    assert len(marks) == len(pictured) > 10
    broken = bytearray(data)
    broken[marks[0] - 40] ^= 1  # before the first key; then to the tenth everything is lost
    broken[marks[0] : marks[9]] = bytes(marks[9] - marks[0])
    path.write_bytes(broken)
    recording = Recording.open(tmp_path)
    (story,) = recording.requests()
    assert story.lines[0].tokens == list(output.token_ids) and story.request.prompt == output.prompt_ids
    assert story.is_known and not story.is_whole
    checked = check(recording.entries())
    assert checked.since and not checked.differences and not checked.unread


@pytest.mark.parametrize("seed", range(6))
def test_a_picture_that_makes_no_sense_is_said_to_and_nothing_else(seed, tmp_path, often):
    """Numbers are changed anywhere in it, under the right checksum."""
    _, entries = recorded(tmp_path, seed)
    draw = Random(seed)
    segments = [path for path in sorted(tmp_path.glob("*.flight")) if path.stat().st_size > 10_000]
    for path in segments:
        bodies = list(SegmentReader(Segment(0, 0, path)).frames())
        for place, body in enumerate(bodies):
            if body[0] == PICTURE:
                changed = bytearray(body)
                for _ in range(3):
                    changed[draw.randrange(9, len(changed))] = draw.randrange(256)
                bodies[place] = bytes(changed)
        path.write_bytes(MAGIC + b"".join(frame(body) for body in bodies))
    read = list(Recording.open(tmp_path).entries())
    for at, entry in enumerate(read):
        if isinstance(entry, Pictured):
            check(from_picture(read, at)[:20])
    assert [entry for entry in read if not isinstance(entry, Pictured)] == [
        entry for entry in entries if not isinstance(entry, Pictured)
    ]


def test_a_picture_of_another_version_is_passed_over(tmp_path, often, monkeypatch):
    monkeypatch.setattr("openwork.trace.coding.picture.VERSION", 7)
    with LLM(record=tmp_path) as llm:
        llm.generate(["once upon a time"], SamplingParams(max_tokens=20))
    recording = Recording.open(tmp_path)
    assert check(recording.entries()).is_equal
    assert recording.damage and all("another version" in each for each in recording.damage)
    assert all(story.is_whole for story in recording.requests())
