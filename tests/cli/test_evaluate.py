"""`radio-dspy evaluate` without a program: figures that are those of ir-measures and of sentence-transformers."""

import json

import ir_measures
import pytest
import torch
from typer.testing import CliRunner

import radio_dspy as radio
from radio_dspy import Ranking
from radio_dspy.cli.app import app

MEASURES = ("nDCG@10", "RR@10", "AP", "P(rel=2)@2", "R@3")


def evaluate(*arguments):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def figures(run, qrels):
    """What ir-measures makes of the same two files."""
    found = ir_measures.calc_aggregate(
        list(map(ir_measures.parse_measure, MEASURES)),
        ir_measures.read_trec_qrels(str(qrels)),
        ir_measures.read_trec_run(str(run)),
    )
    return {str(name): pytest.approx(value) for name, value in found.items()}


@pytest.fixture(scope="module")
def judged(topic, index, tmp_path_factory):
    """Questions with a run of the first stage, graded judgements and the passages."""
    folder = tmp_path_factory.mktemp("judged")
    passages, questions = topic.passages, topic.test[:6]
    found = index.search([one.question for one in questions], 8)
    radio.write_run({one.id: ranking for one, ranking in zip(questions, found, strict=True)}, folder / "run.txt")
    grades = {}
    for number, (one, ranking) in enumerate(zip(questions, found, strict=True)):
        others = {key: grade for key, grade in zip(ranking.ids, (2, 0, 1), strict=False) if key not in one.relevant}
        grades[one.id] = {**others, **dict.fromkeys(one.relevant, 3)} if number else dict.fromkeys(ranking.ids[:2], 0)
    grades["unasked"] = {passages[0].id: 1}
    radio.write_qrels(grades, folder / "qrels.txt")
    rows = {"corpus": [{"id": one.id, "contents": one.contents} for one in passages]}
    rows["questions"] = [{"id": one.id, "question": one.question} for one in questions]
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_a_run_alone_has_the_figures_of_ir_measures(judged, tmp_path):
    given = ["--run", judged / "run.txt", "--qrels", judged / "qrels.txt", "--json", "-"]
    done = evaluate(*given, *(part for one in MEASURES for part in ("--measure", one)))
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["metrics"] == {"first_stage": figures(judged / "run.txt", judged / "qrels.txt")}
    assert told["judged"] == 7  # a question that the run does not rank counts, as 0


def test_a_reranker_by_name_on_a_run(judged, tiny, tmp_path):
    given = ["--run", judged / "run.txt", "--qrels", judged / "qrels.txt", "--questions", judged / "questions.jsonl"]
    given += ["--corpus", judged / "corpus.jsonl", "--reranker", tiny, "--write-run", tmp_path / "reranked.txt"]
    given += ["--json", tmp_path / "out.json", "--report", tmp_path / "report"]
    done = evaluate(*given, *(part for one in MEASURES for part in ("--measure", one)))
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "out.json").read_text())
    grades = radio.load_qrels(judged / "qrels.txt")
    asked = radio.write_qrels({key: one for key, one in grades.items() if key != "unasked"}, tmp_path / "qrels.txt")
    assert told["metrics"] == {
        "first_stage": figures(judged / "run.txt", asked),
        tiny: figures(tmp_path / "reranked.txt", asked),
    }
    assert told["metrics"]["first_stage"] != told["metrics"][tiny]
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert (summary["metric"], summary["kind"]) == ("nDCG@10", "evaluation")
    before, after = (told["metrics"][row]["AP"] for row in ("first_stage", tiny))
    assert summary["gains"]["AP"]["mean"] == pytest.approx(after - before)


def test_figures_are_those_of_sentence_transformers(judged, tiny, topic):
    """Of questions whose relevant passages are all among the candidates, which its evaluator takes for granted."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    run = radio.load_run(judged / "run.txt")
    texts = {one.id: one for one in topic.passages}
    questions = [one for one in topic.test[:6] if set(one.relevant) <= set(run[one.id])]
    assert len(questions) > 1
    candidates = {one.id: [texts[key] for key in run[one.id]] for one in questions}
    samples = [
        {
            "query": one.question,
            "positive": [texts[key].contents for key in one.relevant],
            "documents": [passage.contents for passage in candidates[one.id]],
        }
        for one in questions
    ]
    theirs = CrossEncoderRerankingEvaluator(samples, at_k=10, write_csv=False)(
        CrossEncoder(tiny, activation_fn=torch.nn.Identity())  # a sigmoid would make large logits equal
    )
    requests = [
        radio.RankRequest(one.id, one.question, tuple(candidates[one.id]), list(run[one.id].values()),
                          relevant=frozenset(one.relevant))
        for one in questions
    ]  # fmt: skip
    rankings: list[Ranking] = radio.Rerank(tiny).rank_all(requests)
    rows = {"first_stage": [one.ranking() for one in requests], "aligned": rankings}
    found = radio.Comparison(requests, rows, before="first_stage", metrics=("AP", "RR@10", "nDCG@10")).means
    assert found["aligned"] == {
        "AP": pytest.approx(theirs["map"]),
        "RR@10": pytest.approx(theirs["mrr@10"]),
        "nDCG@10": pytest.approx(theirs["ndcg@10"]),
    }
    assert found["first_stage"]["nDCG@10"] == pytest.approx(theirs["base_ndcg@10"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--questions is missing"),
        (["--questions", "QUESTIONS"], 2, "there is nothing to judge"),
        (["--run", "RUN", "--qrels", "QRELS", "--measure", "nDGC@10"], 2, "Unknown measure 'nDGC@10'"),
        (["--run", "RUN", "--qrels", "QRELS", "--lm", "local"], 2, "--lm answers with a program"),
        (["--run", "RUN", "--qrels", "QRELS", "--reranker", "x"], 2, "a reranker reads the questions"),
        (["--run", "RUN", "--qrels", "QRELS", "--report", "out"], 2, "give --reranker, too"),
        (["--run", "QRELS", "--qrels", "QRELS"], 1, "expected six columns"),
    ],
)
def test_what_cannot_be_judged(judged, arguments, code, message):
    files = {"QUESTIONS": "questions.jsonl", "RUN": "run.txt", "QRELS": "qrels.txt"}
    done = evaluate(*(judged / files[one] if one in files else one for one in arguments))
    assert (done.exit_code, message in " ".join(done.stderr.split())) == (code, True), done.output
