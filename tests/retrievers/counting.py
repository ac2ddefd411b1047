"""An encoder of one's own, without a model: texts of different lengths have different vectors."""

import math

import numpy as np

from radio_dspy.models.encoder import TextEncoder


class Counting(TextEncoder):
    query_prefix = passage_prefix = max_length = None
    name = "counting"
    window = None
    identity = {"model": "counting", "passage_prefix": None, "max_length": None}  # noqa: RUF012

    def __init__(self, instead=None):
        self.instead = instead  # what it gives for so many texts

    def count_tokens(self, text):
        return len(text)

    def _encode(self, texts, *, query, show_progress):
        if self.instead:
            return self.instead(len(texts))
        angles = [len(text) / 10 for text in texts]
        return np.array([[math.cos(one), math.sin(one), 0, 0] for one in angles], dtype=np.float32)
