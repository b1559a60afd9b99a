"""Shared by all stages: devices, batches, failure causes, full disks."""
