"""Who the embedded PostgreSQL runs as: it refuses root, so root lends it an unprivileged user.

That user must be able to walk to the program and to its data. A checkout under `/root` (mode 0700) is the usual
reason why it cannot; programs are then copied next to the data, but the data's own path has to be open.
"""

from __future__ import annotations

import dataclasses
import os
import pwd
import stat
from pathlib import Path
from typing import Any

from cli.stack.errors import StackError

USER_NAMES = ("nobody",)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunAs:
    """The user of a child process; `None` where it is simply the user of this process."""

    uid: int | None = None
    gid: int | None = None
    name: str = ""

    def popen_arguments(self) -> dict[str, Any]:
        """Returns the arguments for `subprocess` that change the user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def give(self, path: Path) -> None:
        """Makes the user own a file or folder."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def first_closed(self, path: Path) -> Path | None:
        """Returns the first folder on the way to `path` that the user may not enter; None when the way is open."""
        if self.uid is None:
            return None
        resolved = path.resolve()
        for folder in [*reversed(resolved.parents), resolved]:
            if folder.is_dir() and not self._may_enter(folder.stat()):
                return folder
        return None

    def _may_enter(self, status: os.stat_result) -> bool:
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def choose() -> RunAs:
    """Returns the user that PostgreSQL is to run as.

    Raises:
        StackError: when this process is root and the machine has no unprivileged user to lend.
    """
    if os.geteuid() != 0:
        return RunAs()
    for name in USER_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return RunAs(uid=entry.pw_uid, gid=entry.pw_gid, name=name)
    raise StackError(
        f"PostgreSQL refuses to run as root and this machine has no user {' or '.join(USER_NAMES)}: "
        "run as another user, or set TOLLWAY_POSTGRES_ADMIN_DSN to an external server"
    )
