"""`python -m voxcpm`: the official package's command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. An interrupt, also one during the imports, prints one line and exits with status 130."""
    try:
        from voxcpm.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
