"""`voxmill doctor`: what it finds on this machine."""

from __future__ import annotations

import pytest

from voxcpm.kernels import packed_linear
from voxmill.doctor import examine


@pytest.mark.parametrize("slow", [True, False])
def test_a_processor_without_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(packed_linear, "is_slow", lambda dtype, device: slow)
    rows = {finding.what: finding for finding in examine()}
    assert ("bfloat16" in rows["GPU"].finding) == slow
    assert rows["Python"].status == rows["torch"].status == "ok"
