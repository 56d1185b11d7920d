"""SQL lives in `queries.sql` beside the store that runs it, as named blocks.

A block begins with `-- name: insert_event` and ends at the next one. Comment lines below the name say why the
statement is as it is; they are sent along and show up in the server's logs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Final

_NAME: Final = re.compile(r"^-- name: ([a-z][a-z0-9_]*)$", re.MULTILINE)


class Queries(Mapping[str, str]):
    """The statements of one file by name.

    Args:
        text: The file's content.
        origin: Where it came from, for error messages.

    Raises:
        ValueError: A name comes twice, or a block is empty.
    """

    def __init__(self, text: str, origin: str) -> None:
        self._origin = origin
        self._statements: dict[str, str] = {}
        parts = _NAME.split(text)[1:]
        for name, body in zip(parts[::2], parts[1::2], strict=True):
            if name in self._statements or not body.strip():
                raise ValueError(f"{origin}: statement {name} is empty or comes twice")
            self._statements[name] = f"-- {name}\n{body.strip()}"

    def __getitem__(self, name: str) -> str:
        try:
            return self._statements[name]
        except KeyError:
            raise KeyError(f"{self._origin} has no statement {name}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


def load(package: str | None, filename: str = "queries.sql", *, values: Mapping[str, str] | None = None) -> Queries:
    """Read the statements that lie in a package.

    Args:
        package: The caller's `__package__`.
        filename: The file's name.
        values: Constants of the code, never of a caller, that replace `{{name}}` in the text.
    """
    if package is None:
        raise ValueError("queries belong to a package")
    text = resources.files(package).joinpath(filename).read_text(encoding="utf-8")
    for name, value in (values or {}).items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return Queries(text, f"{package}/{filename}")
