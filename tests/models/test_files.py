import shutil

from radio_dspy import weights
from radio_dspy.models.files import fingerprint, weight_files, weights_name
from tests.conftest import ENCODER


def test_the_fingerprint_sees_weights_and_nothing_else(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(weights(ENCODER), copy)
    (copy / "README.md").write_text("other words")
    (copy / "notes.json").write_text("{}")
    (copy / "checkpoint-5").mkdir()
    (copy / "checkpoint-5" / "config.json").write_text("{}")
    assert fingerprint(str(copy)) == fingerprint(weights(ENCODER))
    assert {one.name for one in weight_files(copy)} >= {"model.safetensors", "tokenizer.json", "modules.json"}
    with (copy / "model.safetensors").open("rb+") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    changed = tmp_path / "changed"  # checkpoints are immutable: a changed one has another place
    copy.rename(changed)
    assert fingerprint(str(changed)) != fingerprint(weights(ENCODER))


def test_names_for_people_are_no_paths(tmp_path):
    assert weights_name(weights(ENCODER)) == "sentence-transformers/all-MiniLM-L6-v2"
    assert weights_name("BAAI/bge-reranker-base") == "BAAI/bge-reranker-base"
    assert weights_name(str(tmp_path)) == tmp_path.name
