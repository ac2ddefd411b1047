"""Write ``saved-VERSION/`` and ``expected-VERSION.json``: a small program as this release saves it, and its ranking.

A sample is made once, with the release that it is named after, and never again: tests/persistence/test_saving.py loads
it with whatever the code has become. When the format changes, make a further one, and keep the old.

    python tests/samples/make.py FOLDER
"""

from __future__ import annotations

import json
import re
import string
import sys
import tempfile
from pathlib import Path

import dspy
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

import radio_dspy as radio

PASSAGES = [
    radio.Passage("a", "Yeast dies in water above sixty degrees.", "Bread"),
    radio.Passage("b", "Ice floats because it is lighter than water."),
    radio.Passage("c", "Salt takes water out of cabbage.", "Kitchen"),
    radio.Passage("d", "Vapour takes heat along when it leaves a wet jug."),
    radio.Passage("e", "A lid keeps the vapour in the pot."),
    radio.Passage("f", "Dough rises where yeast makes gas."),
]
QUESTIONS = [
    ("Why did the dough not rise?", "the yeast died"),
    ("Why is the jug cold?", "vapour takes heat along"),
    ("Why is the cabbage soft?", "salt"),
    ("Why does ice float?", "it is lighter"),
]
_VERSION = radio.__version__.rpartition(".")[0]


def tiny_encoder(folder: Path) -> radio.Encoder:
    """A BERT bi-encoder of 15,000 random weights that knows the words of the sample, and letters for others."""
    texts = [*(one.contents for one in PASSAGES), *(" ".join(one) for one in QUESTIONS)]
    words = sorted({word for text in texts for word in re.findall(r"[a-z]+", text.lower())})
    letters = [*string.ascii_lowercase, *(f"##{one}" for one in string.ascii_lowercase)]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "?", *dict.fromkeys([*letters, *words])]
    tokenizer = BertWordPieceTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, lowercase=True)
    transformer = folder.with_suffix(".transformer")
    BertTokenizerFast(tokenizer_object=tokenizer._tokenizer, model_max_length=64).save_pretrained(transformer)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.5,  # wide, so that texts get vectors of different directions
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(transformer)
    module = Transformer(str(transformer))
    model = SentenceTransformer(modules=[module, Pooling(module.get_embedding_dimension(), "mean")], device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)
    return radio.Encoder(str(folder))


def aligned(encoder: radio.Encoder, run_dir: Path) -> dspy.Module:
    """A program whose reranker RADIO has trained a little, with a demonstration in its prompt."""
    retriever = radio.FaissRetriever.build(PASSAGES, encoder=encoder)
    program = radio.RetrieveRerankAnswer(retriever, radio.Rerank(encoder, "bi-encoder"), candidates=5, k=2)
    program.answer.demos = [dspy.Example(question="Why?", passages=["Because."], answer="so")]
    train = [
        dspy.Example(question=question, answers=(answer,)).with_inputs("question") for question, answer in QUESTIONS
    ]
    optimizer = radio.RADIO(
        rationale_lm=False,
        preferences=radio.PreferenceSettings(false_negatives=None),
        rationales=radio.RationaleSettings(check=False),
        gate=False,
        epochs=2,
        learning_rate=1e-3,
        max_length=32,
        run_dir=run_dir,
    )
    return optimizer.compile(program, trainset=train[:3], valset=train[3:])


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        program = aligned(tiny_encoder(Path(temporary) / "tiny-encoder"), Path(temporary) / "run")
        radio.save(program, target / f"saved-{_VERSION}")
        question, texts = QUESTIONS[0][0], [one.contents for one in PASSAGES]
        ranked = program.rerank(question, texts)
        expected = {"question": question, "passages": texts, "indices": ranked.indices, "scores": ranked.scores}
        (target / f"expected-{_VERSION}.json").write_text(json.dumps(expected, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
