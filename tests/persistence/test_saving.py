import json
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import dspy
import pytest

import radio_dspy as radio
from radio_dspy.core.credentials import learn
from radio_dspy.core.errors import CheckpointError, SettingsError
from radio_dspy.core.files import sha256_of
from radio_dspy.models.files import fingerprint
from tests.conftest import ENCODER, ROOT, scripted
from tests.settings import radio_of

SAMPLES = Path(__file__).parent.parent / "samples"
LM_KEY, LM_ADDRESS = "sk-secret-key", "http://10.0.0.1/v1"


@pytest.fixture(scope="module")
def trained(index, small, topic, tmp_path_factory):
    """A program with trained weights, whatever they are worth."""
    program = radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"), candidates=10, k=3)
    training = {"epochs": 1, "learning_rate": 5e-5, "max_length": 32, "candidates": 8}
    lm = dspy.LM("openai/some-model", api_key=LM_KEY, api_base=LM_ADDRESS)
    rationales = {one.id: "Heat kills yeast." for one in topic.train[:4]}  # so that the LM is not asked
    optimizer = radio_of(lm, rationales=rationales, gate=False, run_dir=tmp_path_factory.mktemp("run"), **training)
    return optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:2])


@pytest.fixture
def aligned(trained, tmp_path):
    """A copy of ``trained`` with a checkpoint of its own, in ``tmp_path / "run"``."""
    copied = trained.deepcopy()
    weights = copied.rerank.weights
    copied.rerank.weights = weights.with_checkpoint(shutil.copytree(weights.checkpoint, tmp_path / "run" / "reranker"))
    return copied


@pytest.fixture(scope="module")
def elsewhere(trained, index, topic, tmp_path_factory):
    """Rankings here, and in a new process by a folder that was zipped and moved, and by DSPy's ``save_program``."""
    here = tmp_path_factory.mktemp("here")
    program = trained.deepcopy()
    program.answer.demos = [dspy.Example(question="Why?", passages=["p"], answer="because")]
    weights = program.rerank.weights
    program.rerank.weights = weights.with_checkpoint(shutil.copytree(weights.checkpoint, here / "run"))
    radio.save(program, here / "aligned")
    archive = shutil.make_archive(str(here / "zipped"), "zip", here / "aligned")
    shutil.unpack_archive(archive, moved := tmp_path_factory.mktemp("there") / "deep")
    question, passages = topic.test[0].question, [one.contents for one in topic.passages[:10]]
    expected = program.rerank(question, passages)
    for gone in ("run", "aligned"):  # nothing may lean on where it came from
        shutil.rmtree(here / gone)
    trained.save(here / "whole", save_program=True)
    index.save(here / "index")
    script = f"""
import json, dspy, radio_dspy as radio
index = radio.FaissRetriever.load({str(here / "index")!r}, encoder={index.encoder.name!r})
moved = radio.load({str(moved)!r}, retriever=index)
whole = dspy.load({str(here / "whole")!r}, allow_pickle=True)
found = whole.retriever({question!r}, k=5).passages
told = {{"demos": len(moved.answer.demos), "k": moved.k, "candidates": moved.candidates}}
for name, program in (("moved", moved), ("whole", whole)):
    ranked = program.rerank({question!r}, {passages!r})
    told[name] = {{"indices": ranked.indices, "scores": ranked.scores}}
print(json.dumps({{**told, "found": [one.id for one in found]}}))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    return {**told, "here": {"indices": expected.indices, "scores": expected.scores}}


def reseal(folder: Path, **changes) -> None:
    """Change a manifest, and let it agree with ``program.json`` as that is now."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["program.json"] = sha256_of(folder / "program.json")
    (folder / "manifest.json").write_text(json.dumps({**manifest, **changes}))


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


