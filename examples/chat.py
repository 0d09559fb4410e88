"""A conversation through the model's chat template."""

from openwork import LLM, SamplingParams

with LLM() as llm:
    messages = [{"role": "user", "content": "tell me about a brave little mouse."}]
    answer = llm.chat(messages, SamplingParams(temperature=0.7, seed=2, max_tokens=80))
    print(answer.text.strip())
