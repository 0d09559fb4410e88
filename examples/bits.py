"""The numeric contract, seen: decode a text step by step, derive it again in one prefill, compare the logits' bytes."""

from openwork import LLM, SamplingParams

served, derived = {}, {}
target = served


def tap(sequence: int, position: int, logits) -> None:  # logits (vocab,) float32
    target[position] = logits.tobytes()


with LLM(tap=tap) as llm:
    output = llm.generate("once upon a time", SamplingParams(temperature=0.7, seed=1, max_tokens=60))[0]
    target = derived
    tokens = [*output.prompt_ids, *output.token_ids]
    llm.generate([tokens], SamplingParams(max_tokens=0, prompt_logprobs=0))
    steps = sorted(served.keys() & derived.keys())
    assert all(served[i] == derived[i] for i in steps)
    print(f"{len(steps)} rows of logits, decoded and prefilled: equal bytes ({llm.info.contract_id})")
