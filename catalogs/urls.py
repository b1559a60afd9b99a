"""URLs without what they grant access with, for rows, messages and logs."""

from __future__ import annotations

import hashlib
import re

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s'\"<>]+")
#: Names of query parameters that grant access: signatures of S3, Google and Azure, tokens, keys and passwords.
_SECRET = re.compile(
    r"^x-(amz|goog|oss|ms)-|^(se|sp|sv|sr|spr|st|sip|skoid|sktid|skt|ske|sks|skv)$|"
    r"sig|token|secret|passw|pwd|auth|cred|session|expires|policy|(api|access|account|subscription)[-_]?key|key-?(pair-?)?id",
    re.IGNORECASE,
)
_LONG = 24
"""A query value with at least this many characters may be a secret under any name."""


def is_location(path: str) -> bool:
    """Return True if this is a URL and not a path."""
    return "://" in path


def public(url: str) -> str:
    """Return a path or URL without credentials: no user and password, no signatures and tokens in the query.

    Two URLs of one object that were signed at different times become equal. A long value under any other name is replaced
    by a short digest.
    """
    if not is_location(url):
        return url
    return "::".join(_public(part) if is_location(part) else part for part in url.split("::"))


def redacted(text: str) -> str:
    """Return text for messages and logs, with each URL in it made public."""
    return _URL.sub(lambda match: public(match[0]), text) if "://" in text else text


def _public(url: str) -> str:
    protocol, _, rest = url.partition("://")
    place, mark, query = rest.partition("?")
    host, slash, path = place.partition("/")
    pairs = []
    for pair in query.partition("#")[0].split("&") if mark else ():
        name, equals, value = pair.partition("=")
        if not _SECRET.search(name):
            digest = hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:8]
            pairs.append(f"{name}{equals}{value if len(value) < _LONG else '~' + digest}")
    kept = "?" + "&".join(pairs) if any(pairs) else ""
    return f"{protocol}://{host.rpartition('@')[2]}{slash}{path}{kept}"
