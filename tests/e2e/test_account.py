"""The life of an account as a front end leads it: REST alone, and the mails that the stack really sends."""

from __future__ import annotations

import base64
import re
import time
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest

from services.auth import totp
from tests.support.stack import Client, Stack, eventually

pytestmark = [pytest.mark.xdist_group("e2e-account"), pytest.mark.timeout(600)]

EMAIL = "ada@example.com"
PASSWORD = "correct horse battery staple"
NEW_PASSWORD = "another pass phrase altogether"


class Visitor:
    """Somebody without an account, and their mailbox."""

    def __init__(self, stack: Stack, http: Any) -> None:
        self._client = Client(stack, http)
        self._folder = stack.data_dir / "mail"

    async def call(self, method: str, path: str, **fields: str) -> Any:
        """Calls REST; returns what it says, or the reason why not."""
        _, answer = await self._client.rest(method, f"/api/v1/{path}", json=fields or None)
        return answer["data"] if answer["success"] else answer["error"]["code"]

    async def sign_in(self, password: str, code: str = "") -> Any:
        session = await self.call("POST", "sessions", email=EMAIL, password=password, second_factor_code=code)
        if isinstance(session, dict):
            self._client._token = session["access_token"]
        return session

    async def token_of(self, subject: str) -> str:
        """Waits for a mail and returns the token in it."""

        async def find() -> list[str]:
            mails = [message_from_bytes(path.read_bytes(), policy=default) for path in self._folder.glob("*.eml")]
            texts = [mail.get_body(("plain",)).get_content() for mail in mails if mail["Subject"] == subject]
            return re.findall(r"#token=(\S+)", "".join(texts))

        (token,) = await eventually(find, bool)
        return token


async def test_an_account_is_registered_secured_and_recovered_by_mail(stack: Stack, http: Any) -> None:
    ada = Visitor(stack, http)
    asked = {"email": EMAIL, "password": PASSWORD, "name": "Ada", "organization_name": "Engines"}
    assert await ada.call("POST", "people:register", **asked) == {}
    assert await ada.sign_in(PASSWORD) == "SIGN_IN_REFUSED"
    token = await ada.token_of("Confirm your e-mail address")
    assert await ada.call("POST", "people:verifyEmail", token=token, password="a stranger's") == "PASSWORD_WRONG"
    made = await ada.call("POST", "people:verifyEmail", token=token, password=PASSWORD)
    assert (await ada.sign_in(PASSWORD))["organization_id"] == made["organization_id"]
    assert (await ada.call("GET", "me"))["person"]["email"] == EMAIL

    begun = await ada.call("POST", "me/totp:begin", password=PASSWORD)
    secret = base64.b32decode(begun["secret"])
    code = totp.code_of(secret, int(time.time()) // totp.STEP_SECONDS)
    recovery_codes = (await ada.call("POST", "me/totp:confirm", code=code))["recovery_codes"]
    assert await ada.sign_in(PASSWORD) == "SECOND_FACTOR_REQUIRED"
    assert await ada.sign_in(PASSWORD, code) == "SECOND_FACTOR_REFUSED"
    assert "access_token" in await ada.sign_in(PASSWORD, recovery_codes[0])

    assert await ada.call("POST", "people:requestPasswordReset", email=EMAIL) == {}
    token = await ada.token_of("Set a new password")
    assert await ada.call("POST", "people:resetPassword", token=token, new_password=NEW_PASSWORD) == {}

    async def me() -> Any:
        return await ada.call("GET", "me")

    await eventually(me, lambda answer: answer == "CREDENTIALS_INVALID", timeout_seconds=5)
    assert await ada.sign_in(PASSWORD, recovery_codes[1]) == "SIGN_IN_REFUSED"
    assert "access_token" in await ada.sign_in(NEW_PASSWORD, recovery_codes[1])
