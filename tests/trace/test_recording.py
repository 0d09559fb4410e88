"""What befalls a recording: files that are cut, flipped, gone or foreign; a full disk; a process that is killed."""

import errno
import os
import signal
import subprocess
import sys
from random import Random

import pytest
from recorded import LIMITS, Kept, simulated

from openwork import LLM, SamplingParams
from openwork.core.errors import TraceError
from openwork.core.event import Ended, Token
from openwork.core.request import Request
from openwork.core.settings import CacheSettings, ScheduleSettings
from openwork.engine.loop import Loop
from openwork.engine.service import Engine
from openwork.kv.cache import KVCache
from openwork.schedule.scheduler import Scheduler
from openwork.testing.echo import EchoRunner, VirtualClock, successor
from openwork.trace import log
from openwork.trace.entry import Began, Pictured, Planned, Ran, Submitted
from openwork.trace.recording import Recording
from openwork.trace.replay.schedule import check
from openwork.trace.view.documents import View
from openwork.trace.view.lamp import Lamp

SMALL = 60_000


def served(directory, num_requests=30, max_tokens=20, **how):
    """A small engine that is recorded; its recorder, and the tokens of each request."""
    cache, clock = CacheSettings(10), VirtualClock()
    kept = Kept(directory, **how)
    loop = Loop(
        Scheduler(ScheduleSettings(32, 8), KVCache(cache)), EchoRunner(cache, successor(50), clock), clock, kept
    )
    engine = Engine(loop)
    tokens = {}
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    for number in range(num_requests):
        stream = engine.submit(Request((number % 7, 1, 2, number % 11), params, LIMITS), name=f"cmpl-{number}")
        for _ in range(3):
            engine.turn()
        tokens[f"cmpl-{number}"] = stream
    engine.drain()
    engine.close()
    said = {name: [e.choice.token for e in s.take() if isinstance(e, Token)] for name, s in tokens.items()}
    return kept, said


def files(directory):
    return sorted(directory.glob("*.flight"))


