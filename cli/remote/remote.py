"""What a command is handed: the calls, whom they are about, and how to print."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import cached_property

from tollway.auth.v1 import auth_service_pb2 as pb

from cli.remote.caller import Caller, Given, find, is_id
from cli.remote.client import TIMEOUT_SECONDS, Client
from cli.remote.failures import CommandFailed, ExitCode
from cli.remote.output import Output

NAMESAKES_MAX = 1_000


class Remote:
    """A command's caller, client and output. Nothing is read or asked before it is needed.

    Args:
        given: What the command line and the environment say.
        organization: The organization by id or name; empty means that of the credentials.
        output: How to print.
        idempotency_key: Of this command's changes; empty means a new one.
        timeout_seconds: How long one answer may take.
        service: Whose address a given one is, at least.
    """

    def __init__(
        self,
        given: Given,
        *,
        organization: str = "",
        output: Output,
        idempotency_key: str = "",
        timeout_seconds: float = TIMEOUT_SECONDS,
        service: str = "auth",
    ) -> None:
        self.given = given
        self.output = output
        self.idempotency_key = idempotency_key or uuid.uuid4().hex
        self.timeout_seconds = timeout_seconds
        self._organization = organization
        self._service = service

    @property
    def organization_given(self) -> str:
        """Return the organization that was named, by id or name; empty where none was."""
        return self._organization

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables."""
        return self.given.environment

    @cached_property
    def caller(self) -> Caller:
        """Who asks whom."""
        return find(self.given, self._service)

    @cached_property
    def client(self) -> Client:
        """The calls."""
        return Client(
            self.caller.addresses,
            self.caller.credentials,
            timeout_seconds=self.timeout_seconds,
            environment=self.environment,
        )

    @cached_property
    def me(self) -> pb.GetMeResponse:
        """Who the caller is."""
        return self.client.call(self.client.auth.GetMe, pb.GetMeRequest())

    @cached_property
    def organization_id(self) -> str:
        """The organization that the command is about.

        Raises:
            CommandFailed: None has the name that was given, or several have.
        """
        return self.find_organization(self._organization)

    def find_organization(self, wanted: str) -> str:
        """Return an organization's id by its id or name; without either, that of the credentials.

        Raises:
            CommandFailed: None has the name, or several have.
        """
        if is_id(wanted):
            return wanted
        if not wanted:
            return self.caller.organization_id or self.me.organization_id
        ids = {
            membership.organization_id
            for membership in self.me.person.memberships
            if _same(membership.organization_name, wanted)
        }
        if self.me.platform_roles:
            request = pb.ListOrganizationsRequest(name_contains=wanted)
            pages = self.client.pages(self.client.auth.ListOrganizations, request, "organizations", limit=NAMESAKES_MAX)
            ids |= {each.organization_id for each in pages if _same(each.name, wanted)}
        elif not self.me.HasField("person"):
            own = self.client.call(
                self.client.auth.GetOrganization, pb.GetOrganizationRequest(organization_id=self.me.organization_id)
            )
            ids = {own.organization_id} if _same(own.name, wanted) else set()
        if len(ids) == 1:
            return ids.pop()
        if ids:
            raise CommandFailed(f"several organizations are called {wanted!r}: give an id ({', '.join(sorted(ids))})")
        raise CommandFailed(f"you know no organization called {wanted!r}", ExitCode.NOT_FOUND)

    def find_member(self, wanted: str) -> str:
        """Return a person's id by their id, or by the e-mail address of a member.

        Raises:
            CommandFailed: No member has the address.
        """
        if is_id(wanted):
            return wanted
        request = pb.ListMembersRequest(organization_id=self.organization_id)
        for member in self.client.pages(self.client.auth.ListMembers, request, "members"):
            if _same(member.email, wanted):
                return str(member.person_id)
        raise CommandFailed(f"no member has the address {wanted}", ExitCode.NOT_FOUND)


def _same(one: str, other: str) -> bool:
    return one.strip().casefold() == other.strip().casefold()
