"""Which sentence does the model find likelier? Prompt log-probabilities, and nothing generated."""

from openwork import LLM, SamplingParams

SENTENCES = ["the little girl played in the park.", "park the in played girl little the."]

with LLM() as llm:
    for output in llm.generate(SENTENCES, SamplingParams(max_tokens=0, prompt_logprobs=0)):
        total = sum(entry.logprob for entry in output.prompt_logprobs if entry is not None)
        print(f"{total:8.2f}  {output.prompt}")
