"""The demo's chat completions: the usage that is reported is what was asked and answered."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.upstream import completions


def question(**fields):
    return completions.parse(
        json.dumps({"messages": [{"role": "user", "content": "one two three"}], **fields}).encode()
    )


@given(st.integers(1, 200), st.lists(st.text("ab ", max_size=20), max_size=5))
def test_usage_counts_the_words_of_question_and_answer(completion_tokens, contents):
    asked = completions.parse(
        json.dumps({"messages": [{"content": c} for c in contents], "max_tokens": completion_tokens}).encode()
    )
    answer = completions.answer(asked)
    usage = answer["usage"]
    assert usage["prompt_tokens"] == sum(len(c.split()) for c in contents)
    assert usage["completion_tokens"] == len(answer["choices"][0]["message"]["content"].split()) == completion_tokens
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_streamed_answer_has_the_same_words_and_carries_usage_in_its_last_chunk():
    asked = question(max_tokens=5, stream=True)
    events = [chunk.decode().removeprefix("data: ").strip() for chunk in completions.chunks(asked)]
    assert events.pop() == "[DONE]"
    chunks = [json.loads(event) for event in events]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == completions.answer(asked)["choices"][0]["message"]["content"]
    assert [("usage" in chunk) for chunk in chunks] == [False] * 5 + [True]
    assert chunks[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"messages": 1}', b'{"messages": [], "max_tokens": 0}'])
def test_what_is_no_question_is_refused(body):
    with pytest.raises(completions.WrongQuestionError):
        completions.parse(body)
