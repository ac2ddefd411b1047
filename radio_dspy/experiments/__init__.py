"""Experiments as files: rows of settings, run one after the other, each kept as a small record."""
