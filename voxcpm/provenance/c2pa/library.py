"""The C2PA library, and the settings with which it asks nobody: no network, no pictures."""

from __future__ import annotations

from typing import Any

MISSING = "signed manifests need the C2PA library: pip install 'voxmill[provenance]'"

_QUIET: dict[str, Any] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}


class C2paError(ValueError):
    """A manifest cannot be made or read. The message is one line: what, why, and what to do."""


def library() -> Any:
    """Return the module `c2pa`. Raises C2paError if the extra is not installed."""
    try:
        import c2pa
    except (ImportError, OSError) as error:
        # The package without its native library raises OSError or a subclass of ImportError.
        raise C2paError(f"{MISSING} ({' '.join(str(error).split())})") from None
    return c2pa


def context(trust: str | None = None, verify: bool = True) -> Any:
    """Return the settings for one manifest. trust: certificates that are trusted, as PEM. verify: of what is read."""
    settings = {**_QUIET, "verify": _QUIET["verify"] | {"verify_after_reading": verify}}
    if trust is not None:
        settings["trust"] = {"user_anchors": trust}
    return library().Context.from_dict(settings)
