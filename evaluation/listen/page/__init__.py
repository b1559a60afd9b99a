"""The page of a listening test: one HTML file without outside requests. Its parts are the files beside this one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

_PARTS = ("dom.js", "sound.js", "state.js", "export.js", "layouts.js", "sliders.js", "screens.js", "main.js")
"""Modules in the order in which they depend on each other; in the page they are one."""
_IMPORT = re.compile(r"^import .*?;\n", re.MULTILINE | re.DOTALL)
_EXPORT = re.compile(r"^export ", re.MULTILINE)

STRINGS: dict[str, dict[str, str]] = tomllib.loads((files(__name__) / "strings.toml").read_text(encoding="utf-8"))
"""Words of the page by language and name."""


def build_page(data: Mapping[str, Any], language: str, audio: Mapping[str, bytes]) -> str:
    """Return the page of a test. `data`: what the scripts read, without a name of a system. `audio`: clips to embed, by id."""
    script, style = _script(), _read("listen.css")
    inside = {**data, "words": STRINGS[language], "language": language}
    clips = {name: base64.b64encode(audio[name]).decode() for name in sorted(audio)}
    values = {
        "language": language,
        "policy": _policy(script, style),
        "title": _escaped(str(data.get("title") or STRINGS[language]["title"])),
        "noscript": _escaped(STRINGS[language]["no_script"]),
        "style": style,
        "data": _json(inside),
        "clips": _json(clips),
        "script": script,
    }
    # One pass: what stands in a value is not replaced again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], _read("listen.html"))


def _script() -> str:
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", _read(name))) for name in _PARTS)


def _read(name: str) -> str:
    return (files(__name__) / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """Return the Content-Security-Policy: this script, this style, clips of the page or beside it; no request to anywhere."""
    allowed = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "media-src": "blob: 'self' file:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in allowed.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: Any) -> str:
    """Return JSON that ends no script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
