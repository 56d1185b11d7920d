"""An answer in the shape of OpenAI's chat completions, token usage included, made without a model.

The counts are exact and reproducible (one token per word), so that whoever meters them can be checked.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

COMPLETION_TOKENS_DEFAULT = 16
COMPLETION_TOKENS_MAX = 10_000
_WORDS = ("tolls", "are", "paid", "once", "per", "crossing")
_CREATED_SECONDS = 1_735_689_600  # fixed: answers to equal questions are equal


class WrongQuestionError(ValueError):
    """The body is not a chat completion request; the message says what is wrong with it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A parsed request."""

    model: str
    prompt_tokens: int
    completion_tokens: int
    stream: bool

    @property
    def usage(self) -> dict[str, int]:
        """Token counts, as OpenAI names them."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


def parse(body: bytes) -> Question:
    """Read a request body.

    Raises:
        WrongQuestionError: when it is not one.
    """
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise WrongQuestionError("the body is not JSON") from error
    if not isinstance(asked, dict) or not isinstance(asked.get("messages"), list):
        raise WrongQuestionError("messages must be a list")
    tokens = asked.get("max_tokens", COMPLETION_TOKENS_DEFAULT)
    if not isinstance(tokens, int) or not 1 <= tokens <= COMPLETION_TOKENS_MAX:
        raise WrongQuestionError(f"max_tokens must be 1 to {COMPLETION_TOKENS_MAX}")
    return Question(
        model=str(asked.get("model", "demo")),
        prompt_tokens=sum(_words_in(message) for message in asked["messages"]),
        completion_tokens=tokens,
        stream=asked.get("stream") is True,
    )


def answer(question: Question) -> dict[str, Any]:
    """Return the whole answer."""
    message = {"role": "assistant", "content": " ".join(_words(question))}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {**_head(question, "chat.completion"), "choices": [choice], "usage": question.usage}


def chunks(question: Question) -> Iterator[bytes]:
    """Yield the answer as server-sent events; the last one before `[DONE]` carries the usage."""
    head = _head(question, "chat.completion.chunk")
    for number, word in enumerate(_words(question)):
        delta = {"content": word if number == 0 else " " + word}
        yield _event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    finish = {"index": 0, "delta": {}, "finish_reason": "stop"}
    yield _event({**head, "choices": [finish], "usage": question.usage})
    yield b"data: [DONE]\n\n"


def _head(question: Question, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-demo", "object": kind, "created": _CREATED_SECONDS, "model": question.model}


def _words(question: Question) -> Iterator[str]:
    return (_WORDS[number % len(_WORDS)] for number in range(question.completion_tokens))


def _words_in(message: Any) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    return len(content.split()) if isinstance(content, str) else 0


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
