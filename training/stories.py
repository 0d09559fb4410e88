"""Train `openwork/stories`, the small story model that ships with openwork.

One command turns a text file of stories into a Hugging Face directory: it splits the
text, restores capitals in a copy of it, trains a byte-level BPE tokenizer and a
Llama-architecture Transformer on the processor, and writes the weights with the lowest
validation loss.

It guarantees: every text round-trips through the tokenizer; validation stories are
never trained on; what it measures and shows are the rounded weights that it writes; a
checkpoint lies in the work folder after every evaluation.

It does not know: anything but the corpus it is given. The schedule follows the clock,
so the same seed on a faster machine sees more tokens and ends with other weights.
"""

import argparse
import ctypes
import json
import math
import random
import sys
import tempfile
import time
from pathlib import Path

import torch
from corpus import find_names, read_stories, restore_case
from llama import Llama, Shape, optimizers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional

BOS, EOS = 0, 1
IGNORED = -100
LATE = 0.75


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE that keeps every text as it is and puts `<s>` in front."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
    )
    for text in ("\U0001f600 日本語 é\u0301 \x00\x07\x1f", "  two  spaces \n\n\t", "once upon a time"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    return tokenizer


class Library:
    """Encodes stories and deals batches in which every row is one story, from `<s>` to `</s>`."""

    def __init__(self, tokenizer: Tokenizer, stories: list[str], cased: list[str], context: int) -> None:
        lengths = [len(e.ids) + 1 for e in tokenizer.encode_batch(cased)]
        kept = [i for i, length in enumerate(lengths) if length <= context]
        self.tokenizer, self.context = tokenizer, context
        self.pairs = [(stories[i], cased[i]) for i in kept]
        self.lengths = [lengths[i] for i in kept]

    def rows(self, texts: list[str]) -> list[list[int]]:
        return [[*e.ids, EOS][: self.context + 1] for e in self.tokenizer.encode_batch(texts)]

    def epoch(self, rng: random.Random, tokens: int, longest: int) -> list[list[list[int]]]:
        """One pass in random order and random case; batches hold rows of similar length."""
        # Batches of one length only would pull each step towards one kind of story, so sorting is local.
        chunk = 512
        texts = []
        for pair, length in zip(self.pairs, self.lengths, strict=True):
            if length <= longest:
                text = rng.choice(pair)
                parts = text.split("\n\n")
                # Some rows begin at a later paragraph, for prompts that do not open a story.
                begin = rng.randrange(len(parts)) if rng.random() < 0.1 else 0
                texts.append("\n\n".join(parts[begin:]))
        rows = self.rows(texts)
        rng.shuffle(rows)
        batches: list[list[list[int]]] = []
        for start in range(0, len(rows), chunk):
            batches += split(sorted(rows[start : start + chunk], key=len), tokens)
        rng.shuffle(batches)
        return batches


def split(rows: list[list[int]], tokens: int) -> list[list[list[int]]]:
    """Consecutive rows, as many a batch as stay below `tokens` with their padding."""
    batches: list[list[list[int]]] = [[]]
    for row in rows:
        if batches[-1] and (len(batches[-1]) + 1) * len(row) > tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def tensors(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Inputs and targets; padding stands to the right, where causal attention ignores it."""
    width = math.ceil(max(len(row) - 1 for row in rows) / 16) * 16
    ids = torch.full((len(rows), width + 1), EOS)  # [b, t + 1]
    targets = torch.full((len(rows), width), IGNORED)  # [b, t]
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        targets[i, : len(row) - 1] = torch.tensor(row[1:])
    return ids[:, :-1], targets


def keep_memory() -> None:
    """Has glibc keep freed memory: fresh pages for every large tensor cost a tenth of the step."""
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)


def loss_of(model: nn.Module, rows: list[list[int]], reduction: str = "mean") -> Tensor:
    ids, targets = tensors(rows)  # [b, t] each
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(ids)  # [b, t, vocab]
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction=reduction
    )


@torch.no_grad()
def evaluate(model: nn.Module, library: Library) -> dict[str, float]:
    """Loss per token and bits per byte of the validation stories, as they are and with capitals."""
    model.eval()
    figures = {}
    for which, name in enumerate(("lower", "cased")):
        texts = [pair[which] for pair in library.pairs]
        rows = sorted(library.rows(texts), key=len)
        nats = sum(loss_of(model, batch, "sum").item() for batch in split(rows, 16384))
        figures[f"{name}_loss"] = nats / sum(len(row) - 1 for row in rows)
        figures[f"{name}_bits_per_byte"] = nats / math.log(2) / sum(len(text.encode()) for text in texts)
    model.train()
    return figures | {"loss": (figures["lower_loss"] + figures["cased_loss"]) / 2}


def rate(progress: float, step: int) -> float:
    """The learning rate's share: a short warm-up, then a straight line to nothing."""
    return min(1.0, (step + 1) / 50) * max(0.0, 1 - progress)


def train(model: Llama, library: Library, held_out: Library, args: argparse.Namespace) -> dict:
    """Trains for `args.minutes`; the checkpoint with the lowest validation loss is left in the work folder."""
    rng = random.Random(args.seed)
    chosen = optimizers(model, args.lr, args.weight_decay)
    batches: list[list[list[int]]] = []
    best: dict = {"loss": math.inf}
    seen = step = epoch = 0
    progress, running = 0.0, 0.0
    start = shown = evaluated = time.monotonic()
    while progress < 1:
        if not batches:
            longest = args.late_longest if progress > LATE else library.context
            batches, epoch = library.epoch(rng, args.batch, longest), epoch + 1
        rows = batches.pop()
        for optimizer in chosen:
            for group in optimizer.param_groups:
                group["lr"] = args.lr * rate(progress, step)
        loss = loss_of(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in chosen:
            optimizer.step()
            optimizer.zero_grad()
        seen, step = seen + sum(len(row) - 1 for row in rows), step + 1
        running = loss.item() if step == 1 else 0.95 * running + 0.05 * loss.item()
        now = time.monotonic()
        progress = (now - start) / (60 * args.minutes)
        if now - shown > 10:
            shown = now
            speed = seen / (now - start)
            print(f"{progress:6.1%}  epoch {epoch}  step {step}  loss {running:.3f}  {speed:,.0f} tokens/s", flush=True)
        if now - evaluated > 60 * args.evaluate_every or progress >= 1:
            figures = evaluate(model, held_out) | {"tokens": seen, "steps": step, "epochs": epoch}
            print(json.dumps(figures), flush=True)
            torch.save({"model": model.state_dict(), "figures": figures}, args.work / "last.pt")
            if figures["loss"] < best["loss"]:
                best = figures
                torch.save({"model": model.state_dict(), "figures": figures}, args.work / "best.pt")
            evaluated = time.monotonic()
    return best


# The answer is a new paragraph: it must not go on in the middle of the last word. The line breaks stand in an
# expression, since templates are rendered with `trim_blocks`.
CHAT_TEMPLATE = (
    r"{{ bos_token }}{% for message in messages %}{{ message.content }}"
    r"{% if not loop.last or add_generation_prompt %}{{ '\n\n' }}{% endif %}{% endfor %}"
)


def export(model: Llama, shape: Shape, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a directory that `transformers` loads as `LlamaForCausalLM`."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {f"model.{name}": w.detach().to(torch.bfloat16).contiguous() for name, w in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors lets only its owner read it
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        "rope_scaling": None,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": None,
        "torch_dtype": "bfloat16",
    }
    generation = {"bos_token_id": BOS, "eos_token_id": EOS, "do_sample": True, "temperature": 0.6, "top_p": 0.95}
    generation["repetition_penalty"] = 1.1  # without it the likeliest story climbs the same tree again and again
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context,
        "chat_template": CHAT_TEMPLATE,
    }
    contents = {"config": config, "generation_config": generation, "tokenizer_config": tokenizer_config}
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


@torch.no_grad()
def continuation(model: Llama, tokenizer: Tokenizer, prompt: str, limit: int) -> str:
    """The prompt and its greedy continuation, ended by `</s>` where the model ends it."""
    ids = tokenizer.encode(prompt).ids
    while len(ids) < limit and ids[-1] != EOS:
        ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return tokenizer.decode(ids[1:], skip_special_tokens=False)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train the story model that ships with openwork and write it as a Hugging Face directory.",
        epilog="example: python training/stories.py tinystories.txt --out src/openwork/stories --minutes 60",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("corpus", type=Path, help="text file of lower-cased stories, see training/README.md")
    parser.add_argument("--out", type=Path, required=True, help="directory to write the model to")
    work = Path(tempfile.gettempdir()) / "openwork-stories"
    parser.add_argument("--work", type=Path, default=work, help="directory for checkpoints")
    parser.add_argument("--start", type=Path, help="checkpoint whose weights the training starts from")
    parser.add_argument("--minutes", type=float, default=60, help="wall-clock time of the schedule")
    parser.add_argument("--evaluate-every", type=float, default=3, help="minutes between validations")
    parser.add_argument("--seed", type=int, default=1, help="seed of the split, the weights and the order")
    parser.add_argument("--threads", type=int, default=2, help="processor threads")
    parser.add_argument("--batch", type=int, default=4096, help="tokens a step, padding included")
    parser.add_argument("--lr", type=float, default=0.01, help="highest learning rate, of both optimizers")
    parser.add_argument("--weight-decay", type=float, default=0.1, help="decay of the weights, norms excepted")
    parser.add_argument("--dropout", type=float, default=0.15, help="share of channels dropped in every branch")
    parser.add_argument("--late-longest", type=int, default=512, help="longest story, in tokens, of the last quarter")
    parser.add_argument("--export-only", action="store_true", help="write the best checkpoint of --work, do not train")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    args.work.mkdir(parents=True, exist_ok=True)
    keep_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    shape = Shape()
    stories = read_stories(args.corpus)
    random.Random(args.seed).shuffle(stories)
    names = find_names(stories)
    cased = [restore_case(story, names) for story in stories]
    apart = round(0.03 * len(stories))
    tokenizer = train_tokenizer(stories[apart:] + cased[apart:], shape.vocab)
    library = Library(tokenizer, stories[apart:], cased[apart:], shape.context)
    held_out = Library(tokenizer, stories[:apart], cased[:apart], shape.context)
    model = Llama(shape, args.dropout)
    parameters = sum(w.numel() for w in model.parameters())
    print(f"{parameters:,} parameters, {len(library.pairs):,} stories of {sum(library.lengths):,} tokens", flush=True)
    if args.start:
        model.load_state_dict(torch.load(args.start)["model"])
    if not args.export_only:
        train(model, library, held_out, args)
    kept = torch.load(args.work / "best.pt")
    model.load_state_dict(kept["model"])
    model.eval()
    # What ships are the rounded weights, so they are what is measured and shown.
    model.load_state_dict({name: w.bfloat16().float() for name, w in model.state_dict().items()})
    print(json.dumps(kept["figures"] | evaluate(model, held_out) | {"parameters": parameters}, indent=2))
    model.eval()
    export(model, shape, tokenizer, args.out)
    for prompt in ("once upon a time", "Once upon a time", "One day, a little dog"):
        print(f"---\n{continuation(model, tokenizer, prompt, 300)}")


if __name__ == "__main__":
    main()
