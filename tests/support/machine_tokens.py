"""Tokens of service accounts in tests: well-formed, and the same for the same name."""

from __future__ import annotations

import hashlib

from mesh.rpc import opaque_tokens


def machine_token(name: str) -> str:
    return opaque_tokens.mint(opaque_tokens.SERVICE_ACCOUNT_PREFIX, hashlib.sha224(name.encode()).digest())
