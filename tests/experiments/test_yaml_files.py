"""Experiment files of strangers: within bounds, no addresses, no files of elsewhere, and never a foreign error."""

import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from radio_dspy.core.errors import RadioError, SettingsError
from radio_dspy.experiments.loading import load_experiment
from radio_dspy.experiments.settings import RowSettings
from radio_dspy.experiments.yaml_files import parse_yaml

HEAD = "name: tiny\ntitle: Tiny\nquestion: Does it run?\n"
ROWS = "rows: [{name: one}]\n"
BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijklmnopqrst", "bcdefghijklmnopqrstu", strict=True)
)


def written(folder, text):
    (folder / "x.yaml").write_text(text, encoding="utf-8")
    return folder / "x.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB + HEAD + ROWS, "more than 20,000 values"),
        (HEAD + ROWS + "seeds: &a [*a]\n", "an alias of what it stands in"),
        (HEAD + "rows: " + "[" * 5000, "deeper than 30 levels"),
        (HEAD + ROWS + "title: Again\n", "key 'title' stands at line 2 already"),
        (HEAD + ROWS + "defaults:\n\ttraining: {}\n", "not YAML"),
        (HEAD + ROWS + "defaults: {training: {num_train_epochs: " + "9" * 5000 + "}}", "cannot be read"),
        (HEAD + ROWS + "seeds: [2026-99-99]", "cannot be read"),
        (HEAD + ROWS + "seeds: !!python/object/apply:os.system [ls]", "not YAML"),
        (
            HEAD + ROWS + "defaults: {training: {num_train_epoch: 1}}",
            "training.num_train_epoch: no such key; .* Did you mean num_train_epochs?",
        ),
        (
            HEAD + ROWS + "defaults: {training: {num_train_epochs: yes}}",
            "num_train_epochs: needs something other than true or false",
        ),
        (HEAD + ROWS + "defaults: {training: {learning_rate: .inf}}", "learning_rate: needs a number below"),
        (HEAD + ROWS + "defaults: {rationale: {seed: 99999999999999999999}}", "seed: needs a number below"),
        (HEAD + ROWS + "defaults: {training: null}", "training: Input should be"),
        ("x: " + "y" * 2_000_000, "larger than"),
        ("", "needs keys with values"),
    ],
    ids=lambda value: value[-40:],
)
def test_files_out_of_bounds(text, message, tmp_path):
    with pytest.raises(SettingsError, match=message) as error:
        load_experiment(written(tmp_path, text))
    assert str(tmp_path / "x.yaml") in str(error.value)
    assert len(str(error.value)) < 800


def test_anchors_and_merge_keys_are_read(tmp_path):
    text = (
        HEAD + "rows:\n- {name: a, with: &a {training: {num_train_epochs: 3}}}\n- name: b\n  with: {<<: *a, cases: 1}\n"
    )
    one, two = load_experiment(written(tmp_path, text)).rows
    assert (one.settings.training.num_train_epochs, two.settings.training.num_train_epochs, two.settings.cases) == (
        3,
        3,
        1,
    )


MODELS = ["first_stage.encoder", "reranker.checkpoint", "reranker.other", "rationale.lm", "teacher.lm", "generator.lm"]


@pytest.mark.parametrize("key", [*MODELS, "teacher.encoder"])
@pytest.mark.parametrize(
    "value",
    [
        "huggingface/http://evil.example/x",
        "HTTPS://evil.example",
        "openai//evil",
        "\\\\evil\\share",
        "ws://e",
        "a/10.0.0.1:80/v1",
    ],
)
def test_an_address_is_refused_unless_the_user_gives_it(key, value, tmp_path):
    part, name = key.split(".")
    row = {"name": "one", "with": {part: {name: value}}}
    for content in ({"rows": [row]}, {"rows": [{"name": "one"}], "defaults": {part: {name: value}}}):
        with pytest.raises(SettingsError, match=rf"{key}: .* names an address"):
            load_experiment(written(tmp_path, HEAD + yaml.safe_dump(content)))
    path = written(tmp_path, HEAD + ROWS)
    found = load_experiment(path, [f"{key}={json.dumps(value)}"]).rows[0].settings
    assert getattr(getattr(found, part), name) == value