class TestMovedAndLoaded:
    def test_zipped_and_unzipped_elsewhere_it_ranks_the_same_in_another_process(self, elsewhere):
        assert elsewhere["moved"]["indices"] == elsewhere["here"]["indices"]
        assert elsewhere["moved"]["scores"] == pytest.approx(elsewhere["here"]["scores"], abs=1e-6)
        assert (elsewhere["demos"], elsewhere["k"], elsewhere["candidates"]) == (1, 3, 10)

    def test_an_untrained_program_moves_with_its_weights_too(self, program, index, tmp_path):
        radio.save(program, tmp_path / "base")
        loaded = radio.load(shutil.move(tmp_path / "base", tmp_path / "moved"), retriever=index)
        assert loaded.rerank.weights.checkpoint == str(tmp_path / "moved" / "reranker")
        assert loaded.rerank("why?", ["a", "b"]).scores == program.rerank("why?", ["a", "b"]).scores

    def test_a_relative_name_is_found_from_where_it_was_loaded(self, program, index, tmp_path, monkeypatch):
        radio.save(program, tmp_path / "saved")
        monkeypatch.chdir(tmp_path)
        loaded = radio.load("saved", retriever=index)
        monkeypatch.chdir("/")
        assert loaded.rerank("why?", ["a", "b"]).scores == program.rerank("why?", ["a", "b"]).scores

    @pytest.mark.parametrize(
        ("kind", "settings", "predictor"),
        [
            (radio.MultipleChoice, {"candidates": 7, "k": 3}, "choose"),
            (radio.MultiHop, {"candidates": 7, "k": 3, "hops": 4}, "next_query"),
        ],
    )
    def test_the_other_programs_come_back_with_settings_and_prompts(
        self, index, small, tmp_path, kind, settings, predictor
    ):
        program = kind(index, radio.Rerank(small, "bi-encoder"), **settings)
        getattr(program, predictor).demos = [dspy.Example(question="Why?", passages=["p"])]
        loaded = radio.load(radio.save(program, tmp_path / "saved"), retriever=index)
        assert type(loaded) is kind
        assert {name: getattr(loaded, name) for name in settings} == settings
        assert [one["question"] for one in getattr(loaded, predictor).demos] == ["Why?"]
        assert loaded.rerank.weights.architecture == "bi-encoder"
        assert loaded.rerank.weights.checkpoint == str(tmp_path / "saved" / "reranker")

    def test_a_loaded_program_is_saved_again_with_its_history(self, trained, index, tmp_path):
        first = radio.save(trained, tmp_path / "first")
        second = radio.save(radio.load(first, retriever=index), tmp_path / "second")
        assert (first / "manifest.json").read_text() == (second / "manifest.json").read_text()

    def test_another_program_in_the_same_folder_is_not_taken_for_the_first(self, trained, program, index, tmp_path):
        question, passages = "Why did the dough not rise?", ["Yeast dies in hot water.", "Ice floats."]
        for saved in (program, trained):
            loaded = radio.load(radio.save(saved, tmp_path / "saved"), retriever=index)
            assert loaded.rerank(question, passages).scores == pytest.approx(
                saved.rerank(question, passages).scores, abs=1e-6
            )
            assert loaded.rerank.weights.fingerprint == saved.rerank.weights.fingerprint
            shutil.rmtree(tmp_path / "saved")


