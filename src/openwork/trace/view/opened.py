"""Opened: rows of one request that were computed again, and the keys and values behind them; bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

from openwork.run.capture import Examination
from openwork.run.row import Row
from openwork.trace.view.row import LENS

MOST_EXAMINED = 2  # sequences whose keys and values are kept
MOST_ROWS = 64  # rows that are kept open
ROW_BYTES = 64 << 20  # of rows that are kept open


class Opened:
    """``examine`` makes an examination of tokens. For one thread at a time."""

    def __init__(self, examine: Callable[[Sequence[int]], Examination]) -> None:
        self._examine = examine
        self._examined: OrderedDict[int, Examination] = OrderedDict()
        self._rows: OrderedDict[tuple[int, int, tuple[int, ...] | None], Row] = OrderedDict()

    def examination(self, sequence: int, tokens: Sequence[int]) -> Examination:
        """Of a sequence that has these tokens now."""
        examination = self._examined.get(sequence)
        if examination is None or len(examination.tokens) < len(tokens):  # it has gone on since
            examination = self._examined[sequence] = self._examine(tokens)
        self._examined.move_to_end(sequence)
        while len(self._examined) > MOST_EXAMINED:
            self._examined.popitem(last=False)
        return examination

    def row(self, sequence: int, tokens: Sequence[int], position: int, layers: tuple[int, ...] | None) -> Row:
        """With the attention of these layers, None: of all; the lens where no layer is asked for."""
        key = (sequence, position, layers)
        if key in self._rows:
            self._rows.move_to_end(key)
            return self._rows[key]
        lens = 0 if layers is None or layers else LENS
        row = self._rows[key] = self.examination(sequence, tokens).row(position, layers=layers, lens=lens)
        while len(self._rows) > 1 and (len(self._rows) > MOST_ROWS or _num_bytes(self._rows.values()) > ROW_BYTES):
            self._rows.popitem(last=False)
        return row


def _num_bytes(rows: Iterable[Row]) -> int:
    return sum(row.attention.nbytes + row.residual.nbytes + row.logits.row.nbytes + 5 * row.q.nbytes for row in rows)
