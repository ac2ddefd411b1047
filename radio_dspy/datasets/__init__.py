"""Corpora, questions and preference groups: loaders and the bundled demo set."""

from typing import TYPE_CHECKING

from radio_dspy.core.lazy import lazy_module

if TYPE_CHECKING:
    from radio_dspy.datasets.examples import answer_texts as answer_texts
    from radio_dspy.datasets.examples import answers_of as answers_of
    from radio_dspy.datasets.examples import check_judgeable as check_judgeable
    from radio_dspy.datasets.examples import check_labels as check_labels
    from radio_dspy.datasets.examples import letters_of as letters_of
    from radio_dspy.datasets.examples import relevant_of as relevant_of
    from radio_dspy.datasets.groups import load_groups as load_groups
    from radio_dspy.datasets.groups import write_groups as write_groups
    from radio_dspy.datasets.loading import Demo as Demo
    from radio_dspy.datasets.loading import demo as demo
    from radio_dspy.datasets.loading import load_corpus as load_corpus
    from radio_dspy.datasets.loading import load_questions as load_questions

_HOMES = {
    "Demo": "radio_dspy.datasets.loading",
    "answer_texts": "radio_dspy.datasets.examples",
    "answers_of": "radio_dspy.datasets.examples",
    "check_judgeable": "radio_dspy.datasets.examples",
    "check_labels": "radio_dspy.datasets.examples",
    "demo": "radio_dspy.datasets.loading",
    "letters_of": "radio_dspy.datasets.examples",
    "load_corpus": "radio_dspy.datasets.loading",
    "load_groups": "radio_dspy.datasets.groups",
    "load_questions": "radio_dspy.datasets.loading",
    "relevant_of": "radio_dspy.datasets.examples",
    "write_groups": "radio_dspy.datasets.groups",
}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
