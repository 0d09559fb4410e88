"""Many prompts at once: each gets the same tokens as it would alone."""

from openwork import LLM, SamplingParams

PROMPTS = ["the dog", "the cat and the bird", "in a house by the sea"]

with LLM() as llm:
    params = SamplingParams(temperature=0.8, seed=3, max_tokens=40)
    together = llm.generate(PROMPTS, params)
    for prompt, output in zip(PROMPTS, together, strict=True):
        alone = llm.generate(prompt, params)[0]
        assert alone.token_ids == output.token_ids
        print(f"{prompt}{output.text}\n")
