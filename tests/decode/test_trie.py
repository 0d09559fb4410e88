"""The tree of options: every option ends at one node, the lines are the options, and nothing is made unasked."""

from random import Random

import pytest

from openwork.decode.trie import MOST_TOKENS, Trie


def drawn(seed):
    draw = Random(seed)
    sizes = draw.choice([(1, 2, 3), (0, 1, 5), (20, 40)])
    return tuple({tuple(draw.randrange(3) for _ in range(draw.choice(sizes))) for _ in range(draw.randint(1, 40))})


@pytest.mark.parametrize("seed", range(50))
def test_every_option_is_found_by_its_tokens_and_once(seed):
    options = drawn(seed)
    trie, jobs, ends = Trie(options), [0], []
    for node in jobs:
        it = trie.nodes[node]
        assert it.parent is None or 1 <= len(it.edge) <= MOST_TOKENS
        line = trie.line(node)
        assert line == (() if it.parent is None else trie.line(it.parent) + it.edge)
        assert sorted(trie.behind(node)) == [i for i, option in enumerate(options) if option[: len(line)] == line]
        children = trie.children(node)
        assert list(children) == sorted(children)
        assert all(trie.nodes[child].edge[0] == token for token, child in children.items())
        if it.option is not None:
            assert options[it.option] == line
            ends.append(it.option)
        assert children or it.option is not None
        jobs += children.values()
    assert sorted(ends) == list(range(len(options)))
    assert sum(len(it.edge) for it in trie.nodes) == trie.num_tokens()
    assert trie.num_tokens() == len({option[:end] for option in options for end in range(1, len(option) + 1)})


def test_only_what_is_asked_for_is_made():
    trie = Trie([(first, second, third) for first in range(9) for second in range(9) for third in range(9)])
    assert len(trie.nodes) == 1
    trie.children(trie.children(0)[4])
    assert len(trie.nodes) == 1 + 9 + 9
