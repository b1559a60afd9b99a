"""Settings from YAML and `--set a.b=c`: one loader for every command, so that a misspelled key is always reported.

YAML is read by version 1.2 (core schema): only `true` and `false` are booleans. PyYAML reads YAML 1.1, where `off`, `no`, `on` and
`yes` are booleans (but `no` is also the code of Norwegian). There `010` is eight, `1:30` is ninety and `2024-01-01` is a date.
Here all of these are text, except that `010` is ten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from catalogs.nearest import nearest

Settings = TypeVar("Settings", bound=BaseModel)
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


class SettingsError(ValueError):
    """Settings are invalid; the message is one line that names the key and says what to write instead."""


def load_settings(kind: type[Settings], path: str | Path | None = None, overrides: Iterable[str] = ()) -> Settings:
    """Return settings of `kind` from a YAML file (may be None), changed by `a.b=c` overrides (values read as YAML).

    Raises SettingsError for an unreadable file, an unknown key (the message names the nearest) or a value out of range.
    """
    values, renamed = {} if path is None else read_yaml(path), _renamed(kind)
    earlier = move_renamed(values, renamed)
    for override in overrides:
        earlier += _apply(values, override, renamed)
    settings = validate_settings(kind, values)
    if earlier:
        # Private: it is not a setting, so it is not saved with them.
        settings._earlier_names = tuple(dict.fromkeys(earlier))  # type: ignore[attr-defined]
    return settings


def _renamed(kind: type[BaseModel]) -> Mapping[str, str]:
    """Return the renamed settings of `kind`, its `RENAMED`: earlier name at the top level -> present dotted name."""
    return getattr(kind, "RENAMED", {})


def move_renamed(values: dict[str, Any], renamed: Mapping[str, str]) -> list[str]:
    """Move values with an earlier name to the present name, in place; return the earlier names.

    A mapping is not moved: a group may have the earlier name of one of its settings. Raises SettingsError if both names are given.
    """
    found = [name for name in values if name in renamed and not isinstance(values[name], dict)]
    moved = {name: values.pop(name) for name in found}
    for name, value in moved.items():
        group, _, key = renamed[name].partition(".")
        inner = values[group] = {**(values.get(group) or {})}
        if key in inner:
            raise SettingsError(f"{name} and {renamed[name]} are the same setting: remove {name}")
        inner[key] = value
    return found


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the `key: value` pairs of a YAML 1.2 file, {} for an empty one. Raises SettingsError with a one-line message."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"cannot read the config {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, name: str | Path) -> dict[str, Any]:
    """Return the `key: value` pairs of YAML text that was read from `name`. Raises SettingsError with a one-line message."""
    try:
        loaded = load_yaml(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{name} is not valid YAML: {_yaml_fault(error)}") from None
    if loaded is not None and not isinstance(loaded, dict):
        raise SettingsError(f"{name} must hold key: value pairs, not a {type(loaded).__name__}")
    return loaded or {}


def _yaml_fault(error: yaml.YAMLError) -> str:
    """Return the fault and its position in one line, without the excerpt and the placeholder file name that PyYAML adds."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', error)} (line {mark.line + 1}, column {mark.column + 1})"


def validate_settings(kind: type[Settings], values: dict[str, Any]) -> Settings:
    """Make `kind` from plain values. Raises SettingsError with a one-line message about the first fault."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        keys = [str(part) for part in first["loc"]]
        if not keys and "error" in first.get("ctx", {}):
            # The fault concerns several settings together: the validator's message names them.
            raise SettingsError(str(first["ctx"]["error"])) from None
        name = ".".join(keys)
        if first["type"] == "extra_forbidden":
            known, renamed = _known_keys(kind, keys[:-1]), {} if keys[1:] else _renamed(kind)
            near = nearest(keys[-1], [*known, *renamed])
            hint = f"did you mean {renamed.get(near, near)}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise SettingsError(f"unknown setting {name}; {hint}") from None
        how = _how_to_write(keys[-1] if keys else "", first["type"], first.get("input"))
        # A validator's message is used without pydantic's prefix "Value error, ".
        own = first.get("ctx", {}).get("error") if first["type"] == "value_error" else None
        raise SettingsError(
            f"setting {name}: {own or first['msg'].lower()} (got {first.get('input')!r}){how}"
        ) from None


def _how_to_write(key: str, fault: str, given: Any) -> str:
    """Return what to write instead, for a value of the wrong type."""
    if fault in ("list_type", "tuple_type", "set_type") and not isinstance(given, dict):
        return f"; write a list in brackets: {key}=[{'a,b' if given is None else given}]"
    if fault == "string_type" and isinstance(given, bool | int | float):
        return f"; put text that looks like a number or true/false in quotes: {key}='\"{given}\"'"
    return ""


def dump_settings(settings: BaseModel) -> str:
    """Return the resolved settings as YAML, which is saved beside every output."""
    return dump_yaml(settings.model_dump(mode="json"))


def _apply(values: dict[str, Any], override: str, renamed: Mapping[str, str]) -> list[str]:
    """Set one value; return its earlier name in a list if the override used that name."""
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise SettingsError(
            f"--set takes key=value with dots between keys, e.g. --set transcribe.beam_size=1 (got {override!r})"
        )
    name = key.strip()
    try:
        value = load_yaml(text)
    except yaml.YAMLError:
        value = text
    earlier = [name] if name in renamed and not isinstance(value, dict) else []
    *parents, last = (renamed[name] if earlier else name).split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise SettingsError(f"--set {key}: {parent} is a value, not a group of settings")
    values[last] = value
    return earlier


def _known_keys(kind: type[BaseModel], path: list[str]) -> list[str]:
    inner: Any = kind
    for key in path:
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            field = inner.model_fields.get(key)
            inner = field.annotation if field else None
        elif get_origin(inner) is dict:
            inner = get_args(inner)[1]
    return list(inner.model_fields) if isinstance(inner, type) and issubclass(inner, BaseModel) else []


def load_yaml(text: str) -> Any:
    """Return the one document in `text` as plain values. Raises yaml.YAMLError if it cannot be read."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except ValueError as error:
        # Python refuses integers of more than 4,300 digits.
        raise yaml.YAMLError(str(error)) from None


def dump_yaml(values: Any) -> str:
    """Return plain values as YAML that means the same in versions 1.1 and 1.2; `load_yaml` returns the same values."""
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