class TestWhatIsInTheFolder:
    def test_it_is_plain_and_names_no_place_and_no_secret(self, aligned, tmp_path):
        aligned.set_lm(dspy.LM("openai/some-model", api_key=LM_KEY, api_base=LM_ADDRESS))
        folder = radio.save(aligned, tmp_path / "aligned")
        assert aligned.answer.lm.kwargs["api_key"] == LM_KEY
        assert {"program.json", "manifest.json", "reranker"} == {one.name for one in folder.iterdir()}
        texts = [one.read_text(encoding="utf-8") for one in folder.rglob("*.json")]
        for word in (str(tmp_path), tmp_path.parent.name, LM_KEY, LM_ADDRESS, "10.0.0.1", "site-packages"):
            assert not any(word in text for text in texts)
        assert {one.suffix for one in folder.rglob("*") if one.is_file()} <= {".json", ".safetensors", ".txt"}
        modes = {one.stat().st_mode & 0o777 for one in folder.rglob("*") if one.is_file()}
        (tmp_path / "ordinary").touch()
        assert modes == {(tmp_path / "ordinary").stat().st_mode & 0o777}  # readable for whom every file of ours is

    def test_the_manifest_says_what_made_it(self, trained, small, tmp_path):
        manifest = json.loads((radio.save(trained, tmp_path / "aligned") / "manifest.json").read_text())
        assert manifest["format"] == 1
        assert manifest["program"] == "RetrieveRerankAnswer"
        assert manifest["settings"] == {"candidates": 10, "k": 3}
        assert manifest["versions"]["radio-dspy"] == radio.__version__
        assert manifest["versions"]["dspy"] == dspy.__version__
        assert set(manifest["versions"]) == {
            "radio-dspy", "python", "dspy", "sentence-transformers", "torch", "transformers"
        }  # fmt: skip
        reranker = manifest["rerankers"]["rerank.weights"]
        record = reranker.pop("training")[0]
        assert reranker == {
            "folder": "reranker",
            "passage_folder": None,
            "architecture": "bi-encoder",
            "fingerprint": fingerprint(trained.rerank.weights.checkpoint),
            "base": "encoder",
            "base_fingerprint": fingerprint(small.name),
        }
        assert record["base"] == {"name": "encoder", "fingerprint": fingerprint(small.name)}
        assert record["teacher"] == {"rationale": 0.5, "retrieval": 0.5}
        assert (record["encoder"], record["rationale_lm"]) == ("encoder", "openai/some-model")
        told = {"loss": "infonce", "sampling": "shift", "tower": "both", "epochs": 1, "learning_rate": 5e-5}
        assert told.items() <= record["settings"].items()
        assert record["settings"]["guards"] == {"with_answer": True, "same_text": True, "margin": 0.05}
        assert record["questions"] == {"train": 4, "used": 4, "judged": 2}
        assert (record["groups"], record["updates"], record["chosen"]) == (4, 1, "trained")
        assert record["decision"] == "Returned what was trained: there was no gate."
        assert set(record["metrics"]) == {"first_stage", "base", "aligned"}

    def test_weights_of_a_hub_are_told_by_their_name(self, index, tmp_path):
        folder = radio.save(radio.RetrieveRerankAnswer(index, radio.Rerank(ENCODER, "bi-encoder")), tmp_path / "saved")
        reranker = json.loads((folder / "manifest.json").read_text())["rerankers"]["rerank.weights"]
        assert reranker["base"] == "sentence-transformers/all-MiniLM-L6-v2"
        assert (reranker["base_fingerprint"], reranker["training"]) == (None, [])

    def test_nothing_is_overwritten(self, program, tmp_path):
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "file").write_text("mine")
        with pytest.raises(SettingsError, match="already there"):
            radio.save(program, tmp_path / "there")
        assert (tmp_path / "there" / "file").read_text() == "mine"
        with pytest.raises(SettingsError, match="holds no Rerank"):
            radio.save(dspy.Predict("question -> answer"), tmp_path / "new")

    def test_the_program_in_hand_is_not_touched(self, program, tmp_path):
        before = program.rerank.weights.dump_state()
        program.set_lm(lm := scripted(answer="x"))
        radio.save(program, tmp_path / "saved")
        assert program.rerank.weights.dump_state() == before
        assert program.answer.lm is lm

    def test_a_program_that_cannot_be_copied_is_not_touched_either(self, small, tmp_path):
        class Locked(dspy.Module):
            def __init__(self):
                super().__init__()
                self.parts = [radio.Rerank(small, "bi-encoder"), threading.Lock()]

        with pytest.raises(SettingsError, match=r"parts\[0\]\.weights cannot be copied"):
            radio.save(program := Locked(), tmp_path / "saved")
        assert program.parts[0].weights.checkpoint == small.name
        assert not (tmp_path / "saved").exists()


@pytest.fixture
def query_side(program, tmp_path):
    """A program with a query side of its own, as ``RADIO(tower="query")`` leaves it."""
    from sentence_transformers import SentenceTransformer

    weights = program.rerank.weights
    model = SentenceTransformer(weights.checkpoint)
    for value in model[0].auto_model.encoder.layer[0].parameters():
        value.data *= 1.2
    model.save_pretrained(str(tmp_path / "trained"), create_model_card=False)
    program.rerank.weights = weights.with_checkpoint(tmp_path / "trained", weights.checkpoint)
    return program


