"""Rows are run once, kept at once, and judged as the library judges."""

import json
from types import SimpleNamespace

import pytest

from radio_dspy.core.errors import RadioError, SettingsError
from radio_dspy.distillation import train_and_gate
from radio_dspy.distillation.teacher import lm_signals
from radio_dspy.experiments import runner
from radio_dspy.experiments.loading import load_experiment
from radio_dspy.experiments.materials import Materials
from radio_dspy.experiments.records import FORMAT_VERSION, is_done, read_record, write_record
from radio_dspy.experiments.runner import run_experiment
from radio_dspy.runs.folders import is_run
from radio_dspy.runs.run import Run
from tests.conftest import ROOT, scripted

PAPER = sorted((ROOT / "examples" / "experiments" / "paper").glob("*.yaml"))


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))


def asked(example, **further):
    metadata = {"supporting_ids": example.relevant, "why": f"Because of {example.answer}."}
    return {
        "id": example.id,
        "question": example.question,
        "golden_answers": example.answers,
        "metadata": metadata,
        **further,
    }


@pytest.fixture(scope="module")
def data(topic, tmp_path_factory):
    """One topic as files."""
    folder = tmp_path_factory.mktemp("data")
    write(folder / "corpus.jsonl", [{"id": one.id, "contents": one.contents} for one in topic.passages])
    write(folder / "train.jsonl", [asked(one) for one in topic.train])
    write(folder / "dev.jsonl", [asked(one) for one in topic.test])
    return folder


@pytest.fixture
def load(tmp_path, data, small):
    """An experiment on these files with the small encoder."""

    def make(rows, *sets, files=True):
        defaults = {
            "data": {"corpus": "corpus.jsonl", "train": "train.jsonl", "test": "dev.jsonl", "train_questions": 8},
            "first_stage": {"candidates": 8},
            "preferences": {"candidates": 10},
            "teacher": {"signals": {"answer": 0.5, "retrieval": 0.5}},
            "training": {"num_train_epochs": 1, "max_length": 32, "per_device_train_batch_size": 4},
        }
        content = {"name": "tiny", "title": "Tiny", "question": "Does it run?", "defaults": defaults, "rows": rows}
        (tmp_path / "tiny.yaml").write_text(json.dumps(content))  # JSON is YAML
        own = [f"first_stage.encoder={small.name}", f"reranker.checkpoint={small.name}"]  # a file names no folder
        return load_experiment(tmp_path / "tiny.yaml", [*own, *sets], data)

    return make


def run(experiment, folder, **options):
    said = []
    paths = run_experiment(experiment, folder / "out", show_progress=False, on_row=said.append, **options)
    return paths, said


def test_a_row_is_trained_judged_and_kept(load, tmp_path, data):
    (path,), said = run(load([{"name": "w = 0.5", "with": {"cases": 2}}]), tmp_path)
    assert path == tmp_path / "out" / "records" / "tiny" / "w-0.5-1.json"
    record = read_record(path)
    assert record["settings"]["training"]["epochs"] == 1
    assert set(record["data"]) == {"corpus.jsonl", "train.jsonl", "dev.jsonl"}
    assert record["questions"] == {"train": 8, "test": 10, "judged": 10}
    assert record["relevance"] == "labels"
    mean, low, high = record["metrics"]["result"]["ndcg@10"]
    assert low <= mean <= high
    gain = record["gains"]["base"]["ndcg@10"]
    assert gain["mean"] == pytest.approx(mean - record["metrics"]["base"]["ndcg@10"][0], abs=1e-4)
    assert gain["mean"] == pytest.approx(sum(record["changes"]["ndcg@10"]) / 10, abs=1e-4)
    assert record["training"]["updates"] == 2
    assert record["teacher"]["questions"] == 8
    assert record["versions"]["radio-dspy"]
    assert {"helped", "hurt", "traits"} == set(record["cases"])
    assert str(tmp_path) not in path.read_text()
    assert str(data) not in path.read_text()
    assert said == [f"w = 0.5, seed 1: {gain['mean']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f}) ndcg@10 "
                    f"in {record['seconds']:.0f} s"]  # fmt: skip
    assert list((tmp_path / "out").glob("trainings/*")) == []  # a checkpoint that no other row needs


