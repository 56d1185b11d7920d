"""`python -m edge_proxy`: the supervisor. Workers are started by it and by nobody else."""

from __future__ import annotations

import sys

from edge_proxy.config import EdgeSettings
from edge_proxy.process.supervisor import Supervisor
from edge_proxy.routing import file as routes_file
from mesh.config import load
from mesh.service import process


def main() -> None:
    """Check the configuration, then run until SIGTERM."""
    settings = load(EdgeSettings)
    try:
        routes_file.read(settings.edge_config)
    except routes_file.RoutesFileError as error:
        for violation in error.violations:
            print(f"{settings.edge_config}: {violation}", file=sys.stderr)  # noqa: T201 - logging is not set up yet
        raise SystemExit(2) from None

    async def run(context: process.ProcessContext) -> None:
        await Supervisor(settings, context).run()

    process.run("edge_proxy", settings, run)


if __name__ == "__main__":
    main()
