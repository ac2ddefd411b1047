"""Pushing and loading through the hub's real client, against a stub of the hub on loopback."""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

import dspy
import pytest
from huggingface_hub import ModelCard, constants

import radio_dspy as radio
from radio_dspy.core import credentials
from radio_dspy.core.errors import CheckpointError, RadioError, SettingsError
from radio_dspy.persistence.hub import model_card
from tests.conftest import ROOT
from tests.stub_hub import TOKEN, StubHub

NAME = "someone/kitchen"
RECORD = {
    "release": "0.1.0",
    "base": {"name": "BAAI/bge-reranker-base", "fingerprint": "0123456789abcdef"},
    "teacher": {"rationale": 0.5, "retrieval": 0.5},
    "encoder": "BAAI/bge-base-en-v1.5",
    "rationale_lm": "openai/gpt-4o-mini",
    "settings": {"loss": "infonce", "sampling": "shift", "tower": "both", "epochs": 2, "learning_rate": 6e-05},
    "questions": {"train": 128, "used": 120, "judged": 80},
    "groups": 120,
    "updates": 20,
    "chosen": "trained",
    "decision": "Returned the trained weights: nDCG@10 0.489 -> 0.608 (+0.119) on 80 held-out questions.",
    "relevance": "labels",
    "metrics": {"base": {"ndcg@10": 0.489, "mrr": 0.477}, "aligned": {"ndcg@10": 0.608, "mrr": 0.6}},
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stub, and the hub's client set up for it as HF_ENDPOINT and the like would in a new process."""
    with StubHub() as stub:
        settings = {"ENDPOINT": stub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
        settings["HUGGINGFACE_CO_URL_TEMPLATE"] = stub.url + "/{repo_id}/resolve/{revision}/{filename}"
        settings["HF_HUB_CACHE"] = str(tmp_path / "cache")
        settings["HF_TOKEN_PATH"] = str(tmp_path / "no-token")
        for name, value in settings.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield stub


def card_of(hub) -> ModelCard:
    return ModelCard(hub.repos[NAME].files["README.md"].decode())


@pytest.mark.slow
def test_pushed_and_loaded_by_name_in_another_process_it_ranks_the_same(hub, program, index, tmp_path):
    program.answer.demos = [dspy.Example(question="Why?", passages=["p"], answer="because")]
    address = radio.push_to_hub(program, NAME, token=TOKEN, commit_message="First try")
    repo = hub.repos[NAME]
    assert address == f"{hub.url}/{NAME}/commit/{repo.head}"
    assert (repo.private, repo.messages) == (True, ["initial commit", "First try"])
    assert {"manifest.json", "program.json", "README.md", "reranker/model.safetensors"} <= set(repo.files)
    assert repo.files["reranker/model.safetensors"] in hub.large.values()  # by LFS
    expected = program.rerank("Why did it not rise?", ["Yeast dies in heat.", "Ice floats."])
    index.save(tmp_path / "index")
    script = f"""
import json, radio_dspy as radio
retriever = radio.FaissRetriever.load({str(tmp_path / "index")!r}, encoder={index.encoder.name!r})
program = radio.load({NAME!r}, retriever=retriever)
ranked = program.rerank("Why did it not rise?", ["Yeast dies in heat.", "Ice floats."])
print(json.dumps([ranked.indices, ranked.scores, program.candidates, len(program.answer.demos)]))
"""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    surroundings |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    indices, scores, candidates, demos = json.loads(done.stdout.splitlines()[-1])
    assert indices == expected.indices
    assert scores == pytest.approx(expected.scores, abs=1e-6)
    assert (candidates, demos) == (10, 1)


def test_a_second_push_takes_the_place_of_the_first(hub, program, index, tmp_path):
    from sentence_transformers import SentenceTransformer

    # The first has a passage side of its own, hence a second folder of weights that must go.
    trained = program.deepcopy()
    weights = trained.rerank.weights
    SentenceTransformer(weights.checkpoint).save_pretrained(str(tmp_path / "trained"))
    trained.rerank.weights = weights.with_checkpoint(weights.checkpoint, tmp_path / "trained")
    radio.push_to_hub(trained, NAME, token=TOKEN)
    repo = hub.repos[NAME]
    first = repo.head
    assert "reranker-2/model.safetensors" in repo.files
    edited = card_of(hub)
    edited.data.license = "apache-2.0"
    repo.commit("Licence", {**repo.files, "README.md": str(edited).encode(), "LICENSE": b"Apache"})
    radio.push_to_hub(program, NAME, token=TOKEN)
    assert not any(name.startswith("reranker-2/") for name in repo.files)
    assert repo.files["LICENSE"] == b"Apache"
    assert card_of(hub).data.license == "apache-2.0"
    assert card_of(hub).data.tags == edited.data.tags
    loaded = radio.load(NAME, retriever=index, token=TOKEN)
    assert loaded.rerank.weights.passage_checkpoint is None
    assert radio.load(NAME, retriever=index, revision=first, token=TOKEN).rerank.weights.passage_checkpoint


def test_what_was_fetched_is_loaded_again_without_the_hub(hub, program, index, monkeypatch):
    radio.push_to_hub(program, NAME, token=TOKEN)
    radio.load(NAME, retriever=index, token=TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    assert radio.load(NAME, retriever=index).rerank("why?", ["a", "b"]).indices
    assert len(hub.asked) == asked


def test_a_folder_of_that_name_comes_first(hub, program, index, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    radio.save(program, NAME)
    assert radio.load(NAME, retriever=index).rerank.weights.checkpoint == str(tmp_path / NAME / "reranker")
    assert not hub.asked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.update({"program.json": files["program.json"] + b" "}), r"program\.json was changed"),
        (lambda files: files.pop("reranker/config.json"), r"reranker/config\.json is missing"),
        (lambda files: files.update({"reranker/model.pkl": b"x"}), r"reranker/model\.pkl is not in the manifest"),
    ],
)
def test_a_repository_is_held_against_its_manifest(hub, program, index, change, message):
    radio.push_to_hub(program, NAME, token=TOKEN)
    files = dict(hub.repos[NAME].files)
    change(files)
    hub.repos[NAME].commit("Change", files)
    with pytest.raises(CheckpointError, match=message):
        radio.load(NAME, retriever=index, token=TOKEN)


def test_a_file_of_the_cache_that_was_changed_is_noticed(hub, program, index, tmp_path):
    radio.push_to_hub(program, NAME, token=TOKEN)
    radio.load(NAME, retriever=index, token=TOKEN)
    blob = next((tmp_path / "cache").rglob("program.json")).resolve()
    blob.write_bytes(blob.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=r"program\.json was changed"):
        radio.load(NAME, retriever=index, token=TOKEN)


def test_a_link_out_of_the_cache_is_refused(hub, program, index, tmp_path):
    radio.push_to_hub(program, NAME, token=TOKEN)
    radio.load(NAME, retriever=index, token=TOKEN)
    link = next((tmp_path / "cache").rglob("program.json"))
    (tmp_path / "outside").write_bytes(link.read_bytes())
    link.unlink()
    link.symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match=r"program\.json is a link"):
        radio.load(NAME, retriever=index, token=TOKEN)


