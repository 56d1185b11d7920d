"""Text that no service can take: characters that PostgreSQL or UTF-8 do not have.

JSON and GraphQL can both spell U+0000, which PostgreSQL has in no text. JSON can spell half of a surrogate pair, such
as U+D800 alone, which is no character and cannot be sent at all. Both are refused where they come in, with the path of
the field. JSON without an escape holds neither, so an ordinary request pays a search in its body and one in each text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import Message

from graphql_gateway.failure import Failure
from mesh.rpc.errors import FieldViolation, InvalidFields

DEPTH_MAX: Final = 64
FOUND_MAX: Final = 20
DESCRIPTION: Final = "must not contain U+0000 or half of a surrogate pair"

_UNFIT: Final = re.compile("[\x00\ud800-\udfff]")


def is_fit(text: str) -> bool:
    """Say whether a text can be sent and stored."""
    return _UNFIT.search(text) is None


def check_json(value: Any, prefix: str = "") -> None:
    """Refuse JSON with unfit text, keys included.

    Args:
        value: Parsed JSON.
        prefix: The path of the value itself, empty for a request.

    Raises:
        Failure: INVALID_FIELDS, with the path of each such text.
    """
    _raise_for(_unfit_in_json(value, prefix, 0))


def check_message(message: Message) -> None:
    """Refuse a request with unfit text.

    Raises:
        Failure: INVALID_FIELDS, with the path of each such field.
    """
    _raise_for(_unfit_in_message(message, ""))


def _raise_for(paths: Iterator[str]) -> None:
    found = [path for path, _ in zip(paths, range(FOUND_MAX), strict=False)]
    if found:
        violations = [FieldViolation(field=path, description=DESCRIPTION) for path in found]
        raise Failure.of(InvalidFields(violations=violations))


def _unfit_in_json(value: Any, path: str, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        if not is_fit(value):
            yield path or "body"
    elif depth > DEPTH_MAX:
        return
    elif isinstance(value, dict):
        for name, inner in value.items():
            if is_fit(name):
                yield from _unfit_in_json(inner, f"{path}.{name}" if path else name, depth + 1)
            else:
                yield path or "body"
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _unfit_in_json(inner, f"{path}[{place}]", depth + 1)


def _unfit_in_message(message: Message, prefix: str) -> Iterator[str]:
    for field, value in message.ListFields():
        path = f"{prefix}{field.name}"
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield from (path for pair in value.items() if not all(map(_is_fit_scalar, pair)))
        elif field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _unfit_in_message(inner, f"{path}.")
        elif field.is_repeated:
            yield from (path for one in value if not _is_fit_scalar(one))
        elif not _is_fit_scalar(value):
            yield path


def _is_fit_scalar(value: Any) -> bool:
    return not isinstance(value, str) or is_fit(value)
