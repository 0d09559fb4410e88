"""Pictures: a replay that begins in the middle decides as the one that began at the beginning."""

from dataclasses import replace
from random import Random

import pytest
from recorded import Recorded

from openwork.decode.ngram import Ngram
from openwork.trace import log
from openwork.trace.entry import Began, Pictured, Planned
from openwork.trace.recording import Recording
from openwork.trace.schedule import check


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
    for seed in range(1000 if is_long else 25):
        _, entries = recorded(tmp_path / str(seed), seed)
        places = [at for at, entry in enumerate(entries) if isinstance(entry, Pictured)]
        for at in Random(seed).sample(places, min(len(places), 5)):
            rest = from_picture(entries, at)
            checked = check(rest)
            assert checked.is_equal, f"seed {seed}, line {at}: {checked.differences or checked.gaps}"
            assert checked.steps == sum(isinstance(entry, Planned) for entry in rest)
            num_pictures += 1
    assert num_pictures > 100


def test_a_replay_from_a_picture_without_tokens_decides_the_same(tmp_path, often, is_long):
    num_pictures = 0
    for seed in range(1000 if is_long else 25):
        _, entries = recorded(tmp_path / str(seed), seed, keeps_prompts=False)
        if not check(entries).is_equal:  # it goes by which tokens are the same in different places
            continue
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
    for seed in range(25):
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
    assert num_checked > 4
