"""Which answer is the likeliest? Proved, with an interval for each; then the likeliest five tokens of all."""

from openwork import LLM, BestFirst, SamplingParams

with LLM() as llm:
    chosen = llm.choose("the little girl lost her toy. she was very ", ["happy", "sad", "tired", "hungry", "proud"])
    print(f"{chosen.text}: proved {chosen.proved}, {chosen.report.nodes} of {chosen.report.num_nodes} places looked at")
    for option in chosen.options:
        print(f"  {option.text:8} {option.probability_low:.3f} to {option.probability_high:.3f}")

    output = llm.search("the dog", BestFirst(), SamplingParams(min_tokens=5, max_tokens=5))
    report = output.search
    print(f"the dog{output.text}: {report.found[0].logprob:.3f}, gap {report.gap}, {report.nodes} nodes")
