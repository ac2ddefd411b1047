"""MMLU's 57 subjects in four categories (hendrycks/test, 2021)."""

from __future__ import annotations

from radio_dspy.core.errors import DataError

CATEGORIES: dict[str, tuple[str, ...]] = {
    "STEM": (
        "abstract_algebra",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    ),
    "humanities": (
        "formal_logic",
        "high_school_european_history",
        "high_school_us_history",
        "high_school_world_history",
        "international_law",
        "jurisprudence",
        "logical_fallacies",
        "moral_disputes",
        "moral_scenarios",
        "philosophy",
        "prehistory",
        "professional_law",
        "world_religions",
    ),
    "social sciences": (
        "econometrics",
        "high_school_geography",
        "high_school_government_and_politics",
        "high_school_macroeconomics",
        "high_school_microeconomics",
        "high_school_psychology",
        "human_sexuality",
        "professional_psychology",
        "public_relations",
        "security_studies",
        "sociology",
        "us_foreign_policy",
    ),
    "other": (
        "anatomy",
        "business_ethics",
        "clinical_knowledge",
        "college_medicine",
        "global_facts",
        "human_aging",
        "management",
        "marketing",
        "medical_genetics",
        "miscellaneous",
        "nutrition",
        "professional_accounting",
        "professional_medicine",
        "virology",
    ),
}
CATEGORY_OF = {subject: category for category, subjects in CATEGORIES.items() for subject in subjects}


def category_of(subject: str) -> str:
    """The category of a subject.

    Raises:
        DataError: If MMLU has no such subject.

    Example:
        >>> category_of("human_sexuality")
        'social sciences'
    """
    if subject not in CATEGORY_OF:
        raise DataError(f"{subject!r} is not one of MMLU's 57 subjects; they are written as 'abstract_algebra'.")
    return CATEGORY_OF[subject]
