from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from openwork.core.errors import ModelError, OpenworkError, RequestError, UnsupportedModel
from openwork.text.tokenizer import MAX_CONFIG_BYTES, Tokenizer

KINDS = ("byte_level", "sentencepiece", "metaspace", "plain")
TEXTS = ("once upon a time", " leading", "two  spaces ", "é, 猫 and 🐈\n\ttail", "", "\x00\x7f", "the cat<|end|>milk")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_encodes_and_decodes_as_the_library_does(pairs, kind, text):
    ours, theirs = pairs[kind]
    ids = ours.encode(text)
    assert ids == theirs.encode(text).ids
    for skip in (True, False):
        assert ours.decode(ids, skip) == theirs.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
@given(text=st.text())
def test_every_text_comes_back(pairs, kind, text):
    ours, _ = pairs[kind]
    ids = ours.encode(text, add_special=False)
    assert ours.decode(ids, skip_special=False) == text


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), skip=st.booleans())
def test_decodes_any_tokens_as_the_library_does(pairs, kind, data, skip):
    ours, theirs = pairs[kind]
    ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1), max_size=24))
    text = theirs.decode(ids, skip_special_tokens=skip)
    if kind == "sentencepiece" and "\ufffd" in text:
        # There one bad byte spoils its whole run of byte tokens; ours keeps the characters that are whole.
        assert len(ours.decode(ids, skip)) <= len(text)
        return
    assert ours.decode(ids, skip) == text


def test_one_bad_byte_spoils_only_itself(pairs):
    ours, theirs = pairs["sentencepiece"]
    ids = [3 + byte for byte in "é".encode()] + [3 + 0xFF]
    assert ours.decode(ids) == "é\ufffd"
    assert theirs.decode(ids) == "\ufffd" * 3


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_make_up_the_text(pairs, kind):
    ours, _ = pairs[kind]
    ids = ours.encode("once upon a time, é 🐈", add_special=False)
    joined = b"".join(ours.piece(token) for token in ids)
    assert joined.decode().removeprefix(" ") == ours.decode(ids)


def test_pieces_of_both_kinds_of_byte_tokens(pairs):
    assert pairs["sentencepiece"][0].piece(3 + 0x0A) == b"\n"
    ours, theirs = pairs["byte_level"]
    assert {ours.piece(token) for token in range(256)} == {bytes((byte,)) for byte in range(256)}
    assert ours.piece(theirs.token_to_id("Ġcat")) == b" cat"
    assert ours.piece(theirs.token_to_id("é added")) == "é added".encode()
    assert ours.piece(theirs.token_to_id("<|end|>")) == b"<|end|>"
    assert ours.piece(10**6) is None
    assert ours.piece(-1) is None
    assert ours.piece(2**40) is None


def test_a_continued_text_keeps_its_space(pairs):
    ours, _ = pairs["sentencepiece"]
    ids = ours.encode(" cat", add_special=False)[-1:]
    assert ours.decode(ids) == "cat"
    assert ours.decode(ids, continues=True) == " cat"


def test_special_tokens(pairs):
    ours, theirs = pairs["byte_level"]
    end, tool = theirs.token_to_id("<|end|>"), theirs.token_to_id("<tool>")
    assert ours.is_special(end)
    assert not ours.is_special(tool)
    assert ours.decode([end, tool]) == "<tool>"
    assert ours.decode([end, tool], skip_special=False) == "<|end|><tool>"
    assert ours.vocab_size == len(theirs.get_vocab())


@pytest.mark.parametrize(("flag", "expected"), [(None, [1]), (True, [1]), (False, [])])
def test_the_config_decides_about_the_first_token(tmp_path, flag, expected, make, write):
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}} | ({} if flag is None else {"add_bos_token": flag})
    ours = Tokenizer.load(write(tmp_path, make["sentencepiece"](), **config))
    assert (ours.bos_id, ours.eos_id) == (1, 2)
    assert ours.encode("")[:1] == expected
    assert ours.encode("", add_special=False) == []


def test_a_first_token_that_only_the_config_asks_for(tmp_path, make, write):
    ours = Tokenizer.load(write(tmp_path, make["byte_level"](), bos_token="<|end|>", add_bos_token=True))
    assert ours.encode("a")[0] == ours.bos_id
    assert ours.encode("<|end|>a").count(ours.bos_id) == 1


