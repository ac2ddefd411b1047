"""The aligned query encoder as the first stage, over the same passage vectors."""

import json
import shutil
from pathlib import Path

import dspy
import numpy as np
import pytest
from radio_dspy.programs import RetrieveRerankAnswer

from radio_dspy import aligned_retriever
from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import RankRequest
from radio_dspy.distillation.teacher.signals import RationaleSimilarity
from radio_dspy.models.bi_encoder import PassageVectors
from radio_dspy.models.encoder import Encoder
from radio_dspy.rerankers import Rerank
from radio_dspy.retrievers import FaissRetriever
from radio_dspy.retrievers.aligned import query_encoder, same_passage_side
from tests.conftest import ENCODER
from tests.settings import radio_of

TEXTS = {
    "yeast": "Yeast dies above sixty degrees.",
    "ice": "Ice floats on water.",
    "salt": "Salt draws water out of a ham.",
    "steam": "Steam carries heat away from a wet jug.",
    "acid": "Acid keeps beans hard.",
    "oil": "Light turns oil rancid.",
    "starch": "Spit thins custard.",
    "grease": "Grease keeps egg white flat.",
}
PASSAGES = [Passage(key, text) for key, text in TEXTS.items()]
QUESTIONS = [
    ("Why did the dough not rise?", "heat killed the yeast"),
    ("Why is the ham dry?", "salt took its water"),
    ("Why is the jug cool?", "evaporation"),
    ("Why do the beans rattle?", "acid"),
    ("Why does the bottle smell?", "rancid oil"),
    ("Why does the foam fall?", "grease"),
]
EXAMPLES = [dspy.Example(question=text, answers=[answer]).with_inputs("question") for text, answer in QUESTIONS]
QUERY = "Why is the soup salty?"


@pytest.fixture(scope="module")
def index(small):
    return FaissRetriever.build(PASSAGES, encoder=small, k=5)


def student(index, rerank=None):
    return RetrieveRerankAnswer(index, rerank or Rerank(index.encoder, "bi-encoder"), candidates=8, k=3)


def optimizer(folder, **settings):
    training = {"epochs": 2, "learning_rate": 1e-3, "max_length": 32, "per_device_train_batch_size": 3, "candidates": 8}
    return radio_of(gate=False, run_dir=folder, **{**training, "tower": "query", **settings})


