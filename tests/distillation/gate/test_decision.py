import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from radio_dspy import RADIO, Passage, Ranking
from radio_dspy.core.errors import SettingsError
from radio_dspy.core.files import sha256_of
from radio_dspy.distillation import PreferenceGroup, TrainingSettings, train_reranker
from radio_dspy.distillation.gate import metrics as judges
from radio_dspy.distillation.gate.decision import Gate, decide, pass_gate
from radio_dspy.distillation.training.averaging import mix_weights
from radio_dspy.evaluation.significance import interval, paired_bootstrap
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.files import fingerprint, weight_files
from radio_dspy.rerankers import Rerank, RerankerWeights
from radio_dspy.retrievers.requests import rank_requests
from radio_dspy.runs.run import Run

BASE = [0.5, 0.5, 0.4, 0.6, 0.3, 0.7, 0.5, 0.2, 0.1, 0.5, 0.8, 0.6]


def gained(gain):
    return [one + gain for one in BASE]


# A gain on average, but on half of the questions a loss.
UNSURE = [one + (0.3 if i % 2 else -0.25) for i, one in enumerate(BASE)]


def test_a_gain_beyond_noise_is_taken():
    decision = decide({0.0: BASE, 1.0: gained(0.1)}, "nDCG@10", Gate())
    assert decision.chosen == "trained"
    assert decision.sentence.startswith("Returned the trained weights: nDCG@10 0.475 -> 0.575 (+0.100, 95 % interval")
    assert decision.sentence.endswith("on 12 held-out questions.")
    assert (decision.metric, decision.questions) == ("nDCG@10", 12)


def test_a_gain_within_noise_is_not():
    decision = decide({0.0: BASE, 1.0: UNSURE}, "nDCG@10", Gate())
    assert decision.chosen == "base"
    trained = decision.candidates[1]
    assert trained.gain == pytest.approx(0.025)
    assert 0.5 < trained.beats < 0.95
    assert "Returned the base" in decision.sentence
    assert "trained came closest, and +0.025, 95 % interval" in decision.sentence
    assert "is not above the noise" in decision.sentence
    assert decide({0.0: BASE, 1.0: UNSURE}, "nDCG@10", Gate(confidence=0.5)).chosen == "trained"


@pytest.mark.parametrize("values", [BASE, gained(-0.1)])
def test_no_gain_and_a_loss_return_the_base(values):
    assert decide({0.0: BASE, 1.0: values}, "m", Gate(confidence=0.5)).chosen == "base"


def test_with_too_few_questions_nothing_is_taken_however_large_the_gain():
    few = {0.0: BASE[:9], 1.0: gained(0.4)[:9]}
    decision = decide(few, "m", Gate())
    assert decision.chosen == "base"
    assert "9 held-out questions are too few to tell a gain from noise (at least 10)" in decision.sentence
    assert decision.candidates[1].beats == 1
    assert decide(few, "m", Gate(min_questions=9)).chosen == "trained"


def test_without_any_question_there_is_nothing_to_judge_by():
    decision = decide({0.0: []}, "m", Gate())
    assert (decision.chosen, decision.questions, decision.candidates) == ("base", 0, ())
    assert "no held-out question could be judged" in decision.sentence


def test_what_is_refused_is_out_whatever_its_mean():
    values = {0.0: BASE, 0.5: gained(0.1), 1.0: gained(0.2)}
    decision = decide(values, "m", Gate(), {1.0: "it finds less"})
    assert decision.chosen == "mixture 0.5"
    assert [one.refused for one in decision.candidates] == ["", "", "it finds less"]
    nothing_left = decide({0.0: BASE, 1.0: gained(0.2)}, "m", Gate(), {1.0: "it finds less"})
    assert nothing_left.chosen == "base"
    assert "trained came closest, and it finds less, on 12" in nothing_left.sentence


def test_the_best_mean_wins_among_those_that_pass():
    values = {0.0: BASE, 0.25: gained(0.1), 0.5: gained(0.2), 1.0: gained(0.15)}
    assert decide(values, "m", Gate()).chosen == "mixture 0.5"
    # A higher mean that might be luck does not count.
    lucky = [one + (2.0 if i == 0 else 0.0) for i, one in enumerate(BASE)]
    decision = decide({0.0: BASE, 0.5: gained(0.1), 1.0: lucky}, "m", Gate())
    assert decision.candidates[2].mean > decision.candidates[1].mean
    assert decision.chosen == "mixture 0.5"


