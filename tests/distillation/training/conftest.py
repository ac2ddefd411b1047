import pytest
import torch
import transformers

from radio_dspy.models.encoder import quiet_loading
from radio_dspy.models.files import weights
from radio_dspy.rerankers import RerankerWeights
from tests.conftest import ENCODER


def random_encoder(folder, **more):
    """An encoder of random weights that trains in a tenth of a second."""
    with torch.random.fork_rng(), quiet_loading():
        torch.manual_seed(1)
        sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        transformers.BertModel(transformers.BertConfig(**sizes, **more)).save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(weights(ENCODER)).save_pretrained(folder)
    return RerankerWeights(str(folder), "bi-encoder")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    return random_encoder(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def without_dropout(tmp_path_factory):
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return random_encoder(tmp_path_factory.mktemp("plain"), **none)
