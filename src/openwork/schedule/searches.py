"""Searches: what becomes of the sequences of a request that searches. Leaves are computed like everybody else's lines.

A sequence that has answered is held: it has nothing to compute, and its blocks wait for lines that go on from it. When
all leaves of a generation have answered, its search names the next ones: the last line to go on from a held sequence
takes it over, those before it fork it, and one whose parent was let go waits like any other and begins from the cache.
So running out of blocks costs a search time, never its answer. It knows neither steps nor whose turn it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Line

from openwork.core.event import Event, Finished, Token
from openwork.core.output import Failure, FinishReason, SearchReport
from openwork.core.request import Request
from openwork.core.sequence import Sequence, Status
from openwork.core.step import Choice, Outcome
from openwork.decode.search import Strategies
from openwork.decode.strategy import Answer, Generation, Leaf, Member, Spent
from openwork.kv.cache import KVCache
from openwork.schedule.roster import Entry, Group, Roster

MOST_KEPT = 256  # held lines of one search: beyond them the least worth is found in the prefix cache, or computed again

# (time, request, what it does next, what the lines are worth that it may keep)
Hear = Callable[[float, int, Generation, Mapping[int, float]], None]


class Searches:
    """Carries out what the strategies of searching requests decide.

    ``hear`` is told the decisions of those that compare tokens (core/search.py).
    """

    def __init__(self, cache: KVCache, roster: Roster, strategies: Strategies) -> None:
        self.hear: Hear | None = None
        self._cache = cache
        self._roster = roster
        self._strategies = strategies

    def begin(self, request_id: int, so_far: Line[int], now: float) -> None:
        """Let a request in; ``so_far`` of its best sequence was told by another engine, and is not told again."""
        entry = self._roster.entries[request_id]
        group = Group(self._strategies.searching(request_id, entry.request), num_told=len(so_far))
        entry.group = group
        (root,) = group.strategy.begin().leaves
        group.awaited = {root.node}
        self._place(self._born(request_id, entry, group, [*entry.request.prompt], now), root, group)

    def take(self, sequence: Sequence, outcome: Outcome, now: float) -> list[Event]:
        """What came back of one work of a leaf. The search has ended when its entry has nobody living."""
        entry = self._roster.entries[sequence.request_id]
        group, node = entry.group, sequence.strategy.node
        assert group is not None
        if outcome.scores and sequence.to_score is not None:
            group.scores[node] += [each.logprob for each in outcome.scores]
            sequence.to_score += len(outcome.scores)
        if outcome.candidates is None:
            return []
        sequence.pending -= 1
        group.awaited.discard(node)
        group.answers[node] = Answer(tuple(group.scores.pop(node)), outcome.candidates)
        if sequence.status is Status.RUNNING:
            self._roster.hold(sequence)
        else:  # preempted while the step ran: nothing of it is left to go on from
            entry.note_stall(sequence, now)
            self._roster.bury(sequence)
        if group.awaited:
            return []
        answers, group.answers = group.answers, {}
        decision = group.strategy.decide(answers, Spent(entry.tally.rows, now - entry.arrived))
        if isinstance(decision, SearchReport):
            return self._conclude(sequence.request_id, entry, decision, now)
        if self.hear is not None and entry.request.search is not None and entry.request.search.compares_tokens:
            worths = {node: worth for node in group.members if (worth := group.strategy.worth(node)) is not None}
            self.hear(now, sequence.request_id, decision, worths)
        events = self._tell(sequence.request_id, entry.request, group, decision.agreed, now)
        self._grow(sequence.request_id, entry, group, decision, now)
        return events

    def end(
        self, request_id: int, reason: FinishReason, now: float, message: str = "", failure: Failure = ""
    ) -> list[Event]:
        """End a search that has not concluded."""
        entry = self._roster.entries[request_id]
        for sequence in list(entry.living.values()):
            if reason == "error":
                self._cache.forget(sequence, is_poisoned=False)
            self._drop(entry, sequence, now, keep=reason != "error")
        how = (reason, now, None, message, failure)
        return [Finished(request_id, index, *how) for index in range(entry.request.params.n)]

    # -- from one generation to the next -------------------------------------------------------------------------

    def _grow(self, request_id: int, entry: Entry, group: Group, generation: Generation, now: float) -> None:
        uses = Counter(leaf.parent for leaf in generation.leaves if leaf.parent is not None)
        group.awaited = {leaf.node for leaf in generation.leaves}
        for leaf in generation.leaves:
            parent = None if leaf.parent is None else group.members.get(leaf.parent)
            if leaf.parent is not None:
                uses[leaf.parent] -= 1
            if parent is None:
                child = self._born(request_id, entry, group, [*entry.request.prompt, *leaf.line], now)
            elif uses[parent.strategy.node] or group.strategy.worth(parent.strategy.node) is not None:
                child = self._born(request_id, entry, group, [*entry.request.prompt, *leaf.line], now)
                child.status, child.admitted, child.is_overdue = Status.RUNNING, parent.admitted, parent.is_overdue
                self._cache.fork(parent, child)
            else:
                child = parent
                del group.members[parent.strategy.node]
                child.tokens += leaf.line[len(leaf.line) - leaf.fresh :]
                child.since, child.gave_way = now, False
            self._place(child, leaf, group)
        kept: list[tuple[float, Sequence]] = []
        for node, sequence in list(group.members.items()):
            if sequence.status is Status.HELD:
                worth = group.strategy.worth(node)
                if worth is None:
                    self._drop(entry, sequence, now, keep=False)
                else:
                    kept.append((worth, sequence))
        self._trim(entry, kept, now)

    def _born(self, request_id: int, entry: Entry, group: Group, tokens: list[int], now: float) -> Sequence:
        child = self._roster.new(request_id, group.num_born, entry.request, tokens, now)
        group.num_born += 1
        return child

    def _place(self, sequence: Sequence, leaf: Leaf, group: Group) -> None:
        sequence.strategy = Member(leaf.node, leaf.expand)
        sequence.to_score = sequence.known - leaf.fresh if leaf.fresh > 1 else None
        group.scores[leaf.node] = []
        group.members[leaf.node] = sequence
        if sequence.status is Status.HELD:
            self._roster.go_on(sequence)
        else:
            entry = self._roster.entries[sequence.request_id]
            is_root = not leaf.line and not sequence.index
            self._roster.enter(sequence, is_new=is_root and not entry.has_begun)

    def _trim(self, entry: Entry, kept: list[tuple[float, Sequence]], now: float) -> None:
        """Let go of held lines beyond what one search may keep, those that are worth least first."""
        most = entry.request.search.budget.blocks if entry.request.search is not None else None
        if len(kept) <= MOST_KEPT and most is None:
            return
        kept.sort(key=lambda each: each[0], reverse=True)
        # How many of them hold each block; nobody asks without a bound.
        holders = Counter[int]() if most is None else Counter(block for _, each in kept for block in each.blocks)
        while kept and (len(kept) > MOST_KEPT or (most is not None and len(holders) > most)):
            _, least = kept.pop()
            if most is not None:
                holders -= Counter(least.blocks)
            self._drop(entry, least, now, keep=True)

    def _drop(self, entry: Entry, sequence: Sequence, now: float, keep: bool) -> None:
        entry.blocks.update(sequence.blocks)
        entry.note_stall(sequence, now)
        self._cache.free(sequence, keep)
        self._roster.bury(sequence)

    # -- what its reader hears -----------------------------------------------------------------------------------

    def _tell(self, request_id: int, request: Request, group: Group, tokens: Line[int], now: float) -> list[Event]:
        """Tokens that its best sequence goes on with."""
        events: list[Event] = []
        for token in tokens:
            if group.num_said >= group.num_told:
                events.append(Token(request_id, 0, len(request.prompt) + group.num_said, Choice(token), now))
            group.num_said += 1
        return events

    def _conclude(self, request_id: int, entry: Entry, report: SearchReport, now: float) -> list[Event]:
        group, request = entry.group, entry.request
        assert group is not None
        for sequence in list(entry.living.values()):
            self._drop(entry, sequence, now, keep=True)
        entry.report = report
        events: list[Event] = []
        for index in range(request.params.n):
            found = report.found[index] if index < len(report.found) else None
            if found is None:  # the limits leave no more of them
                events.append(Finished(request_id, index, "length", now))
                continue
            if index == 0:
                events += self._tell(request_id, request, group, found.token_ids[group.num_said :], now)
            else:
                first = len(request.prompt)
                tokens = enumerate(found.token_ids, start=first)
                events += [Token(request_id, index, position, Choice(token), now) for position, token in tokens]
            events.append(Finished(request_id, index, found.finish_reason, now, found.stop_id))
        return events
