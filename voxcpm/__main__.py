"""`python -m voxcpm`: the official package's command line."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; exit with status 130 and one line if it is interrupted, also while modules are still being imported."""
    try:
        from voxcpm.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped.\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
