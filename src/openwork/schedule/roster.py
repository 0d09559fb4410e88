"""Roster: every request that has not ended, its living sequences, and who of them runs and who waits.

It guarantees that a living sequence is in exactly one place, that both places are in order of rank, and that the counts
by tenant are those of the places. It decides nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field

from openwork.core.event import Account, Miss
from openwork.core.output import Guessed, Logprob, SearchReport
from openwork.core.request import Request
from openwork.core.sequence import Sequence, Status
from openwork.decode.strategy import Answer, SearchStrategy


def by_rank(sequence: Sequence) -> tuple[float, int, int]:
    return sequence.rank


@dataclass(slots=True, eq=False)
class Tally:
    """What an Account will say, while it is being counted."""

    queued_s: float | None = None  # None: it has not begun
    cached: int = 0
    rows: int = 0
    chunks: int = 0
    preemptions: int = 0
    stalls: dict[str, float] = field(default_factory=dict)
    miss: Miss | None = None
    drafted: int = 0
    accepted: int = 0
    verify_steps: int = 0

    def close(self, waited: float) -> Account:
        """``waited`` is how long ago it arrived: all of it was queueing if it never began."""
        queued = waited if self.queued_s is None else self.queued_s
        stalls = tuple(sorted(self.stalls.items()))
        guessed = Guessed(self.drafted, self.accepted, self.verify_steps)
        return Account(queued, self.cached, self.rows, self.chunks, self.preemptions, stalls, self.miss, guessed)


@dataclass(slots=True, eq=False)
class Group:
    """The sequences of a search, by node, and what those of the generation that runs have answered."""

    strategy: SearchStrategy
    members: dict[int, Sequence] = field(default_factory=dict)
    awaited: set[int] = field(default_factory=set)
    answers: dict[int, Answer] = field(default_factory=dict)
    scores: dict[int, list[float]] = field(default_factory=dict)  # of leaves that are awaited
    num_born: int = 0  # sequences, which gives the next its index
    num_said: int = 0  # tokens of its best sequence that were told
    num_told: int = 0  # of these, those that another engine had told


@dataclass(slots=True, eq=False)
class Entry:
    """A request that has not ended: its living sequences, and what to say when the last one finishes."""

    request: Request
    arrived: float
    urgency: float  # the first number in the rank of its sequences
    scorer: int = 0  # index of the sequence whose rows score the prompt
    has_begun: bool = False  # in another engine: it is not counted among those that queue
    living: dict[int, Sequence] = field(default_factory=dict)  # index -> sequence
    scores: dict[int, Logprob] = field(default_factory=dict)  # position -> log-probability of the prompt token there
    blocks: set[int] = field(default_factory=set)  # those its sequences held when each finished
    tally: Tally = field(default_factory=Tally)
    group: Group | None = None  # it is a search
    report: SearchReport | None = None  # what that came to

    @property
    def num_scored(self) -> int:
        """Prompt tokens scored so far; they are scored in order, the first is not."""
        return len(self.scores)

    @property
    def is_scored(self) -> bool:
        """Whether all is known of its prompt that was asked for."""
        return self.request.params.prompt_logprobs is None or len(self.scores) == len(self.request.prompt) - 1

    @property
    def prompt_logprobs(self) -> tuple[Logprob | None, ...] | None:
        """One entry a prompt token, None for the first and for those that were never reached."""
        if self.request.params.prompt_logprobs is None:
            return None
        return tuple(self.scores.get(position) for position in range(len(self.request.prompt)))

    def note_stall(self, sequence: Sequence, now: float) -> None:
        """What a sequence was left out of steps for is over."""
        if sequence.stall:
            stalls = self.tally.stalls
            stalls[sequence.stall] = stalls.get(sequence.stall, 0.0) + now - sequence.stalled_at
            sequence.stall = ""


class WaitingRoom:
    """Sequences that hold no blocks, by tenant, each tenant's in order of rank. The new ones have never held any."""

    def __init__(self) -> None:
        self.num_new: dict[str, int] = {}  # tenant -> requests
        self.new_tokens: dict[str, int] = {}  # tenant -> their prompt tokens
        self.total_new = 0
        self.total_new_tokens = 0
        self._lines: dict[str, list[Sequence]] = {}
        self._new: set[int] = set()  # ids of sequences
        self._num = 0

    def __len__(self) -> int:
        return self._num

    def __iter__(self) -> Iterator[Sequence]:
        return (sequence for line in self._lines.values() for sequence in line)

    @property
    def heads(self) -> dict[str, Sequence]:
        """The first in each tenant's line."""
        return {tenant: line[0] for tenant, line in self._lines.items()}

    def __contains__(self, sequence: Sequence) -> bool:
        line = self._lines.get(sequence.tenant, [])
        place = bisect_left(line, sequence.rank, key=by_rank)
        return place < len(line) and line[place] is sequence

    def push(self, sequence: Sequence, is_new: bool) -> None:
        insort(self._lines.setdefault(sequence.tenant, []), sequence, key=by_rank)
        self._num += 1
        if is_new:
            self._new.add(sequence.id)
            self._count(sequence, 1)

    def remove(self, sequence: Sequence) -> None:
        line = self._lines[sequence.tenant]
        place = bisect_left(line, sequence.rank, key=by_rank)
        assert line[place] is sequence, "ranks change only where nobody waits"
        del line[place]
        self._num -= 1
        if not line:
            del self._lines[sequence.tenant]
        if sequence.id in self._new:
            self._new.discard(sequence.id)
            self._count(sequence, -1)

    def _count(self, sequence: Sequence, sign: int) -> None:
        tenant, tokens = sequence.tenant, sign * sequence.prompt_len
        self.total_new += sign
        self.total_new_tokens += tokens
        self.num_new[tenant] = self.num_new.get(tenant, 0) + sign
        self.new_tokens[tenant] = self.new_tokens.get(tenant, 0) + tokens
        if not self.num_new[tenant]:
            del self.num_new[tenant], self.new_tokens[tenant]


