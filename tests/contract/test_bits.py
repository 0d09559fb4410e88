"""The numeric contract, end to end: whatever the schedule, the same logit bytes.

A drawn world decides the batch, chunk sizes, block size and placement, cache pressure (so preemption and
recomputation), forks, cancels, thread count, instruction set and number format. Every row of logits that the runner
computes in it must equal, byte for byte, the row that the same tokens give when they are prefilled alone, in one chunk.
"""

import pytest
from bits import ARCHITECTURES, BACKENDS, World, alone, loaded, prompt_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openwork import SamplingParams

# A few prompts go beyond one attention split (256 keys), and beyond several blocks and chunks.
lengths = st.one_of(st.integers(1, 12), st.integers(1, 70), st.integers(1, 70), st.integers(240, 330))
prompts = st.builds(prompt_of, lengths, st.integers(0, 3))
requests = st.tuples(
    prompts,
    st.integers(0, 24),  # max_tokens
    st.sampled_from([1, 1, 1, 3]),  # n
    st.sampled_from([0.0, 0.9]),  # temperature
    st.booleans(),  # score the prompt
    st.integers(0, 6),  # turns before the next one arrives
    st.one_of(st.none(), st.none(), st.integers(0, 10)),  # cancelled so many turns after it came
)


def run_world(world, plan):
    """Carry out a drawn plan; the prompts that fitted, by request."""
    lines, leaving, turn = {}, {}, 0
    for number, (prompt, max_tokens, n, temperature, scored, gap, stay) in enumerate(plan):
        if len(prompt) >= world.limits.context:
            continue
        how = SamplingParams(
            max_tokens=max_tokens, n=n, temperature=temperature, seed=number, prompt_logprobs=0 if scored else None
        )
        lines[number] = prompt
        world.add(number, prompt, how)
        if stay is not None:
            leaving[number] = turn + stay
        for _ in range(gap):
            turn += 1
            world.turn()
            for gone in [request for request, when in leaving.items() if when <= turn]:
                world.events += world.scheduler.cancel(gone, 0.0)
                del leaving[gone]
    world.drain()
    return lines


def compare(world, lines, truth_of):
    """How many rows of a world were compared with their line alone, and which differ."""
    generated, truth = world.generated(), {}
    compared, strange = 0, []
    for sequence, position, row in world.rows:
        request, index = owner = world.owners[sequence]
        # Before a fork, the row belongs to all lines of its request; any will do.
        line = [*lines[request], *generated.get(owner, [])]
        if position >= len(line):  # computed for a token that nobody waited for: cancelled, or after the end
            continue
        if owner not in truth:
            truth[owner] = truth_of(line)
        compared += 1
        if truth[owner][position] != row:
            strange.append((request, index, position))
    return compared, strange


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_logit_bytes_in_any_schedule(backend, tmp_path_factory, is_long, positions_compared):
    directory = tmp_path_factory.mktemp("checkpoints")
    slow = backend == "reference"

    @settings(
        max_examples=(1500 if is_long else 80) // (4 if slow else 1),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.sampled_from(ARCHITECTURES),
        st.sampled_from([1, 2, 3]),
        st.sampled_from([("float32", "float32"), ("bfloat16", "bfloat16"), ("float32", "int8"), ("bfloat16", "int8")]),
        st.lists(requests, min_size=1, max_size=6),
        st.tuples(st.integers(6, 30), st.sampled_from([16, 32]), st.integers(3, 80), st.integers(0, 99)),
    )
    def draw(architecture, threads, dtypes, plan, shape):
        dtype, kv_dtype = dtypes  # of weights, of keys and values
        ops, it = loaded(directory, architecture, backend, threads, dtype)
        world = World(ops, it.model, kv_dtype, *shape)
        lines = run_world(world, plan)
        compared, strange = compare(world, lines, lambda line: alone(directory, architecture, backend, dtypes, line))
        positions_compared[backend] = positions_compared.get(backend, 0) + compared
        assert not strange, f"rows that differ from the same tokens alone: {strange[:5]}"

    draw()
    assert positions_compared[backend] > 2000 // (4 if slow else 1)
