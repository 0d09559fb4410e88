from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openwork.cli.conversation import Conversation
from openwork.core.errors import PromptTooLong


def encode(messages):
    """A token for each character."""
    return [0] * sum(len(message["content"]) for message in messages)


def talk(lengths, system=""):
    conversation = Conversation(system)
    for number, length in enumerate(lengths):
        (conversation.answer if number % 2 else conversation.say)("x" * length)
    return conversation


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=15).filter(lambda lengths: len(lengths) % 2),
    system=st.text("s", max_size=10),
    context=st.integers(20, 120),
    room=st.integers(0, 30),
)
def test_as_much_is_shown_as_fits(lengths, system, context, room):
    conversation = talk(lengths, system)
    try:
        ids, dropped = conversation.view(encode, context, room)
    except PromptTooLong:
        assert len(system) + lengths[-1] >= context
        return
    first, room = conversation.first, max(1, room)
    assert first == 2 * dropped
    assert len(ids) == len(system) + sum(lengths[first:])
    assert len(ids) + room <= context or first == len(lengths) - 1, "all but the last turn was left out first"
    if first:
        assert len(system) + sum(lengths[first - 2 :]) + room > context, "no turn was left out without need"
    assert len(conversation.messages) == len(lengths), "nothing is lost"


def test_what_is_left_out_once_stays_out():
    conversation = talk([10, 10, 10])
    assert conversation.view(encode, 25, 0)[1] == 1
    assert conversation.view(encode, 25, 0)[1] == 0
    conversation.reset()
    conversation.say("new")
    assert conversation.view(encode, 25, 0) == ([0, 0, 0], 0)


def test_the_last_message_alone():
    with pytest.raises(PromptTooLong, match="alone has 30 tokens, and the context window is 30"):
        talk([5, 5, 30]).view(encode, 30, 0)
    assert talk([5, 5, 29]).view(encode, 30, 10)[1] == 1


def test_going_on_from_another_conversation():
    conversation = talk([1, 1], "old")
    messages = talk([2, 3], "new").as_messages()
    conversation.replace(messages)
    assert conversation.system == "new"
    assert conversation.as_messages() == messages
    conversation.replace(messages[1:])
    assert conversation.system == ""


def test_taking_back():
    conversation = talk([1, 1, 1])
    conversation.view(encode, 1000, 0)
    conversation.take_back()
    assert len(conversation.messages) == 2