@pytest.mark.parametrize("name", ["someone/missing", "someone/private"])
def test_what_the_hub_does_not_give(hub, program, index, name):
    radio.push_to_hub(program, "someone/private", token=TOKEN)
    with pytest.raises(CheckpointError, match=f"{name}: no such folder on this machine, and the hub does not give"):
        radio.load(name, retriever=index)
    with pytest.raises(CheckpointError, match="RevisionNotFoundError"):
        radio.load("someone/private", retriever=index, revision="v9", token=TOKEN)


@pytest.mark.parametrize("path", ["./some/folder", "a/b/c", "/no/where", "somewhere", "../up/there", "~/x"])
def test_what_is_no_name_of_a_repository_is_not_asked_for(hub, index, path):
    with pytest.raises(CheckpointError, match="not a folder that radio_dspy"):
        radio.load(path, retriever=index)
    assert not hub.asked


def test_a_repository_that_holds_something_else_is_left_alone(hub, program):
    radio.push_to_hub(program, NAME, token=TOKEN)
    hub.repos[NAME].commit("Another model", {"config.json": b"{}", "README.md": b"# Mine"})
    with pytest.raises(SettingsError, match=r"holds something else already \(config\.json\)"):
        radio.push_to_hub(program, NAME, token=TOKEN)
    assert set(hub.repos[NAME].files) == {"config.json", "README.md"}


def test_another_things_manifest_is_no_earlier_push(hub, program):
    radio.push_to_hub(program, NAME, token=TOKEN)
    hub.repos[NAME].commit("A browser extension", {"manifest.json": b'{"name": "mine"}'})
    with pytest.raises(SettingsError, match="holds something else already"):
        radio.push_to_hub(program, NAME, token=TOKEN)
    assert hub.repos[NAME].files == {"manifest.json": b'{"name": "mine"}'}


def test_a_push_removes_only_what_an_earlier_one_wrote(hub, program):
    radio.push_to_hub(program, NAME, token=TOKEN)
    own = {"reranker-notes.md": b"mine", "reranker[1].csv": b"mine"}
    hub.repos[NAME].commit("Notes", {**hub.repos[NAME].files, **own})
    radio.push_to_hub(program, NAME, token=TOKEN)
    assert own.items() <= hub.repos[NAME].files.items()


def test_a_manifest_that_lists_files_of_others_removes_none(hub, program):
    radio.push_to_hub(program, NAME, token=TOKEN)
    own = {"thesis.tex": b"mine", "data/a.csv": b"mine", "reranker/../b.txt": b"mine"}
    files = hub.repos[NAME].files
    manifest = json.loads(files["manifest.json"])
    manifest["files"] |= dict.fromkeys(own, "0" * 64)
    hub.repos[NAME].commit("Listed", {**files, **own, "manifest.json": json.dumps(manifest).encode()})
    radio.push_to_hub(program, NAME, token=TOKEN)
    assert own.items() <= hub.repos[NAME].files.items()


