import functools
import json
import re
from pathlib import Path

import dspy
import pytest
from radio_dspy.optimizers import GroupFinetune
from radio_dspy.programs import RetrieveRerankAnswer
from typer.testing import CliRunner

import radio_dspy as radio
from radio_dspy.cli.app import app
from radio_dspy.core.errors import DataError, MissingExtraError, SettingsError
from radio_dspy.distillation import TrainingSettings
from radio_dspy.models.bi_encoder import COSINE_TEMPERATURE
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.encoder import Encoder, quiet_loading
from radio_dspy.models.files import fingerprint
from radio_dspy.persistence import onnx as onnx_export
from radio_dspy.persistence.export import export
from radio_dspy.reporting.report import CHOSEN_ON
from radio_dspy.rerankers import Rerank
from tests.conftest import ENCODER
from tests.settings import radio_of

QUERY = "why did the dough not rise?"
TEXTS = ["Yeast dies in hot water.", "Ice floats.", "The dough lay in a bowl, and then it lay there. " * 8]
PAIRS = [(QUERY, text) for text in TEXTS]


@pytest.fixture(scope="session")
def groups(topic):
    """Each question's labelled passages, against two others."""
    contents = {one.id: one.contents for one in topic.passages}
    others = [one.contents for one in topic.passages[:2]]
    rows = (
        {"query": one.question, "pos": [contents[key] for key in one.relevant], "neg": others} for one in topic.train
    )
    return radio.load_groups(rows)


@pytest.fixture(scope="session")
def train(groups, tmp_path_factory):
    """Gives rerankers whose weights differ from their base's, whatever they are worth; the same one is trained once."""

    @functools.cache
    def trained(name, query_prefix, passage_prefix, max_length, tower):
        encoder = Encoder(name, query_prefix=query_prefix, passage_prefix=passage_prefix, max_length=max_length)
        settings = TrainingSettings(num_train_epochs=1, learning_rate=1e-3, max_length=32, tower=tower)
        optimizer = GroupFinetune(settings, gate=False, run_dir=tmp_path_factory.mktemp("trained"))
        return optimizer.compile(Rerank(encoder, "bi-encoder"), trainset=groups[:6], valset=groups[6:8])

    def of(encoder, tower="both"):
        return trained(encoder.name, encoder.query_prefix, encoder.passage_prefix, encoder.max_length, tower)

    return of


def ours(rerank) -> list[float]:
    ranked = rerank(QUERY, TEXTS)
    return [ranked.scores[ranked.indices.index(position)] for position in range(len(TEXTS))]


def similarities(model) -> list[float]:
    return model.similarity(model.encode_query([QUERY]), model.encode_document(TEXTS))[0].tolist()


def run_readme(folder, monkeypatch) -> dict:
    """The variables after the card's own lines, run where the folder lies."""
    monkeypatch.chdir(folder.parent)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict = {}
    exec(code, names)
    return names


@pytest.mark.parametrize("base", ["tiny", "small"])
def test_sentence_transformers_scores_with_a_cross_encoder_as_we_do(base, request, tmp_path, monkeypatch):
    from sentence_transformers import CrossEncoder

    base = request.getfixturevalue(base)
    rerank = Rerank(base if isinstance(base, str) else base.name, "cross-encoder", max_length=24, new_head=True)
    out = export(rerank, tmp_path / "out")
    model = CrossEncoder(str(out), device="cpu")
    assert model.predict(PAIRS).tolist() == pytest.approx(ours(rerank), abs=1e-5)
    assert [one["score"] for one in model.rank(QUERY, TEXTS)] == pytest.approx(rerank(QUERY, TEXTS).scores, abs=1e-5)
    assert model.max_seq_length == 24
    assert run_readme(out, monkeypatch)["scores"].shape == (2,)


def test_sentence_transformers_scores_with_a_bi_encoder_as_we_do(small, train, tmp_path, monkeypatch):
    from sentence_transformers import SentenceTransformer

    told = Encoder(small.name, query_prefix="query: ", passage_prefix="passage: ", max_length=24)
    rerank = train(told)
    out = export(rerank, tmp_path / "out", "sentence-transformers")
    model = SentenceTransformer(str(out), device="cpu")
    assert similarities(model) == pytest.approx(ours(rerank), abs=1e-5)
    assert ours(rerank) != pytest.approx(ours(Rerank(told, "bi-encoder")), abs=1e-3)  # it is the trained one
    assert model.prompts["query"] == "query: "
    assert run_readme(out, monkeypatch)["scores"].shape == (1, 2)


