"""Where the stack keeps what: one data folder, one name per thing in it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Paths below the data folder."""

    data_dir: Path

    @property
    def secrets(self) -> Path:
        """Every secret of the installation, mode 0600."""
        return self.data_dir / "secrets.json"

    @property
    def stack_file(self) -> Path:
        """What runs; exists while it runs."""
        return self.data_dir / "stack.json"

    @property
    def lock(self) -> Path:
        """Held while a stack runs on this folder."""
        return self.data_dir / "lock"

    @property
    def postgres(self) -> Path:
        """The embedded PostgreSQL."""
        return self.data_dir / "postgres"

    @property
    def redis(self) -> Path:
        """The embedded Redis' append-only file."""
        return self.data_dir / "redis"

    @property
    def kafka(self) -> Path:
        """The broker's programs, configuration and log."""
        return self.data_dir / "kafka"

    @property
    def edge(self) -> Path:
        """The edge's journal and key snapshot."""
        return self.data_dir / "edge"

    @property
    def mail(self) -> Path:
        """Mails that the local SMTP server caught."""
        return self.data_dir / "mail"

    @property
    def logs(self) -> Path:
        """A log file per part."""
        return self.data_dir / "log"

    @property
    def served_log(self) -> Path:
        """A line per request that the demo upstream served."""
        return self.logs / "upstream-served.log"

    def log(self, part: str) -> Path:
        """Returns the log file of a part."""
        return self.logs / f"{part}.log"

    def create(self) -> None:
        """Makes the folders; the embedded PostgreSQL's user must be able to walk through."""
        for folder in (self.data_dir, self.logs, self.mail, self.edge):
            folder.mkdir(parents=True, exist_ok=True)

    def delete(self) -> None:
        """Deletes what the stack has written, and nothing else that lies in the folder. The lock stays."""
        for folder in (self.postgres, self.redis, self.kafka, self.edge, self.mail, self.logs):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.secrets, self.stack_file):
            file.unlink(missing_ok=True)
