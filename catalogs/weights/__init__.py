"""Pretrained weights: the registry of pinned files, their verification and download."""
