"""Searches keep the numeric contract: every row a leaf computes equals the row of its line prefilled alone.

Beams, choices and best-first searches share steps, blocks and pressure with one another and with requests that draw.
"""

from random import Random

import pytest
from bits import ARCHITECTURES, World, alone, loaded, prompt_of

from openwork import SamplingParams
from openwork.core.budget import Budget
from openwork.core.event import Ended
from openwork.core.request import Request
from openwork.core.search import Beam, BestFirst, Choose, Search
from openwork.ops.cpu import available

WORLDS, MANY = 25, 150
BACKEND = (*available(), "reference")[0]


def searching(draw, prompt, limits):
    kind = draw.choice(["choose", "beam", "best-first", "draw"])
    if kind == "choose":
        options = {tuple(draw.randrange(2, 6) for _ in range(draw.choice([1, 2, 20]))) for _ in range(8)}
        search = Search(choose=Choose(options=tuple(sorted(options)), score_all=draw.random() < 0.5))
        return Request(prompt, SamplingParams(), limits, search=search)
    if kind == "beam":
        search = Search(beam=Beam(width=draw.choice([2, 5])))
        return Request(prompt, SamplingParams(max_tokens=draw.randint(2, 24)), limits, search=search)
    if kind == "best-first":
        search = Search(best_first=BestFirst(at_once=draw.choice([1, 4]), budget=Budget(nodes=40)))
        return Request(prompt, SamplingParams(min_tokens=3, max_tokens=6), limits, search=search)
    return Request(prompt, SamplingParams(max_tokens=20, n=draw.choice([1, 3])), limits)


class SearchWorld(World):
    """A sequence of a search only ever gets longer, so its last line holds every row that it computed."""

    def __post_init__(self):
        super().__post_init__()
        self.known = {}

    def turn(self):
        self.known.update(self.scheduler._sequences)
        super().turn()
        self.known.update(self.scheduler._sequences)
        self.scheduler.check()


@pytest.mark.parametrize("architecture", ARCHITECTURES[:2])
def test_equal_logit_bytes_in_searches(architecture, tmp_path_factory, is_long, positions_compared):
    directory = tmp_path_factory.mktemp("searches")
    compared = ended = 0
    for seed in range(MANY if is_long else WORLDS):
        draw = Random(seed)
        dtypes = draw.choice([("float32", "float32"), ("bfloat16", "int8")])
        ops, it = loaded(directory, architecture, BACKEND, draw.choice([1, 2]), dtypes[0])
        shape = draw.choice([8, 12, 30]), draw.choice([16, 32]), draw.choice([5, 20, 60]), draw.randrange(99)
        world = SearchWorld(ops, it.model, dtypes[1], *shape)
        for number in range(draw.randint(1, 4)):
            prompt = tuple(prompt_of(draw.choice([3, 20, 60]), draw.randrange(2)))
            world.events += world.scheduler.add(number, searching(draw, prompt, world.limits), 0.0)
            for _ in range(draw.randint(0, 4)):
                world.turn()
        world.drain()
        ended += sum(isinstance(event, Ended) and event.search is not None for event in world.events)
        truth = {}
        for sequence, position, row in world.rows:
            line = tuple(world.known[sequence].tokens)
            if position < len(line):
                if line not in truth:
                    truth[line] = alone(directory, architecture, BACKEND, dtypes, list(line))
                assert truth[line][position] == row, f"world {seed}: a row differs from its line alone"
                compared += 1
    positions_compared["searches"] = positions_compared.get("searches", 0) + compared
    assert ended > WORLDS and compared > 1000, "there was something to compare"