def test_a_query_side_of_its_own_becomes_one_model_with_two_routes(small, train, tmp_path, monkeypatch):
    from sentence_transformers import SentenceTransformer

    rerank = train(small, tower="query")
    out = export(rerank, tmp_path / "out")
    model = SentenceTransformer(str(out), device="cpu")
    assert similarities(model) == pytest.approx(ours(rerank), abs=1e-5)
    assert model.encode_document(TEXTS) == pytest.approx(small.encode_passages(TEXTS), abs=1e-5)
    assert model.encode_query([QUERY])[0] != pytest.approx(small.encode_queries([QUERY])[0], abs=1e-3)
    run_readme(out, monkeypatch)


def test_two_routes_are_read_back_saved_and_trained_on(index, small, train, tmp_path):
    rerank = train(small, tower="query")
    out = export(rerank, tmp_path / "out")
    back = Rerank(str(out), "bi-encoder")
    assert ours(back) == pytest.approx(ours(rerank), abs=1e-5)
    assert fingerprint(str(out)) != fingerprint(str(export(Rerank(small, "bi-encoder"), tmp_path / "other")))
    saved = radio.save(RetrieveRerankAnswer(index, back), tmp_path / "saved")
    assert ours(radio.load(saved, retriever=index).rerank) == pytest.approx(ours(rerank), abs=1e-5)
    again = train(Encoder(str(out)))
    assert ours(again) != pytest.approx(ours(back), abs=1e-3)
    logits = open_scorer(again.weights).logits(PAIRS).detach() * COSINE_TEMPERATURE
    assert logits.tolist() == pytest.approx(ours(again), abs=1e-5)


def test_prefixes_go_to_their_own_route(small, train, tmp_path):
    from sentence_transformers import SentenceTransformer

    told = Encoder(small.name, query_prefix="query: ", passage_prefix="passage: ")
    rerank = train(told, tower="query")
    model = SentenceTransformer(str(export(rerank, tmp_path / "out")), device="cpu")
    assert similarities(model) == pytest.approx(ours(rerank), abs=1e-5)


