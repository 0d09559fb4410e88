"""Guide: what constraints allow of one model's vocabulary; the masks of run/masks.py come from here.

The vocabulary is read when the first constraint is used, which takes a second for a large one. Compiled constraints
are kept within a bound on bytes, and compiled once however many ask at a time. Text that a constraint forces is cut
into tokens as the model's tokenizer would. It does not know sequences, steps or logits.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openwork.core.constraint import Constraint
from openwork.core.errors import RequestError
from openwork.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # loaded with the first constraint: most engines never see one
    from llguidance import LLMatcher, LLTokenizer

CACHE_BYTES = 64 << 20
# What a compiled constraint takes, as measured over schemas of all sizes: so much, and so much for a byte of source.
BASE_BYTES = 256 << 10
SOURCE_BYTES = 128
# Its lexer grows while it is used, and growing takes time: memory per second of masks that took longer than usual.
GROWTH_BYTES = 128 << 20
USUAL_S = 100e-6
_BEFORE = "\x02"  # a text that starts with it is cut as one that goes on


@dataclass(slots=True, eq=False)
class _Compiled:
    """One constraint's beginning; matchers made from it share its lexer."""

    matcher: LLMatcher
    num_bytes: int


class Guide:
    """``load`` gives the tokenizer, or None where there is none; ``max_bytes`` bounds what is kept compiled.

    ``vocab_size`` is the model's, which may be above the tokenizer's; ``end_ids`` are the model's end tokens.
    """

    def __init__(
        self,
        load: Callable[[], Tokenizer | None],
        vocab_size: int,
        end_ids: frozenset[int],
        max_bytes: int = CACHE_BYTES,
    ) -> None:
        self.end_ids = end_ids
        self._load = load
        self._vocab_size = vocab_size
        self._max_bytes = max_bytes
        self._vocabulary: LLTokenizer | None = None
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._kept: OrderedDict[Constraint, Future[_Compiled]] = OrderedDict()
        self._ahead: ThreadPoolExecutor | None = None

    @property
    def num_bytes(self) -> int:
        """What is kept compiled, by the measure that is bounded."""
        with self._lock:
            return sum(map(_charge, self._kept.values()))

    def begin(self, constraint: Constraint) -> Matcher:
        """The beginning of a text. Raises RequestError when the constraint cannot be used.

        It is compiled here and now if it is not kept: that it can be is for text/trial.py to find out before.
        """
        with self._lock:
            found = self._kept.get(constraint)
            is_first = found is None
            if found is None:
                found = self._kept[constraint] = Future()
            self._kept.move_to_end(constraint)
        if is_first:
            self._compile(constraint, found)
        compiled = found.result()
        return Matcher(self, compiled, compiled.matcher.deep_copy())

    def prepare(self, constraint: Constraint) -> None:
        """Compile it in a thread of ours, so that it is there, or nearly, when it is needed; errors wait until then."""
        with self._lock:
            if constraint not in self._kept:
                if self._ahead is None:
                    self._ahead = ThreadPoolExecutor(1, "openwork-guide")
                self._ahead.submit(self.begin, constraint)

    def note(self, compiled: _Compiled, seconds: float) -> None:
        """A use of a compiled constraint took so long."""
        if seconds > USUAL_S:
            compiled.num_bytes += int((seconds - USUAL_S) * GROWTH_BYTES)
            self._trim()

    def _compile(self, constraint: Constraint, into: Future[_Compiled]) -> None:
        try:
            from openwork.text.grammar import compile_constraint

            matcher = compile_constraint(self._read(), constraint)
        except BaseException as error:
            with self._lock:
                del self._kept[constraint]
            into.set_exception(error)
            return
        into.set_result(_Compiled(matcher, BASE_BYTES + SOURCE_BYTES * len(constraint.source)))
        self._trim()

    def _trim(self) -> None:
        """Let the oldest go until the rest is within the bound; what is in use elsewhere lives on there."""
        with self._lock:
            total = sum(map(_charge, self._kept.values()))
            for constraint, found in list(self._kept.items()):
                if total <= self._max_bytes:
                    return
                if found.done():
                    total -= _charge(self._kept.pop(constraint))

    def _read(self) -> LLTokenizer:
        with self._reading:
            if self._vocabulary is None:
                from llguidance import LLTokenizer

                tokenizer = self._load()
                if tokenizer is None:
                    raise RequestError("this model has no tokenizer, so no text can be constrained", param="constraint")
                words = _Words(tokenizer, self._vocab_size, self.end_ids)
                self._vocabulary = LLTokenizer(words, self._vocab_size, sorted(self.end_ids))  # type: ignore[arg-type]
            return self._vocabulary


