"""The base layer that run, codec and commands share: ranks, devices, stop requests, metrics, prefetch."""
