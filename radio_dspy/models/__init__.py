"""Encoders and scorers: weights on this machine, hosted ones, and their caches."""
