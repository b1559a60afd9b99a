"""The entry point. It catches Ctrl-C before it imports the command line, because that import takes a while."""

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
