"""How sure is the model? Log-probabilities of each token, and what else it might have said."""

from math import exp

from openwork import LLM, SamplingParams

with LLM() as llm:
    output = llm.generate("once upon a", SamplingParams(temperature=0, max_tokens=8, logprobs=3))[0]
    for entry in output.logprobs:
        others = ", ".join(f"{llm.tokenizer.decode([token])!r} {exp(logprob):.2f}" for token, logprob in entry.top)
        print(f"{llm.tokenizer.decode([entry.token])!r:>12}   {others}")
