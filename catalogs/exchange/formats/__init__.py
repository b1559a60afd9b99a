"""The formats of an export: one file and one entry of this table each."""

from __future__ import annotations

from importlib import import_module

from catalogs.exchange.formats.base import Format
from catalogs.exchange.request import known

FORMATS = {
    "hf": "catalogs.exchange.formats.hf:HuggingFace",
    "voxcpm": "catalogs.exchange.formats.voxcpm:VoxCPM",
    "webdataset": "catalogs.exchange.formats.webdataset:WebDataset",
    "lhotse": "catalogs.exchange.formats.lhotse:Lhotse",
    "ljspeech": "catalogs.exchange.formats.ljspeech:LJSpeech",
    "nemo": "catalogs.exchange.formats.nemo:NeMo",
    "pocket-tts": "catalogs.exchange.formats.pocket_tts:PocketTTS",
    "dots": "catalogs.exchange.formats.dots:Dots",
    "qwen3-tts": "catalogs.exchange.formats.qwen3_tts:Qwen3TTS",
    "croissant": "catalogs.exchange.formats.croissant:Croissant",
}
"""Name on the command line -> module:Class."""


def format_named(name: str) -> Format:
    """Return a format. Raises ExchangeError for an unknown name."""
    module, _, title = FORMATS[known(name, list(FORMATS), "format")].partition(":")
    made: Format = getattr(import_module(module), title)()
    return made