class TestAQuerySideOfItsOwn:
    def test_it_is_saved_moved_and_loaded_with_the_passage_side(self, query_side, index, topic, tmp_path):
        question, passages = topic.test[0].question, [one.contents for one in topic.passages[:10]]
        expected = query_side.rerank(question, passages).scores
        radio.save(query_side, tmp_path / "saved")
        moved = shutil.move(tmp_path / "saved", tmp_path / "elsewhere")
        shutil.rmtree(tmp_path / "trained")
        weights = (loaded := radio.load(moved, retriever=index)).rerank.weights
        assert weights.checkpoint == str(tmp_path / "elsewhere" / "reranker")
        assert weights.passage_checkpoint == str(tmp_path / "elsewhere" / "reranker-2")
        assert loaded.rerank(question, passages).scores == pytest.approx(expected, abs=1e-6)
        # Each side in its place: with one of them alone, or the two exchanged, it ranks otherwise.
        for sides in (("reranker", "reranker"), ("reranker-2", "reranker-2"), ("reranker-2", "reranker")):
            loaded.rerank.weights = weights.with_checkpoint(*(tmp_path / "elsewhere" / side for side in sides))
            assert loaded.rerank(question, passages).scores != pytest.approx(expected, abs=1e-3)

    def test_its_passage_side_is_the_index_of_a_loaded_program_too(self, query_side, index, tmp_path):
        loaded = radio.load(radio.save(query_side, tmp_path / "saved"), retriever=index)
        found = radio.aligned_retriever(loaded)
        assert found("why?").scores == pytest.approx(radio.aligned_retriever(query_side)("why?").scores, abs=1e-6)
        assert found("why?").scores != pytest.approx(index("why?").scores, abs=1e-3)


class TestEarlierReleases:
    def test_the_sample_of_0_1_ranks_as_it_did(self):
        """Written by ``tests/samples/make.py`` with release 0.1, and never since."""
        expected = json.loads((SAMPLES / "expected-0.1.json").read_text(encoding="utf-8"))
        saved = SAMPLES / "saved-0.1"
        passages = [radio.Passage(str(number), text) for number, text in enumerate(expected["passages"])]
        retriever = radio.FaissRetriever.build(passages, encoder=radio.Encoder(str(saved / "reranker")))
        program = radio.load(saved, retriever=retriever)
        assert (type(program), program.candidates, program.k) == (radio.RetrieveRerankAnswer, 5, 2)
        assert [demo["answer"] for demo in program.answer.demos] == ["so"]
        ranked = program.rerank(expected["question"], expected["passages"])
        assert ranked.indices == expected["indices"]
        assert ranked.scores == pytest.approx(expected["scores"], abs=1e-4)
        assert program.rerank.weights.training[0]["teacher"] == {"answer": 0.5, "retrieval": 0.5}
        with dspy.context(lm=scripted(answer="the yeast died")):
            assert program(question=expected["question"]).answer == "the yeast died"

    def test_a_state_from_before_there_was_a_passage_side_or_a_history_is_loaded(self, program, index, tmp_path):
        folder = radio.save(program, tmp_path / "saved")
        state = json.loads((folder / "program.json").read_text())
        del state["rerank.weights"]["passage_checkpoint"], state["rerank.weights"]["training"]
        (folder / "program.json").write_text(json.dumps(state))
        with pytest.raises(CheckpointError, match=r"program\.json was changed"):
            radio.load(folder, retriever=index)
        reseal(folder, rerankers={"rerank.weights": {"folder": "reranker", "base": "encoder"}})
        loaded = radio.load(folder, retriever=index)
        assert loaded.rerank.weights.passage_checkpoint is None
        assert loaded.rerank.weights.training == ()
        assert loaded.rerank("why?", ["a", "b"]).scores == program.rerank("why?", ["a", "b"]).scores
        # A plain state file of dspy's, into a program that has a passage side: it is taken away.
        loaded.rerank.weights = loaded.rerank.weights.with_checkpoint("there", "somewhere")
        loaded.load(folder / "program.json")
        assert loaded.rerank.weights.passage_checkpoint is None