def test_a_second_start_goes_on(load, tmp_path, monkeypatch):
    rows = [{"name": "base", "with": {"method": "base"}}, {"name": "first", "with": {"method": "first-stage"}}]
    experiment = load(rows)
    ran = []
    inner = runner._run_row

    def stopped(experiment, row, *args):
        if ran:
            raise KeyboardInterrupt
        ran.append(row.name)
        return inner(experiment, row, *args)

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_run_row", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(experiment, tmp_path)
    paths, said = run(experiment, tmp_path)
    assert [path.name for path in paths] == ["base-1.json", "first-1.json"]
    assert said[0] == "base, seed 1: there already"
    assert said[1].startswith("first, seed 1: ")
    assert run(experiment, tmp_path)[1] == ["base, seed 1: there already", "first, seed 1: there already"]


def test_a_record_of_other_settings_or_data_is_never_taken(load, tmp_path, data):
    rows = [{"name": "base", "with": {"method": "base"}}]
    run(load(rows), tmp_path)
    with pytest.raises(SettingsError, match=r"first_stage\.candidates was 8 and is 6"):
        run(load(rows, "first_stage.candidates=6"), tmp_path)
    record = tmp_path / "out" / "records" / "tiny" / "base-1.json"
    record.write_text(record.read_text().replace('"dev.jsonl": "', '"dev.jsonl": "0'))
    with pytest.raises(SettingsError, match=r"other data: dev\.jsonl was '0"):
        run(load(rows), tmp_path)


def test_a_row_that_cannot_run_does_not_cost_the_others(load, tmp_path):
    rows = [
        {"name": "larger", "with": {"rationale": {"lm": "larger.gguf"}, "teacher": {"signals": {"rationale": 1}}}},
        {"name": "base", "with": {"method": "base"}},
    ]
    said = []
    with pytest.raises(RadioError, match="tiny: 1 of 2 runs ended with an error: larger, seed 1"):
        run_experiment(load(rows), tmp_path / "out", show_progress=False, on_row=said.append)
    assert said[0].startswith("larger, seed 1: not run: larger.gguf: no such file below ")
    assert [path.name for path in (tmp_path / "out" / "records" / "tiny").iterdir()] == ["base-1.json"]


def test_a_record_outlives_the_lm_that_it_was_made_with(tmp_path):
    record = {"format": FORMAT_VERSION, "experiment": "tiny", "row": "one", "seed": 1, "metrics": {}, "settings": {}}
    write_record(tmp_path / "one.json", {**record, "data": {"a": "1", "b.gguf": "2"}})
    assert is_done(tmp_path / "one.json", {}, {"a": "1"})
    with pytest.raises(SettingsError, match=r"other data: b\.gguf was '2' and is '3'"):
        is_done(tmp_path / "one.json", {}, {"a": "1", "b.gguf": "3"})
    with pytest.raises(SettingsError, match=r"other data: a was '1' and is None"):
        is_done(tmp_path / "one.json", {}, {"c": "1"})


def test_what_it_is_held_against(load, tmp_path):
    rows = [
        {"name": one, "with": {"method": one, "metrics": ["recall@5", "ndcg@3"]}}
        for one in ("first-stage", "base", "bm25", "rrf")
    ]
    paths, _ = run(load(rows), tmp_path)
    first, base, words, fused = (read_record(path)["metrics"]["result"] for path in paths)
    assert first == read_record(paths[0])["metrics"]["first_stage"]
    assert base == read_record(paths[0])["metrics"]["base"]
    assert set(words) == {"recall@5", "ndcg@3"}
    assert words["recall@5"][0] > 0
    assert fused != words


def test_rows_that_share_a_training_are_trained_once(load, tmp_path, monkeypatch):
    rows = [{"name": "a"}, {"name": "b", "with": {"metrics": ["mrr"]}}]
    paths, _ = run(load(rows), tmp_path)
    first, second = map(read_record, paths)
    assert "reused_training" not in first
    assert second["reused_training"] is True
    assert first["metrics"]["result"]["mrr"] == second["metrics"]["result"]["mrr"]
    assert first["groups"] == second["groups"]
    assert list((tmp_path / "out").glob("trainings/*")) == []


