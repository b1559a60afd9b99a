"""A Ray node without three daemons that no run of voxmill uses: its start takes half of the CPU.

    python -m fakes.lean_ray COMMAND ...     as `voxmill COMMAND ...`

The last run of test_resume starts all of Ray.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def spare(replace: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let nodes that this process starts have no autoscaler, no forwarding of logs and no server of the job API.

    replace: `monkeypatch.setattr` where later tests of the process must find Ray as it was.
    """
    from ray._private.node import Node

    def nothing(self: Node, **options: Any) -> None:
        self._webui_url = ""

    for name in ("start_monitor", "start_log_monitor", "start_api_server"):
        assert callable(getattr(Node, name)), name
        replace(Node, name, nothing)


if __name__ == "__main__":
    from voxmill import cli

    spare()
    sys.argv[0] = "voxmill"
    cli.main()
