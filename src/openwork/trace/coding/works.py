"""Works: what a sequence computes in a step, as bytes and back. A row that goes on where the last one ended is a byte.

A work is said against the last of its line (mirror.py): where it goes on, which tokens came, which blocks are new. Its
draws and its tokens follow from the request and the line, and are not said at all. A field of a Work that has no
shorthand goes as it is.
"""

from __future__ import annotations

from typing import Any, get_type_hints

from openwork.core.errors import TraceError
from openwork.core.request import MAX_N
from openwork.core.sequence import Sequence
from openwork.core.step import Draw, Expand, Score, Work
from openwork.trace.coding.mirror import Asked, Line, Mirror, Slot
from openwork.trace.coding.plain import Reader, others, unknown
from openwork.trace.coding.pseudonym import Reader as WordReader
from openwork.trace.coding.pseudonym import Writer as WordWriter
from openwork.trace.coding.shape import Bytes, pack, put, put_bytes

# Usual is a row of one pending token behind the last, with one draw and no new block.
IN_TURN, GOES_ON, IS_ROW, SAME_BLOCKS, HAS_DRAW, GREW, HAS_MORE, IS_PENDING = (1 << bit for bit in range(8))
MORE_DRAWS, MORE_SCORE, MORE_EXPAND, MORE_DRAFTS, MORE_OTHERS = (1 << bit for bit in range(5))
NOTHING, ITS_ENDS, THESE, CONSTRAINED, BEHIND = 0, 1, 2, 4, 8  # what an Expand leaves out; what it has to follow
KNOWN = frozenset({"sequence", "start", "tokens", "is_pending", "blocks", "draws", "score", "expand", "drafts"})
UNKNOWN = unknown(Work, KNOWN)


class WorkWriter:
    def __init__(self, mirror: Mirror, words: WordWriter) -> None:
        self.mirror = mirror
        self._words = words

    def write(
        self, out: bytearray, work: Work, sequence: Sequence, turns: dict[int, int], turn: int, slots: list[Slot]
    ) -> int:
        """One work; the turn that the next is expected to have."""
        line = self._line(sequence)
        blocks, own = work.blocks, turns.get(work.sequence)
        num_draws, drafts = len(work.draws), work.drafts
        rest = others(work, UNKNOWN) if UNKNOWN else {}
        more = 0
        if num_draws > 1 or work.score is not None or work.expand is not None or drafts or rest:
            more = MORE_DRAWS * (num_draws > 1) | MORE_SCORE * (work.score is not None) | MORE_OTHERS * bool(rest)
            more |= MORE_EXPAND * (work.expand is not None) | MORE_DRAFTS * bool(drafts)
        is_row = work.is_pending and not work.tokens
        grown = sequence.tokens[line.length :] if len(sequence.tokens) > line.length else []
        is_new = line.sequence != work.sequence
        flags = IN_TURN * (own == turn and not is_new) | GOES_ON * (work.start == line.end) | IS_ROW * is_row
        flags |= SAME_BLOCKS * (blocks == line.blocks) | HAS_DRAW * (num_draws > 0) | GREW * bool(grown)
        flags |= HAS_MORE * bool(more) | IS_PENDING * work.is_pending
        out.append(flags)
        if not flags & IN_TURN:
            self._name(out, work.sequence, line, is_new)
        if not flags & GOES_ON:
            put(out, work.start)
        if grown:
            put(out, len(grown))
            words, line.place = self._words.walk(line.place, grown)
            out += words
            line.length += len(grown)
            if line.place is not None:  # words that cannot be made again
                line.words += words
        if not is_row:
            put(out, len(work.tokens))
        if not flags & SAME_BLOCKS:
            self._blocks(out, line.blocks, blocks)
            line.blocks = blocks
        sure = len(work.tokens) + work.is_pending
        search = sequence.request.search
        slot = Slot(line, work.start, sure, num_draws, len(drafts))
        slot.compares = search is not None and search.compares_tokens
        slots.append(slot)
        if more:
            self._more(out, more, work, rest, line, slot)
        line.end = work.start + sure
        return turn + 1 if own is None else own + 1

    def _line(self, sequence: Sequence) -> Line:
        line = self.mirror.by_sequence.get(sequence.id)
        return self.mirror.asked[sequence.request_id].line(sequence.index) if line is None else line

    def _name(self, out: bytearray, sequence: int, line: Line, is_new: bool) -> None:
        put(out, sequence)
        if is_new:
            put(out, line.number)
            put(out, line.index)
            line.sequence = sequence
            self.mirror.by_sequence[sequence] = line

    def _blocks(self, out: bytearray, old: tuple[int, ...], new: tuple[int, ...]) -> None:
        most = min(len(old), len(new))
        same = most if new[:most] == old[:most] else next(i for i in range(most) if new[i] != old[i])
        put(out, same)
        put(out, len(new) - same)
        for block in new[same:]:
            put(out, block)

    def _more(self, out: bytearray, more: int, work: Work, rest: dict[str, Any], line: Line, slot: Slot) -> None:
        out.append(more)
        if more & MORE_DRAWS:
            put(out, len(work.draws))
        if (score := work.score) is not None:
            slot.score = len(score.targets), score.top, score.first
            for number in slot.score:
                put(out, number)
        if (expand := work.expand) is not None:
            ends = self.mirror.asked[line.number].ends
            put(out, expand.top)
            put(out, len(expand.among))
            out += self._words.next(line.place, expand.among, ends).tobytes()
            what = NOTHING if not expand.without else ITS_ENDS if expand.without == ends else THESE
            put(out, what | CONSTRAINED * (expand.constraint is not None) | BEHIND * bool(expand.output))
            if what == THESE:
                put(out, len(expand.without))
                out += self._words.next(line.place, sorted(expand.without), ends).tobytes()
        if work.drafts:
            put(out, len(work.drafts))
            out += self._words.walk(line.place, work.drafts)[0]
        if rest:
            put_bytes(out, pack(rest))


