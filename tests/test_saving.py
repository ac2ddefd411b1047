import json
import shutil
import subprocess
import sys

import dspy
import pytest

import radio_dspy as radio
from radio_dspy.encoders import fingerprint
from radio_dspy.errors import CheckpointError, SettingsError
from tests.conftest import ENCODER, scripted


@pytest.fixture
def aligned(program, topic, tmp_path):
    """A program with trained weights, whatever they are worth."""
    training = {"epochs": 1, "learning_rate": 5e-5, "max_length": 32, "candidates": 8}
    optimizer = radio.RADIO(gate=False, show_progress=False, run_dir=tmp_path / "run", **training)
    return optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:2])


def test_saved_moved_and_loaded_in_a_new_process_it_ranks_the_same(aligned, retriever, topic, tmp_path):
    aligned.answer.demos = [dspy.Example(question="Why?", passages=["p"], answer="because")]
    radio.save(aligned, tmp_path / "aligned")
    retriever.save(tmp_path / "index")
    assert aligned.rerank.weights.checkpoint.startswith(str(tmp_path / "run"))  # which is about to go
    moved = shutil.move(tmp_path / "aligned", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "run")
    question, passages = topic.test[0].question, [one.contents for one in topic.passages[:10]]
    script = f"""
import json, radio_dspy as radio
program = radio.load({str(moved)!r}, retriever=radio.FaissRetriever.load({str(tmp_path / "index")!r}))
ranked = program.rerank({question!r}, {passages!r})
print(json.dumps([ranked.indices, ranked.scores, len(program.answer.demos), program.k, program.candidates]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    indices, scores, demos, k, candidates = json.loads(done.stdout.splitlines()[-1])
    here = radio.load(moved, retriever=retriever).rerank(question, passages)
    assert indices == here.indices
    assert scores == pytest.approx(here.scores, abs=1e-6)
    assert (demos, k, candidates) == (1, 3, 10)


def test_a_saved_folder_is_plain_and_names_no_place_and_no_secret(aligned, tmp_path):
    aligned.set_lm(dspy.LM("openai/some-model", api_key="sk-secret-key", api_base="http://10.0.0.1/v1"))
    folder = radio.save(aligned, tmp_path / "aligned")
    assert aligned.answer.lm.kwargs["api_key"] == "sk-secret-key"
    assert {"program.json", "manifest.json", "reranker"} == {one.name for one in folder.iterdir()}
    texts = [one.read_text(encoding="utf-8") for one in folder.rglob("*.json")]
    for word in (str(tmp_path), "sk-secret-key", "10.0.0.1", "site-packages"):
        assert not any(word in text for text in texts)
    assert {one.suffix for one in folder.rglob("*") if one.is_file()} <= {".json", ".safetensors", ".txt"}
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["rerankers"] == {
        "rerank.weights": {"folder": "reranker", "base": "sentence-transformers/all-MiniLM-L6-v2"}
    }


def test_an_untrained_program_moves_with_its_weights_too(program, retriever, tmp_path):
    loaded = radio.load(radio.save(program, tmp_path / "base"), retriever=retriever)
    assert loaded.rerank.weights.checkpoint == str(tmp_path / "base" / "reranker")
    assert loaded.rerank("why?", ["a", "b"]).scores == program.rerank("why?", ["a", "b"]).scores


@pytest.mark.parametrize(
    ("kind", "settings", "predictor"),
    [
        (radio.MultipleChoice, {"candidates": 7, "k": 3}, "choose"),
        (radio.MultiHop, {"candidates": 7, "k": 3, "hops": 4}, "next_query"),
    ],
)
def test_the_other_programs_come_back_with_settings_and_prompts(retriever, tmp_path, kind, settings, predictor):
    program = kind(retriever, radio.Rerank(ENCODER, "bi-encoder"), **settings)
    getattr(program, predictor).demos = [dspy.Example(question="Why?", passages=["p"])]
    loaded = radio.load(radio.save(program, tmp_path / "saved"), retriever=retriever)
    assert type(loaded) is kind
    assert {name: getattr(loaded, name) for name in settings} == settings
    assert [one["question"] for one in getattr(loaded, predictor).demos] == ["Why?"]
    assert loaded.rerank.weights.architecture == "bi-encoder"
    assert loaded.rerank.weights.checkpoint == str(tmp_path / "saved" / "reranker")


@pytest.fixture
def query_side(program, tmp_path):
    """A program with a query side of its own, as ``RADIO(tower="query")`` leaves it."""
    from sentence_transformers import SentenceTransformer

    weights = program.rerank.weights
    model = SentenceTransformer(weights.checkpoint)
    for value in model[0].auto_model.encoder.layer[0].parameters():
        value.data *= 1.2
    model.save_pretrained(str(tmp_path / "trained"), create_model_card=False)
    weights.passage_checkpoint, weights.checkpoint = weights.checkpoint, str(tmp_path / "trained")
    return program


def test_a_query_side_of_its_own_is_saved_moved_and_loaded_with_the_passage_side(
    query_side, retriever, topic, tmp_path
):
    question, passages = topic.test[0].question, [one.contents for one in topic.passages[:10]]
    expected = query_side.rerank(question, passages).scores
    radio.save(query_side, tmp_path / "saved")
    moved = shutil.move(tmp_path / "saved", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "trained")
    weights = (loaded := radio.load(moved, retriever=retriever)).rerank.weights
    assert weights.checkpoint == str(tmp_path / "elsewhere" / "reranker")
    assert weights.passage_checkpoint == str(tmp_path / "elsewhere" / "reranker-2")
    assert loaded.rerank(question, passages).scores == pytest.approx(expected, abs=1e-6)
    # Each side in its place: with one of them alone, or the two exchanged, it ranks otherwise.
    for sides in (("reranker", "reranker"), ("reranker-2", "reranker-2"), ("reranker-2", "reranker")):
        weights.checkpoint, weights.passage_checkpoint = (str(tmp_path / "elsewhere" / side) for side in sides)
        assert loaded.rerank(question, passages).scores != pytest.approx(expected, abs=1e-3)


def test_its_passage_side_is_the_index_of_a_loaded_program_too(query_side, retriever, tmp_path):
    loaded = radio.load(radio.save(query_side, tmp_path / "saved"), retriever=retriever)
    found = radio.aligned_retriever(loaded)
    assert found("why?").scores == pytest.approx(radio.aligned_retriever(query_side)("why?").scores, abs=1e-6)
    assert found("why?").scores != pytest.approx(retriever("why?").scores, abs=1e-3)


def test_a_state_from_before_there_was_a_passage_side_is_loaded(program, retriever, tmp_path):
    from radio_dspy.files import sha256_of

    folder = radio.save(program, tmp_path / "saved")
    state = json.loads((folder / "program.json").read_text())
    del state["rerank.weights"]["passage_checkpoint"]
    (folder / "program.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=r"program\.json was changed"):
        radio.load(folder, retriever=retriever)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["program.json"] = sha256_of(folder / "program.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    loaded = radio.load(folder, retriever=retriever)
    assert loaded.rerank.weights.passage_checkpoint is None
    assert loaded.rerank("why?", ["a", "b"]).scores == program.rerank("why?", ["a", "b"]).scores
    # A plain state file of dspy's, into a program that has a passage side: it is taken away.
    loaded.rerank.weights.passage_checkpoint = "somewhere"
    loaded.load(folder / "program.json")
    assert loaded.rerank.weights.passage_checkpoint is None


class Own(dspy.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = radio.Rerank(ENCODER, "bi-encoder"), radio.Rerank(ENCODER, "cross-encoder", max_length=64)

    def forward(self, query, passages):
        return self.two(query, self.one(query, passages, k=3).passages)


def test_a_users_own_program_with_two_rerankers(tmp_path):
    own = Own()
    folder = radio.save(own, tmp_path / "own")
    loaded = radio.load(folder, program=Own())
    assert loaded("why?", ["a", "b", "c"]).scores == own("why?", ["a", "b", "c"]).scores
    with pytest.raises(SettingsError, match=r"holds a Own; give load\(\.\.\., program=\)"):
        radio.load(folder)


def test_plain_dspy_saving_works_as_well(aligned, retriever, tmp_path):
    aligned.save(tmp_path / "state.json")
    fresh = radio.RetrieveRerankAnswer(retriever, radio.Rerank(ENCODER, "bi-encoder"))
    fresh.load(tmp_path / "state.json")
    assert fresh.rerank.weights.checkpoint == aligned.rerank.weights.checkpoint


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "reranker" / "config.json").unlink(), "reranker/config.json is missing"),
        (lambda folder: (folder / "reranker" / "tokenizer.json").write_text("{}"), "tokenizer.json was changed"),
        (lambda folder: (folder / "reranker" / "model.pkl").write_text("x"), "model.pkl is not in the manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), "not a folder that radio_dspy.save wrote"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "not a manifest"),
    ],
)
def test_a_damaged_folder_is_refused(program, retriever, tmp_path, damage, message):
    folder = radio.save(program, tmp_path / "saved")
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        radio.load(folder, retriever=retriever)


def test_a_newer_format_and_a_path_out_of_the_folder_are_refused(program, retriever, tmp_path):
    from radio_dspy.files import sha256_of

    folder = radio.save(program, tmp_path / "saved")
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(CheckpointError, match="saved format 2; this release reads up to 1"):
        radio.load(folder, retriever=retriever)
    state = json.loads((folder / "program.json").read_text())
    state["rerank.weights"]["checkpoint"] = "../outside"
    (folder / "program.json").write_text(json.dumps(state))
    manifest["files"]["program.json"] = sha256_of(folder / "program.json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"names '\.\./outside', which is not a folder of weights in it"):
        radio.load(folder, retriever=retriever)


def test_nothing_is_overwritten(program, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("mine")
    with pytest.raises(SettingsError, match="already there"):
        radio.save(program, tmp_path / "there")
    assert (tmp_path / "there" / "file").read_text() == "mine"
    with pytest.raises(SettingsError, match="holds no Rerank"):
        radio.save(dspy.Predict("question -> answer"), tmp_path / "new")


def test_the_program_in_hand_is_not_touched(program, tmp_path):
    before = program.rerank.weights.dump_state()
    program.set_lm(lm := scripted(answer="x"))
    radio.save(program, tmp_path / "saved")
    assert program.rerank.weights.dump_state() == before
    assert program.answer.lm is lm
    assert fingerprint(before["checkpoint"])
