"""Path templates of `google.api.http` (google/api/http.proto, "Path template syntax").

    Template = "/" Segments [ Verb ] ;       Segment  = "*" | "**" | LITERAL | Variable ;
    Variable = "{" FieldPath [ "=" Segments ] "}" ;      Verb = ":" LITERAL ;

A template becomes a regular expression over the raw path, before percent-decoding, so that an encoded slash or colon
inside a value is never taken for structure. In a template's last segment a value does not match past a colon:
`/keys/{key_id}` is not `/keys/1:revoke`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

_VARIABLE: Final = re.compile(r"\{([a-z0-9_.]+)(?:=([^{}]+))?\}")
_LITERAL: Final = re.compile(r"[A-Za-z0-9._~-]+")
_BROKEN_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class PathTemplate:
    """A compiled template.

    Attributes:
        text: As it was written.
        fields: The field paths that it binds, in order.
        literal_segments: How many of its segments are fixed; of two templates that match, the one with more wins.
        has_verb: Whether it ends in `:verb`.
    """

    text: str
    fields: tuple[str, ...]
    literal_segments: int
    has_verb: bool
    pattern: re.Pattern[str]

    def match(self, raw_path: str) -> dict[str, str] | None:
        """Return the decoded value of every bound field, or None where the path is another.

        Raises:
            ValueError: The path is this one, but a value is not percent-encoded UTF-8.
        """
        found = self.pattern.fullmatch(raw_path)
        if found is None:
            return None
        return {name: decoded(value) for name, value in zip(self.fields, found.groups(), strict=True)}


def decoded(value: str) -> str:
    """Undo percent-encoding strictly.

    Raises:
        ValueError: A broken escape, or bytes that are not UTF-8.
    """
    if _BROKEN_ESCAPE.search(value):
        raise ValueError("broken percent-encoding")
    return unquote_to_bytes(value).decode("utf-8", "strict")


def compile_template(text: str) -> PathTemplate:
    """Compile a template.

    Raises:
        ValueError: It is not one.
    """
    if not text.startswith("/"):
        raise ValueError(f"{text!r} does not start with a slash")
    path, verb = _split_verb(text)
    fields: list[str] = []
    parts: list[str] = []
    literals = 0
    for segment in _segments(path):
        variable = _VARIABLE.fullmatch(segment)
        if variable:
            fields.append(variable[1])
            inner = (variable[2] or "*").split("/")
            parts.append("(" + "/".join(_segment_pattern(part) for part in inner) + ")")
            literals += sum(part not in {"*", "**"} for part in inner)
        else:
            parts.append(_segment_pattern(segment))
            literals += segment not in {"*", "**"}
    pattern = re.compile("/" + "/".join(parts) + (re.escape(f":{verb}") if verb else ""))
    return PathTemplate(
        text=text, fields=tuple(fields), literal_segments=literals, has_verb=bool(verb), pattern=pattern
    )


def _split_verb(text: str) -> tuple[str, str]:
    """Split at the colon behind the last segment; colons inside braces do not occur in the syntax."""
    head, colon, verb = text.rpartition(":")
    if not colon or "/" in verb or "}" in verb:
        return text, ""
    if not _LITERAL.fullmatch(verb):
        raise ValueError(f"{text!r} has a verb that is not a word")
    return head, verb


def _segments(path: str) -> list[str]:
    """Split at slashes outside of braces."""
    return re.findall(r"\{[^}]*\}|[^/{]+", path) if "//" not in path else _no_empty_segments(path)


def _no_empty_segments(path: str) -> list[str]:
    raise ValueError(f"{path!r} has an empty segment")


def _segment_pattern(segment: str) -> str:
    match segment:
        case "*":
            return "[^/:]+"
        case "**":
            return "[^:]+"
        case literal if _LITERAL.fullmatch(literal):
            return re.escape(literal)
        case other:
            raise ValueError(f"{other!r} is no segment of a path template")
