"""Invoices on the wire."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tollway.billing.v1 import billing_service_pb2 as pb

from services.billing.model import InvoicePreview
from services.billing.rating import Line
from services.billing.rpc.values import to_decimal, to_money, to_timestamp
from services.billing.service import Billing


class InvoiceRpcs:
    """Handles the RPCs about invoices.

    Args:
        billing: The rules.
    """

    def __init__(self, billing: Billing) -> None:
        self._invoices = billing

    async def PreviewInvoice(self, request: pb.PreviewInvoiceRequest, context: Any) -> pb.InvoicePreview:
        """Price the current period so far."""
        return to_preview(await self._invoices.preview_invoice(UUID(request.organization_id)))


def to_preview(preview: InvoicePreview) -> pb.InvoicePreview:
    """Write a preview."""
    return pb.InvoicePreview(
        organization_id=str(preview.organization_id),
        plan_id=preview.plan_id,
        period_start_time=to_timestamp(preview.period.start_time),
        period_end_time=to_timestamp(preview.period.end_time),
        lines=[_to_line(line, preview.currency_code) for line in preview.lines],
        total=to_money(preview.total_minor, preview.currency_code),
        billable_units=preview.billable_units,
    )


def _to_line(line: Line, currency_code: str) -> pb.InvoiceLine:
    return pb.InvoiceLine(
        description=line.description,
        quantity=to_decimal(line.quantity),
        unit_price=to_decimal(line.unit_price),
        amount=to_money(line.amount_minor, currency_code),
    )