class Own(dspy.Module):
    """A user's program with two rerankers of different kinds."""

    def __init__(self, encoder):
        super().__init__()
        self.one, self.two = (
            radio.Rerank(encoder, "bi-encoder"),
            radio.Rerank(encoder, "cross-encoder", max_length=64, new_head=True),
        )

    def forward(self, query, passages):
        return self.two(query, self.one(query, passages, k=3).passages)


class TestAProgramOfOnesOwn:
    def test_it_is_loaded_into_a_fresh_instance(self, small, tmp_path):
        folder = radio.save(own := Own(small), tmp_path / "own")
        loaded = radio.load(folder, program=Own(small))
        assert loaded("why?", ["a", "b", "c"]).scores == own("why?", ["a", "b", "c"]).scores
        with pytest.raises(SettingsError, match=r"holds a Own; give load\(\.\.\., program=\)"):
            radio.load(folder)

    def test_one_that_has_changed_since_is_refused(self, small, tmp_path):
        folder = radio.save(Own(small), tmp_path / "own")
        fewer, more = Own(small), Own(small)
        del fewer.two
        more.answer = dspy.Predict("question -> answer")
        with pytest.raises(CheckpointError, match=r"\['two\.weights'\] is a reranker either of the saved program"):
            radio.load(folder, program=fewer)
        with pytest.raises(CheckpointError, match="holds nothing for 'answer' of the program given"):
            radio.load(folder, program=more)


class TestPlainDspySaving:
    def test_a_state_file_holds_names_of_this_machine(self, trained, index, small, tmp_path):
        trained.save(tmp_path / "state.json")
        fresh = radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder"))
        fresh.load(tmp_path / "state.json")
        assert fresh.rerank.weights.dump_state() == trained.rerank.weights.dump_state()
        assert fresh.rerank("why?", ["a", "b"]).scores == trained.rerank("why?", ["a", "b"]).scores

    def test_a_whole_program_is_loaded_in_another_process(self, elsewhere, index, topic):
        assert elsewhere["whole"]["indices"] == elsewhere["here"]["indices"]
        assert elsewhere["whole"]["scores"] == pytest.approx(elsewhere["here"]["scores"], abs=1e-6)
        assert elsewhere["found"] == [one.id for one in index(topic.test[0].question, k=5).passages]

    def test_a_whole_program_is_pickled_so_dspy_asks_for_leave(self, program, tmp_path):
        program.save(tmp_path / "whole", save_program=True)
        with pytest.raises(ValueError, match="allow_pickle=True"):
            dspy.load(str(tmp_path / "whole"))


