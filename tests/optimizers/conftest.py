"""An encoder and its index that train in a second or two."""

import pytest

from radio_dspy.encoders import Encoder, quiet_loading, weights
from radio_dspy.retrievers import FaissRetriever
from tests.conftest import ENCODER, LaunchableLM


class UnaskedLM(LaunchableLM):
    """An LM that must not be asked."""

    def __call__(self, *args, **kwargs):
        raise AssertionError("the LM was asked")


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Encoder:
    """all-MiniLM-L6-v2 with the first of its six layers."""
    from sentence_transformers import SentenceTransformer

    folder = tmp_path_factory.mktemp("small") / "encoder"
    with quiet_loading():
        model = SentenceTransformer(weights(ENCODER))
        bert = model[0].auto_model
        bert.encoder.layer = bert.encoder.layer[:1]
        bert.config.num_hidden_layers = 1
        model.save_pretrained(str(folder), create_model_card=False)
    return Encoder(str(folder))


@pytest.fixture(scope="session")
def index(topic, small) -> FaissRetriever:
    """The topic's passages, encoded by ``small``."""
    return FaissRetriever.build(topic.passages, encoder=small)
