"""What `tollway up` shows when everything runs: where it is, and one round of real traffic."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import click

from cli import demo_data
from cli.demo_data import Organization
from cli.stack.installation import Installation
from cli.stack.stack_file import GRAPHQL_PATH
from contract.services import SERVICES

PAID_PLAN: Final = "starter"
FREE_PLAN: Final = "free"
REQUEST_COUNT: Final = 20
FREE_REQUEST_COUNT: Final = 12
FREE_PER_MINUTE: Final = 10
METERED_SECONDS_MAX: Final = 10.0
POLL_SECONDS: Final = 0.1
ANSWER_SECONDS_MAX: Final = 15.0
SHOWN_HEADERS: Final = ("Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "RateLimit")
SIGN_IN: Final = "mutation($e: String!, $p: String!) { signIn(email: $e, password: $p) { accessToken } }"
PREVIEW: Final = (
    "{ invoicePreview { planId billableUnits total { amountMinor currencyCode } lines { description quantity } } }"
)


def addresses(installation: Installation) -> None:
    """Print where everything is, who can sign in, and a command that works."""
    ports, layout = installation.ports, installation.layout
    click.echo("")
    rows = [
        ("edge", ports.url("edge"), "the gateway for API clients"),
        ("edge admin", ports.url("edge-admin"), "/health /metrics"),
        ("gateway", ports.url("gateway"), f"GraphQL at {GRAPHQL_PATH}, REST at /api/v1"),
        ("upstream", ports.url("upstream"), "the demo API behind the edge"),
        ("gRPC", " ".join(f"{name}:{ports[name]}" for name in SERVICES), "reflection is on"),
        ("mails", str(layout.mail), "what the local SMTP server caught"),
        ("logs", str(layout.logs), "one file per process"),
        ("stack file", str(layout.stack_file), "all of this, for scripts"),
    ]
    for name, where, what in rows:
        click.echo(f"  {name:11} {where:44} {what}")
    click.echo("")
    for tenant in demo_data.TENANTS:
        owner = tenant.people[0]
        click.echo(f"  {tenant.name:8} {tenant.plan_id or '':8} {owner.email} / {owner.password(installation.secrets)}")
    key = _tenant(PAID_PLAN).api_key(installation.secrets)
    click.echo("\nTry it:\n")
    click.echo(f"  curl -i {ports.url('edge')}/echo -H 'Authorization: Bearer {key}'\n")


def traffic(installation: Installation) -> None:
    """Send demo requests, run into a limit, and show the bill before and after; say so if that fails."""
    try:
        asyncio.run(_traffic(installation))
    except (aiohttp.ClientError, TimeoutError, ShowError) as error:
        click.echo(f"  the demo traffic failed: {type(error).__name__}: {error}", err=True)


class ShowError(Exception):
    """An answer is not what the demo expects; the message is the answer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Preview:
    billable: int
    total: str
    lines: tuple[str, ...]


async def _traffic(installation: Installation) -> None:
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS_MAX)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        gateway = await _Gateway.sign_in(installation, http, _tenant(PAID_PLAN))
        before = await gateway.preview()
        await _show_mixed_requests(installation, http)
        await _show_limit(installation, http)
        after = await _preview_with(gateway, before.billable + REQUEST_COUNT)
    click.echo(f"  invoice preview of {_tenant(PAID_PLAN).name} ({PAID_PLAN}), through GraphQL:")
    click.echo(f"    before  {before.billable:6} billable requests  {before.total}")
    click.echo(f"    after   {after.billable:6} billable requests  {after.total}   ({'; '.join(after.lines)})\n")


