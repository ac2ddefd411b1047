"""Folders from a stranger: what is in them is refused by an error of this library, and no code in them ever runs."""

import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest

import radio_dspy as radio
from radio_dspy.core.errors import CheckpointError, RadioError, UnsafeFileError
from radio_dspy.core.files import sha256_of
from radio_dspy.models.shared import forget_models

DEEP = b"[" * 100_000  # deeper than a JSON parser goes
INDEX_FILES = ("passages.jsonl", "index.faiss", "manifest.json")


@pytest.fixture(autouse=True)
def _nothing_kept():
    yield
    forget_models()


@pytest.fixture
def checkpoint(small, tmp_path):
    """A folder of weights that may be damaged."""
    return Path(shutil.copytree(small.name, tmp_path / "checkpoint"))


@pytest.fixture
def saved_index(index, tmp_path):
    index.save(tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def marker(tmp_path):
    """A file that hostile code would write; the test fails where it is there in the end."""
    yield (path := tmp_path / "it-ran")
    assert not path.exists()


def write_code(folder, marker, name="evil.py"):
    (folder / name).write_text(
        f"open({str(marker)!r}, 'w').close()\nclass Evil:\n    load = classmethod(lambda *a, **k: 1)\n"
    )


def header_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(path, header, body):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


both_architectures = pytest.mark.parametrize(
    "architecture", ["bi-encoder", pytest.param("cross-encoder", marks=pytest.mark.slow)]
)


class Bomb:
    """Writes a file where it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


def shape_swapped(path):
    header, body = header_of(path)
    wide = next(one for name, one in header.items() if name.endswith("word_embeddings.weight"))
    wide["shape"] = wide["shape"][::-1]
    with_header(path, header, body)


def offsets_swapped(path):
    header, body = header_of(path)
    entries = [entry for entry in header.values() if "data_offsets" in entry]
    one, other = entries[0], next(entry for entry in entries if entry["shape"] != entries[0]["shape"])
    one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]
    with_header(path, header, body)


def far_too_large(path):
    header, body = header_of(path)
    entry = next(entry for entry in header.values() if "data_offsets" in entry)
    entry["shape"], entry["data_offsets"] = [2**40], [0, 2**42]
    with_header(path, header, body)


SAFETENSORS = {
    "a header that is longer than the file": lambda path: path.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
    "a header that is no JSON": lambda path: path.write_bytes(struct.pack("<Q", 8) + b"not json"),
    "a header of deep lists": lambda path: path.write_bytes(struct.pack("<Q", 200_000) + b"[" * 200_000),
    "a tensor of 4 TB": far_too_large,
    "swapped offsets": offsets_swapped,
    "a swapped shape": shape_swapped,
    "a cut-off file": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "an empty file": lambda path: path.write_bytes(b""),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Bomb(path.parent.parent / "it-ran"))),
}


class TestWeights:
    @pytest.mark.parametrize("damage", SAFETENSORS)
    @both_architectures
    def test_a_safetensors_file_that_lies(self, checkpoint, marker, damage, architecture):
        SAFETENSORS[damage](checkpoint / "model.safetensors")
        with pytest.raises(CheckpointError, match="checkpoint: cannot be loaded"):
            radio.Rerank(str(checkpoint), architecture, new_head=True)("why?", ["a", "b"])

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl"])
    @both_architectures
    def test_a_pickle_is_never_the_weights(self, checkpoint, marker, name, architecture):
        (checkpoint / "model.safetensors").unlink()
        (checkpoint / name).write_bytes(pickle.dumps(Bomb(marker)))
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            radio.Rerank(str(checkpoint), architecture, new_head=True)("why?", ["a", "b"])

    @pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
    @both_architectures
    def test_code_of_ones_own_is_never_run(self, checkpoint, marker, name, architecture):
        write_code(checkpoint, marker)
        classes = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
        change_json(
            checkpoint / name,
            auto_map=classes,
            model_type="evil",
            tokenizer_class="Evil",
            trust_remote_code=True,
        )
        with pytest.raises(UnsafeFileError, match=f"{name} sets 'auto_map'"):
            radio.Rerank(str(checkpoint), architecture, new_head=True)("why?", ["a", "b"])

    @pytest.mark.parametrize("kind", ["evil.Evil", "radio_evil.Evil", "subprocess.Popen", "..evil.Evil", ""])
    def test_a_module_that_is_not_sentence_transformers_own(self, checkpoint, marker, monkeypatch, kind):
        write_code(checkpoint, marker)
        write_code(checkpoint.parent, marker, "radio_evil.py")  # one that Python would find
        monkeypatch.syspath_prepend(checkpoint.parent)
        modules = json.loads((checkpoint / "modules.json").read_text())
        modules[1]["type"] = kind
        (checkpoint / "modules.json").write_text(json.dumps(modules))
        for architecture in ("bi-encoder", "cross-encoder"):
            with pytest.raises(UnsafeFileError, match="is no module of sentence-transformers"):
                radio.Rerank(str(checkpoint), architecture, new_head=True)("why?", ["a", "b"])

    @pytest.mark.parametrize("path", ["../outside", "/etc", "..\\outside"])
    def test_a_module_outside_the_folder(self, checkpoint, path):
        modules = json.loads((checkpoint / "modules.json").read_text())
        modules[1]["path"] = path
        (checkpoint / "modules.json").write_text(json.dumps(modules))
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            radio.Encoder(str(checkpoint)).encode_queries(["why?"])

    def test_a_request_to_trust_is_refused(self, checkpoint, marker):
        write_code(checkpoint, marker)
        change_json(
            checkpoint / "sentence_bert_config.json",
            **{name: {"trust_remote_code": True} for name in ("model_args", "config_args", "tokenizer_args")},
        )
        with pytest.raises(UnsafeFileError, match="trust_remote_code"):
            radio.Encoder(str(checkpoint)).encode_queries(["why?"])

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "modules.json", "1_Pooling/config.json"])
    @pytest.mark.parametrize(
        "data",
        [b"", b"[", b"[]", b"\xff\xfe", b"null", DEEP],
        ids=["empty", "open", "list", "bytes", "null", "deep"],
    )
    def test_settings_that_are_no_settings(self, checkpoint, name, data):
        (checkpoint / name).write_bytes(data)
        try:
            vectors = radio.Encoder(str(checkpoint)).encode_queries(["why?"])
        except CheckpointError as error:
            assert "checkpoint" in str(error)  # noqa: PT017
        else:  # a library may do without
            assert vectors.shape == (1, 384)

    def test_weights_that_are_not_numbers(self, checkpoint):
        from safetensors.numpy import load_file, save_file

        tensors = load_file(checkpoint / "model.safetensors")
        for values in tensors.values():
            if values.dtype.kind == "f":
                values[...] = float("nan")
        save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(RadioError, match=r"no finite number, as damaged weights do"):
            radio.Rerank(str(checkpoint), "bi-encoder")("why?", ["a", "b"])


class TestIndexFolders:
    @pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "C:\\outside", "query-encoder/../../x", "..\\x"])
    def test_a_name_that_leads_out_of_the_folder(self, saved_index, small, name):
        (saved_index.parent / "outside").write_text("x")
        files = json.loads((saved_index / "manifest.json").read_text())["files"]
        change_json(saved_index / "manifest.json", files={**files, name: sha256_of(saved_index.parent / "outside")})
        with pytest.raises(CheckpointError, match="leads out of the folder"):
            radio.FaissRetriever.load(saved_index, encoder=small)

    @pytest.mark.parametrize("name", INDEX_FILES)
    def test_a_link_out_of_the_folder(self, saved_index, small, name):
        outside = shutil.move(saved_index / name, saved_index.parent / "outside")
        (saved_index / name).symlink_to(outside)
        with pytest.raises(CheckpointError, match=f"{name}: is a link"):
            radio.FaissRetriever.load(saved_index, encoder=small)

    @pytest.mark.parametrize(
        "data",
        [b"", b"IxFI", b"IxFI" + b"\xff" * 64, b"IwFl" + b"\x00" * 200, pickle.dumps([1])],
        ids=["empty", "cut off", "huge sizes", "another kind", "pickle"],
    )
    def test_an_index_that_lies_with_a_hash_that_fits(self, saved_index, small, data):
        """Whoever can change the index can change the manifest's hash of it, too."""
        (saved_index / "index.faiss").write_bytes(data)
        self.reseal(saved_index)
        with pytest.raises(CheckpointError, match=r"index\.faiss: (FAISS cannot read it|holds)"):
            radio.FaissRetriever.load(saved_index, encoder=small)

    def test_an_index_of_other_passages(self, saved_index, small):
        """Fewer passages than vectors was an IndexError at some later search, or the wrong passage."""
        lines = (saved_index / "passages.jsonl").read_text().splitlines(keepends=True)
        (saved_index / "passages.jsonl").write_text("".join(lines[:-1]))
        self.reseal(saved_index)
        with pytest.raises(CheckpointError, match=r"holds 100 vectors .* for 99 passages|vectors of"):
            radio.FaissRetriever.load(saved_index, encoder=small)

    @pytest.mark.parametrize("data", [b"", DEEP, b"{}", b"null", b"\xff", b'{"format": 1e999}', b'{"format": "x"}'])
    def test_a_manifest_that_is_none(self, saved_index, small, data):
        (saved_index / "manifest.json").write_bytes(data)
        with pytest.raises(CheckpointError, match=r"manifest\.json: not an index manifest"):
            radio.FaissRetriever.load(saved_index, encoder=small)

    @staticmethod
    def reseal(folder):
        change_json(folder / "manifest.json", files={name: sha256_of(folder / name) for name in INDEX_FILES[:2]})


class TestProgramFolders:
    @pytest.fixture
    def folder(self, index, small, tmp_path):
        return radio.save(radio.RetrieveRerankAnswer(index, radio.Rerank(small, "bi-encoder")), tmp_path / "saved")

    @pytest.fixture
    def reseal(self, folder):
        """Let the manifest's hashes agree with the folder: whoever can write the one can write the other."""

        def seal():
            present = [one for one in folder.rglob("*") if one.is_file() and one.name != "manifest.json"]
            files = {one.relative_to(folder).as_posix(): sha256_of(one) for one in present}
            change_json(folder / "manifest.json", files=files)

        return seal

    def test_hostile_weights_with_hashes_that_fit(self, folder, reseal, index, marker):
        (folder / "reranker" / "model.safetensors").write_bytes(pickle.dumps(Bomb(marker)))
        reseal()
        with pytest.raises(CheckpointError):
            radio.load(folder, retriever=index).rerank("why?", ["a"])

    def test_a_state_that_names_a_class_or_an_lm(self, folder, reseal, index):
        """A saved address would send the next user's questions, and key, to whoever wrote the folder."""
        state = json.loads((folder / "program.json").read_text())
        state["answer"]["lm"] = {"model": "openai/gpt-4o-mini", "api_base": "http://127.0.0.1:9/v1", "cache": False}
        (folder / "program.json").write_text(json.dumps(state))
        reseal()
        try:
            loaded = radio.load(folder, retriever=index)
        except RadioError:
            return
        lm = loaded.answer.lm
        assert lm is None or "api_base" not in lm.kwargs

    @pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{}", DEEP, b"\xff", b'{"answer": 5}'])
    def test_a_state_that_is_none(self, folder, reseal, index, data):
        """``program.json`` with hashes that fit but another shape."""
        (folder / "program.json").write_bytes(data)
        reseal()
        with pytest.raises(RadioError, match="saved"):
            radio.load(folder, retriever=index)

    @pytest.mark.parametrize("data", [DEEP, b'{"format": 1e999}', b'{"format": 1, "files": 5}'])
    def test_a_manifest_that_is_none(self, folder, index, data):
        (folder / "manifest.json").write_bytes(data)
        with pytest.raises(CheckpointError, match="not a manifest"):
            radio.load(folder, retriever=index)
