"""Signing in, and keeping a session going: what becomes of `Profile`s."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf import timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb

from cli.remote.client import Client, GivenToken
from cli.remote.failures import CallRefused, CommandFailed, ExitCode
from cli.remote.profiles import CredentialsFile, Profile
from mesh.clock import Clock

RENEWED_BEFORE: Final = timedelta(seconds=30)
SECOND_FACTOR_REQUIRED: Final = "SECOND_FACTOR_REQUIRED"


def sign_in(client: Client, *, email: str, password: str, ask_code: Callable[[], str]) -> pb.CreateSessionResponse:
    """Sign a person in; a code of the second factor is asked for where the account has one.

    Raises:
        CallRefused: It is refused.
    """
    request = pb.CreateSessionRequest(email=email, password=password)
    try:
        return client.call(client.auth.CreateSession, request)
    except CallRefused as error:
        if error.received.reason != SECOND_FACTOR_REQUIRED:
            raise
    request.second_factor_code = ask_code()
    return client.call(client.auth.CreateSession, request)


def with_session(profile: Profile, session: pb.CreateSessionResponse) -> Profile:
    """Return a profile with the tokens of a session that was opened, renewed or moved."""
    return dataclasses.replace(
        profile,
        token=session.access_token,
        expire_time=_instant(session.expire_time),
        refresh_token=session.refresh_token or profile.refresh_token,
        refresh_expire_time=_instant(session.refresh_expire_time)
        if session.HasField("refresh_expire_time")
        else profile.refresh_expire_time,
        organization_id=session.organization_id,
    )


class ProfileCredentials:
    """The token of a profile; a session that is about to end is renewed first.

    Two commands at once renew it once: the second waits for the first and finds its tokens. A refresh token is good
    once, and showing it twice would end the session.

    Args:
        file: Where profiles are.
        name: Which one.
        addresses: Where the services are.
        environment: For the call that renews.
        clock: Time.
    """

    def __init__(
        self,
        file: CredentialsFile,
        name: str,
        addresses: Mapping[str, str],
        *,
        environment: Mapping[str, str],
        clock: Clock,
    ) -> None:
        self._file = file
        self._name = name
        self._addresses = addresses
        self._environment = environment
        self._clock = clock

    def token(self, *, refused: str = "") -> str:
        """Return a token that should be accepted.

        Raises:
            CommandFailed: The session has ended, or cannot be renewed.
        """
        profile = self._profile()
        if self._serves(profile, refused):
            return profile.token
        with self._file.locked():
            profile = self._profile()
            if self._serves(profile, refused):
                return profile.token
            renewed = with_session(profile, self._renew(profile))
            profiles = self._file.read()
            self._file.write(dataclasses.replace(profiles, by_name={**profiles.by_name, self._name: renewed}))
        return renewed.token

    def _profile(self) -> Profile:
        profile = self._file.read().by_name.get(self._name)
        if profile is None or not profile.token:
            raise CommandFailed(f"nobody is signed in as {self._name}: tollway login", ExitCode.NOT_SIGNED_IN)
        return profile

    def _serves(self, profile: Profile, refused: str) -> bool:
        if not profile.refresh_token:
            return True
        if profile.token == refused:
            return False
        return profile.expire_time is None or self._clock.now() + RENEWED_BEFORE < profile.expire_time

    def _renew(self, profile: Profile) -> pb.CreateSessionResponse:
        client = Client(self._addresses, GivenToken(""), environment=self._environment)
        try:
            return client.call(
                client.auth.RefreshSession, pb.RefreshSessionRequest(refresh_token=profile.refresh_token)
            )
        except CallRefused as error:
            if error.exit_code is not ExitCode.NOT_SIGNED_IN:
                raise
            raise CommandFailed(
                f"the session of {profile.account or self._name} has ended: tollway login", ExitCode.NOT_SIGNED_IN
            ) from error


def _instant(timestamp: timestamp_pb2.Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