def test_without_the_right_token_nothing_is_pushed(hub, program):
    for token in (None, "hf_WRONGTOKEN"):
        with pytest.raises(RadioError, match=r"the hub did not take the program \(.*401.*hf auth login") as caught:
            radio.push_to_hub(program, NAME, token=token)
        assert "hf_WRONGTOKEN" not in "".join(traceback.format_exception(caught.value))
    assert not hub.repos
    with pytest.raises(SettingsError, match="is no name of a repository"):
        radio.push_to_hub(program, "a/b/c", token=TOKEN)


@pytest.mark.parametrize("given", [True, False], ids=["given", "logged in"])
def test_a_token_that_the_hub_repeats_is_hidden(hub, program, index, tmp_path, monkeypatch, given):
    (tmp_path / "token").write_text("hf_WRONGTOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "ENDPOINT", f"{hub.url}/hf_WRONGTOKEN")
    monkeypatch.setattr(credentials, "_KNOWN", credentials._Known())
    token = "hf_WRONGTOKEN" if given else None
    for step in (
        lambda: radio.push_to_hub(program, NAME, token=token),
        lambda: radio.load(NAME, retriever=index, token=token),
    ):
        with pytest.raises(RadioError) as caught:
            step()
        error, chain = caught.value, []
        while error is not None:
            chain.append(error)
            error = error.__cause__ or error.__context__
        assert "hf_WRONGTOKEN" not in "".join(
            f"{one!r}{one}{one.__notes__ if hasattr(one, '__notes__') else ''}" for one in chain
        )
        assert "hf_WRONGTOKEN" not in "".join(traceback.format_exception(caught.value))


def test_offline_nothing_is_pushed(hub, program, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RadioError, match="offline mode is enabled"):
        radio.push_to_hub(program, NAME, token=TOKEN)


def test_no_token_no_key_and_no_place_is_in_what_was_pushed(hub, program, tmp_path, capsys):
    program.set_lm(dspy.LM("openai/some-model", api_key="sk-secret-key", api_base="http://10.0.0.1/v1"))
    radio.push_to_hub(program, NAME, token=TOKEN)
    printed = "".join(capsys.readouterr())
    for word in (TOKEN, "sk-secret-key", "10.0.0.1", str(tmp_path.parent), str(Path.home()), "site-packages"):
        assert not any(word.encode() in data for data in hub.repos[NAME].files.values())
        assert word not in printed
    assert not any(TOKEN.encode() in one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())


def test_the_card_of_a_trained_program():
    reranker = {
        "architecture": "cross-encoder",
        "base": "BAAI/bge-reranker-base",
        "fingerprint": "fedcba9876543210",
        "training": [RECORD],
    }
    manifest = {
        "program": "RetrieveRerankAnswer",
        "versions": {"radio-dspy": "0.1.0", "torch": "2.13.0"},
        "settings": {"candidates": 20, "k": 5},
        "rerankers": {"rerank.weights": reranker},
    }
    card = ModelCard(model_card(NAME, manifest, {"license": "mit", "tags": ["mine"]}))
    assert card.data.to_dict() == {
        "base_model": ["BAAI/bge-reranker-base"],
        "library_name": "radio-dspy",
        "license": "mit",
        "pipeline_tag": "text-ranking",
        "tags": ["dspy", "mine", "rag", "rationale-distillation", "reranker"],
    }
    for words in (
        '\nprogram = radio.load("someone/kitchen", retriever=retriever)\n',
        "on 120 questions, 120 preference groups, 20 updates.",
        "rationale (0.5), retrieval (0.5); compared by `BAAI/bge-base-en-v1.5`, rationales by `openai/gpt-4o-mini`.",
        "Loss infonce, sampling shift, tower both, 2 epochs, learning rate 6e-05.",
        r"> Returned the trained weights: nDCG\@10 0.489 -\> 0.608 (+0.119) on 80 held-out questions.",
        "| ranking | ndcg\\@10 | mrr |\n| --- | --- | --- |\n| base reranker | 0.489 | 0.477 |\n"
        "| aligned reranker | 0.608 | 0.600 |\n",
        "Means over 80 held-out questions, relevant: labelled passages.",
        "Not stated here. The licences of the base model and of the training data decide",
    ):
        assert words in card.text
    own = model_card(
        NAME, {**manifest, "program": "Mine", "rerankers": {"x": {**reranker, "base": "x", "training": []}}}
    )
    assert 'radio.load("someone/kitchen", program=Mine())' in own
    assert "No training by RADIO is on record" in own
    assert ModelCard(own).data.base_model is None  # the hub refuses a base model that it does not have
