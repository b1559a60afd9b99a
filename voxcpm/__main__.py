"""`python -m voxcpm`: the official package's command line."""

from __future__ import annotations

from voxcpm.cli import main

if __name__ == "__main__":
    main()
