"""The entry point. It imports little before it catches Ctrl-C, which may come while the command line is still being imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; exit with status 130 and one line if it is interrupted."""
    try:
        from voxmill.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