def test_rationales_and_answers_come_from_lms_and_are_counted(load, tmp_path, monkeypatch):
    lm = scripted(rationale="Yeast dies in hot water.", answer="yeast")
    monkeypatch.setattr(Materials, "lm", lambda self, name, data, **options: lm if name == "local" else None)
    rationale = {
        "rationale": {"lm": "local", "check": False},
        "preferences": {"false_negatives": None},
        "teacher": {"signals": {"rationale": 0.5, "retrieval": 0.5}},
    }
    answered = {"generator": {"lm": "local", "questions": 3}, "data": {"shuffle_test": True}}
    paths, _ = run(load([{"name": "both", "with": {**rationale, **answered}}], "seeds=[1, 2]"), tmp_path)
    first, second = map(read_record, paths)
    assert (first["rationales"]["written"], first["rationales"]["reused"]) == (8, 0)
    assert (second["rationales"]["written"], second["rationales"]["reused"]) == (0, 8)  # bought once for all seeds
    assert first["lm_calls"]["rationales"]["calls"] == 8
    assert "rationales" not in second["lm_calls"]
    assert len(first["answer_changes"]["exact_match"]) == 3
    assert set(first["answers"]) == {"first_stage", "base", "result"}


def test_an_lm_is_given_no_passages_the_labelled_ones_and_the_teachers(load, tmp_path, monkeypatch, topic):
    """The likelihood of the answer is that of the share of labelled passages among those that were read."""
    labels = {one.question: set(one.relevant) for one in topic.test}

    def share(lm, question, passages, answers):
        return sum(one.id in labels[question] for one in passages) / max(1, len(passages)) - 1

    lm = scripted(answer="yeast")
    monkeypatch.setattr(lm_signals, "best_logprob", share)
    monkeypatch.setattr(Materials, "lm", lambda self, name, data, **options: lm if name == "local" else None)
    generator = {"lm": "local", "questions": 0, "likelihood": 5, "k": 2}
    teacher = {"signals": {"labels": 1}, "depth": 8, "compared_with": "likelihood"}
    rows = [
        {"name": "none", "with": {"method": "no-passages", "cases": 1}},
        {"name": "labelled", "with": {"method": "labelled-passages"}},
        {"name": "teacher", "with": {"method": "teacher", "teacher": teacher}},
    ]
    experiment = load([{**row, "with": {**row["with"], "generator": generator}} for row in rows])
    none, labelled, taught = (read_record(path) for path in run(experiment, tmp_path)[0])
    assert (none["gains"], set(none["metrics"])) == ({}, {"first_stage", "base"})
    assert none["answers"]["result"] == {"answer_likelihood": [-1.0] * 3}
    assert labelled["metrics"]["result"]["ndcg@10"][0] == 1
    assert labelled["answers"]["result"]["answer_likelihood"] == [0.0] * 3
    assert len(labelled["answer_changes"]["answer_likelihood"]) == 5
    assert labelled["answer_changes"]["exact_match"] == []
    told = taught["agreement"]
    assert told["rank_correlation"] == [1.0] * 3
    assert told["of_the_first"] == told["of_the_best"]
    assert len(told["each"]) == 10


def test_rationales_of_a_file_and_of_the_metadata(load, tmp_path, data, topic):
    write(data / "reasons.jsonl", [{"id": one.id, "rationale": f"{one.answer} did."} for one in topic.train])
    teacher = {"teacher": {"signals": {"rationale": 1}}}
    rows = [
        {"name": "file", "with": {**teacher, "rationale": {"file": "reasons.jsonl"}}},
        {"name": "field", "with": {**teacher, "rationale": {"field": "why"}}},
    ]
    paths, _ = run(load(rows), tmp_path)
    assert [read_record(path)["rationales"]["given"] for path in paths] == [8, 8]
    assert "reasons.jsonl" in read_record(paths[0])["data"]
    said = []
    none = load([{"name": "none", "with": {**teacher, "rationale": {"field": "nothing"}}}])
    with pytest.raises(RadioError, match="1 of 1 runs ended with an error: none, seed 1"):
        run_experiment(none, tmp_path / "out", show_progress=False, on_row=said.append)
    assert "rationale.field: no question's metadata has a text 'nothing'" in said[0]


def test_the_gate_judges_by_questions_of_its_own(load, tmp_path, monkeypatch):
    judged, decide = [], train_and_gate.pass_gate
    monkeypatch.setattr(train_and_gate, "pass_gate", lambda *a, **given: judged.append(a[3]) or decide(*a, **given))
    rows = [
        {"name": by, "with": {"gate": {"by": by, "questions": 10}, "data": {"train_questions": 8}}}
        for by in ("labels", "teacher")
    ]
    paths, _ = run(load(rows), tmp_path)
    assert judged == ["nDCG@10 against labels", "nDCG@10 against the teacher"]
    assert all("on 10 held-out questions" in read_record(path)["gate"]["sentence"] for path in paths)