@pytest.mark.parametrize("base", ["tiny", "small"])
def test_transformers_alone_scores_with_a_cross_encoder_as_we_do(base, request, tmp_path):
    """``FlagReranker`` loads its model so."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = request.getfixturevalue(base)
    rerank = Rerank(base if isinstance(base, str) else base.name, "cross-encoder", max_length=40, new_head=True)
    out = export(rerank, tmp_path / "out", "flagembedding")
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForSequenceClassification.from_pretrained(out)
    inputs = tokenizer(PAIRS, padding=True, truncation=True, return_tensors="pt")
    assert inputs["input_ids"].shape[1] == 40
    assert model(**inputs).logits.view(-1).tolist() == pytest.approx(ours(rerank), abs=1e-5)
    assert not (out / "modules.json").exists()
    assert f'FlagReranker("out", max_length={40}' in (out / "README.md").read_text()


def test_transformers_alone_scores_with_a_bi_encoder_as_we_do(small, train, tmp_path):
    """``FlagModel`` loads its model so and pools as the card says."""
    told = Encoder(small.name, query_prefix="query: ")
    shared = train(told)
    out = export(shared, tmp_path / "shared", "flagembedding")
    queries, passages = pooled(out, ["query: " + QUERY]), pooled(out, TEXTS)
    assert (passages @ queries[0]).tolist() == pytest.approx(ours(shared), abs=1e-5)
    card = (out / "README.md").read_text()
    assert 'FlagModel("shared", pooling_method="mean"' in card
    assert "query: a query" in card

    parted = train(told, tower="query")
    out = export(parted, tmp_path / "parted", "flagembedding")
    queries, passages = pooled(out / "query-encoder", ["query: " + QUERY]), pooled(out / "passage-encoder", TEXTS)
    assert (passages @ queries[0]).tolist() == pytest.approx(ours(parted), abs=1e-5)
    assert 'passage_encoder = FlagModel("parted/passage-encoder"' in (out / "README.md").read_text()


@pytest.mark.slow
def test_flagembedding_itself_scores_as_we_do(tiny, small, train, tmp_path):
    flag = pytest.importorskip("FlagEmbedding", reason="FlagEmbedding is a peer: benchmarks/requirements.txt has it")
    out = export(Rerank(tiny, max_length=40), tmp_path / "cross", "flagembedding")
    reranker = flag.FlagReranker(str(out), max_length=40, use_fp16=False, devices="cpu")
    assert reranker.compute_score(PAIRS) == pytest.approx(ours(Rerank(tiny, max_length=40)), abs=1e-5)

    shared = train(Encoder(small.name, query_prefix="query: "))
    out = export(shared, tmp_path / "bi", "flagembedding")
    model = flag.FlagModel(str(out), pooling_method="mean", use_fp16=False, devices="cpu")
    queries, passages = model.encode(["query: " + QUERY]), model.encode(TEXTS)
    assert (passages @ queries[0]).tolist() == pytest.approx(ours(shared), abs=1e-5)


def pooled(folder, texts):
    import torch
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1)
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).numpy()


@pytest.fixture(scope="module")
def compiled(index, small, topic, tmp_path_factory):
    """A program that RADIO has aligned, and its report."""
    program = RetrieveRerankAnswer(index, Rerank(small, "bi-encoder"), candidates=10)
    folder = tmp_path_factory.mktemp("compiled") / "run"
    optimizer = radio_of(epochs=1, max_length=32, candidates=10, gate=False, run_dir=folder)
    aligned = optimizer.compile(program, trainset=topic.train[:4], valset=topic.test[:2])
    return aligned, optimizer.report


def test_a_runs_groups_go_along_with_their_texts(compiled, topic, tmp_path):
    aligned, report = compiled
    kept = Path(report.run_dir) / "groups.jsonl"
    out = export(aligned, tmp_path / "out", "flagembedding", groups=kept)
    lines = [json.loads(line) for line in (out / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    first = json.loads(kept.read_text(encoding="utf-8").splitlines()[0])
    contents = {one.id: one.contents for one in topic.passages}
    assert len(lines) == report.groups
    assert lines[0]["query"] == first["query"]
    assert lines[0]["pos"] == [contents[first["positive"]]]
    assert lines[0]["neg"] == [contents[one] for one in first["negatives"]]
    assert [*lines[0]["pos_scores"], *lines[0]["neg_scores"]] == first["scores"]
    again = export(aligned, tmp_path / "again", "flagembedding", groups=radio.load_groups(out / "train.jsonl"))
    assert (again / "train.jsonl").read_bytes() == (out / "train.jsonl").read_bytes()
    with pytest.raises(DataError, match="the corpus"):
        export(aligned.rerank, tmp_path / "no-corpus", "flagembedding", groups=kept)


def test_the_card_says_what_trained_it_and_no_file_names_a_place(compiled, small, tmp_path):
    aligned, report = compiled
    out = export(aligned, tmp_path / "out")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "base_model" not in card.split("---")[1]  # a folder of ours, nothing that the hub knows
    assert f"A bi-encoder reranker from `{small.name.rpartition('/')[2]}`" in card
    assert "on 4 questions, 4 preference groups" in card
    assert "Loss infonce" in card
    for row in ("base reranker", "aligned reranker"):
        assert f"| {row} | " in card
    assert CHOSEN_ON not in card  # there was no gate
    texts = [one.read_text(encoding="utf-8") for one in out.rglob("*") if one.suffix in (".json", ".md")]
    places = (str(tmp_path), str(report.run_dir), "site-packages")
    assert not any(place in text for text in texts for place in places)
    untrained = (export(Rerank(ENCODER, "bi-encoder"), tmp_path / "base") / "README.md").read_text(encoding="utf-8")
    assert "No training is on record" in untrained
    assert "base_model: sentence-transformers/all-MiniLM-L6-v2" in untrained


def test_a_saved_folder_is_exported_without_a_retriever(index, small, train, tmp_path):
    from sentence_transformers import SentenceTransformer

    rerank = train(small, tower="query")
    program = RetrieveRerankAnswer(index, rerank)
    saved = radio.save(program, tmp_path / "saved")
    out = export(saved, tmp_path / "out", reranker="rerank")
    assert similarities(SentenceTransformer(str(out), device="cpu")) == pytest.approx(ours(rerank), abs=1e-5)


def test_the_command_line_exports_with_the_groups_of_a_run(index, small, topic, tmp_path):
    saved = radio.save(RetrieveRerankAnswer(index, Rerank(small, "bi-encoder")), tmp_path / "saved")
    corpus, groups = tmp_path / "corpus.jsonl", tmp_path / "groups.jsonl"
    corpus.write_text("\n".join(json.dumps({"id": one.id, "contents": one.contents}) for one in topic.passages))
    first, second = topic.passages[:2]
    groups.write_text(json.dumps({"id": "q", "query": "why?", "positive": first.id, "negatives": [second.id]}))
    arguments = ["export", saved, "--out", tmp_path / "out", "--format", "flagembedding", "--groups", groups]
    refused = CliRunner().invoke(app, [*map(str, arguments)])
    assert refused.exit_code == 1
    assert "whose text is not in the file" in refused.output
    done = CliRunner().invoke(app, [*map(str, [*arguments, "--corpus", corpus, "--json", tmp_path / "said.json"])])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "said.json").read_text())["groups"] == 1
    line = json.loads((tmp_path / "out" / "train.jsonl").read_text(encoding="utf-8"))
    assert line == {"query": "why?", "pos": [first.contents], "neg": [second.contents]}


class Two(dspy.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second


def test_which_of_several_rerankers(small, tiny, tmp_path):
    program = Two(Rerank(small, "bi-encoder"), Rerank(tiny))
    with pytest.raises(SettingsError, match="give reranker= one of 'first', 'second'"):
        export(program, tmp_path / "out")
    with pytest.raises(SettingsError, match="no reranker 'third'; it holds 'first', 'second'"):
        export(program, tmp_path / "out", reranker="third")
    out = export(program, tmp_path / "out", reranker="second")
    assert "cross-encoder reranker" in (out / "README.md").read_text()
    same = Two(Rerank(small, "bi-encoder"), Rerank(small, "bi-encoder"))
    assert export(same, tmp_path / "same").is_dir()  # either would do


def test_what_cannot_be_exported_leaves_nothing_behind(small, tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    with quiet_loading():
        model = SentenceTransformer(small.name, device="cpu")
        odd = SentenceTransformer(modules=[model[0], Pooling(384, pooling_mode="max")], device="cpu")
        odd.save_pretrained(str(tmp_path / "odd"), create_model_card=False)
    rerank = Rerank(str(tmp_path / "odd"), "bi-encoder")
    (tmp_path / "out").mkdir()
    with pytest.raises(SettingsError, match="FlagModel pools by cls or mean over all tokens, this model by 'max'"):
        export(rerank, tmp_path / "out" / "made", "flagembedding")
    assert not list((tmp_path / "out").iterdir())
    assert similarities(SentenceTransformer(str(export(rerank, tmp_path / "out")), device="cpu")) == pytest.approx(
        ours(rerank), abs=1e-5
    )
    with pytest.raises(SettingsError, match="exports do not overwrite"):
        export(rerank, tmp_path / "out")
    with pytest.raises(SettingsError, match="format must be one of"):
        export(rerank, tmp_path / "new", "gguf")
    with pytest.raises(SettingsError, match="do not go with format='sentence-transformers'"):
        export(rerank, tmp_path / "new", groups=[])
    with pytest.raises(SettingsError, match="no trainable reranker"):
        export(dspy.Predict("question -> answer"), tmp_path / "new")


def test_onnx_without_its_packages_says_what_to_install(small, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'radio-dspy[onnx]'")):
        export(Rerank(small, "bi-encoder"), tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("base", ["tiny", "small"])
def test_onnx_scores_with_a_cross_encoder_as_we_do(base, request, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    from transformers import AutoTokenizer

    base = request.getfixturevalue(base)
    rerank = Rerank(base if isinstance(base, str) else base.name, "cross-encoder", max_length=40, new_head=True)
    out = export(rerank, tmp_path / "out", "onnx")
    inputs = AutoTokenizer.from_pretrained(out)(PAIRS, padding=True, truncation=True, return_tensors="np")
    (scores,) = onnxruntime.InferenceSession(out / "model.onnx").run(["scores"], dict(inputs))
    assert scores.tolist() == pytest.approx(ours(rerank), abs=1e-4)
    assert run_readme(out, monkeypatch)["scores"].shape == (2,)


@pytest.mark.slow
def test_onnx_scores_with_a_bi_encoder_as_we_do(small, train, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    told = Encoder(small.name, query_prefix="query: ")
    rerank = train(told, tower="query")
    out = export(rerank, tmp_path / "out", "onnx")
    encode = run_readme(out, monkeypatch)["encode"]
    queries, passages = encode("out/query-encoder", ["query: " + QUERY]), encode("out/passage-encoder", TEXTS)
    assert (passages @ queries[0]).tolist() == pytest.approx(ours(rerank), abs=1e-4)