def test_of_equal_ones_the_closest_to_the_base_is_taken():
    values = {1.0: gained(0.1), 0.75: gained(0.1), 0.25: gained(0.1), 0.0: BASE, 0.5: gained(0.1)}
    decision = decide(values, "m", Gate())
    assert decision.chosen == "mixture 0.25"
    assert [one.share for one in decision.candidates] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_the_numbers_are_those_of_the_bootstrap_and_go_into_json():
    gate = Gate(samples=500, seed=7)
    decision = decide({0.0: BASE, 1.0: UNSURE}, "m", gate)
    base, trained = decision.candidates
    assert (base.name, base.gain, base.beats) == ("base", 0.0, 0.0)
    assert (base.mean, base.low, base.high) == interval(BASE, samples=500, seed=7)
    assert (trained.mean, trained.low, trained.high) == interval(UNSURE, samples=500, seed=7)
    found = paired_bootstrap(BASE, UNSURE, samples=500, seed=7)
    assert (trained.gain, trained.gain_low, trained.gain_high) == (found.mean, found.low, found.high)
    assert trained.beats == 1 - found.p
    again = json.loads(json.dumps(decision.as_dict()))
    assert again["chosen"] == "base"
    assert [one["name"] for one in again["candidates"]] == ["base", "trained"]


@pytest.mark.parametrize(
    "setting",
    [
        {"mixtures": (0.0,)},
        {"mixtures": (0.5, 1.0)},
        {"confidence": 0.4},
        {"confidence": 1.0},
        {"min_questions": 0},
        {"samples": 99},
    ],
)
def test_rules_are_checked(setting):
    with pytest.raises(SettingsError, match=next(iter(setting))):
        Gate(**setting)


# With real weights


@pytest.fixture(scope="module")
def base(small):
    return RerankerWeights(small.name, "bi-encoder")


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    group = PreferenceGroup(
        "why did the dough not rise?", "Yeast dies in hot water.", ("The dough was large.", "Rise early.")
    )
    settings = TrainingSettings(num_train_epochs=1, learning_rate=1e-3, max_length=16)
    result = train_reranker(base, [group], tmp_path_factory.mktemp("trained") / "out", settings)
    return base.with_checkpoint(result.checkpoint)


def contents(weights):
    """What lies on the disk now: fingerprints are remembered by folder."""
    return {path.name: sha256_of(path) for path in weight_files(Path(weights.checkpoint))}


def state(weights):
    return open_scorer(weights).module.state_dict()


def share_of(weights, base, trained):
    """Which part of the way from the base to the trained weights a checkpoint has gone, read from its file."""
    name = "encoder.layer.0.attention.self.query.weight"
    here, start, end = (
        load_file(Path(one.checkpoint) / "model.safetensors")[name].double() for one in (weights, base, trained)
    )
    assert not torch.equal(start, end)
    return round(float(((here - start) * (end - start)).sum() / (end - start).square().sum()), 3)


def judging(base, trained, gains):
    """A judge that sees which share of the trained weights it is shown, and what it was shown."""
    shown = []

    def judge(weights):
        share = share_of(weights, base, trained)
        shown.append(share)
        return gained(gains[share])

    return judge, shown


def folders(run):
    return sorted(one.name for one in run.path.iterdir())


@pytest.mark.parametrize("share", [0.5, 0.25])
def test_a_mixture_lies_between_the_two(base, trained, tmp_path, share):
    before = contents(base), contents(trained)
    mix_weights(base, trained, share, tmp_path / "mixed")
    mixed = RerankerWeights(str(tmp_path / "mixed"), "bi-encoder")
    first, second, found = state(base), state(trained), state(mixed)
    assert found.keys() == first.keys()
    moved = 0
    for name, value in first.items():
        if not value.is_floating_point():
            assert torch.equal(found[name], value)
            continue
        expected = (1 - share) * value.double() + share * second[name].double()
        assert torch.allclose(found[name].double(), expected, rtol=0, atol=1e-6)
        moved += int(not torch.equal(value, second[name]))
    assert moved > 15
    assert (contents(base), contents(trained)) == before


def test_a_mixture_ranks_when_it_is_loaded_again(base, trained, tmp_path):
    mix_weights(base, trained, 0.5, tmp_path / "mixed")
    texts = ["Yeast dies in hot water.", "The dough was large."]
    scores = [
        Rerank(one.checkpoint, "bi-encoder")("why did the dough not rise?", texts).scores
        for one in (base, trained, RerankerWeights(str(tmp_path / "mixed"), "bi-encoder"))
    ]
    assert scores[2] != pytest.approx(scores[0], abs=1e-4)
    assert scores[2] != pytest.approx(scores[1], abs=1e-4)


