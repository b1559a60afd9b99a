"""What a connection tells the answers on it, in the ASGI scope."""

from __future__ import annotations

CUT = "voxcpm.cut"
"""Key of the ASGI scope: a function that ends the connection without a clean end (see voxcpm.server.access.connections)."""
SLOW = "voxcpm.slow"
"""Key of the ASGI scope: a function that says whether the connection was cut because its client did not read."""
