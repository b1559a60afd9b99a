"""YAML 1.2 (core schema) for every file and every `--set`: only `true` and `false` are booleans.

PyYAML reads YAML 1.1, where `off`, `no`, `on` and `yes` are booleans (but `no` is also the code of Norwegian). There `010` is
eight, `1:30` is ninety and `2024-01-01` is a date. Here all of these are text, except that `010` is ten.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$")
_FLOAT = re.compile(
    r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_BREAKS = re.compile("[\r\x85\u2028\u2029\ufeff]")
_RULES = (
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", _BOOL, list("tTfF")),
    ("tag:yaml.org,2002:int", _INT, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789.")),
    ("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"]),
)


def load(text: str) -> Any:
    """Return the one document in `text` as plain values. Raises yaml.YAMLError if it cannot be read."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except ValueError as error:
        # Python refuses integers of more than 4,300 digits.
        raise yaml.YAMLError(str(error)) from None


def dump(values: Any) -> str:
    """Return plain values as YAML that means the same in versions 1.1 and 1.2; `load` returns the same values."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own class attribute

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Raise an error for a key that is written twice: PyYAML would silently drop the first value."""
        node = super().compose_mapping_node(anchor)
        written: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in written:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value} is written twice", key.start_mark)
            written.add(name)
        return node

    def construct_int(self, node: yaml.ScalarNode) -> int:
        """Read decimal with or without leading zeros, `0o17` or `0xff`."""
        text = str(self.construct_scalar(node))
        base = {"0o": 8, "0x": 16}.get(text[:2], 10)
        return int(text if base == 10 else text[2:], base)

    def construct_merge(self, node: yaml.ScalarNode) -> str:
        """Read `<<` as text if it is a value."""
        return str(self.construct_scalar(node))


class _Dumper(yaml.SafeDumper):
    """Quote text that a reader of YAML 1.1 or 1.2 would take for another type. The rules below add those of 1.2."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Escape the Unicode line breaks: unescaped, they are read back as spaces."""
        style = '"' if _BREAKS.search(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


for _tag, _pattern, _first in _RULES:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
_Loader.add_constructor("tag:yaml.org,2002:merge", _Loader.construct_merge)
_Dumper.add_representer(str, _Dumper.represent_text)
