"""One request read without the rest is what it is in the whole, whatever is damaged; what grows is read once."""

import shutil
from itertools import count, pairwise
from random import Random

import pytest
from recorded import LIMITS, Kept, simulated

from openwork.core.errors import TraceError
from openwork.core.request import Request, SamplingParams
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.core.terms import Terms
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock, successor
from openwork.trace import log, segments
from openwork.trace.entry import Began, Pictured
from openwork.trace.recording import Recording
from openwork.trace.replay.schedule import check
from openwork.trace.timeline import timeline
from openwork.trace.view.journey import Gathering, gather
from openwork.trace.view.request import request_document


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(log, "KEY_EVERY_BYTES", 1500)
    monkeypatch.setattr(log, "KEY_SHARE", 1.0)
    monkeypatch.setattr(log, "LEAST_SEGMENT_BYTES", 12_000)
    monkeypatch.setattr(log, "SEGMENTS", 1 << 20)


class Serving:
    """A small engine that is recorded, one request after another."""

    def __init__(self, directory, **how):
        cache, clock = CacheSettings(10), VirtualClock()
        self.kept = Kept(directory, **how)
        scheduler = Scheduler(ScheduleSettings(32, 8), KVCache(cache))
        self.engine = Engine(Loop(scheduler, EchoRunner(cache, successor(50), clock), clock, self.kept))
        self.num_asked = 0

    def serve(self, num_requests, max_tokens=20, turns=3):
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        for _ in range(num_requests):
            n = self.num_asked
            self.num_asked += 1
            request = Request((n % 7, 1, 2, n % 11), params, LIMITS, terms=Terms(tenant=f"t{n % 3}"))
            self.engine.submit(request, name=f"cmpl-{n}")
            for _ in range(turns):
                self.engine.turn()

    def end(self):
        self.engine.drain()
        self.engine.close()


