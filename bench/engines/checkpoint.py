"""One checkpoint of a real shape for all engines: noise for weights, and a tokenizer as large as the real one.

The Hugging Face directory is what every other form is made of. The tokenizer is a byte-level one of which every entry
can be reached: bytes, pairs of letters, then pairs of pairs; so that opening it costs what opening a real one costs.
Runs where openwork is installed.
"""

from __future__ import annotations

import json
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from openwork.bench import checkpoint
from openwork.bench.shapes import SHAPES

KINDS = {"Qwen3ForCausalLM": "qwen3", "LlamaForCausalLM": "llama"}
SPECIAL = ("<|begin|>", "<|end|>")  # the last two ids


def write(directory: Path, shape: str) -> Path:
    """Write a checkpoint of one of SHAPES, if it is not there yet. Returns the directory."""
    if (directory / "complete").exists():
        return directory
    config = dict(SHAPES[shape])
    size = config["vocab_size"]
    config |= {
        "model_type": KINDS[config["architectures"][0]],
        "hidden_act": "silu",
        "rope_theta": config.get("rope_theta", 1e4),
        "attention_bias": False,
        "bos_token_id": size - 2,
        "eos_token_id": size - 1,
        "head_dim": config.get("head_dim", config["hidden_size"] // config["num_attention_heads"]),
    }
    checkpoint.write(directory, config)
    _write(directory / "generation_config.json", {"bos_token_id": size - 2, "eos_token_id": size - 1})
    tokens, merges = vocabulary(size)
    _write(directory / "tokenizer.json", _tokenizer(tokens, merges))
    names = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": SPECIAL[1]}
    _write(directory / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **names})
    (directory / "complete").touch()
    return directory


def vocabulary(size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """``size`` tokens, the special ones last, and the merges that lead to all but the bytes."""
    letters = ascii_lowercase + ascii_uppercase
    twos = list(product(letters, letters))
    fours = product(["".join(two) for two in twos], repeat=2)
    alphabet = _byte_letters()
    merges = [*twos, *islice(fours, max(0, size - len(alphabet) - len(twos) - len(SPECIAL)))]
    merges = merges[: size - len(alphabet) - len(SPECIAL)]
    return [*alphabet, *("".join(pair) for pair in merges), *SPECIAL], merges


def _byte_letters() -> list[str]:
    """The letters that stand for the 256 bytes in a byte-level vocabulary: printable ones for themselves, the others
    from 256 upwards (Radford et al. 2019)."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def _tokenizer(tokens: list[str], merges: list[tuple[str, str]]) -> dict[str, Any]:
    """tokenizer.json of the tokenizers library."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    first = len(tokens) - len(SPECIAL)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": first + at, "content": text, **flags} for at, text in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: at for at, text in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