# -- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_cost_only_what_rests_on_them(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(log, "KEY_EVERY_BYTES", 2000)
    kept, said = served(tmp_path)
    draw = Random(seed)
    (path,) = files(tmp_path)
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 1, 3, 20])):
        data[draw.randrange(4000, len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    recording = Recording.open(tmp_path)
    read = list(recording.entries())
    assert recording.damage and all(path.name in each for each in recording.damage)
    truth = {(type(each), each.time, getattr(each, "number", None)): each for each in kept.entries}
    for entry in read:
        if isinstance(entry, Pictured):
            continue
        true = truth[type(entry), entry.time, getattr(entry, "number", None)]
        if isinstance(entry, Submitted | Began):
            assert entry == true
        elif isinstance(entry, Planned):  # tokens that were lost are zeros, everything else is there
            assert [w.blocks for w in entry.step.works] == [w.blocks for w in true.step.works]
            assert entry.owners == true.owners
        elif isinstance(entry, Ran):
            assert entry.result.elapsed_s == true.result.elapsed_s and entry.events == true.events
    for story in recording.requests():
        assert story.is_whole <= (story.lines[0].tokens == said[story.id] if story.lines else not story.is_whole)
        if not story.is_whole:
            assert len(story.lines.get(0).tokens if story.lines else []) <= len(said[story.id])


@pytest.mark.parametrize("keeps_prompts", [True, False])
def test_a_file_that_is_cut_anywhere_is_read_up_to_there(keeps_prompts, tmp_path):
    served(tmp_path, num_requests=4, max_tokens=5, keeps_prompts=keeps_prompts)
    (path,) = files(tmp_path)
    data = path.read_bytes()
    whole = list(Recording.open(tmp_path).entries())
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        try:
            recording = Recording.open(tmp_path)
        except TraceError:
            assert end < 4000
            continue
        read = list(recording.entries())
        assert read == whole[: len(read)]
        assert len(recording.damage) <= 1 and (end == len(data) or read != whole or not recording.damage)
        recording.requests()


def test_what_is_not_a_recording_is_said_to_be_none(tmp_path):
    with pytest.raises(TraceError, match="no recording"):
        Recording.open(tmp_path)
    with pytest.raises(TraceError, match="cannot be read"):
        Recording.open(tmp_path / "nowhere")
    (tmp_path / "000000-000000.flight").write_bytes(b"SQLite format 3\0" + bytes(4000))
    with pytest.raises(TraceError, match="no recording, or of another version"):
        Recording.open(tmp_path)
    _, said = served(tmp_path, num_requests=3)
    recording = Recording.open(tmp_path)  # a foreign file beside it
    assert {story.id: story.lines[0].tokens for story in recording.requests()} == said
    assert len(recording.damage) == 1
    with pytest.raises(TraceError, match="no request 'x'"):
        recording.request("x")


@pytest.mark.parametrize("seed", range(30))
def test_noise_with_the_right_checksum_is_damage_and_no_traceback(seed, tmp_path):
    from openwork.trace.segments import MAGIC, SegmentReader, frame, segments

    served(tmp_path, num_requests=6)
    draw = Random(seed)
    (segment,) = segments(tmp_path)
    bodies = [bytearray(body) for body in SegmentReader(segment).frames()]
    for body in draw.sample(bodies[1:], 5):
        body[draw.randrange(len(body))] = draw.randrange(256)
    segment.path.write_bytes(MAGIC + b"".join(frame(bytes(body)) for body in bodies))
    recording = Recording.open(tmp_path)
    list(recording.entries())
    recording.requests()
    check(recording.entries())


# -- room ------------------------------------------------------------------------------------------------------------


def test_the_oldest_files_make_room_and_what_is_gone_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(log.FlightRecorder, "_make_room", small_room(log.FlightRecorder._make_room))
    served(tmp_path, num_requests=3, max_tokens=4)
    _, said = served(tmp_path, num_requests=300, max_tokens=40)
    assert sum(path.stat().st_size for path in files(tmp_path)) <= SMALL + (1 << 14)
    recording = Recording.open(tmp_path)
    stories = recording.requests()
    assert recording.damage == ()
    assert 0 < len(stories) < 300 and stories[-1].id == "cmpl-299"
    broken = [story for story in stories if not story.is_whole]
    assert broken and all(story.request is None or story.lines for story in broken)
    for story in stories:
        if story.is_whole:
            assert story.lines[0].tokens == said[story.id]
        else:
            tokens = story.lines[0].tokens
            assert story.lines[0].num_missing + len(tokens) == 40 and said[story.id][40 - len(tokens) :] == tokens


def test_what_a_picture_knows_of_a_request_that_began_before_can_be_looked_into(tmp_path, monkeypatch):
    monkeypatch.setattr(log.FlightRecorder, "_make_room", small_room(log.FlightRecorder._make_room))
    _, said = served(tmp_path, num_requests=300, max_tokens=40)
    recording = Recording.open(tmp_path)
    known = [story for story in recording.requests() if story.is_known and not story.is_whole]
    assert known
    for story in known:
        view = View(recording, story.id, Lamp(dark="no model"))
        tokens = view.document("request")["sequences"][0]["ids"]
        assert tokens == said[story.id] == recording.request(story.id).lines[0].tokens
        view.document("timeline")


def small_room(make_room):
    def bounded(self):
        self._max_bytes, self._segment_bytes = SMALL, 1 << 13
        make_room(self)

    return bounded


@pytest.mark.parametrize("fails_at", [0, 1, 2, 9, 60])
def test_a_full_disk_stops_the_recording_and_not_the_engine(fails_at, tmp_path, monkeypatch):
    write, calls = os.write, [0]

    def full(descriptor, data):
        calls[0] += 1
        if fails_at < calls[0] <= fails_at + 25:
            if calls[0] % 2 and len(data) > 20:
                return write(descriptor, data[:10])  # a part of it fits
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr("openwork.trace.segments.os.write", full)
    monkeypatch.setattr(log, "RETRY_S", 0.0)
    if fails_at == 0:
        with pytest.raises(TraceError, match="No space left"):
            served(tmp_path)
        return
    kept, said = served(tmp_path)
    assert all(len(tokens) == 20 for tokens in said.values()), "the engine did not go on"
    assert "recording stopped: No space left on device" in kept.told[0] and "goes on" in kept.told[-1]
    assert kept.log.state.num_failures == 1 and kept.log.state.why_off == ""
    recording = Recording.open(tmp_path)
    stories = recording.requests()
    assert recording.damage == (), "what was written is whole"
    assert stories[-1].lines[0].tokens == said[stories[-1].id], "it did not begin anew"
    for story in stories:
        assert not story.is_whole or story.lines[0].tokens == said[story.id]


def test_a_directory_that_goes_away_is_not_the_engines_trouble(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "RETRY_S", 0.0)
    place = tmp_path / "here"
    kept = Kept(place)
    kept.log._segment_bytes = 3000
    for path in files(place):
        path.unlink()
    place.rmdir()
    cache, clock = CacheSettings(10), VirtualClock()
    loop = Loop(
        Scheduler(ScheduleSettings(32, 8), KVCache(cache)), EchoRunner(cache, successor(50), clock), clock, kept
    )
    engine = Engine(loop)
    stream = engine.submit(Request((1, 2), SamplingParams(max_tokens=60, ignore_eos=True), LIMITS))
    engine.drain()
    assert isinstance(stream.take()[-1], Ended)
    assert kept.told and "recording stopped" in kept.told[0]
    assert files(place) == [] or Recording.open(place)


def test_nowhere_to_write_is_said_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TraceError, match="nothing can be recorded"):
        LLM(record=tmp_path / "file" / "below")


# -- processes -------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
from openwork import LLM, SamplingParams
llm = LLM(record=sys.argv[1])
count = 0
for chunk in llm.stream("once upon a time", SamplingParams(max_tokens=200, temperature=0, ignore_eos=True)):
    count += len(chunk.token_ids)
    os.write(1, b"".join(b"%d\\n" % token for token in chunk.token_ids))
    if count >= int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("count", [1, 30])
def test_a_process_that_is_killed_loses_nothing_that_it_gave_out(count, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(count)], capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    given = [int(token) for token in done.stdout.split()]
    recording = Recording.open(tmp_path)
    (story,) = recording.requests()
    assert recording.damage == () and story.is_whole and not story.is_over
    assert story.lines[0].tokens[:count] == given and len(story.lines[0].tokens) <= count + 1
    assert all(row is not None for row in story.lines[0].row_hashes)
    assert check(recording.entries()).is_equal


def test_an_llm_names_its_requests_and_several_share_a_directory(tmp_path):
    params = SamplingParams(max_tokens=3, temperature=0)
    for _ in range(2):
        with LLM(record=tmp_path) as llm:
            outputs = llm.generate(["once", "upon a"], params)
    stories = Recording.open(tmp_path).requests()
    assert [story.id for story in stories] == ["0", "1", "1-0", "1-1"]
    for story, output in zip(stories[2:], outputs, strict=True):
        assert story.lines[0].tokens == list(output.token_ids) and story.request.prompt == output.prompt_ids
        assert story.has_tokens and None not in story.lines[0].row_hashes
    assert all(path.stat().st_mode & 0o077 == 0 for path in files(tmp_path))


def test_without_prompts_nothing_tells_what_was_written(tmp_path):
    words = "a very secret thing indeed"
    params = SamplingParams(max_tokens=8, temperature=0, logprobs=3, prompt_logprobs=2, stop="xylophone")
    with LLM(record=tmp_path, record_prompts=False) as llm:
        (output,) = llm.generate(words, params)
        llm.generate(words, params)
    (path,) = files(tmp_path)
    data = path.read_bytes()
    assert b"xylophone" not in data
    for line in (output.prompt_ids, output.token_ids):
        for width in (2, 4, 8):
            assert b"".join(token.to_bytes(width, "little") for token in line[:3]) not in data
    recording = Recording.open(tmp_path)
    one, two = recording.requests()
    assert not one.has_tokens and one.prompt_len == len(output.prompt_ids)
    assert one.request.prompt == two.request.prompt != output.prompt_ids, "what is equal is seen to be equal"
    assert one.lines[0].tokens == two.lines[0].tokens and set(one.lines[0].row_hashes) == {None}
    assert check(recording.entries()).is_equal


def test_a_recording_without_tokens_replays(tmp_path):
    num_checked = 0
    for seed in range(60):
        it = simulated(seed, tmp_path / str(seed), keeps_prompts=False)
        assert all(kept.told == [] for kept in it.kept)
        if it.settings.speculation is None and not any(map(depends_on_ids, it.requests.values())):
            checked = check(Recording.open(tmp_path / str(seed)).entries())
            assert checked.is_equal, f"seed {seed}: {checked.differences}"
            num_checked += 1
    assert num_checked > 5


def depends_on_ids(request):
    """Whether it matters which tokens are the same in different places, which stand-ins do not say."""
    search = request.search
    if search is None:
        return request.params.repetition_detection is not None
    return bool(search.penalty and search.penalty.repetition) or bool(search.beam and search.beam.groups > 1)
