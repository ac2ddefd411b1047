import subprocess
import sys

import radio_dspy

HEAVY = ("torch", "transformers", "sentence_transformers", "litellm", "faiss", "xllamacpp")
LIGHT = f"""
import sys
from radio_dspy import ChooseOption, ExtractRationale, MultiHop, MultipleChoice, NextQuery, RADIO, Rerank
from radio_dspy import RetrieveRerankAnswer, load_corpus, load_questions, metrics
from radio_dspy.distillation import fuse, preference_groups
from radio_dspy.evaluation.significance import paired_bootstrap

preference_groups(["a", "b"])
paired_bootstrap([0.0], [1.0])
print(*[one for one in {HEAVY!r} if one in sys.modules])
"""


def test_importing_the_library_loads_nothing_heavy():
    """Nor do data, metrics, signatures, programs, fusion, groups and significance."""
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_public_name_is_there():
    for name in radio_dspy.__all__:
        assert getattr(radio_dspy, name) is not None
    assert set(radio_dspy.__all__) == set(dir(radio_dspy))
    for name in radio_dspy.distillation.__all__:
        assert getattr(radio_dspy.distillation, name).__name__ == name
    assert set(radio_dspy.distillation.__all__) == set(dir(radio_dspy.distillation))


def test_a_name_of_two_packages_is_one_object():
    for package in (radio_dspy.distillation, radio_dspy.rerankers, radio_dspy.retrievers):
        for name in set(package.__all__) & set(radio_dspy.__all__):
            assert getattr(package, name) is getattr(radio_dspy, name)
    for name in ("FalseNegatives", "Gate", "LMRerank", "LoraSettings", "aligned_retriever"):
        assert name in radio_dspy.__all__


def test_programs_and_optimizers_live_inside_the_namespace():
    for name in ("MultiHop", "MultipleChoice", "RetrieveRerankAnswer"):
        assert name in radio_dspy.programs.__all__
        assert getattr(radio_dspy.programs, name) is getattr(radio_dspy, name)
        assert getattr(radio_dspy, name).__module__.startswith("radio_dspy.programs.")
    assert radio_dspy.optimizers.RADIO.__module__ == "radio_dspy.optimizers.radio"
