"""A tokenizer whose tokens are the 256 bytes: any text has one, and its length is the number of its bytes.

    id 0  <pad>      id 1  <s>      id 2  </s>      id 3 + b  the byte b

It is written as the tokenizer.json of a checkpoint (byte-level BPE without merges), so that what reads real ones reads
this one. With ``write_checkpoint`` beside it, whose vocabulary has these 259 ids, a whole model fits in a test.
"""

from __future__ import annotations

import json
from pathlib import Path

SPECIALS = ("<pad>", "<s>", "</s>")
VOCAB_SIZE = len(SPECIALS) + 256
CHAT_TEMPLATE = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"


def write_byte_tokenizer(directory: Path, chat_template: str | None = CHAT_TEMPLATE) -> Path:
    """Write tokenizer.json and tokenizer_config.json into a directory, and return it."""
    vocab = {name: index for index, name in enumerate(SPECIALS)}
    vocab |= {char: len(SPECIALS) + byte for byte, char in enumerate(_byte_chars())}
    added = [
        {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False}
        for i, name in enumerate(SPECIALS)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "vocab": vocab, "merges": [], "fuse_unk": False, "byte_fallback": False}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [entry | {"normalized": False, "special": True} for entry in added],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": model,
    }
    config = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True, "chat_template": chat_template}
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def _byte_chars() -> list[str]:
    """The printable character that byte-level vocabularies write for each byte (Radford et al. 2019, GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