@pytest.fixture(scope="module")
def aligned(index, tmp_path_factory):
    """A program whose query side was trained; no passage was encoded for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "encode_passages", never)
        patch.setattr(PassageVectors, "encode", never)  # the index's own vectors are taken
        folder = tmp_path_factory.mktemp("run")
        return optimizer(folder).compile(student(index), trainset=EXAMPLES[:4], valset=EXAMPLES[4:])


def never(*args, **kwargs):
    raise AssertionError("passages were encoded again")


def test_only_the_query_side_is_new(aligned, small):
    weights = aligned.rerank.weights
    assert weights.checkpoint != small.name
    assert weights.passage_checkpoint == weights.passage_side == small.name


def test_it_searches_the_same_index_with_the_trained_query_side(aligned, index, monkeypatch):
    monkeypatch.setattr(Encoder, "encode_passages", never)
    found = aligned_retriever(aligned)
    assert found.store is index.store
    assert (found.encoder.identity, found.k) == (index.encoder.identity, 5)
    new, old = found(QUERY, k=8), index(QUERY, k=8)
    assert sorted(one.id for one in new.passages) == sorted(one.id for one in old.passages)
    assert new.scores != pytest.approx(old.scores, abs=1e-3)
    query = Encoder(aligned.rerank.weights.checkpoint).encode_queries([QUERY])[0]
    assert new.scores == pytest.approx(index.vectors([one.id for one in new.passages]) @ query, abs=1e-6)
    assert index(QUERY, k=8).scores == old.scores  # the base goes on as before


def test_first_stage_and_reranker_agree(aligned):
    """The reranker scores with the trained query side and the old passage side, too."""
    found = aligned_retriever(aligned)(QUERY, k=8)
    ranked = aligned.rerank(QUERY, found.passages)
    assert ranked.passages == found.passages
    assert ranked.scores == pytest.approx(found.scores, abs=1e-5)


def test_stored_vectors_and_signals_are_those_of_the_index(aligned, index, small, monkeypatch):
    found = aligned_retriever(aligned)
    assert np.array_equal(found.vectors(list(TEXTS)), index.vectors(list(TEXTS)))
    request = RankRequest("q", QUERY, tuple(PASSAGES), (0.0,) * 8, ("salt",), "Because of the salt.")
    expected = RationaleSimilarity(small).score([request])[0]
    monkeypatch.setattr(Encoder, "encode_passages", never)
    assert RationaleSimilarity(small, index=found).score([request])[0] == pytest.approx(expected, abs=1e-6)


def test_the_query_encoder_keeps_prefixes_and_length(index, tmp_path):
    encoder = Encoder(ENCODER, query_prefix="query: ", passage_prefix="passage: ", max_length=16)
    weights = Rerank(encoder, "bi-encoder").weights
    found = query_encoder(weights)
    assert vars(found) == vars(encoder)
    assert same_passage_side(weights, encoder)
    assert not same_passage_side(weights, index.encoder)
    assert not same_passage_side(Rerank(encoder, "cross-encoder", new_head=True).weights, encoder)


def test_an_aligned_program_is_aligned_further(aligned, index, small, tmp_path):
    start = aligned.deepcopy()
    start.retriever = aligned_retriever(aligned)
    further = optimizer(tmp_path).compile(start, trainset=EXAMPLES[:4], valset=EXAMPLES[4:])
    assert further.rerank.weights.checkpoint not in (aligned.rerank.weights.checkpoint, small.name)
    assert further.rerank.weights.passage_side == small.name
    assert aligned_retriever(further)(QUERY).scores != pytest.approx(start.retriever(QUERY).scores, abs=1e-4)


def test_without_a_query_encoder_of_its_own(index, tmp_path):
    message = r"holds no query encoder of its own; use RADIO\(tower='query'\)"
    with pytest.raises(SettingsError, match=message):
        aligned_retriever(student(index))
    both = optimizer(tmp_path, tower="both", epochs=1).compile(
        student(index), trainset=EXAMPLES[:2], valset=EXAMPLES[4:]
    )
    assert both.rerank.weights.checkpoint != index.encoder.name
    with pytest.raises(SettingsError, match=message):
        aligned_retriever(both)


def test_an_index_of_another_encoder_is_refused(aligned):
    other = FaissRetriever.build(PASSAGES[:2], encoder=Encoder(ENCODER, passage_prefix="passage: "))
    with pytest.raises(SettingsError, match="not those of the reranker's passage side"):
        aligned_retriever(aligned, other)
    # The trained side itself is another encoder, too.
    trained = FaissRetriever.build(PASSAGES[:2], encoder=aligned.rerank.weights.checkpoint)
    with pytest.raises(SettingsError, match="passage vectors are not those"):
        aligned_retriever(aligned, trained)


def test_a_program_without_an_index_takes_one(aligned, index):
    bare = aligned.deepcopy()
    bare.retriever = dspy.Predict("query -> passages")
    with pytest.raises(SettingsError, match=r"holds no VectorRetriever"):
        aligned_retriever(bare)
    assert aligned_retriever(bare, index)(QUERY).scores == aligned_retriever(aligned)(QUERY).scores


class TestSaved:
    @pytest.fixture
    def folder(self, aligned, tmp_path):
        aligned_retriever(aligned).save(tmp_path / "index")
        return tmp_path / "index"

    def test_it_is_loaded_with_its_query_encoder_wherever_it_is(self, aligned, index, folder, tmp_path, monkeypatch):
        moved = Path(shutil.move(folder, tmp_path / "moved"))
        monkeypatch.setattr(Encoder, "encode_passages", never)
        loaded = FaissRetriever.load(moved, encoder=index.encoder)
        assert loaded.query_encoder.name == str(moved / "query-encoder")
        expected = aligned_retriever(aligned)(QUERY, k=8)
        found = loaded(QUERY, k=8)
        assert found.passages == expected.passages
        assert found.scores == pytest.approx(expected.scores, abs=1e-6)

    def test_its_passage_side_is_found_by_its_name(self, aligned, encoder, tmp_path):
        trained = Encoder(aligned.rerank.weights.checkpoint)
        FaissRetriever.build(PASSAGES[:3], encoder).with_query_encoder(trained).save(tmp_path)
        loaded = FaissRetriever.load(tmp_path)
        assert loaded.encoder.identity == encoder.identity
        assert loaded.query_encoder.name == str(tmp_path / "query-encoder")

    def test_it_holds_nothing_but_plain_files_that_the_manifest_names(self, folder, tmp_path):
        manifest = json.loads((folder / "manifest.json").read_text())
        present = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()}
        assert present == {*manifest["files"], *manifest["later_files"], "manifest.json"}
        assert "query-encoder/model.safetensors" in present
        assert str(tmp_path) not in (folder / "manifest.json").read_text()

    def test_the_prefix_of_the_query_encoder_is_kept(self, index, aligned, tmp_path):
        prefixed = Encoder(aligned.rerank.weights.checkpoint, query_prefix="question: ")
        index.with_query_encoder(prefixed).save(tmp_path)
        loaded = FaissRetriever.load(tmp_path, index.encoder, k=5)
        assert loaded.query_encoder.query_prefix == "question: "
        assert loaded(QUERY).scores == pytest.approx(index.with_query_encoder(prefixed)(QUERY).scores, abs=1e-6)
        assert loaded(QUERY).scores != pytest.approx(aligned_retriever(aligned)(QUERY).scores, abs=1e-4)

    @pytest.mark.parametrize("name", ["model.safetensors", "1_Pooling/config.json"])
    def test_a_changed_or_missing_file_is_noticed(self, index, folder, name):
        path = folder / "query-encoder" / name
        content = path.read_bytes()
        path.write_bytes(content + b" ")
        with pytest.raises(CheckpointError, match=f"query-encoder/{name}: was changed after the index was saved"):
            FaissRetriever.load(folder, index.encoder)
        path.unlink()
        with pytest.raises(CheckpointError, match=f"query-encoder/{name}"):
            FaissRetriever.load(folder, index.encoder)
        path.write_bytes(content)
        FaissRetriever.load(folder, index.encoder)

    def test_saved_over_by_one_without_it_is_gone(self, index, folder):
        index.save(folder)
        assert FaissRetriever.load(folder, index.encoder, k=5)(QUERY).scores == pytest.approx(
            index(QUERY).scores, abs=1e-6
        )