def test_a_reranker_of_one_corpus_is_used_on_another(load, tmp_path, data, topic):
    write(data / "half.jsonl", [{"id": one.id, "contents": one.contents} for one in topic.passages[::-1]])
    paths, _ = run(load([{"name": "moved", "with": {"data": {"test_corpus": "half.jsonl"}}}]), tmp_path)
    assert "half.jsonl" in read_record(paths[0])["data"]
    assert len(list((tmp_path / "out" / "indexes").iterdir())) == 2


def test_without_test_questions_one_half_is_kept_for_it(load, tmp_path):
    paths, _ = run(load([{"name": "base", "with": {"method": "base", "data": {"test": None}}}]), tmp_path)
    counts = read_record(paths[0])["questions"]
    assert 0 < counts["test"] < 20


@pytest.mark.slow
def test_sentence_transformers_own_trainer(load, tmp_path, data, topic):
    answers = [{**asked(one), "golden_answers": [" ".join(_gold(topic, one).split()[:3])]} for one in topic.train]
    write(data / "contained.jsonl", answers)
    rows = [{"name": "usual", "with": {"method": "answer-passages", "data": {"train": "contained.jsonl"}}}]
    paths, _ = run(load(rows), tmp_path)
    assert read_record(paths[0])["training"]["groups"] > 0


def _gold(topic, example):
    return next(one.text for one in topic.passages if one.id in example.relevant)


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_the_papers_settings_start(path, tmp_path, data, topic, small):
    """With small models and a handful of questions in the places of the paper's."""
    choice = {"choices": ["yes", "no"], "golden_answers": ["A"]} if path.stem == "mmlu" else {}
    own = load_experiment(path).rows[0].settings.data
    write(tmp_path / own.corpus, [{"id": one.id, "contents": one.contents} for one in topic.passages])
    write(tmp_path / own.train, [asked(one, **choice) for one in topic.train[:6]])
    write(tmp_path / own.test, [asked(one, **choice) for one in topic.test[:4]])
    sets = [f"first_stage.encoder={small.name}", f"reranker.checkpoint={small.name}", f"teacher.encoder={small.name}"]
    sets += ["reranker.architecture=bi-encoder", "rationale.lm=none", "generator.lm=none", "training.precision=fp32"]
    experiment = load_experiment(path, [*sets, "training.max_length=32"], tmp_path)
    paths, _ = run(experiment, tmp_path)
    assert read_record(paths[0])["training"]["updates"] > 0


def test_without_the_data_it_says_what_to_give(tmp_path):
    with pytest.raises(SettingsError, match=r"wiki18_100w\.jsonl: no such file here, and no data folder was given"):
        run(load_experiment(PAPER[0]), tmp_path)


def test_a_training_folder_that_is_not_ours_is_neither_used_nor_removed(tmp_path):
    from radio_dspy.experiments.methods import _mark

    (tmp_path / "thesis.md").write_text("years of work", encoding="utf-8")
    with pytest.raises(SettingsError, match="not a training of an experiment"):
        _mark(tmp_path)
    assert not is_run(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["thesis.md"]
    _mark(tmp_path / "new")
    _mark(tmp_path / "new")  # as after a kill


@pytest.mark.parametrize(("out", "records"), [("file", None), ("new", "file"), ("new", "file/below")], ids=repr)
def test_where_nothing_can_be_written_is_told_before_any_row(load, tmp_path, out, records):
    (tmp_path / "file").write_text("mine")
    rows = load([{"name": "base", "with": {"method": "base"}}])
    with pytest.raises(SettingsError, match="is a file; give another --out"):
        run_experiment(rows, tmp_path / out, records=tmp_path / records if records else None, show_progress=False)
    assert not (tmp_path / "new").exists()


def test_a_finished_training_is_removed_under_its_lock_and_without_what_others_put_there(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "training_folder", lambda *_: tmp_path / "training")
    materials = SimpleNamespace(out=tmp_path, hashes=lambda *_: {})
    row = SimpleNamespace(settings=None)
    with Run(tmp_path / "training").exclusive():
        Run(tmp_path / "training").write("trained", {})
        runner._forget(materials, row, 1, [])  # another process is in it
        assert (tmp_path / "training" / "trained.json").is_file()
    (tmp_path / "training" / "notes.txt").write_text("mine")
    runner._forget(materials, row, 1, [])
    assert sorted(one.name for one in (tmp_path / "training").iterdir()) == ["manifest.json", "notes.txt", "run.lock"]
    (tmp_path / "training" / "notes.txt").unlink()
    runner._forget(materials, row, 1, [])
    assert not (tmp_path / "training").exists()
