"""A mail server that delivers to a folder: every mail of the local stack becomes an `.eml` file there.

Run as `python -m cli.stack.servers.smtp --listen 127.0.0.1:1025 --folder var/mail`.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from pathlib import Path
from typing import Final

import click
from aiosmtpd.smtp import SMTP, Envelope, Session

MAIL_BYTES_MAX: Final = 33_554_432


class Mailbox:
    """Writes mails to a folder; a reader never sees half of one.

    Args:
        folder: Where they go.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 aiosmtpd's name
        """Keep one mail, with whom it was really sent to in front."""
        name = f"{time.time_ns()}-{next(self._numbers):06}.eml"
        recipients = ", ".join(envelope.rcpt_tos)
        content = envelope.content if isinstance(envelope.content, bytes) else (envelope.content or "").encode()
        temporary = self._folder / f".{name}"
        temporary.write_bytes(f"X-Envelope-To: {recipients}\r\n".encode() + content)
        temporary.rename(self._folder / name)
        return "250 kept"


async def serve(host: str, port: int, folder: Path) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    mailbox = Mailbox(folder)
    server = await loop.create_server(
        lambda: SMTP(mailbox, hostname="tollway.localhost", data_size_limit=MAIL_BYTES_MAX, enable_SMTPUTF8=True),
        host,
        port,
    )
    async with server:
        await stopping.wait()


@click.command()
@click.option("--listen", default="127.0.0.1:1025", show_default=True, help="host:port to listen on.")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Folder that mails are written to.")
def main(listen: str, folder: Path) -> None:
    """Catch mails."""
    host, _, port = listen.rpartition(":")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        asyncio.run(serve(host, int(port), folder))
    except OSError as error:
        print(f"smtp: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
