import json

import dspy
import pytest

import radio_dspy as radio
from radio_dspy.core.errors import DataError, SettingsError
from radio_dspy.core.passages import Passage
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.evaluation.effects import effect_of
from radio_dspy.reporting.comparison import Comparison, compare_programs
from tests.conftest import UnaskedLM

PASSAGES = tuple(Passage(key, f"Text of {key}. " + "x" * 700, f"Title {key}") for key in "abcdefg")


def request(key, relevant):
    return RankRequest(key, f"why {key}?", PASSAGES, tuple(range(7, 0, -1)), ("salt",), relevant=frozenset(relevant))


def ranking(one, order):
    return Ranking(one.query, tuple(next(p for p in PASSAGES if p.id == key) for key in order), tuple(range(7, 0, -1)))


REQUESTS = [request("helped", "b"), request("hurt", "a"), request("same", "c"), request("blind", "")]
BASE = [one.ranking() for one in REQUESTS]
ALIGNED = [ranking(REQUESTS[0], "bacdefg"), ranking(REQUESTS[1], "bacdefg"), BASE[2], BASE[3]]
FOUND = Comparison(REQUESTS, {"first_stage": BASE, "base": BASE, "aligned": ALIGNED})


def test_every_question_is_held_against_itself():
    assert FOUND.counts() == {"helped": 1, "hurt": 1, "unchanged": 1}
    changes = FOUND.changes("mrr")
    assert changes == {"helped": 0.5, "hurt": -0.5, "same": 0.0}
    assert FOUND.gain("mrr").mean == pytest.approx(0.0)
    assert FOUND.gain("mrr").low == pytest.approx(-0.5)
    assert FOUND.mean("base", "mrr")[0] == FOUND.means["base"]["mrr"] == pytest.approx((0.5 + 1 + 1 / 3) / 3)


def test_an_effect_is_no_rounding():
    assert [effect_of(one) for one in (1e-12, -1e-12, 0.01, -0.01)] == ["unchanged", "unchanged", "helped", "hurt"]


def test_a_record_holds_what_there_is_to_see():
    records = json.loads(json.dumps(list(FOUND.records(2)), allow_nan=False))
    assert [one["id"] for one in records] == ["helped", "hurt", "same", "blind"]
    first, *_, blind = records
    assert first["metrics"]["base"]["mrr"] == 0.5
    assert set(first["metrics"]) == {"first_stage", "base", "aligned"}
    assert [one["id"] for one in first["passages"]] == ["a", "b"]
    assert first["rankings"] == {"base": [[0, 7], [1, 6]], "aligned": [[1, 7], [0, 6]]}
    assert first["relevant"] == [1]
    assert len(first["passages"][0]["text"]) == 600
    assert (blind["metrics"], blind["relevant"]) == ({}, [])


def test_a_record_holds_the_passages_metadata():
    said = {"tenant": "acme", "year": 2024, "tags": ["a", "b"], "long": "x" * 500, **{f"more{n}": n for n in range(20)}}
    request = RankRequest("q", "why?", (Passage("a", "Ice.", metadata=said), Passage("b", "Salt.")), (2.0, 1.0))
    rows = {"base": [request.ranking()], "aligned": [request.ranking()]}
    ((one, other),) = [record["passages"] for record in Comparison([request], rows).records()]
    shown = one["metadata"]
    assert (shown["tenant"], shown["year"], shown["tags"]) == ("acme", "2024", '["a", "b"]')
    assert (len(shown["long"]), len(shown)) == (120, 12)
    assert "metadata" not in other


def test_it_says_what_came_out():
    assert str(FOUND).endswith("on 3 questions: 1 helped, 1 hurt, 1 unchanged.")
    assert FOUND.sentence.startswith("Aligned reranker against base reranker: nDCG@10 ")
    shown = FOUND._repr_html_()
    assert "Most helped, nDCG@10" in shown
    assert "why hurt?" in shown
    assert "<caption>Means with 95 % intervals</caption>" in shown


def test_where_nothing_can_be_judged():
    blind = [RankRequest("q", "why?", PASSAGES, (1.0,) * 7)]
    found = Comparison(blind, {"base": [blind[0].ranking()], "aligned": [blind[0].ranking()]})
    assert "nothing could be judged" in str(found)
    assert "nothing could be judged" in found._repr_html_()
    assert found.means["base"]["mrr"] == 0.0
    assert found.counts() == {"helped": 0, "hurt": 0, "unchanged": 0}
    with pytest.raises(DataError, match="is empty"):
        found.gain()


def test_rows_that_do_not_fit_are_named():
    with pytest.raises(DataError, match="no row 'aligned' to compare; the rows are base"):
        Comparison(REQUESTS, {"base": BASE})
    with pytest.raises(DataError, match="Row 'aligned' has 3 rankings for 4 questions"):
        Comparison(REQUESTS, {"base": BASE, "aligned": ALIGNED[:3]})


def test_two_programs_are_compared_without_an_lm(program, topic):
    plain = radio.RetrieveRerankAnswer(program.retriever, radio.NoRerank(), candidates=10)
    with dspy.context(lm=UnaskedLM([])):
        found = radio.compare_programs(plain, program, topic.test)
    assert len(found) == len(topic.test)
    assert len(found.requests[0].candidates) == 10
    assert found.rows["before"][0].ids == found.requests[0].ranking().ids
    assert found.counts()["unchanged"] == len(topic.test)  # retriever and reranker are the same model


def test_rerankers_alone_need_a_retriever(program, topic, index):
    with pytest.raises(SettingsError, match="give retriever="):
        compare_programs(radio.NoRerank(), program.rerank, topic.test)
    found = compare_programs(radio.NoRerank(), program.rerank, topic.test, retriever=index, candidates=5)
    assert len(found.requests[0].candidates) == 5


def test_first_stages_that_differ_are_not_compared_in_silence(program, topic, small):
    other = radio.RetrieveRerankAnswer(radio.FaissRetriever.build(topic.passages[:20], small), program.rerank)
    with pytest.raises(SettingsError, match="first stages differ"):
        compare_programs(program, other, topic.test)


def test_a_program_that_ranks_by_an_lm_is_refused(program, topic):
    other = radio.RetrieveRerankAnswer(program.retriever, radio.LMRerank())
    with pytest.raises(SettingsError, match="holds no reranker that ranks"):
        compare_programs(program, other, topic.test)
