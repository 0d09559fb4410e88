"""Small tokenizers of the kinds that decoder-only models come with, written as checkpoints write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend

from openwork.text.tokenizer import Tokenizer

WORDS = (
    "once",
    "upon",
    "a",
    "time",
    "there",
    "was",
    "little",
    "cat",
    "who",
    "liked",
    "warm",
    "milk",
    "and",
    "the",
    "sea",
)


def byte_level() -> Backend:
    """GPT-2 style: bytes as printable characters, a few merges, an added token with a space in it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {char: i for i, char in enumerate(alphabet)}
    merges = []
    for word in ("Ġthe", "Ġcat", "milk", "Ã©", "ðŁ"):
        for end in range(2, len(word) + 1):
            pair = (word[: end - 1], word[end - 1])
            if word[:end] not in vocab:
                vocab[word[:end]] = len(vocab)
                merges.append(pair)
    backend = Backend(models.BPE(vocab=vocab, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|end|>", "<|user|>"])
    backend.add_tokens(["é added", "<tool>"])
    return backend


def sentencepiece(decoder: Any = None) -> Backend:
    """Llama 2 style: a mark for the space, 256 byte tokens, a leading space that falls away."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    vocab |= {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
    merges = []
    for char in sorted({*"".join(WORDS), "▁"}):
        vocab[char] = len(vocab)
    for word in WORDS:
        marked = "▁" + word
        for end in range(2, len(marked) + 1):
            if marked[:end] not in vocab:
                vocab[marked[:end]] = len(vocab)
                merges.append((marked[: end - 1], marked[end - 1]))
    vocab["▁▁"] = len(vocab)
    merges.append(("▁", "▁"))
    backend = Backend(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoder or decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(name, normalized=False) for name in ("<unk>", "<s>", "</s>")])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return backend


def metaspace() -> Backend:
    backend = sentencepiece(decoders.Metaspace())
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return backend


def plain() -> Backend:
    """No decoder at all: the library joins words with spaces."""
    vocab = {word: i for i, word in enumerate(dict.fromkeys(["[unk]", *WORDS]))}
    backend = Backend(models.WordLevel(vocab=vocab, unk_token="[unk]"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    return backend


MAKERS = {"byte_level": byte_level, "sentencepiece": sentencepiece, "metaspace": metaspace, "plain": plain}


def write(directory: Path, backend: Backend, **config: Any) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    backend.save(str(directory / "tokenizer.json"))
    if config:
        (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def make() -> dict[str, Callable[[], Backend]]:
    """Of each kind: makes a fresh tokenizer of the library."""
    return MAKERS


@pytest.fixture(scope="session", name="write")
def write_fixture() -> Callable[..., Path]:
    """write(directory, backend, **config): a checkpoint directory with nothing but a tokenizer."""
    return write


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, Backend]]:
    """Of each kind: our tokenizer, and the library's, which is what ours is compared with."""
    made = {}
    for kind, make in MAKERS.items():
        backend = make()
        made[kind] = (Tokenizer.load(write(tmp_path_factory.mktemp(kind), backend)), backend)
    return made
