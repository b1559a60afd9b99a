"""The real server in a process: `python -m fakes.speech_service_process SETTINGS_JSON`; prints its URL when it is ready."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from voxcpm.server.run import serve
from voxcpm.server.settings import ServerSettings

if __name__ == "__main__":
    values = json.loads(sys.argv[1])
    for name in ("keys", "voices"):
        if values.get(name):
            values[name] = Path(values[name])

    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        serve(ServerSettings(**values), lambda url: print(url, flush=True))
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"voxmill: {error}")
