"""Engines: where encoders and LM calls run, when not in this process."""
