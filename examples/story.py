"""Generate a story with the embedded model, as it is written."""

from openwork import LLM, SamplingParams

with LLM() as llm:
    params = SamplingParams(temperature=0.7, top_p=0.95, seed=7, max_tokens=200)
    print("one day, a small fox", end="")
    for chunk in llm.stream("one day, a small fox", params):
        print(chunk.text, end="", flush=True)
    print()
