"""Old module paths of this package, and of nobody else."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from radio_dspy.core import moved, passages


def test_an_old_path_warns_and_gives_the_names_of_the_new_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "radio_dspy.passages", raising=False)
    with pytest.warns(DeprecationWarning, match=r"passages has moved: import from radio_dspy\.core\.passages"):
        old = import_module("radio_dspy.passages")
    assert old.Passage is passages.Passage


# Old module -> names of its own in the first release.
NAMES = {
    "cards": "training_text hub_names exported_card",
    "commands": "open_lm open_retriever read_rationales open_program remember_command restored_arguments write_result",
    "comparison": "Comparison compare_programs effect_of count_effects most_changed",
    "distillation.checkpoints": "TrainingCheckpoints remove_checkpoints training_key",
    "distillation.extractor": "RationaleExtractor rationale_key call_key",
    "distillation.groups": "PreferenceGroup preference_groups",
    "distillation.guards": "telling FalseNegatives without_false_negatives rationale_problem",
    "distillation.lm_signals": "LMSignal AnswerLikelihood AnswerCorrectness LMRanking",
    "distillation.observation": "Observed record run_keys hash_of program_key "
    "source_of retriever_identity same_as_retrieved Reached observe",
    "distillation.seats": "retriever_of",
    "embeddings": "RemoteEncoder",
    "encoders": "TextEncoder Encoder as_encoder reopened_encoder "
    "open_sentence_transformer load_sentence_transformer forget_models quiet_loading",
    "endpoints": "SharedByCopies Endpoint Recent",
    "files": "replacing check_new write_json write_lines sha256_of",
    "hub": "push_to_hub download model_card",
    "lms": "local_lm continuation_logprobs",
    "mmlu": "category_of",
    "model_files": "weights weights_name weight_files copy_weights fingerprint",
    "passages": "shown checked_text is_plain_number is_whole plain_text finite_scores Passage "
    "as_passage as_passages checked_corpus texts_of best_first Ranking RankRequest contains_answer",
    "redaction": "redacted told cause_of lms_of",
    "rerankers.scorers": "Scorer CrossEncoderScorer BiEncoderScorer "
    "PassageVectors open_scorer forget_scorers score_lists",
    "retrievers.index_kinds": "IndexLayout checked_layout build_index recall_of "
    "apply_effort search_index read_index stored_vectors",
    "saving": "save load load_weights",
    "spending": "StopSpending Spending Ledger usage_of_block price_of",
    "vectors": "VectorFile",
}


@pytest.mark.parametrize("old", sorted(moved._MOVED))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_old_module_has_its_homes_and_names(old: str) -> None:
    module = import_module(f"radio_dspy.{old}")
    assert isinstance(module, moved._OldModule)  # a module that is there hides its entry
    assert set(dir(module)) >= set(NAMES.get(old, "").split())
    for name in NAMES.get(old, "").split():
        assert getattr(module, name) is not None


@pytest.mark.parametrize("name", ["radio_dspy.spending", "radio_dspy.distillation.bulk"])
def test_old_paths_of_this_package_are_found(name: str) -> None:
    assert moved._OldPaths().find_spec(name) is not None


@pytest.mark.parametrize("name", ["spending", "metrics", "distillation.bulk", "other.radio_dspy.spending"])
def test_a_module_outside_this_package_is_left_alone(name: str) -> None:
    assert moved._OldPaths().find_spec(name) is None


def test_a_missing_module_of_the_users_own_stays_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import radio_dspy, spending"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "ModuleNotFoundError: No module named 'spending'" in done.stderr