def compare(directory):
    """Every request, read alone and with the others; how many parts there are."""
    recording, stories = Recording.open(directory), Recording.open(directory).requests()
    wholes = {story.id: Gathering(story.id) for story in stories[:: max(1, len(stories) // 12)]}
    for entry in recording.entries():
        for each in wholes.values():
            each.take(entry)
    for story in stories:
        assert recording.request(story.id) == story, story.id
        if story.id not in wholes:
            continue
        journey, whole = gather(recording.entries_of(story.id), story.id), wholes[story.id].journey
        assert (journey is None) == (whole is None), story.id
        if journey is not None and story.is_whole:
            assert request_document(journey, str) == request_document(whole, str)
    assert set(recording.ids) >= {story.id for story in stories}
    return sum(len(file.parts) for file in recording.index.files)


def lines(entries):
    """What lines say that does not rest on other requests' tokens."""
    return [(type(each), each.time, getattr(each, "number", None), getattr(each, "owners", None)) for each in entries]


# -- parts and the whole ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_request_read_alone_is_what_it_is_in_the_whole(seed, tmp_path):
    simulated(seed, tmp_path)
    assert compare(tmp_path) > 1


def test_only_the_stretch_of_a_request_is_decoded(tmp_path):
    it = Serving(tmp_path)
    it.serve(120)
    it.end()
    recording = Recording.open(tmp_path)
    count = sum(1 for _ in recording.entries())
    for id in ("cmpl-0", "cmpl-60", "cmpl-119"):
        own = list(recording.entries_of(id))
        assert isinstance(own[0], Began) and sum(isinstance(each, Began) for each in own) == 1
        assert len(own) < count / 5
    assert list(recording.entries_of("none")) == [] and recording.tenant_of("none") is None
    assert recording.tenant_of("cmpl-4") == "t1"
    with pytest.raises(TraceError, match="no request 'none'"):
        recording.request("none")


def test_what_lies_around_a_request_begins_at_a_picture_and_can_be_replayed(tmp_path, monkeypatch):
    keys = count()
    monkeypatch.setattr(log.Album, "is_due", lambda self, num_bytes, now_s: next(keys) % 3 == 1)
    monkeypatch.setattr("openwork.trace.recording.AROUND_BYTES", 9000)
    monkeypatch.setattr(log, "LEAST_SEGMENT_BYTES", 60_000)
    it = Serving(tmp_path)
    it.serve(60)
    it.end()
    recording = Recording.open(tmp_path)
    total = sum(1 for _ in recording.entries())
    for id in ("cmpl-30", "cmpl-45", "cmpl-59"):
        around, own = list(recording.entries_around(id)), list(recording.entries_of(id))
        assert isinstance(around[1], Pictured) and len(own) <= len(around) < total / 3
        checked = check(around)
        assert checked.is_equal and checked.steps > 10, checked
        told = timeline(around)
        assert told["replay"]["is_equal"] and id in {each["name"] for each in told["requests"]}
        assert told["memory"] is not None


def test_the_latest_are_listed_for_whoever_may_see_them(tmp_path):
    it = Serving(tmp_path)
    it.serve(90)
    it.end()
    recording = Recording.open(tmp_path)
    truth = {story.id: story for story in recording.requests()}
    listed, left_out = Recording.open(tmp_path).latest(10, lambda tenant: tenant == "t2")
    assert [story.id for story in listed] == [f"cmpl-{n}" for n in range(62, 90, 3)] and left_out == 20
    assert all(story == truth[story.id] for story in listed)
    assert recording.latest(1000, lambda tenant: False) == ([], 0)


@pytest.mark.parametrize("seed", range(7))
def test_damage_costs_a_request_read_alone_what_it_costs_in_the_whole(seed, tmp_path):
    it, draw = Serving(tmp_path), Random(seed)
    it.serve(60, max_tokens=draw.choice([5, 20, 40]))
    it.end()
    for path in draw.sample(sorted(tmp_path.glob("*.flight")), 2):
        data = bytearray(path.read_bytes())
        for _ in range(draw.choice([1, 2, 5])):
            data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data[: draw.choice([len(data), draw.randrange(len(data))])])
    recording = Recording.open(tmp_path)
    assert recording.damage
    compare(tmp_path)


def test_a_ring_that_moved_on_has_forgotten_whole_files_alone(tmp_path):
    it = Serving(tmp_path)
    it.kept.log._max_bytes = 60_000
    it.serve(60)
    following = Recording.open(tmp_path)
    before = len(following.ids)
    it.serve(250, max_tokens=40)
    it.end()
    following.refresh()
    fresh = Recording.open(tmp_path)
    assert "cmpl-0" not in fresh.ids and before and following.ids == fresh.ids
    assert [(p.start, p.end) for f in following.index.files for p in f.parts] == [
        (p.start, p.end) for f in fresh.index.files for p in f.parts
    ]
    compare(tmp_path)


# -- what grows ------------------------------------------------------------------------------------------------------


def test_what_grows_is_read_once_and_comes_to_the_same(tmp_path, monkeypatch):
    it = Serving(tmp_path)
    it.serve(5, max_tokens=100)
    recording = Recording.open(tmp_path)
    following, gathering, given = recording.following("cmpl-4"), Gathering("cmpl-4"), []
    read = []
    init = segments.SegmentReader.__init__
    monkeypatch.setattr(
        segments.SegmentReader,
        "__init__",
        lambda self, segment, start=0, end=None: read.append((segment, start, end)) or init(self, segment, start, end),
    )
    for _ in range(200):
        it.engine.turn()
        recording.refresh()
        for entry in following.more():
            gathering.take(entry)
            given.append(entry)
        assert list(following.more()) == []
    it.end()
    recording.refresh()
    for entry in following.more():
        gathering.take(entry)
        given.append(entry)
    spans = [each for each in read if each[2] is not None]
    assert len(spans) == len(set(spans)) and all(
        one[0] != two[0] or one[2] <= two[1] for one, two in pairwise(spans)
    ), "no byte is decoded twice"
    whole = gather(Recording.open(tmp_path).entries(), "cmpl-4")
    assert whole.story.is_over and request_document(gathering.journey, str) == request_document(whole, str)
    assert lines(given) == lines(Recording.open(tmp_path).entries_of("cmpl-4"))


@pytest.mark.parametrize("keeps_prompts", [True, False])
def test_a_file_that_grows_byte_by_byte_is_never_damaged(keeps_prompts, tmp_path):
    it = Serving(tmp_path / "whole", keeps_prompts=keeps_prompts)
    it.serve(12, max_tokens=4)
    it.end()
    whole = sorted((tmp_path / "whole").glob("*.flight"))
    growing = tmp_path / "growing"
    growing.mkdir()
    shutil.copy(whole[0], growing)
    target, data = growing / whole[0].name, whole[0].read_bytes()
    target.write_bytes(data[: (cut := Random(1).randrange(4000, 6000))])
    recording = Recording.open(growing)
    following, given = recording.following("cmpl-3"), []
    for end in range(cut, len(data) + 1, 11):
        target.write_bytes(data[:end])
        recording.refresh()
        given += following.more()
        assert len(recording.damage) <= 1 and all("in the middle of a line" in each for each in recording.damage)
    target.write_bytes(data)
    for path in whole[1:]:
        shutil.copy(path, growing)
    recording.refresh()
    given += following.more()
    assert not recording.damage and recording.ids == Recording.open(tmp_path / "whole").ids
    assert lines(given) == lines(Recording.open(tmp_path / "whole").entries_of("cmpl-3"))
    story = recording.request("cmpl-3")
    assert story == Recording.open(tmp_path / "whole").request("cmpl-3")
