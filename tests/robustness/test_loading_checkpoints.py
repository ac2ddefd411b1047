"""Folders of weights from a stranger: what each file and key may be, and what a changed one gives."""

import builtins
import importlib
import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import radio_dspy as radio
from radio_dspy.core.errors import CheckpointError, RadioError, UnsafeFileError
from radio_dspy.models.encoder import quiet_loading
from radio_dspy.models.files import copy_weights, fingerprint
from radio_dspy.models.shared import forget_models
from radio_dspy.models.weights_folder import checked_weights
from tests.conftest import ENCODER

CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
SENTENCE, MODEL, MODULES = "sentence_bert_config.json", "config_sentence_transformers.json", "modules.json"
DENSE = "2_Dense/config.json"
KERNEL = "someone/flash"

# (file, key, value): refused before a library sees it.
REFUSED = [
    (SENTENCE, "query_expansion", {"strategy": "fixed", "length": 32, "path": "/etc"}),
    (SENTENCE, "query_expansion", {"strategy": "os.path"}),
    (CONFIG, "auto_map", {"AutoModel": "modeling_x.Model"}),
    (CONFIG, "auto_map", {"AutoModel": "someone/code--modeling_x.Model"}),
    (CONFIG, "attn_implementation", KERNEL),
    (CONFIG, "_attn_implementation", KERNEL),
    (CONFIG, "attn_implementation", {"": KERNEL}),
    (CONFIG, "attn_implementation", "flash_attention_3"),
    (CONFIG, "experts_implementation", KERNEL),
    (CONFIG, "quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
    (CONFIG, "trust_remote_code", True),
    (CONFIG, "use_kernels", True),
    (CONFIG, "backbone", "resnet50"),
    (CONFIG, "custom_pipelines", {"rank": {"impl": "x.Pipeline"}}),
    (CONFIG, "sbert_ce_default_activation_function", "os.system"),
    (CONFIG, "sentence_transformers", {"activation_fn": "torch.utils.bottleneck.__main__.main"}),
    (CONFIG, "text_config", {"auto_map": {"AutoConfig": "x.C"}}),
    (CONFIG, "vision_config", {"anything": [{"deep": "https://host/x"}]}),
    (CONFIG, "index_path", "data"),
    (CONFIG, "unheard_of", "owner/name"),
    (CONFIG, "unheard_of", "module.Class"),
    (TOKENIZER, "auto_map", {"AutoTokenizer": ["x.T", None]}),
    (TOKENIZER, "tokenizer_class", "package.Tokenizer"),
    (TOKENIZER, "vocab_file", "/etc/passwd"),
    (TOKENIZER, "tokenizer_file", "../../secret"),
    (TOKENIZER, "unheard_of", "http://127.0.0.1/x"),
    (TOKENIZER, "trust_remote_code", True),
    (TOKENIZER, "mecab_kwargs", {"mecab_dic": "ipadic", "mecab_option": "-o stolen"}),
    (SENTENCE, "model_kwargs", {"attn_implementation": KERNEL}),
    (SENTENCE, "model_args", {"offload_folder": "here"}),
    (SENTENCE, "model_kwargs", {"use_kernels": True}),
    (SENTENCE, "model_kwargs", {"ignore_mismatched_sizes": True}),
    (SENTENCE, "model_kwargs", {"use_safetensors": False}),
    (SENTENCE, "model_kwargs", {"adapter_kwargs": {"subfolder": "x"}}),
    (SENTENCE, "model_kwargs", {"device_map": "auto"}),
    (SENTENCE, "processor_kwargs", {"tokenizer_file": "x"}),
    (SENTENCE, "tokenizer_args", {"trust_remote_code": True}),
    (SENTENCE, "config_kwargs", {"auto_map": {"AutoConfig": "x.C"}}),
    (SENTENCE, "config_args", {"gguf_file": "x"}),
    (SENTENCE, "tokenizer_name_or_path", "owner/name"),
    (SENTENCE, "modality_config", {"text": {"method": "save_pretrained", "method_output_name": None}}),
    (SENTENCE, "cache_dir", "here"),
    (SENTENCE, "unheard_of", 1),
    (MODEL, "requirements", {"evil-package": ">=1"}),  # an error would say how to install it
    (MODEL, "activation_fn", "os.system"),
    (MODEL, "unheard_of", "https://host"),
    (DENSE, "activation_function", "torch.hub.load"),
    (DENSE, "activation_function", "numpy.tanh"),
]
# (file, key, value): as they are published, and loaded as ever.
ALLOWED = [
    (CONFIG, "_name_or_path", "owner/name"),
    (CONFIG, "transformers_version", "4.41.0.dev0"),
    (CONFIG, "torch_dtype", "float32"),
    (CONFIG, "gradient_checkpointing", False),
    (CONFIG, "attn_implementation", "eager"),
    (CONFIG, "_attn_implementation", "sdpa"),
    (CONFIG, "id2label", {"0": "a/b: c.d"}),
    (CONFIG, "pos_att_type", "c2p|p2c"),
    (CONFIG, "sbert_ce_default_activation_function", "torch.nn.modules.linear.Identity"),
    (
        CONFIG,
        "sentence_transformers",
        {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "4.1.0.dev0"},
    ),
    (CONFIG, "task_specific_params", {"summarization": {"prefix": "summarize: "}}),
    (CONFIG, "unsloth_version", "2025.1.5"),
    (CONFIG, "task_instructions", {"classification": "", "retrieval.query": "Represent the query: "}),
    (TOKENIZER, "chat_template", "{% for m in messages %}{{ m.content }} https://host/x {% endfor %}"),
    (TOKENIZER, "name_or_path", "owner/name"),
    (TOKENIZER, "special_tokens_map_file", "/root/.cache/huggingface/special_tokens_map.json"),
    (TOKENIZER, "tokenizer_file", f"/root/.cache/huggingface/transformers/{'0f' * 32}.{'1e' * 32}"),
    (TOKENIZER, "tokenizer_class", "BertTokenizerFast"),
    (TOKENIZER, "additional_special_tokens", ["</x>", "<y/>"]),
    (TOKENIZER, "padding_side", "right"),
    (SENTENCE, "max_seq_length", 128),
    (SENTENCE, "model_kwargs", {"attn_implementation": "eager", "torch_dtype": "float32", "add_pooling_layer": False}),
    (SENTENCE, "tokenizer_args", {"padding_side": "right", "model_max_length": 64}),
    (SENTENCE, "config_args", {"use_cache": False}),
    (SENTENCE, "tokenizer_name_or_path", None),
    (MODEL, "prompts", {"query": "Instruct: see https://host/x\nQuery: ", "document": ""}),
    (MODEL, "requirements", {"transformers": {"specifier": ">=4.0", "reason": "see https://host/x"}, "peft": ""}),
    ("generation_config.json", "stop_strings", ["</s>", "a.b"]),
    (MODEL, "similarity_fn_name", "cosine"),
    (MODEL, "truncate_dim", 4),
    (MODEL, "requirements", {"transformers": ">=4.0"}),
    (DENSE, "activation_function", "torch.nn.modules.activation.GELU"),
    (DENSE, "activation_function", "torch.nn.Tanh"),
]


@pytest.fixture(autouse=True)
def _nothing_kept():
    yield
    forget_models()


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """An encoder with every usual module, tiny and random."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = tmp_path_factory.mktemp("sound")
    torch.manual_seed(4)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with quiet_loading():
        transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(folder / "plain")
        tokenizer = transformers.AutoTokenizer.from_pretrained(radio.weights(ENCODER))
        tokenizer.chat_template = "{{ messages }}"
        tokenizer.save_pretrained(folder / "plain")
        modules = [Transformer(str(folder / "plain")), Pooling(16, "mean"), Dense(16, 8), Normalize()]
        SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "model"))
    return folder / "model"


@pytest.fixture
def folder(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "weights"))


def change(path, **changes):
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **changes}))


def vectors(folder):
    return radio.Encoder(str(folder)).encode_queries(["why?"])


@pytest.mark.parametrize(("file", "key", "value"), REFUSED)
@pytest.mark.parametrize("load", [vectors, lambda one: radio.Rerank(str(one))("a", ["b"])], ids=["encoder", "reranker"])
def test_what_is_refused(folder, monkeypatch, file, key, value, load):
    for name in ("SentenceTransformer", "CrossEncoder"):
        monkeypatch.setattr(f"sentence_transformers.{name}.__init__", lambda *_, **__: pytest.fail("a library saw it"))
    change(folder / file, **{key: value})
    with pytest.raises(UnsafeFileError, match=Path(file).name):
        load(folder)


@pytest.mark.parametrize(("file", "key", "value"), ALLOWED)
def test_what_is_published_loads(folder, file, key, value):
    change(folder / file, **{key: value})
    assert vectors(folder).shape[0] == 1


@pytest.mark.parametrize(
    "kind", ["sentence_transformers.util.X", "sentence_transformers.models.Evil", "pylate.models.Evil", "os.path", ""]
)
def test_a_module_that_is_not_known(folder, kind):
    modules = json.loads((folder / MODULES).read_text())
    modules[2]["type"] = kind
    (folder / MODULES).write_text(json.dumps(modules))
    with pytest.raises(UnsafeFileError, match="is no module"):
        vectors(folder)


@pytest.mark.parametrize(
    "name", ["a" * 5000, "2_\0", "2_\ud800", "../weights", "2_Dense/../..", "C:\\x"], ids=lambda name: ascii(name)[:20]
)
def test_a_module_outside_or_of_no_name(folder, name):
    modules = json.loads((folder / MODULES).read_text())
    modules[2]["path"] = name
    (folder / MODULES).write_text(json.dumps(modules))
    with pytest.raises(UnsafeFileError, match="the module"):
        vectors(folder)


def test_a_name_in_a_prompt_and_code_that_became_a_part_of_transformers(folder):
    change(folder / MODEL, prompts={"query": "", "STS/b": "x: "}, default_prompt_name="STS/b")
    assert vectors(folder).shape == (1, 8)
    for kind, known in (("eurobert", True), ("qwen2", False)):  # whose published code differs from transformers'
        change(folder / CONFIG, model_type=kind, auto_map={"AutoModel": "modeling_x.Model"})
        if known:
            assert checked_weights(folder)
        else:
            with pytest.raises(UnsafeFileError, match="auto_map"):
                checked_weights(folder)


def test_a_static_model_as_model2vec_writes_it(folder, tmp_path):
    static = tmp_path / "static"
    static.mkdir()
    shutil.copy(folder / "tokenizer.json", static)
    save_file({"embeddings": torch.rand(30522, 8)}, static / "model.safetensors")
    about = {
        "model_type": "model2vec",
        "architectures": ["StaticModel"],
        "tokenizer_name": "owner/name",
        "apply_pca": 8,
    }
    (static / CONFIG).write_text(json.dumps(about))
    kinds = {
        ".": "sentence_transformers.models.StaticEmbedding",
        "1_Normalize": "sentence_transformers.models.Normalize",
    }
    modules = [{"idx": n, "name": f"{n}", "path": path, "type": kinds[path]} for n, path in enumerate(kinds)]
    (static / MODULES).write_text(json.dumps(modules))
    before = vectors(static)
    copy_weights(str(static), tmp_path / "copy")
    assert vectors(tmp_path / "copy").tolist() == before.tolist()


@pytest.mark.parametrize("load", [vectors, lambda one: radio.Rerank(str(one))("a", ["b"])], ids=["encoder", "reranker"])
def test_a_tokenizer_whose_code_panics(folder, load, capfd):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA////"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: Precompiled"):
        load(folder)


def test_a_file_that_is_replaced_by_another_of_its_size_and_time(folder):
    path = folder / CONFIG
    checked_weights(folder)
    before, text = path.stat(), path.read_text()
    path.write_text(text.replace('"hidden_act": "gelu"', '"gguf_file":  "gelu"'))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with pytest.raises(UnsafeFileError, match="gguf_file"):
        checked_weights(folder)


def test_settings_without_end(folder, monkeypatch):
    monkeypatch.setattr("radio_dspy.models.settings_rules.LARGEST", 10_000)
    with (folder / CONFIG).open("a") as file:
        file.write(" " * 10_000)
    with pytest.raises(CheckpointError, match=r"config\.json.*larger than"):
        checked_weights(folder)


class TestLinks:
    """A folder of links is how stores keep weights; a link to any other file would give it away when saved."""

    @pytest.mark.parametrize(
        ("name", "target"),
        [
            (CONFIG, "elsewhere/config.json"),
            ("model.safetensors", "elsewhere/mine-v3.safetensors"),
            ("tokenizer.json", f"blobs/{'0f' * 32}"),
            ("tokenizer.json", f"annex/SHA256E-s12--{'0f' * 32}.json"),
            (CONFIG, "weights/settings"),
        ],
    )
    def test_to_the_like_of_it(self, folder, tmp_path, name, target):
        before = vectors(folder)
        (tmp_path / target).parent.mkdir(exist_ok=True)
        (folder / name).rename(tmp_path / target)
        (folder / name).symlink_to(tmp_path / target)
        forget_models()
        assert vectors(folder).tolist() == before.tolist()

    @pytest.mark.parametrize("name", ["chat_template.jinja", "vocab.txt", "additional_chat_templates/a.jinja"])
    def test_to_another_file_of_this_machine(self, folder, tmp_path, name):
        (tmp_path / "id_rsa").write_text("a secret")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(tmp_path / "id_rsa")
        with pytest.raises(UnsafeFileError, match=r"is a link to .*id_rsa"):
            copy_weights(str(folder), tmp_path / "copy")
        assert not (tmp_path / "copy").exists()

    @pytest.mark.parametrize("name", ["2_Dense", "1_Pooling", "additional_chat_templates", "onnx", "2_Dense/inner"])
    @pytest.mark.parametrize("inside", [False, True])
    def test_to_a_folder(self, folder, tmp_path, name, inside):
        target = (folder if inside else tmp_path) / "elsewhere"
        if (folder / name).exists():
            (folder / name).rename(target)
        else:
            target.mkdir()
        (folder / name).symlink_to(target)
        for load in (vectors, lambda one: copy_weights(str(one), tmp_path / "copy"), lambda one: fingerprint(str(one))):
            with pytest.raises(UnsafeFileError, match=rf"{name}: is a link"):
                load(folder)
        assert not (tmp_path / "copy").exists()

    def test_a_module_below_a_link(self, folder, tmp_path):
        (tmp_path / "outer").mkdir()
        (folder / "2_Dense").rename(tmp_path / "outer" / "dense")
        (folder / "outer").mkdir()
        (folder / "outer" / "inner").symlink_to(tmp_path / "outer")
        modules = json.loads((folder / MODULES).read_text())
        modules[2]["path"] = "outer/inner/dense"
        (folder / MODULES).write_text(json.dumps(modules))
        with pytest.raises(UnsafeFileError, match=r"outer/inner: is a link"):
            vectors(folder)

    def test_to_nothing(self, folder):
        (folder / MODULES).unlink()
        (folder / MODULES).symlink_to("lost.json")
        with pytest.raises(CheckpointError, match=r"modules\.json: is a link to nothing"):
            vectors(folder)


SPECIAL = [
    CONFIG,
    "model.safetensors",
    MODULES,
    "tokenizer.json",
    DENSE,
    "2_Dense/x",
    "additional_chat_templates/a.jinja",
]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "link to a pipe"])
def test_what_is_no_file_is_refused_before_it_is_opened(folder, tmp_path, name, kind):
    make_special(folder / name, kind, tmp_path)
    for load in (
        vectors,
        lambda one: radio.Rerank(str(one), "bi-encoder")("a", ["b"]),
        lambda one: copy_weights(str(one), tmp_path / "copy"),
        lambda one: fingerprint(str(one), again=True),
    ):
        with pytest.raises(UnsafeFileError, match=rf"{name}: is a pipe, a socket or a device"):
            load(folder)
    assert not (tmp_path / "copy").exists()


def make_special(path, kind, place):
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            here = Path.cwd()
            os.chdir(path.parent)  # the names of sockets are short
            one.bind(path.name)
            os.chdir(here)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        os.mkfifo(place / "pipe")
        path.symlink_to(place / "pipe")


@pytest.mark.parametrize("name", ["adapter_config.json", "2_Dense/adapter_config.json"])
def test_an_adapter_of_another_repository(folder, name):
    (folder / name).write_text('{"base_model_name_or_path": "someone/base", "peft_type": "LORA"}')
    with pytest.raises(UnsafeFileError, match=r"adapter of other weights.*someone/base"):
        vectors(folder)


@pytest.mark.parametrize("place", ["", "2_Dense"])
@pytest.mark.parametrize("suffix", ["bin", "pt", "pkl"])
def test_a_pickle_instead_of_safetensors(folder, monkeypatch, place, suffix):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was read"))
    own = folder / place / "model.safetensors"
    own.rename(own.with_name("other.safetensors"))  # one under another name is not taken
    (folder / place / f"pytorch_model.{suffix}").write_bytes(b"\x80\x04.")
    with pytest.raises(UnsafeFileError, match=r"pytorch_model.*may hold code.*save_pretrained"):
        vectors(folder)


@pytest.mark.parametrize("stored", [torch.int64, torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("place", ["", "2_Dense"])
def test_weights_that_are_no_floating_point_numbers(folder, place, stored):
    """transformers converts them without a word."""
    path = folder / place / "model.safetensors"
    tensors = load_file(path)
    name = next(one for one in tensors if one.endswith("weight"))
    tensors[name] = tensors[name].to(stored)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"the tensor {name} is not stored as the floating-point numbers"):
        vectors(folder)


def test_vectors_of_another_dimension_than_the_settings_say(folder):
    pooling, dense = folder / "1_Pooling" / "config.json", folder / "2_Dense"
    (folder / MODULES).write_text(json.dumps(json.loads((folder / MODULES).read_text())[:2]))
    shutil.rmtree(dense)
    assert vectors(folder).shape == (1, 16)
    change(pooling, word_embedding_dimension=5, embedding_dimension=5)
    shutil.copytree(folder, folder.parent / "other")
    with pytest.raises(CheckpointError, match="it gives vectors of 16 dimensions, where its settings say 5"):
        vectors(folder.parent / "other")


def test_a_pickle_beside_safetensors_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was read"))
    for place in ("", "2_Dense"):
        (folder / place / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert vectors(folder).shape == (1, 8)
    assert not [one for one in copy_weights(str(folder), folder.parent / "copy") if one.suffix == ".bin"]


class TestCopies:
    def test_all_that_a_model_needs_and_its_fingerprint(self, folder, tmp_path):
        before = vectors(folder)
        names = {one.relative_to(tmp_path / "copy").as_posix() for one in copy_weights(str(folder), tmp_path / "copy")}
        assert names >= {"chat_template.jinja", "2_Dense/model.safetensors", "2_Dense/config.json", "tokenizer.json"}
        assert vectors(tmp_path / "copy").tolist() == before.tolist()
        assert fingerprint(str(tmp_path / "copy")) == fingerprint(str(folder))
        (tmp_path / "copy" / "chat_template.jinja").write_text("{{ other }}")
        (tmp_path / "copy").rename(tmp_path / "changed")
        assert fingerprint(str(tmp_path / "changed")) != fingerprint(str(folder))

    def test_weights_in_shards(self, folder, tmp_path):
        before = vectors(folder)
        tensors = list(load_file(folder / "model.safetensors").items())
        (folder / "model.safetensors").unlink()
        where = {}
        for number in (1, 2):
            name, part = f"model-0000{number}-of-00002.safetensors", dict(tensors[number - 1 :: 2])
            save_file(part, folder / name, metadata={"format": "pt"})
            where |= dict.fromkeys(part, name)
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {}, "weight_map": where}))
        copy_weights(str(folder), tmp_path / "copy")
        assert vectors(tmp_path / "copy").tolist() == before.tolist()
        index.write_text(json.dumps({"weight_map": dict.fromkeys(where, "../outside.safetensors")}))
        with pytest.raises(UnsafeFileError, match="no safetensors file beside it"):
            checked_weights(folder)
        index.write_text(json.dumps({"weight_map": dict.fromkeys(where, "lost.safetensors")}))
        with pytest.raises(CheckpointError, match=r"lost\.safetensors is missing"):
            checked_weights(folder)

    def test_a_module_folder_of_any_name(self, folder, tmp_path):
        (folder / "2_Dense").rename(folder / "projection")
        modules = json.loads((folder / MODULES).read_text())
        modules[2]["path"] = "projection"
        (folder / MODULES).write_text(json.dumps(modules))
        before = vectors(folder)
        copy_weights(str(folder), tmp_path / "copy")
        assert vectors(tmp_path / "copy").tolist() == before.tolist()


# Fuzzing: whatever the settings say, nothing is fetched, run or written.
WORDS = st.sampled_from(
    ["owner/name", "http://127.0.0.1:9/x", "evil.Evil", "owner/code--evil.Evil", "/etc/hosts", "../x", "auto", "eager"]
)
KEYS = st.sampled_from(sorted({key for _, key, _ in REFUSED} | {"architectures", "model_type", "vocab_size", "tools"}))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**40) | st.floats(allow_nan=True) | st.text(max_size=6) | WORDS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS | WORDS | st.text(max_size=6), inner, max_size=2),
    max_leaves=5,
)
FILES = st.sampled_from([CONFIG, TOKENIZER, SENTENCE, MODEL, DENSE, "1_Pooling/config.json", "special_tokens_map.json"])


@pytest.fixture(scope="module")
def guarded():
    """A socket or a file of code that is reached for fails the test."""
    patch = pytest.MonkeyPatch()
    reached = []
    real_import = builtins.__import__

    def note(what):
        reached.append(what)
        raise OSError(f"the test holds back {what!r}")

    def guard(name, *rest):
        return note(name) if "evil" in name else real_import(name, *rest)

    real_module = importlib.import_module
    patch.setattr(socket.socket, "connect", lambda _, address: note(address))
    patch.setattr(socket, "getaddrinfo", lambda *about, **_: note(about))
    patch.setattr(builtins, "__import__", guard)
    patch.setattr(
        importlib, "import_module", lambda name, *rest: note(name) if "evil" in name else real_module(name, *rest)
    )
    yield reached
    patch.undo()


ODD = st.sampled_from([None, None, None, "pipe", "link", "NaN", "layer"])


def made_odd(target, file, odd):
    """What a stranger may put among the files beside settings: each ends in an error before it is used."""
    weights = target / "model.safetensors"
    if odd == "pipe":
        (target / file).unlink(missing_ok=True)
        os.mkfifo(target / file)
    elif odd == "link":
        (target / "2_Dense").rename(target / "dense")
        (target / "2_Dense").symlink_to("dense")
    elif odd in ("NaN", "layer"):
        tensors = load_file(weights)
        name = next(one for one in sorted(tensors) if "layer.0" in one)
        one = tensors[name].clone()
        one.view(-1)[0] = float("nan") if odd == "NaN" else 0
        save_file({**tensors, name.replace("layer.0", "layer.0" if odd == "NaN" else "layer.9"): one}, weights)


def fuzzed(sound, guarded, file, changes, odd):
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(shutil.copytree(sound, Path(temporary) / "weights"))
        path = target / file
        before = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**before, **changes}))
        made_odd(target, file, odd)
        held = sorted(Path(temporary).rglob("*"))
        try:
            vectors(target)
            assert odd is None
        except RadioError:
            pass
        finally:
            forget_models()
        assert not guarded
        assert sorted(Path(temporary).rglob("*")) == held


RELAXED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=100, deadline=None, suppress_health_check=RELAXED)
@given(file=FILES, changes=st.dictionaries(KEYS | st.text(max_size=6), VALUES, min_size=1, max_size=2), odd=ODD)
def test_any_settings(sound, guarded, file, changes, odd):
    fuzzed(sound, guarded, file, changes, odd)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, suppress_health_check=RELAXED)
@given(file=FILES, changes=st.dictionaries(KEYS | st.text(max_size=6), VALUES, min_size=1, max_size=3), odd=ODD)
def test_any_settings_at_length(sound, guarded, file, changes, odd):
    fuzzed(sound, guarded, file, changes, odd)
