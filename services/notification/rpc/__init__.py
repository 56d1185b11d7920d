"""Notification on the wire: protobuf in, protobuf out, no rules. One module per resource, with its converters."""

from __future__ import annotations

from tollway.notification.v1 import notification_service_pb2_grpc

from services.notification.rpc.emails import EmailRpcs


class NotificationHandler(EmailRpcs, notification_service_pb2_grpc.NotificationServiceServicer):
    """Handles the RPCs of `NotificationService`."""
