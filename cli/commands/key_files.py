"""Files of API keys to import. A plain key in them is hashed here and goes nowhere.

Everything that is wrong is told at once, by line, before anything is sent.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from google.protobuf import timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb

from cli.remote.failures import CommandFailed, ExitCode

MODES: Final = {"live": pb.KEY_MODE_LIVE, "test": pb.KEY_MODE_TEST}
SHA256_HEX_LENGTH: Final = 64
PROBLEMS_SHOWN_MAX: Final = 10
_KNOWN: Final = frozenset(
    {"sha256", "key", "key_prefix", "name", "mode", "scopes", "allowed_ips", "external_subject", "expire_time"}
)


def read_key_file(path: Path, form: str | None, key_prefix: str = "") -> list[pb.ImportedApiKey]:
    """Read keys to import.

    Args:
        path: The file.
        form: One of `FORMATS`; None means by the file's name.
        key_prefix: Of rows that name none.

    Raises:
        CommandFailed: Something in the file is wrong.
    """
    chosen = form or {".csv": "csv", ".json": "json", ".jsonl": "jsonl"}.get(path.suffix.lower())
    if chosen is None:
        raise CommandFailed(f"what {path} is, its name does not tell: give --format", ExitCode.USAGE)
    try:
        rows = list(FORMATS[chosen](path))
    except (ValueError, csv.Error) as error:
        raise CommandFailed(f"{path} is no {chosen}: {error}", ExitCode.USAGE) from error
    keys, problems = [], []
    for line, row in rows:
        try:
            keys.append(_key(row, key_prefix))
        except (ValueError, TypeError) as error:
            problems.append(f"line {line}: {error}")
    if problems:
        more = f"; and {len(problems) - PROBLEMS_SHOWN_MAX} more" if len(problems) > PROBLEMS_SHOWN_MAX else ""
        raise CommandFailed(f"{path}: {'; '.join(problems[:PROBLEMS_SHOWN_MAX])}{more}", ExitCode.USAGE)
    return keys


def _key(row: Mapping[str, Any], key_prefix: str) -> pb.ImportedApiKey:
    unknown = sorted(str(name) for name in row if name not in _KNOWN)
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}")
    key = pb.ImportedApiKey(
        sha256=_digest(row),
        key_prefix=row.get("key_prefix") or key_prefix,
        name=row.get("name") or "",
        mode=_mode(row.get("mode") or "live"),
        scopes=_words(row.get("scopes")),
        allowed_ips=_words(row.get("allowed_ips")),
        external_subject=row.get("external_subject") or "",
    )
    if row.get("key") and not str(row["key"]).startswith(key.key_prefix):
        raise ValueError("the key does not begin with its key_prefix")
    if row.get("expire_time"):
        key.expire_time.CopyFrom(_timestamp(row["expire_time"]))
    return key


def _digest(row: Mapping[str, Any]) -> bytes:
    key, sha256 = row.get("key") or "", row.get("sha256") or ""
    if bool(key) == bool(sha256):
        raise ValueError("give sha256, or key, and not both")
    if key:
        return hashlib.sha256(str(key).encode()).digest()
    if len(sha256) != SHA256_HEX_LENGTH:
        raise ValueError(f"sha256 must have {SHA256_HEX_LENGTH} hex digits")
    try:
        return bytes.fromhex(sha256)
    except ValueError:
        raise ValueError(f"sha256 must have {SHA256_HEX_LENGTH} hex digits") from None


def _mode(text: str) -> pb.KeyMode.ValueType:
    if text not in MODES:
        raise ValueError("mode must be live or test")
    return MODES[text]


def _words(value: Any) -> list[str]:
    if isinstance(value, list):
        return [str(each) for each in value]
    return str(value or "").split()


def _timestamp(text: str) -> timestamp_pb2.Timestamp:
    try:
        instant = datetime.fromisoformat(str(text))
    except ValueError:
        raise ValueError("expire_time must be ISO 8601, for example 2026-12-31T18:00:00Z") from None
    converted = timestamp_pb2.Timestamp()
    converted.FromDatetime(instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant)
    return converted


def _read_csv(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True, restkey="(more cells than headings)")
        for row in reader:
            yield reader.line_num, row


def _read_json(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    found = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(found, list):
        raise ValueError("it must be a list of objects")  # noqa: TRY004 - it is the file that is wrong
    for number, row in enumerate(found, start=1):
        yield number, _object(row, number)


def _read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if line.strip():
            yield number, _object(json.loads(line), number)


def _object(row: Any, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"entry {number} is no object")  # noqa: TRY004 - it is the file that is wrong
    return row


FORMATS: Final[Mapping[str, Callable[[Path], Iterator[tuple[int, dict[str, Any]]]]]] = {
    "csv": _read_csv,
    "json": _read_json,
    "jsonl": _read_jsonl,
}