class WorkReader:
    def __init__(self, mirror: Mirror, words: WordReader, records: Reader) -> None:
        self.mirror = mirror
        self._words = words
        self._records = records

    def read(self, body: Bytes, turn: int, slots: list[Slot]) -> Work:
        flags = body.byte()
        line = self._line(body, self.mirror.order[turn] if flags & IN_TURN else body.number())
        asked = self.mirror.asked[line.number]
        start = line.end if flags & GOES_ON else body.number()
        if flags & GREW:
            grown, line.place = self._words.walk(line.place, body.words(body.count(4)))
            line.tokens += grown
            line.length += len(grown)
        is_pending = bool(flags & IS_PENDING)
        count = 0 if flags & IS_ROW else body.number()
        tokens = tuple(line.tokens[start : start + count])
        if len(tokens) != count:
            raise TraceError("a step computes tokens that are not there")
        if not flags & SAME_BLOCKS:
            same = body.number()
            line.blocks = line.blocks[:same] + tuple(body.number() for _ in range(body.count(1)))
        slot = Slot(line, start, count + is_pending, 1 if flags & HAS_DRAW else 0)
        slots.append(slot)
        line.end = slot.position
        assert line.sequence is not None
        more = self._more(body, slot, asked) if flags & HAS_MORE else {}
        if slot.num_draws == 1:
            draws: tuple[Draw, ...] = (_draw(asked, line, slot, line.index),)
        else:
            draws = tuple(_draw(asked, line, slot, index) for index in range(slot.num_draws))
        return Work(line.sequence, start, tokens, is_pending, line.blocks, draws, **more)

    def _line(self, body: Bytes, sequence: int) -> Line:
        line = self.mirror.by_sequence.get(sequence)
        if line is None:
            line = self.mirror.asked[body.number()].line(body.number())
            line.sequence = sequence
            self.mirror.by_sequence[sequence] = line
        return line

    def _more(self, body: Bytes, slot: Slot, asked: Asked) -> dict[str, Any]:
        more, line = body.byte(), slot.line
        found: dict[str, Any] = {}
        if more & MORE_DRAWS:
            slot.num_draws = body.number()
            if slot.num_draws > MAX_N:
                raise TraceError(f"{slot.num_draws} tokens are drawn from one row")
        if more & MORE_SCORE:
            count, top, first = slot.score = body.number(), body.number(), body.number()
            begin = slot.start + first + 1
            targets = tuple(line.tokens[begin : begin + count])
            if len(targets) != count:
                raise TraceError("a step scores tokens that are not there")
            found["score"] = Score(targets, top, first)
        if more & MORE_EXPAND:
            top, words = body.number(), body.words(body.count(4))
            asked_for = [self._words.next(line.place, word) for word in words]
            slot.among = self._words.order(words, asked_for)
            among = tuple(asked_for[at] for at in slot.among)
            what, without = body.number(), asked.ends
            if not what & ITS_ENDS:
                words = body.words(body.count(4) if what & THESE else 0)
                without = frozenset(self._words.next(line.place, word) for word in words)
            constraint = asked.request.params.constraint if what & CONSTRAINED else None
            output = tuple(line.tokens[asked.prompt_len :]) if what & BEHIND else ()
            found["expand"] = Expand(top, among, without, constraint, output)
        if more & MORE_DRAFTS:
            words = body.words(body.count(4))
            found["drafts"] = slot.drafts = tuple(self._words.walk(line.place, words)[0])
            slot.num_drafts = len(words)
        if more & MORE_OTHERS:
            hints = get_type_hints(Work)
            found |= {name: self._records.read(hints[name], value) for name, value in body.packed().items()}
        return found


def _draw(asked: Asked, line: Line, slot: Slot, index: int) -> Draw:
    """What a sequence asks of its last row, as its strategy would."""
    params, position, prompt_len = asked.request.params, slot.start + slot.sure, asked.prompt_len
    history = tuple(line.tokens) if params.has_penalties else ()
    output = () if params.constraint is None else tuple(line.tokens[prompt_len:])
    return Draw(params, index, position, position - prompt_len, asked.stops, history, prompt_len, output)
