"""A tokenizer for models from scratch: byte-fallback BPE in the official format, trained on the texts of the corpus."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

SPACE = "\u2581"
# The official ids are 101..108: the model's layouts are marked with these.
_MARKS = (
    "<|audio_start|>",
    "<|audio_end|>",
    "<|audio_prompt_start|>",
    "<|audio_prompt_end|>",
    "<|background|>",
    "<|/background|>",
    "<|characters|>",
    "<|/characters|>",
)
_FIRST_MARK = 101
_FIXED = ["<unk>", "<s>", "</s>"]


def train_tokenizer(texts: Iterable[str], vocabulary: int, folder: Path) -> None:
    """Train a tokenizer; write tokenizer.json, tokenizer_config.json and special_tokens_map.json into `folder`.

    Ids 0-2 and 101-108 are as in the official vocabulary; 256 byte tokens can encode every text. `vocabulary` is the maximum
    number of entries (small corpora have fewer merges).
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers

    normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    learner = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    learner.normalizer = normalizer
    specials = [*_FIXED, *(f"<0x{byte:02X}>" for byte in range(256)), *_MARKS]
    learner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=specials, show_progress=False)
    )
    learned = json.loads(learner.to_str())["model"]
    pieces = sorted((piece for piece in learned["vocab"] if piece not in specials), key=learned["vocab"].__getitem__)
    ordered = _in_official_places([f"<0x{byte:02X}>" for byte in range(256)] + pieces)
    vocab = {piece: index for index, piece in enumerate(ordered)}
    merges = [(left, right) for left, right in learned["merges"]]
    final = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    final.normalizer = normalizer
    final.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    final.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in [*_FIXED, *_MARKS]])
    folder.mkdir(parents=True, exist_ok=True)
    final.save(str(folder / "tokenizer.json"))
    config = {"add_bos_token": False, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config |= {"tokenizer_class": "LlamaTokenizerFast", "legacy": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=1), encoding="utf-8")


def _in_official_places(pieces: list[str]) -> list[str]:
    """Return the vocabulary in order of id: `<unk> <s> </s>` first, the marks from 101 on, the pieces around them."""
    room = _FIRST_MARK - len(_FIXED)
    return [*_FIXED, *pieces[:room], *_MARKS, *pieces[room:]]
