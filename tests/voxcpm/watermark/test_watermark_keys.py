"""Key files, and that a secret is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxcpm.watermark import PUBLIC_KEY, Key, WatermarkKeyError, new_key, read_key


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_bytes_and_digits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = bytes(range(200, 232))
    assert read_key(written(tmp_path / "studio.key", secret)) == Key("studio", secret)
    assert read_key(written(tmp_path / "hex.key", secret.hex().encode() + b"\n")).secret == secret
    assert read_key(written(tmp_path / "short.key", b"abcdef0123456789")).secret == b"abcdef0123456789"
    assert not caplog.records


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o606])
def test_a_key_that_others_can_read_is_warned_of(tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture) -> None:
    read_key(written(tmp_path / "open.key", b"0123456789abcdefg", mode))
    (record,) = caplog.records
    words = record.getMessage()
    assert "other users" in words and "chmod 600" in words and "0123456789abcdefg" not in words


@pytest.mark.parametrize(
    ("content", "words"), [(b"too short", "has 9 bytes. Use at least 16"), (b"x" * 70_000, "larger than 65536 bytes")]
)
def test_unusable_keys(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(WatermarkKeyError, match=words) as caught:
        read_key(written(tmp_path / "bad.key", content))
    assert content.decode() not in str(caught.value)


def test_missing_keys(tmp_path: Path) -> None:
    for path in (tmp_path / "none.key", tmp_path):
        with pytest.raises(WatermarkKeyError, match="cannot be read"):
            read_key(path)


def test_secrets_are_not_shown() -> None:
    key = Key("mine", b"very secret indeed")
    assert "secret indeed" not in f"{key!r} {key}"
    assert key != Key("mine", b"another secret of mine")


def test_new_keys_differ() -> None:
    assert new_key().secret != new_key().secret
    assert len(new_key("a").secret) == 32
    assert new_key().secret != PUBLIC_KEY.secret
