"""Inside the model: where it looked when it chose a word, and what each layer would have said."""

from openwork import LLM, SamplingParams

with LLM() as llm:
    output = llm.generate("the cat saw a dog and the", SamplingParams(temperature=0, max_tokens=8))[0]
    tokens = [*output.prompt_ids, *output.token_ids]
    word = llm.tokenizer.decode
    row = output.explain(0, lens=1)  # when the first token of the answer was chosen

    print(f"{output.prompt} ...{word([output.token_ids[0]])}")
    print(f"entropy {row.logits.entropy:.2f} nats, {row.logits.margin:.2f} ahead of the second\n")
    for layer in row.layers:
        heads = row.attention[layer]  # (heads, positions)
        head, position = divmod(int(heads[:, 1:].argmax()), heads.shape[1] - 1)  # the first position draws most of it
        said = word([int(row.lens.ids[layer + 1, 0])])
        looked = f"head {head} looked at{word([tokens[position + 1]])!r:>8}: {heads[head, position + 1]:4.0%}"
        print(f"layer {layer}   {looked}   it would have said{said!r:>10}")
