"""The command line."""

from radio_dspy.cli.app import app as app
from radio_dspy.cli.app import main as main

__all__ = ["app", "main"]
