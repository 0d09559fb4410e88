"""Looking: what a server and the process of its microscope say to one another.

The same frames and rules as between a server and its engine (wire.py), with messages of their own: one Open, then a
Look at a time, each answered by one Shown or Withheld. Far may come before that.
"""

from __future__ import annotations

from openwork.cluster.frames import Direction
from openwork.cluster.wire import Message, Trouble
from openwork.core.settings import LoadSettings
from openwork.trace.view.desk import Answer, Question


class Open(Message, tag=1):
    """Which recording, and the model that lights it up: opened when the first row is looked into."""

    directory: str
    model: str | None
    load: LoadSettings
    contract_id: str
    examine_bytes: int


class Look(Message, tag=2):
    ask: int
    question: Question


class Shown(Message, tag=20):
    ask: int
    answer: Answer


class Withheld(Message, tag=21):
    ask: int
    trouble: Trouble


class Far(Message, tag=22):
    """How far the answer in hand is: of ``total`` rows, or whatever the stage counts, so many."""

    stage: str
    done: int
    total: int


Asked = Open | Look
Told = Shown | Withheld | Far
ASKED = Direction(Asked, 64 * 2**20)
TOLD = Direction(Told, 256 * 2**20)
