"""Saved programs: save, load, hub, export, model cards."""
