"""Signatures of model folders in the format of the OpenSSF package model-signing: a key, a list of digests, a Sigstore bundle."""