class Matcher:
    """Where one text stands. Not to be used by two threads at a time."""

    def __init__(self, guide: Guide, compiled: _Compiled, state: LLMatcher) -> None:
        self._guide = guide
        self._compiled = compiled
        self._state = state

    def take(self, tokens: Sequence[int]) -> bool:
        """Go on by these tokens; False, for good, when one of them is not allowed."""
        began = time.perf_counter()
        done = not tokens or self._state.consume_tokens(list(tokens))
        self._guide.note(self._compiled, time.perf_counter() - began)
        return done

    def mask(self) -> bytes | None:
        """A bit for each token, lowest first: whether it may come next; None when none may, not even an end."""
        began = time.perf_counter()
        mask = self._state.compute_bitmask()
        self._guide.note(self._compiled, time.perf_counter() - began)
        # What cannot go on and what failed allow an end, as if they were complete.
        is_lost = self._state.is_error() or (self._state.is_stopped() and not self._state.is_accepting())
        return None if is_lost else mask

    @property
    def gave_up(self) -> bool:
        """Whether it reached a bound of its own, on memory or time, and cannot say what is allowed."""
        return self._state.is_error()

    def fork(self, undone: int) -> Matcher:
        """Another that stands where this one stood ``undone`` tokens ago."""
        state = self._state.deep_copy()
        if undone:
            state.rollback(undone)
        return Matcher(self._guide, self._compiled, state)


class _Words:
    """A tokenizer as llguidance reads one: the bytes of every token, and how it cuts a text.

    Special tokens, the end tokens and ids without a text stand for no bytes, so that no text contains them.
    """

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        pieces = [tokenizer.piece(token) or b"" for token in range(vocab_size)]
        special = {token for token in range(vocab_size) if tokenizer.is_special(token)} | end_ids
        self.tokens = pieces
        self.special_token_ids = sorted(special)
        self.eos_token_id = min(end_ids)
        self._text_ids = {piece: token for token, piece in enumerate(pieces) if piece and token not in special}
        self._longest = max(map(len, self._text_ids), default=0)

    def __call__(self, text: str) -> list[int]:
        """Tokens that say this text and nothing else: the tokenizer's own, or the longest that fit from the left.

        Must not raise: it is called from native code.
        """
        wanted = text.encode("utf-8", "surrogatepass")
        for before in ("", _BEFORE):
            try:
                ids = self._tokenizer.encode(before + text, add_special=False)
            except RequestError:
                continue
            for skipped in range(4 if before else 1):  # the tokens of what stands before, and of a space put before it
                rest = ids[skipped:]
                if b"".join(self.tokens[token] for token in rest) == wanted and self._are_text(rest):
                    return rest
        return self._longest_fits(wanted)

    def _are_text(self, ids: list[int]) -> bool:
        return all(self._text_ids.get(self.tokens[token]) is not None for token in ids) and not any(
            self._tokenizer.is_special(token) for token in ids
        )

    def _longest_fits(self, wanted: bytes) -> list[int]:
        ids: list[int] = []
        start = 0
        while start < len(wanted):
            for end in range(min(len(wanted), start + self._longest), start, -1):
                token = self._text_ids.get(wanted[start:end])
                if token is not None:
                    ids.append(token)
                    start = end
                    break
            else:
                return ids  # a vocabulary that cannot write this byte: the text ends there, and with an error
        return ids


def _charge(found: Future[_Compiled]) -> int:
    """What is taken by something that is kept: nothing while it is being compiled, or when that failed."""
    return found.result().num_bytes if found.done() and found.exception() is None else 0