def test_a_cross_encoders_fresh_head_is_mixed_too(small, tmp_path):
    base = RerankerWeights(small.name, "cross-encoder", new_head=True)
    scorer = open_scorer(base)
    with torch.no_grad():
        for value in scorer.module.parameters():
            value.add_(0.01)
    scorer.save(tmp_path / "trained")
    mix_weights(base, RerankerWeights(str(tmp_path / "trained"), "cross-encoder"), 0.5, tmp_path / "mixed")
    first, found = state(base), state(RerankerWeights(str(tmp_path / "mixed"), "cross-encoder"))
    heads = [name for name in first if "classifier" in name]
    assert heads
    for name in heads:
        assert torch.allclose(found[name], first[name] + 0.005, atol=1e-6)


def test_the_base_is_returned_and_nothing_is_kept(base, trained, tmp_path):
    run = Run(tmp_path)
    judge, shown = judging(base, trained, {0.0: 0.0, 0.5: -0.1, 1.0: -0.2})
    checkpoint, decision = pass_gate(base, trained, judge, "m", Gate(mixtures=(0.5,)), run)
    assert checkpoint is None
    assert decision.chosen == "base"
    assert shown == [0.0, 0.5, 1.0]
    assert folders(run) == []
    assert Path(trained.checkpoint).is_dir()


def test_the_trained_weights_are_returned_as_they_are(base, trained, tmp_path):
    run = Run(tmp_path)
    judge, _ = judging(base, trained, {0.0: 0.0, 0.5: 0.1, 1.0: 0.2})
    checkpoint, decision = pass_gate(base, trained, judge, "m", Gate(mixtures=(0.5,)), run)
    assert (checkpoint, decision.chosen) == (trained.checkpoint, "trained")
    assert folders(run) == []


def test_a_chosen_mixture_is_kept_in_the_run_folder_and_the_others_are_gone(base, trained, tmp_path):
    run = Run(tmp_path)
    judge, shown = judging(base, trained, {0.0: 0.0, 0.25: 0.1, 0.5: 0.2, 1.0: 0.1})
    checkpoint, decision = pass_gate(base, trained, judge, "m", Gate(mixtures=(0.25, 0.5)), run)
    assert decision.chosen == "mixture 0.5"
    assert shown == [0.0, 0.25, 0.5, 1.0]
    assert folders(run) == [f"reranker-{fingerprint(checkpoint)}"]
    assert checkpoint == str(run.path / folders(run)[0])
    assert share_of(RerankerWeights(checkpoint, "bi-encoder"), base, trained) == 0.5


def test_a_query_encoder_that_finds_less_is_refused(base, trained, tmp_path):
    judge, _ = judging(base, trained, {0.0: 0.0, 0.5: 0.1, 1.0: 0.2})
    recall, seen = judging(base, trained, {0.0: 0.0, 0.5: 0.0, 1.0: -0.3})
    gate = Gate(mixtures=(0.5,), retrieval=True)
    _, decision = pass_gate(base, trained, judge, "m", gate, Run(tmp_path), recall=recall)
    assert seen == [0.0, 0.5, 1.0]
    assert decision.chosen == "mixture 0.5"
    assert [one.refused for one in decision.candidates] == ["", "", "as a first stage it finds less (-0.300 recall@50)"]


def test_a_loss_of_recall_that_few_questions_cannot_show_refuses_too(base, trained, tmp_path):
    """A ruined query encoder that a metric likes: three of twelve questions lost most, and the interval reaches 0."""
    judge, _ = judging(base, trained, {0.0: 0.0, 1.0: 0.2})
    lost = [1, 0, 0, 1, 0, 0, 1, 0, 0, -1, 0, 0]

    def recall(weights):
        return (
            BASE
            if weights.checkpoint == base.checkpoint
            else [one - 0.6 * n for one, n in zip(BASE, lost, strict=True)]
        )

    _, decision = pass_gate(base, trained, judge, "m", Gate(mixtures=()), Run(tmp_path), recall=recall)
    assert decision.chosen == "base"
    assert decision.candidates[1].refused == "as a first stage it finds less (-0.100 recall@50)"


