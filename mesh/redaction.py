"""Keeps credentials out of logs: the last step before a line is written.

Code does not log secrets on purpose. They get there inside something else: a library's message that quotes a header,
the text of an exception, a value that a client sent. So the finished line is searched, whoever wrote it and wherever in
it they stand, for what a credential looks like: bearer and basic values, API keys, service account tokens, JWTs, and
fields that are called a password, a secret or a token. What follows is replaced; the recognisable beginning stays, so
that whoever reads the line knows what it was. A password without a name beside it cannot be recognised; code that logs
errors has to leave their words out.

One pass of one regular expression, linear in the line's length, and only where one of a few words occurs at all.
"""

from __future__ import annotations

import re
from typing import Any, Final

REDACTED: Final = "[redacted]"

_WORDS: Final = (
    "bearer",
    "basic",
    "sk_live_",
    "sk_test_",
    "tw_sa_",
    "whsec_",
    "eyj",
    "passw",
    "secret",
    "token",
    "authorization",
)
_CREDENTIAL: Final = re.compile(
    r"""
    (?P<name>(?:passw(?:or)?d|secret|token|authorization)\\?["']?(?:\x1b\[[\d;]*m)*\s?[:=]\s?(?:\x1b\[[\d;]*m)*)
        (?: \\"(?:[^"\\]|\\[^"])* | "(?:[^"\\]|\\.)* | '[^']* | (?:(?:bearer|basic)\s+)?[^\s"',;&}]+ )
    | (?P<scheme>(?:bearer|basic)\s)\s*[^\s"',;\\]+
    | (?P<key>(?:sk_live_|sk_test_|tw_sa_|whsec_))[0-9A-Za-z]{12,}
    | (?P<jwt>(?:(?<![0-9A-Za-z_-])|(?<=\\[nrt]))eyJ)[0-9A-Za-z_-]+\.[0-9A-Za-z_.-]+
    """,
    re.IGNORECASE | re.VERBOSE,
)


def redacted(text: str) -> str:
    """Return a text without the credentials in it."""
    folded = text.lower()
    if not any(word in folded for word in _WORDS):
        return text
    return _CREDENTIAL.sub(_replaced, text)


def redact_line(_logger: Any, _method: str, line: Any) -> Any:
    """Clean a rendered line; a structlog processor for behind the renderer."""
    return redacted(line) if isinstance(line, str) else line


def _replaced(found: re.Match[str]) -> str:
    kept = next(value for value in found.groupdict().values() if value is not None)
    quote = re.match(r"\\?[\"']", found[0][len(kept) :])
    return f"{kept}{quote[0] if quote else ''}{REDACTED}"