def test_a_named_token_is_special_though_the_tokenizer_does_not_say_so(tmp_path, make, write):
    backend = make["byte_level"]()
    ours = Tokenizer.load(write(tmp_path, backend, eos_token="<tool>", bos_token="milk", pad_token="nowhere"))
    size = len(backend.get_vocab())
    assert ours.is_special(backend.token_to_id("<tool>"))
    assert ours.is_special(backend.token_to_id("milk"))
    assert ours.vocab_size == size, "nothing is added to the vocabulary"


def test_nothing_cuts_a_prompt_in_silence(tmp_path, make, write):
    backend = make["byte_level"]()
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    ours = Tokenizer.load(write(tmp_path, backend))
    assert ours.decode(ours.encode("a longer text than four tokens")) == "a longer text than four tokens"


def test_ids_with_gaps_count_up_to_the_highest(tmp_path, write):
    backend = Backend(models.BPE(vocab={"a": 0, "b": 7}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    ours = Tokenizer.load(write(tmp_path, backend))
    assert ours.vocab_size == 8
    assert ours.piece(3) is None
    assert ours.decode([0, 3, 7]) == "ab"


@pytest.mark.parametrize(("text", "place"), [("\ud800", 0), ("abc\udfff", 3), ("🐈\udc80x", 1)])
def test_a_lone_surrogate_is_refused_with_its_place(pairs, text, place):
    with pytest.raises(RequestError, match=rf"^prompt: .*at character {place}\b") as caught:
        pairs["byte_level"][0].encode(text)
    assert caught.value.param == "prompt"


def test_an_absurd_text_is_refused_before_it_is_tokenised(pairs):
    ours, _ = pairs["byte_level"]
    assert ours.encode("é", max_bytes=2)
    for text in ("éé", "a" * 10**7):
        with pytest.raises(RequestError, match="bytes"):
            ours.encode(text, max_bytes=3)
    with pytest.raises(RequestError, match="must be text, not bytes"):
        ours.encode(b"a")


class _Panic(BaseException):
    """As the library's panics are: outside Exception."""


class _Broken:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> None:
        raise self.error


def test_a_panic_of_the_library_becomes_our_error(pairs, monkeypatch):
    ours, _ = pairs["byte_level"]
    monkeypatch.setattr(ours, "_backend", _Broken(_Panic("index out of range")))
    with pytest.raises(RequestError, match="cannot be tokenised: index out of range"):
        ours.encode("a")
    monkeypatch.setattr(ours, "_backend", _Broken(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        ours.encode("a")


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(ModelError, match=re.escape(str(tmp_path / "tokenizer.json"))) as caught:
        Tokenizer.load(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "content", [b"", b"{", b"{}", b"[]", b"\xff\xfe", b'{"model": {"type": "None"}}', b"[" * 10**5]
)
def test_an_invalid_tokenizer_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(str(tmp_path / "tokenizer.json"))):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 10**6, b'{"add_bos_token": 1}'])
def test_an_invalid_config_is_named(tmp_path, content, make, write):
    write(tmp_path, make["byte_level"]())
    (tmp_path / "tokenizer_config.json").write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(str(tmp_path / "tokenizer_config.json"))):
        Tokenizer.load(tmp_path)


def test_an_oversized_config_is_not_read(tmp_path, make, write):
    write(tmp_path, make["byte_level"]())
    with (tmp_path / "tokenizer_config.json").open("wb") as file:
        file.truncate(MAX_CONFIG_BYTES + 1)
    with pytest.raises(ModelError, match=f"{MAX_CONFIG_BYTES} are allowed"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "decoder",
    [
        decoders.WordPiece(),
        decoders.CTC(),
        decoders.BPEDecoder(),
        decoders.Sequence([decoders.Strip(" ", 1, 0)]),
        decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 0, 1)]),
        decoders.Sequence([decoders.Fuse(), decoders.ByteFallback()]),
        decoders.Sequence([decoders.ByteFallback(), decoders.Replace("▁", " ")]),
    ],
)
def test_other_kinds_of_decoders_are_refused_by_name(tmp_path, decoder, make, write):
    backend = make["byte_level"]()
    backend.decoder = decoder
    with pytest.raises(UnsupportedModel, match=r"tokenizer\.json: decoder: .* is not supported"):
        Tokenizer.load(write(tmp_path, backend))


@given(
    junk=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_no_config_crashes(tmp_path_factory, junk, make, write):
    directory: Path = write(tmp_path_factory.mktemp("junk"), make["byte_level"]())
    config = {"bos_token": junk, "eos_token": {"content": junk}, "add_bos_token": junk}
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    try:
        Tokenizer.load(directory)
    except OpenworkError as error:
        assert "tokenizer_config.json" in error.message  # noqa: PT017 (either outcome is right, a crash is not)