def test_a_loss_of_recall_within_noise_does_not_refuse(base, trained, tmp_path):
    judge, _ = judging(base, trained, {0.0: 0.0, 1.0: 0.2})

    def recall(weights):
        return (
            BASE
            if weights.checkpoint == base.checkpoint
            else [one - (0.3 if i % 2 else -0.25) for i, one in enumerate(BASE)]
        )

    _, decision = pass_gate(base, trained, judge, "m", Gate(mixtures=()), Run(tmp_path), recall=recall)
    assert decision.chosen == "trained"
    _, decision = pass_gate(base, trained, judge, "m", Gate(mixtures=()), Run(tmp_path), recall=lambda weights: [])
    assert decision.chosen == "trained"


def test_where_no_question_can_be_judged_no_mixture_is_made(base, trained, tmp_path):
    seen = []

    def judge(weights):
        seen.append(weights.checkpoint)
        return []

    checkpoint, decision = pass_gate(base, trained, judge, "m", Gate(), Run(tmp_path))
    assert (checkpoint, decision.chosen, decision.questions) == (None, "base", 0)
    assert seen == [base.checkpoint]


def test_a_judge_that_fails_leaves_no_checkpoint_behind(base, trained, tmp_path):
    run = Run(tmp_path)

    def judge(weights):
        if weights.checkpoint == base.checkpoint:
            return BASE
        assert Path(weights.checkpoint).is_dir()
        raise RuntimeError("away")

    with pytest.raises(RuntimeError, match="away"):
        pass_gate(base, trained, judge, "m", Gate(mixtures=(0.5,)), run)
    assert folders(run) == []


@pytest.mark.parametrize(
    ("first", "second", "chosen", "said"),
    [
        (
            0.1,
            0.0,
            "trained",
            "ndcg 0.475 -> 0.575 (+0.100, 95 % interval +0.100 to +0.100), R@5 0.475 -> 0.475 (+0.000)",
        ),
        (0.0, 0.1, "trained", "R@5 0.475 -> 0.575 (+0.100)"),
        (0.1, -0.1, "base", "trained came closest, and it loses R@5 (-0.100)"),
        (-0.1, 0.3, "base", "it loses nDCG@10 (-0.100)"),
        (0.0, 0.0, "base", "is not above the noise"),
    ],
)
def test_of_two_measures_one_has_to_win_and_none_to_lose(first, second, chosen, said):
    values = {0.0: {"ndcg@10": BASE, "R@5": BASE}, 1.0: {"ndcg@10": gained(first), "R@5": gained(second)}}
    decision = decide(values, "ndcg", Gate(measures=("ndcg@10", "R@5")))
    assert decision.chosen == chosen
    assert said in decision.sentence
    told = json.loads(json.dumps(decision.as_dict()))["candidates"][1]["others"]["R@5"]
    assert told["gain"] == pytest.approx(second)


def test_equal_tokens_are_no_reward_for_long_passages():
    """The relevant passage comes first or second; after a long one it is not read."""
    long, short = Passage("long", "word " * 40), Passage("short", "Yeast dies.")
    ranking = Ranking("why?", (long, short), (2.0, 1.0))
    assert judges._read(ranking, None) == ("long", "short")
    assert judges._read(ranking, 60) == ("long", "short")
    assert judges._read(ranking, 51) == ("long",)
    assert judges._read(ranking, 10) == ()
    assert judges._read(Ranking("why?", (short, long), (2.0, 1.0)), 10) == ("short",)


def test_the_judge_measures_what_the_gate_says(small, topic, index):
    requests = rank_requests(topic.test, index, 10)
    weights = Rerank(small, "bi-encoder").weights
    whole = judges.by_labels(requests, gate=Gate(measures=("ndcg@10", "RR@10")))(weights)
    assert list(whole) == ["ndcg@10", "RR@10"]
    assert len(whole["RR@10"]) == len(topic.test)
    cut = judges.by_labels(requests, gate=Gate(tokens=40))(weights)
    assert sum(cut["ndcg@10"]) < sum(whole["ndcg@10"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"measures": "nDCG@10"}, "measures must be one or several"),
        ({"measures": ()}, "measures must be one or several"),
        ({"measures": ("ndcg@10", "nDCG@10")}, "measures must be one or several different"),
        ({"measures": ("nDGC@10",)}, "Unknown measure 'nDGC@10'"),
        ({"tokens": 0}, "tokens must be at least 1"),
    ],
)
def test_rules_that_say_nothing_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        Gate(**settings)


def test_a_metric_of_ones_own_and_measures_of_rankings_do_not_go_together():
    with pytest.raises(SettingsError, match="give one of the two"):
        RADIO(False, gate=Gate(tokens=500), metric=lambda example, prediction: 1.0)
