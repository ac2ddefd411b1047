import threading

import numpy as np
import pytest

from radio_dspy import weights
from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.models.encoder import Encoder, load_sentence_transformer
from tests.conftest import ENCODER


def test_vectors_are_unit_length_float32_and_in_order(encoder):
    texts = ["ice floats on water", "salt", "a much longer text about bread and the yeast in it"]
    vectors = encoder.encode_passages(texts)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        assert encoder.encode_passages([text])[0] == pytest.approx(vector, abs=1e-5)
    assert encoder.encode_queries([]).shape == (0, 384)


def test_vectors_are_those_of_sentence_transformers(encoder):
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(weights(ENCODER)).encode(["Ice\nIt floats."], normalize_embeddings=True)
    assert encoder.encode_passages([Passage("1", "It floats.", "Ice")]) == pytest.approx(expected, abs=1e-5)


def test_a_model_is_loaded_once_also_from_threads():
    load_sentence_transformer.cache_clear()
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(Encoder(ENCODER).encode_queries(["ice"]))) for _ in range(6)
    ]
    assert Encoder(ENCODER).window
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert load_sentence_transformer.cache_info().misses == 1
    assert all(one == pytest.approx(results[0], abs=1e-6) for one in results)


def test_what_cannot_be_loaded():
    with pytest.raises(CheckpointError, match=r"(?s)nobody/nothing: cannot be loaded .* hub name while the hub"):
        Encoder("nobody/nothing").encode_queries(["x"])
    with pytest.raises(SettingsError, match="batch_size and max_length must be at least 1 and whole, got 0"):
        Encoder(ENCODER, batch_size=0)