class Roster:
    """Everybody, and where they are."""

    def __init__(self) -> None:
        self.entries: dict[int, Entry] = {}  # by request
        self.sequences: dict[int, Sequence] = {}  # by id, living ones
        self.running: list[Sequence] = []  # in order of rank
        self.waiting = WaitingRoom()
        self.running_of: dict[str, int] = {}  # tenant -> running sequences
        self.held: list[Sequence] = []  # lines that searches may go on from; they give way to anybody
        self._num_born = 0

    def new(self, request_id: int, index: int, request: Request, tokens: list[int], since: float) -> Sequence:
        """A sequence that has yet to enter."""
        sequence = Sequence(self._num_born, request_id, index, request, None, tokens)
        sequence.rank = (self.entries[request_id].urgency, request_id, index)
        sequence.since = since
        self._num_born += 1
        return sequence

    def dispensable(self, tenant: str | None = None) -> Sequence | None:
        """Who of the held ones, of one tenant or of all, goes first: of the latest request, the one least worth."""
        found = [s for s in self.held if tenant is None or s.tenant == tenant]
        return max(found, key=lambda s: (s.rank[:2], -self.worth(s)), default=None)

    def worth(self, sequence: Sequence) -> float:
        """What a line that goes on from a held one may score; one whose search has not decided yet is worth most."""
        group, node = self.entries[sequence.request_id].group, sequence.strategy.node
        assert group is not None
        worth = None if node in group.answers else group.strategy.worth(node)
        return float("inf") if worth is None else worth

    def enter(self, sequence: Sequence, is_new: bool) -> None:
        """A sequence is born, and takes its place by its status."""
        entry = self.entries[sequence.request_id]
        entry.living[sequence.index] = sequence
        self.sequences[sequence.id] = sequence
        if sequence.status is Status.RUNNING:
            self._run(sequence)
        else:
            self.waiting.push(sequence, is_new)

    def start(self, sequence: Sequence) -> None:
        self.waiting.remove(sequence)
        sequence.status = Status.RUNNING
        self._run(sequence)

    def _run(self, sequence: Sequence) -> None:
        insort(self.running, sequence, key=by_rank)
        self.running_of[sequence.tenant] = self.running_of.get(sequence.tenant, 0) + 1

    def stop(self, sequence: Sequence) -> None:
        self._leave_running(sequence)
        sequence.status = Status.WAITING
        self.waiting.push(sequence, is_new=False)

    def hold(self, sequence: Sequence) -> None:
        """A running sequence has answered, and its blocks are kept."""
        self._leave_running(sequence)
        sequence.status = Status.HELD
        self.held.append(sequence)

    def go_on(self, sequence: Sequence) -> None:
        """A held one has more to compute."""
        self.held.remove(sequence)
        sequence.status = Status.RUNNING
        self._run(sequence)

    def bury(self, sequence: Sequence) -> None:
        """A sequence has finished."""
        if sequence.status is Status.RUNNING:
            self._leave_running(sequence)
        elif sequence.status is Status.HELD:
            self.held.remove(sequence)
        else:
            self.waiting.remove(sequence)
        sequence.status = Status.FINISHED
        entry = self.entries[sequence.request_id]
        del self.sequences[sequence.id]
        del entry.living[sequence.index]
        if entry.group is not None:
            del entry.group.members[sequence.strategy.node]

    def _leave_running(self, sequence: Sequence) -> None:
        del self.running[bisect_left(self.running, sequence.rank, key=by_rank)]
        self.running_of[sequence.tenant] -= 1
        if not self.running_of[sequence.tenant]:
            del self.running_of[sequence.tenant]

    def check(self) -> None:
        """Raise AssertionError unless everybody is in one place and counted there."""
        waiting = list(self.waiting)
        assert all(s.status is Status.RUNNING for s in self.running)
        assert all(s.status is Status.WAITING and not s.blocks for s in waiting)
        assert self.running == sorted(self.running, key=by_rank)
        assert all(s in self.waiting for s in waiting) and len(self.waiting) == len(waiting)
        assert all(s.status is Status.HELD and s.blocks and not s.due and not s.pending for s in self.held)
        places = {s.id for s in (*self.running, *waiting, *self.held)}
        assert places == set(self.sequences) and len(places) == len(self.running) + len(waiting) + len(self.held)
        assert {s.id for e in self.entries.values() for s in e.living.values()} == places
        tenants = [s.tenant for s in self.running]
        assert self.running_of == {tenant: tenants.count(tenant) for tenant in tenants}
        new = [e for e in self.entries.values() if e.tally.queued_s is None and not e.has_begun]
        assert self.waiting.total_new == len(new) == sum(self.waiting.num_new.values())
        assert self.waiting.total_new_tokens == sum(len(e.request.prompt) for e in new)