@pytest.mark.parametrize("key", MODELS)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("vllm/owner/x", "runs what a repository holds"),  # LiteLLM would load the weights in this process
        ("petals/owner/x", "runs what a repository holds"),
        ("PETALS/x", "runs what a repository holds"),
        ("owner/a b", "no plain name"),
        ("/srv/weights", "outside the data's folder"),
        ("C:\\weights", "outside the data's folder"),
        ("../weights", "outside the data's folder"),
        ("models/../../weights", "outside the data's folder"),
    ],
)
def test_a_model_by_a_plain_name_alone_unless_the_user_gives_it(key, value, said, tmp_path):
    part, name = key.split(".")
    row = {"name": "one", "with": {part: {name: value}}}
    with pytest.raises(SettingsError, match=rf"{key}: .*{said}.*--set {key}="):
        load_experiment(written(tmp_path, HEAD + yaml.safe_dump({"rows": [row]})))
    found = load_experiment(written(tmp_path, HEAD + ROWS), [f"{key}={json.dumps(value)}"]).rows[0].settings
    assert getattr(getattr(found, part), name) == value


@pytest.mark.parametrize(
    "value",
    ["openai/gpt-4o-mini", "ollama/llama3:70b", "BAAI/bge-m3", "local", "vertex_ai/claude-3@2024", "bedrock/a.b-v2:1"],
)
def test_names_of_models_are_taken(value, tmp_path):
    text = HEAD + yaml.safe_dump({"rows": [{"name": "one", "with": {"generator": {"lm": value}}}]})
    assert load_experiment(written(tmp_path, text)).rows[0].settings.generator.lm == value


@pytest.mark.parametrize(
    "value", ["/etc/passwd", "../mine.jsonl", "a/../../b", "C:\\mine", "\\\\host\\share", "a\\..\\..\\b"]
)
@pytest.mark.parametrize("key", ["corpus", "train", "test", "test_corpus"])
def test_files_stay_below_the_data_folder(key, value, tmp_path):
    row = {"name": "one", "with": {"data": {"train": "q.jsonl", key: value}}}
    with pytest.raises(SettingsError, match=rf"data\.{key}: .* outside the data's folder"):
        load_experiment(written(tmp_path, HEAD + yaml.safe_dump({"rows": [row]})))
    for own, refusal in (
        ({"rationale": {"file": value}}, r"rationale\.file: .* outside the data's folder"),
        ({"data": {"root": "/"}}, r"data\.root: .* names no folder"),
        ({"generator": {"lm": "../x.gguf"}}, r"generator\.lm: .* outside the data's folder"),
    ):
        with pytest.raises(SettingsError, match=refusal):
            load_experiment(written(tmp_path, HEAD + yaml.safe_dump({"rows": [{"name": "one", "with": own}]})))
    found = load_experiment(written(tmp_path, HEAD + ROWS), ["data.train=q.jsonl", f"data.{key}={json.dumps(value)}"])
    assert getattr(found.rows[0].settings.data, key) == value


KEYS = sorted(
    {
        *RowSettings.model_fields,
        *["num_train_epochs", "epochs", "sampling", "guards", "lm", "encoder", "checkpoint", "root", "name", "rows"],
    }
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.text(max_size=8),
    st.sampled_from(["local", "http://evil.example", "../x", "/evil", "vllm/evil/x", "demo", "1e-3"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | LEAVES, inner, max_size=3),
    max_leaves=8,
)


def try_files(folder, count, connections):
    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))
    @given(VALUES, VALUES, st.booleans())
    def each(defaults, own, cut):
        content = {
            "name": "tiny",
            "title": "T",
            "question": "Q?",
            "defaults": defaults,
            "rows": [{"name": "a", "with": own}],
        }
        text = yaml.dump(content, allow_unicode=True)
        try:
            found = load_experiment(written(folder, text[: len(text) * 2 // 3] if cut else text))
        except RadioError:
            return
        told = json.dumps(found.rows[0].settings.decisive())
        assert "evil" not in told
        assert ".." not in told

    each()
    assert not connections


@pytest.fixture
def connections(monkeypatch):
    import socket

    found = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: found.append(address))
    return found


def test_fuzzed_files(tmp_path, connections):
    try_files(tmp_path, 100, connections)


@pytest.mark.slow
def test_many_fuzzed_files(tmp_path, connections):
    try_files(tmp_path, 2000, connections)


@pytest.mark.parametrize("number", ["010", "-07", "1:30"])
def test_a_number_that_yaml_reads_otherwise_is_refused(number):
    with pytest.raises(SettingsError, match=f"YAML reads {number} in base 8 or 60"):
        parse_yaml(f"epochs: [1, {number}]", "")
    assert parse_yaml(f"name: '{number}'", "") == {"name": number}


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("10", 10), ("1_000", 1000), ("0.5", 0.5), ("0x10", 16)])
def test_other_numbers_are_read(text, number):
    assert parse_yaml(text, "") == number
