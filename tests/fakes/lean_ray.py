"""A Ray node without the daemons that no run of voxmill asks: half of the CPU that a start takes, and 4 % of a core afterwards.

    python -m fakes.lean_ray COMMAND ...     as `voxmill COMMAND ...`

test_resume's last run has the whole of it.
"""

from __future__ import annotations

import sys
from typing import Any


def spare() -> None:
    """Let nodes that this process starts have no autoscaler, no forwarding of logs and no server of the job API."""
    from ray._private.node import Node

    def nothing(self: Node, **options: Any) -> None:
        self._webui_url = ""

    for name in ("start_monitor", "start_log_monitor", "start_api_server"):
        assert callable(getattr(Node, name)), name
        setattr(Node, name, nothing)


if __name__ == "__main__":
    from voxmill import cli

    spare()
    sys.argv[0] = "voxmill"
    cli.main()
