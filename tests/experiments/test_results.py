"""The page of results is made of the records alone, to the byte, and invents nothing."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.metadata import version

import pytest
from pooling import pooled
from results import shipped
from results_page import GATED, render_results, write_results

from radio_dspy.core.errors import DataError, MissingExtraError, SettingsError
from radio_dspy.experiments.loading import load_experiment
from radio_dspy.experiments.records import is_done, read_record, record_path, write_record
from tests.conftest import ROOT

pytestmark = pytest.mark.drawn

DOCS = ROOT / "docs"
REAL = {"corpus": "corpus.jsonl", "train": "train.jsonl", "test": "dev.jsonl"}
ROWS = [
    {"name": "alpha", "with": {"data": {"train_questions": 10, **REAL}, "teacher": {"signals": {"retrieval": 1}}}},
    {"name": "beta | gamma", "with": {"data": {"train_questions": 20, **REAL}}},
    {"name": "delta", "with": {"data": {"train_questions": 40, **REAL}, "teacher": {"signals": {"rationale": 1}}}},
    {"name": "later"},
]


def made_up(experiment, row, seed, changes, **further):
    """A record with these changes; its base is 0.5 everywhere."""
    mean = sum(changes) / len(changes)
    flat = {"ndcg@10": [0.5, 0.5, 0.5]}
    return {
        "format": 1, "experiment": experiment.name, "row": row.name, "seed": seed,
        "settings": row.settings.decisive(), "data": {}, "versions": {"radio-dspy": "0.1.0", "python": "3.11.9"},
        "hardware": {"cores": 2, "machine": "x86_64", "memory_gb": 8, "gpu": None},
        "questions": {"train": 10, "test": len(changes), "judged": len(changes)}, "relevance": "labels",
        "test_ids": "0", "metrics": {"first_stage": flat, "base": flat, "result": {"ndcg@10": [0.5 + mean, 0.0, 1.0]}},
        "changes": {"ndcg@10": changes}, "answers": {}, "answer_changes": {}, **further,
    }  # fmt: skip


@pytest.fixture
def tiny(tmp_path):
    content = {"name": "tiny", "title": "Tiny?", "question": "Does it help?", "seeds": [1, 2], "rows": ROWS}
    (tmp_path / "1-tiny.yaml").write_text(json.dumps(content))
    return tmp_path / "1-tiny.yaml"


@pytest.fixture
def records(tiny, tmp_path):
    experiment, folder = load_experiment(tiny), tmp_path / "records"
    better, worse, mixed = [0.1, 0.2, 0.1, 0.2] * 5, [-0.1] * 20, [0.1, -0.1] * 10
    taught = {
        "teacher": {"questions": 5, "teacher ndcg@10": 0.6},
        "rationales": {"given": 3, "reused": 0, "written": 4},
    }
    for row, changes in zip(experiment.rows, (better, worse, mixed), strict=False):
        for seed in (1, 2):
            moved = [one + 0.01 * seed for one in changes] if row.name == "alpha" else changes
            path = record_path(folder, experiment, row, seed)
            write_record(path, made_up(experiment, row, seed, moved, **taught))
    return folder


@pytest.mark.slow
def test_the_stored_page_is_what_the_records_give():
    made = render_results(shipped(), DOCS / "results")
    assert (DOCS / "results.md").read_text(encoding="utf-8") == made["results.md"]
    plots = {path.relative_to(DOCS).as_posix() for path in (DOCS / "results").glob("*.svg")}
    assert plots == set(made) - {"results.md"}
    pinned = re.search(r"^matplotlib==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    if version("matplotlib") != pinned:
        pytest.skip(f"another matplotlib than the {pinned} of constraints.txt may draw other bytes")
    for name in plots:
        assert (DOCS / name).read_text(encoding="utf-8") == made[name], f"{name}: make results"


def test_the_same_records_give_the_same_bytes(tiny, records, tmp_path):
    first = render_results([tiny], records)
    assert first == render_results([tiny], records)
    written = write_results([tiny], records, tmp_path / "docs")
    assert {path.relative_to(tmp_path / "docs").as_posix() for path in written} == set(first)
    for name, text in first.items():
        assert (tmp_path / "docs" / name).read_text(encoding="utf-8") == text


def test_a_line_pools_the_seeds_by_question(tiny, records):
    alpha, beta, delta = pooled(load_experiment(tiny), records)
    gain = alpha.ranking
    assert gain.mean == pytest.approx(0.165)
    assert gain.seeds == (pytest.approx(0.16), pytest.approx(0.17))
    assert gain.low < gain.mean < gain.high
    assert [one.ranking.verdict for one in (alpha, beta, delta)] == ["better", "worse", "no difference shown"]
    assert (gain.base, gain.result, gain.questions) == (0.5, pytest.approx(0.665), 20)


def test_the_page_says_what_the_records_say(tiny, records):
    (records / "tiny.md").write_text("The losses are short questions.\n")
    made = render_results([tiny], records)
    page = made["results.md"]
    assert "**On real data what training alone gives ranks better than the base on alpha (+0.165 (" in page
    assert "ranks worse than the base on beta | gamma (-0.100" in page
    assert "shows no difference beyond chance on delta" in page
    assert "6 of 8 runs are done. Run on 2 cores of x86_64, 8 GB; radio-dspy 0.1.0." in page
    assert "| beta \\| gamma | 2 |" in page
    assert "Not run yet: later." in page
    assert "The losses are short questions." in page
    assert "answers: " not in page  # a column that no row has
    assert set(made) == {"results.md", *(f"results/tiny-{kind}.svg" for kind in ("gains", "questions", "weight"))}


def test_what_the_gate_returns_is_told_before_what_was_trained(tmp_path):
    rows = [
        {"name": "alpha", "with": {"data": REAL}},
        {"name": f"alpha{GATED}", "with": {"data": REAL, "gate": {"by": "labels"}}},
        {"name": "the demo set"},
    ]
    content = {"name": "gated", "title": "Gated?", "question": "Does it help?", "seeds": [1, 2], "rows": rows}
    (tmp_path / "gated.yaml").write_text(json.dumps(content))
    experiment = load_experiment(tmp_path / "gated.yaml")
    for row, changes in zip(experiment.rows, ([-0.1] * 20, [0.0] * 20, [0.2] * 20), strict=True):
        for seed in (1, 2):
            path = record_path(tmp_path / "records", experiment, row, seed)
            gate = {"chosen": "base"} if row.name.endswith(GATED) else None
            write_record(path, made_up(experiment, row, seed, changes, gate=gate))
    page = render_results([tmp_path / "gated.yaml"], tmp_path / "records")["results.md"]
    assert (
        "**On real data what `RADIO` returns with its gate shows no gain: it shows no difference beyond chance on "
        "alpha (the base came back). On real data what training alone gives shows no gain: it ranks worse than the "
        "base on alpha (-0.100 (-0.100 to -0.100) nDCG@10).** On the demo set, which is this project's own and was "
        "written to show the method, the gain is +0.200 (+0.200 to +0.200) nDCG@10: no evidence for other data."
    ) in page


def test_a_plot_is_a_whole_file_that_says_what_it_shows(tiny, records):
    for name, text in render_results([tiny], records).items():
        if name.endswith(".svg"):
            root = ET.fromstring(text)
            assert root.tag == "{http://www.w3.org/2000/svg}svg"
            assert "gain" in root.find("{http://www.w3.org/2000/svg}desc").text.lower()
            assert "prefers-color-scheme" in text
            assert not re.search(r"#00010\d", text)


def test_a_summary_comes_first_and_agreement_is_a_column(tiny, records):
    experiment = load_experiment(tiny)
    (records / "summary.md").write_text("**It depends.**\n")
    path = record_path(records, experiment, experiment.rows[0], 1)
    told = {"rank_correlation": [0.25, -0.1, 0.6], "of_the_first": [0.5, 0.1, 0.9], "of_the_best": None}
    write_record(path, {**read_record(path), "agreement": told})
    page = render_results([tiny], records)["results.md"]
    assert page.splitlines()[3] == "**It depends.**"
    assert "| rank correlation with the likelihood |" in page
    assert "| +0.25 (-0.10 to +0.60) |" in page
    assert "after the best" not in page


def test_without_records_it_says_so(tiny, tmp_path):
    made = render_results([tiny], tmp_path / "none")
    assert set(made) == {"results.md"}
    assert "**Whether aligning helps has not been measured yet**" in made["results.md"]
    assert "Not run yet: there are no records." in made["results.md"]
    assert not re.search(r"[+-]0\.\d", made["results.md"])


def test_cases_are_told(tiny, records):
    experiment = load_experiment(tiny)
    passages = [{"id": "p", "text": "Ice *floats* | on\nwater.", "relevant": True}]
    case = {
        "id": "q", "question": "What floats?", "answers": ["ice"], "change": 0.5, "rationale": "It is light.",
        "passages": {"base": passages, "result": passages}, "replies": {"base": "", "result": "ice"},
    }  # fmt: skip
    traits = {"helped": {"questions": 1, "base value": 0.25}, "hurt": {"questions": 0}}
    told = {"helped": [case], "hurt": [], "traits": traits}
    path = record_path(records, experiment, experiment.rows[0], 1)
    write_record(path, {**read_record(path), "cases": told})
    page = render_results([tiny], records)["results.md"]
    assert "**helped, +0.500**: What floats?" in page
    assert "- before: ✓ Ice \\*floats\\* \\| on water." in page
    assert "- answered before: nothing" in page
    assert "| base value | 0.25 |" in page


def test_records_of_other_questions_are_not_pooled(tiny, records):
    experiment = load_experiment(tiny)
    path = record_path(records, experiment, experiment.rows[0], 1)
    write_record(path, {**read_record(path), "test_ids": "1"})
    with pytest.raises(DataError, match="alpha: its records judge different questions"):
        render_results([tiny], records)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99, "experiment": 1, "row": 1, "seed": 1, "metrics": 1}'])
def test_a_broken_record_is_named(tiny, records, text):
    experiment = load_experiment(tiny)
    path = record_path(records, experiment, experiment.rows[0], 1)
    path.write_text(text)
    with pytest.raises(DataError, match=r"alpha-1\.json"):
        render_results([tiny], records)


def test_what_it_needs(tiny, records, monkeypatch):
    with pytest.raises(SettingsError, match="No experiments' files"):
        render_results([], records)
    monkeypatch.setattr("radio_dspy.reporting.plots.drawable", lambda: False)
    with pytest.raises(MissingExtraError, match="matplotlib"):
        render_results([tiny], records)


def test_a_record_is_a_line_a_key_and_has_no_odd_number(tmp_path):
    write_record(tmp_path / "one.json", {"a": 0.123456789, "b": [float("nan")], "c": {"d": 1}})
    assert (tmp_path / "one.json").read_text() == '{\n "a": 0.12346,\n "b": [null],\n "c": {"d": 1}\n}\n'


def test_the_script_writes_the_page(records, tmp_path):
    script = ROOT / "examples" / "experiments" / "results.py"
    done = subprocess.run(
        [sys.executable, script, "--records", tmp_path / "none", "--docs", tmp_path / "docs"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "docs" / "results.md")


def test_a_record_holds_no_key_and_stays_that_of_its_settings(tmp_path):
    address = "huggingface/https://me:corr3ct-h0rse@host.example/v1"
    settings = {"first_stage": {"encoder": address}, "seeds": [1]}
    record = {"format": 1, "experiment": "x", "row": "r", "seed": 1, "metrics": {}, "settings": settings}
    record["cases"] = [{"replies": {"base": "refused corr3ct-h0rse"}}]
    write_record(tmp_path / "r.json", record)
    assert "corr3ct-h0rse" not in (tmp_path / "r.json").read_text()
    assert is_done(tmp_path / "r.json", settings)
    with pytest.raises(SettingsError, match="made with other settings"):
        is_done(tmp_path / "r.json", {**settings, "seeds": [2]})