class TestRefused:
    @pytest.fixture
    def folder(self, program, tmp_path):
        return radio.save(program, tmp_path / "saved")

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda folder: flip_a_byte(folder / "reranker" / "model.safetensors"), r"model\.safetensors was changed"),
            (lambda folder: flip_a_byte(folder / "program.json"), r"program\.json was changed"),
            (lambda folder: (folder / "reranker" / "config.json").unlink(), r"reranker/config\.json is missing"),
            (lambda folder: shutil.rmtree(folder / "reranker"), "reranker/.* is missing; copy the whole folder again"),
            (lambda folder: (folder / "reranker" / "model.pkl").touch(), r"model\.pkl is not in the manifest; remove"),
            (lambda folder: (folder / "reranker" / "README.md").touch(), "reranker/README.md is not in the manifest"),
            (lambda folder: (folder / "manifest.json").unlink(), "not a folder that radio_dspy.save wrote"),
            (lambda folder: (folder / "manifest.json").write_text("[]"), "not a manifest"),
            (lambda folder: (folder / "manifest.json").write_bytes(b"\xff{"), "not a manifest"),
            (lambda folder: reseal(folder, rerankers={}), "not a manifest .*names no reranker"),
            (
                lambda folder: reseal(folder, rerankers={"one": {"folder": "../out"}}),
                "not a manifest .*'../out' is not",
            ),
            (lambda folder: reseal(folder, files={"../program.json": "0"}), r"\.\./program\.json is missing"),
            (lambda folder: reseal(folder, format=2), "saved format 2; this release reads up to 1"),
            (lambda folder: reseal(folder, format=2, files=[], program=None), "saved format 2"),
        ],
    )
    def test_a_damaged_folder(self, folder, index, damage, message):
        radio.load(folder, retriever=index)
        damage(folder)
        with pytest.raises(CheckpointError, match=message):
            radio.load(folder, retriever=index)

    def test_every_file_counts(self, folder, index):
        files = json.loads((folder / "manifest.json").read_text())["files"]
        assert {"program.json", "reranker/model.safetensors", "reranker/tokenizer.json"} <= set(files)
        for name in files:
            data = (folder / name).read_bytes()
            flip_a_byte(folder / name)
            with pytest.raises(CheckpointError, match=f"{name} was changed"):
                radio.load(folder, retriever=index)
            (folder / name).write_bytes(data)
        radio.load(folder, retriever=index)

    def test_a_card_a_licence_and_git_attributes_may_stand_beside_it(self, folder, index):
        for name in ("README.md", "LICENSE", ".gitattributes"):
            (folder / name).write_text("anything")
        radio.load(folder, retriever=index)

    @pytest.mark.parametrize("name", ["program.json", "reranker", "reranker/model.safetensors", "manifest.json"])
    def test_a_link_out_of_the_folder(self, folder, index, name, tmp_path):
        outside = shutil.move(folder / name, tmp_path / "outside")
        (folder / name).symlink_to(outside)
        with pytest.raises(CheckpointError, match=f"{name} is a link"):
            radio.load(folder, retriever=index)

    @pytest.mark.parametrize("name", ["../outside", "/etc", "reranker/../..", "reranker-9", "", "RERANKER"])
    def test_a_name_that_leads_out_of_the_folder(self, folder, index, name, tmp_path):
        (tmp_path / "outside").mkdir()
        for key in ("checkpoint", "passage_checkpoint"):
            state = json.loads((folder / "program.json").read_text())
            state["rerank.weights"] |= {"checkpoint": "reranker", "passage_checkpoint": None, key: name}
            if key == "passage_checkpoint" and not name:
                continue  # the empty name is no name
            (folder / "program.json").write_text(json.dumps(state))
            reseal(folder)
            with pytest.raises(CheckpointError, match=r"is not a folder of weights in it|reranker-9 is missing"):
                radio.load(folder, retriever=index)

    def test_a_state_of_a_newer_release(self, folder, index):
        state = json.loads((folder / "program.json").read_text())
        state["rerank.weights"]["quantized"] = True
        (folder / "program.json").write_text(json.dumps(state))
        reseal(folder)
        with pytest.raises(CheckpointError, match=r"unexpected or missing \['quantized'\].*upgrade radio-dspy"):
            radio.load(folder, retriever=index)

    def test_no_retriever(self, folder):
        with pytest.raises(SettingsError, match="the first stage that the program searches"):
            radio.load(folder)


def test_dspys_own_save_says_once_where_the_weights_lie(small, tmp_path, caplog):
    program = dspy.Module()
    program.rerank = radio.Rerank(small, "bi-encoder")
    program.rerank.weights = program.rerank.weights.with_checkpoint(str(tmp_path / "weights"))
    with caplog.at_level(logging.WARNING):
        program.dump_state()
        program.deepcopy()
        assert not caplog.records
        program.save(tmp_path / "program.json")
        program.save(tmp_path / "again.json")
    assert [f"lie in {tmp_path / 'weights'}" in one.getMessage() for one in caplog.records] == [True]
    assert "radio_dspy.save(program, folder)" in caplog.text


def test_a_demonstration_that_repeats_a_key(program, index, tmp_path):
    key = "sk-MARK-of-a-demo-0123"
    learn({"api_key": key})
    program.answer.demos = [{"question": "q", "passages": ["p"], "answer": f"refused {key}"}]
    folder = radio.save(program, tmp_path / "saved")
    assert key not in (folder / "program.json").read_text()
    assert radio.load(folder, retriever=index).answer.demos[0]["answer"] == "refused ***"
    assert program.answer.demos[0]["answer"] == f"refused {key}"