async def _show_mixed_requests(installation: Installation, http: aiohttp.ClientSession) -> None:
    """Send billable requests and some that fail upstream, which nobody pays for."""
    key = _tenant(PAID_PLAN).api_key(installation.secrets)
    paths = ["/echo", "/status/404", "/large?bytes=65536", "/sse?events=2&interval_ms=10"]
    billable = [await _get(installation, http, paths[n % len(paths)], key) for n in range(REQUEST_COUNT)]
    failing = [await _get(installation, http, "/fail", key) for _ in range(2)]
    statuses = Counter(status for status, _ in [*billable, *failing])
    click.echo(
        f"  {_tenant(PAID_PLAN).name}: {sum(statuses.values())} requests {_counts(statuses)}; 5xx are not billed"
    )


async def _show_limit(installation: Installation, http: aiohttp.ClientSession) -> None:
    tenant = _tenant(FREE_PLAN)
    key = tenant.api_key(installation.secrets)
    answers = [await _get(installation, http, "/echo", key) for _ in range(FREE_REQUEST_COUNT)]
    statuses = Counter(status for status, _ in answers)
    click.echo(
        f"  {tenant.name}: {FREE_REQUEST_COUNT} requests {_counts(statuses)}; "
        f"the free plan has {FREE_PER_MINUTE} a minute"
    )
    refused = next((headers for status, headers in answers if status == 429), None)
    if refused is not None:
        click.echo("    " + "  ".join(f"{name}: {refused[name]}" for name in SHOWN_HEADERS if name in refused))


async def _preview_with(gateway: _Gateway, billable: int) -> _Preview:
    """Asks until usage has arrived, which takes a moment, or the time is over."""
    deadline = asyncio.get_running_loop().time() + METERED_SECONDS_MAX
    while True:
        preview = await gateway.preview()
        if preview.billable >= billable or asyncio.get_running_loop().time() > deadline:
            return preview
        await asyncio.sleep(POLL_SECONDS)


class _Gateway:
    """The GraphQL gateway, signed in to."""

    def __init__(self, url: str, http: aiohttp.ClientSession, token: str) -> None:
        self._url = url
        self._http = http
        self._token = token

    @classmethod
    async def sign_in(cls, installation: Installation, http: aiohttp.ClientSession, tenant: Organization) -> _Gateway:
        """Signs in as the tenant's owner."""
        owner = tenant.people[0]
        anonymous = cls(installation.ports.url("gateway") + GRAPHQL_PATH, http, "")
        signed_in = await anonymous.ask(SIGN_IN, e=owner.email, p=owner.password(installation.secrets))
        return cls(installation.ports.url("gateway") + GRAPHQL_PATH, http, str(signed_in["signIn"]["accessToken"]))

    async def preview(self) -> _Preview:
        """Return what the current period costs so far."""
        found = (await self.ask(PREVIEW))["invoicePreview"]
        total = found["total"]
        amount = f"{total['amountMinor'] / 100:.2f} {total['currencyCode']}"  # the demo's plans are in dollars
        lines = tuple(f"{line['quantity']} x {line['description']}" for line in found["lines"])
        return _Preview(billable=int(found["billableUnits"]), total=amount, lines=lines)

    async def ask(self, query: str, **variables: str) -> dict[str, Any]:
        """Run an operation.

        Raises:
            ShowError: the answer has errors.
        """
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        body = {"query": query, "variables": variables}
        async with self._http.post(self._url, json=body, headers=headers) as answer:
            result = await answer.json(content_type=None)
        if not isinstance(result, dict) or result.get("errors") or not result.get("data"):
            raise ShowError(str(result))
        return dict(result["data"])


async def _get(
    installation: Installation, http: aiohttp.ClientSession, path: str, key: str
) -> tuple[int, Mapping[str, str]]:
    url = installation.ports.url("edge") + path
    async with http.get(url, headers={"Authorization": f"Bearer {key}"}) as answer:
        await answer.read()
        return answer.status, answer.headers


def _tenant(plan_id: str) -> Organization:
    return next(tenant for tenant in demo_data.TENANTS if tenant.plan_id == plan_id)


def _counts(statuses: Counter[int]) -> str:
    return "(" + ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())) + ")"
