"""The settings of an experiment, with defaults and checks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from radio_dspy.core.errors import SettingsError
from radio_dspy.distillation.rationales.settings import RationaleSettings
from radio_dspy.experiments.declared import Part, declared, recorded
from radio_dspy.optimizers.presets import LOCAL_PREFERENCES, LOCAL_TRAINING

Method = Literal[
    "radio", "first-stage", "base", "bm25", "rrf", "off-the-shelf", "lm-listwise", "answer-passages",
    "teacher", "labelled-passages", "no-passages",
]  # fmt: skip
SignalName = Literal["retrieval", "rationale", "answer", "likelihood", "correctness", "containment", "labels"]
LM_SIGNALS: tuple[SignalName, ...] = ("likelihood", "correctness")
LM_FILE = ".gguf"  # how the name of an LM ends that is a file
SEEDED = ("radio", "answer-passages")  # methods that a seed changes
TAUGHT = ("radio", "teacher")  # methods that ask the teacher
# Keys that records have only where they are set: what was recorded before they came stays as it is.
_LATER = {"data": ("shuffle_test",), "generator": ("likelihood",), "teacher": ("compared_with",)}
DEMO = "demo"

_DEFAULTS = {"preferences": LOCAL_PREFERENCES, "training": LOCAL_TRAINING}

Share = Annotated[float, Field(ge=0, le=1)]
Metric = Annotated[str, Field(pattern=r"^(ndcg@[1-9]\d*|recall@[1-9]\d*|mrr)$")]
if TYPE_CHECKING:
    from radio_dspy.distillation.preferences.settings import PreferenceSettings as Preferences
    from radio_dspy.distillation.training.settings import TrainingSettings as Training
else:
    Preferences = declared(LOCAL_PREFERENCES)
    Training = declared(
        LOCAL_TRAINING,
        without=("seed", "device", "save_steps", "disable_tqdm", "report_to", "callbacks", "launcher", "save_adapter"),
    )  # a run's, not a row's


class Sizes(Part):
    """What is in files that are not on this machine, for the plan.

    Attributes:
        passages: Of the corpus.
        train: Training questions.
        test: Test questions.
    """

    passages: PositiveInt
    train: PositiveInt
    test: PositiveInt


class DataSettings(Part):
    """What is learnt from and judged by.

    Attributes:
        root: Folder that the files below are in; given on the command line, never in a file that is shared.
        corpus: Passages as JSON Lines, or ``demo`` for the bundled set, which needs no other file.
        train: Training questions.
        test: Test questions; without it half of ``train`` is kept for it, by a hash of the id.
        test_corpus: Passages for the test questions, where they are other ones.
        train_questions: Use only the first so many.
        test_questions: Use only the first so many.
        shuffle_test: Take the test questions in the order of a hash of their ids: the first questions of a file that is
            sorted by subject are of one.
        expected: Sizes for the plan where the files are not there.
    """

    root: str | None = None
    corpus: str = DEMO
    train: str | None = None
    test: str | None = None
    test_corpus: str | None = None
    train_questions: PositiveInt | None = None
    test_questions: PositiveInt | None = None
    shuffle_test: bool = False
    expected: Sizes | None = None

    @model_validator(mode="after")
    def _whole(self) -> DataSettings:
        if self.corpus != DEMO and self.train is None:
            raise ValueError("a corpus file needs 'train', a file of questions")
        return self


class FirstStageSettings(Part):
    """The dense first stage.

    Attributes:
        encoder: Folder, hub name or LiteLLM name.
        query_prefix: Put before queries; None is the encoder's own.
        passage_prefix: Put before passages; None is the encoder's own.
        candidates: Passages reranked for a test question.
    """

    encoder: str = "all-MiniLM-L6-v2"
    query_prefix: str | None = None
    passage_prefix: str | None = None
    candidates: PositiveInt = 20


class RerankerSettings(Part):
    """The base reranker, and the one that it is held against.

    Attributes:
        checkpoint: Folder or hub name of the weights to start from.
        architecture: How it scores.
        other: The reranker of ``method: off-the-shelf``: a cross-encoder's folder or hub name, or a LiteLLM name.
    """

    checkpoint: str = "all-MiniLM-L6-v2"
    architecture: Literal["bi-encoder", "cross-encoder", "late-interaction"] = "bi-encoder"
    other: str | None = None


class RationaleSource(Part):
    """Where rationales come from.

    Attributes:
        lm: ``none``, ``local``, a GGUF file, or any LiteLLM name.
        file: ``{"id", "rationale"}`` lines that are there already, below ``data.root``; the LM is asked for the others.
        field: A field of the questions' metadata that holds a written reason.
        temperature: Sampling temperature; the paper's 0.2.
        seed: Sampling seed; the paper's 42.
        max_tokens: Longest rationale; the paper's 1,000.
        check: See ``RationaleSettings``.
    """

    lm: str = "none"
    file: str | None = None
    field: str | None = None
    temperature: Annotated[float, Field(ge=0)] = 0.2
    seed: int = 42
    max_tokens: PositiveInt = 80
    check: bool = RationaleSettings.check


class TeacherSettings(Part):
    """What makes a passage preferred.

    Attributes:
        signals: Weight of each signal in the fused score.
        encoder: Compares guides with passages; None is the first stage's.
        lm: Asked by the signals ``likelihood`` and ``correctness``, and by ``method: lm-listwise``.
        depth: Candidates a question that these signals ask about.
        compared_with: Of ``method: teacher``: the record tells how well its order agrees with that of this signal.
    """

    signals: dict[SignalName, Share] = Field(default={"rationale": 0.5, "retrieval": 0.5}, min_length=1)
    encoder: str | None = None
    lm: str = "local"
    depth: PositiveInt = 10
    compared_with: Literal["likelihood", "correctness", "labels"] | None = None


class GateSettings(Part):
    """Whether something that does not beat the base is held back, judged on training questions that are kept for it.

    Attributes:
        by: ``none`` returns what was trained.
        questions: Kept after the first ``data.train_questions``; without these it is a fifth of the training questions.
    """

    by: Literal["none", "labels", "teacher"] = "none"
    questions: PositiveInt = 200


class GeneratorSettings(Part):
    """Who answers.

    Attributes:
        lm: ``none``, ``local``, a GGUF file, or any LiteLLM name.
        task: ``qa``: short answers (exact match, token F1); ``choice``: letters (accuracy).
        k: Passages that it reads.
        questions: Answer only the first so many test questions; None answers all.
        likelihood: For the first so many test questions also tell how likely the right answer is to the LM, after the
            same passages (see ``AnswerLikelihood``).
        max_tokens: Longest answer.
    """

    lm: str = "none"
    task: Literal["qa", "choice"] = "qa"
    k: PositiveInt = 5
    questions: NonNegativeInt | None = None
    likelihood: NonNegativeInt = 0
    max_tokens: PositiveInt = 32


class RowSettings(Part):
    """One row of an experiment, with all its settings.

    Attributes:
        method: ``radio`` trains; the others are what it is held against.
        data: Questions and passages.
        first_stage: The retriever.
        reranker: The base.
        rationale: Who writes rationales.
        teacher: Signals and weights.
        preferences: Groups.
        training: Loss and optimizer.
        gate: What is held back.
        generator: Who answers.
        metrics: Of rankings; the first is the main one.
        cases: How many of the questions that gained and that lost most are told in the record.
    """

    method: Method = "radio"
    data: DataSettings = DataSettings()
    first_stage: FirstStageSettings = FirstStageSettings()
    reranker: RerankerSettings = RerankerSettings()
    rationale: RationaleSource = RationaleSource()
    teacher: TeacherSettings = TeacherSettings()
    preferences: Preferences = LOCAL_PREFERENCES
    training: Training = LOCAL_TRAINING
    gate: GateSettings = GateSettings()
    generator: GeneratorSettings = GeneratorSettings()
    metrics: list[Metric] = Field(default=["ndcg@10", "recall@5", "mrr"], min_length=1)
    cases: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _fitting(self) -> RowSettings:
        if self.method == "off-the-shelf" and self.reranker.other is None:
            raise ValueError("method off-the-shelf needs reranker.other, the reranker to compare with")
        if self.generator.likelihood and self.generator.task == "choice":
            raise ValueError("generator.likelihood is that of an answer in words, and needs generator.task: qa")
        self.training.check(self.reranker.architecture)
        return self

    @property
    def explained(self) -> bool:
        """Whether its teacher reads rationales."""
        return self.method in TAUGHT and bool(self.teacher.signals.get("rationale"))

    @property
    def asked_signals(self) -> list[SignalName]:
        """The signals that ask an LM about passages, also to compare the teacher with."""
        also = self.teacher.compared_with if self.method == "teacher" else None
        found = [name for name in LM_SIGNALS if self.teacher.signals.get(name) or name == also]
        return found if self.method in TAUGHT else []

    @property
    def teaching_lms(self) -> set[str]:
        """Names of the LMs that have a part in what is learnt, or that rerank."""
        asked = bool(self.asked_signals) or self.method == "lm-listwise"
        return ({self.rationale.lm} if self.explained else set()) | ({self.teacher.lm} if asked else set())

    def decisive(self) -> dict[str, Any]:
        """The settings that decide the result, in JSON types; where the files lie decides nothing."""
        return self._recorded()

    def trained_by(self) -> dict[str, Any]:
        """The part of them that decides what is trained: rows that share it are trained once."""
        found = self._recorded("generator", "metrics", "cases")
        found["data"].pop("shuffle_test", None)
        for name in ("test", "test_corpus", "test_questions"):
            # Without a test file the test questions are taken out of the training questions.
            if name != "test" or self.data.test is not None:
                del found["data"][name]
        return found

    def _recorded(self, *without: str) -> dict[str, Any]:
        parts = self.model_dump(
            mode="json",
            exclude={"data": {"root", "expected"}, **dict.fromkeys((*_DEFAULTS, *without), True)},
        )
        for part, name in ((part, name) for part, names in _LATER.items() if part in parts for name in names):
            if not parts[part][name]:
                del parts[part][name]
        return recorded(parts, {name: getattr(self, name) for name in _DEFAULTS}, _DEFAULTS)


class Row(Part):
    """A row: its name and settings.

    Attributes:
        name: Unique in its experiment.
        settings: Defaults and its own together.
    """

    name: str
    settings: RowSettings

    @property
    def slug(self) -> str:
        """The name as a part of a file's name."""
        return re.sub(r"[^a-z0-9.]+", "-", self.name.lower()).strip("-")


class Experiment(Part):
    """One experiment.

    Attributes:
        name: Also its records' folder.
        title: A heading.
        question: What it asks.
        seeds: Each row runs with each, those that a seed does not change with the first alone.
        rows: What is compared.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    title: str
    question: str
    seeds: list[int] = Field(default=[1], min_length=1)
    rows: list[Row] = Field(min_length=1)

    @field_validator("rows")
    @classmethod
    def _distinct(cls, rows: list[Row]) -> list[Row]:
        slugs = [row.slug for row in rows]
        for position, slug in enumerate(slugs):
            if not slug or slug in slugs[:position]:
                raise ValueError(f"rows need different names with letters or digits, got {rows[position].name!r}")
        return rows

    def runs(self, rows: Sequence[str] = (), seeds: Sequence[int] = ()) -> Iterator[tuple[Row, int]]:
        """Every row with every seed, a whole table after the first seed.

        Args:
            rows: Only rows whose name contains one of these; none takes all.
            seeds: Only these; none takes the file's. Rows that a seed does not change run with the file's first seed,
                so without it they do not, unless none of these is the file's.

        Raises:
            SettingsError: If no row has such a name, or nothing is left.
        """
        chosen = [row for row in self.rows if not rows or any(part in row.name for part in rows)]
        if not chosen:
            known = ", ".join(repr(row.name) for row in self.rows)
            raise SettingsError(f"{self.name}: no row's name contains {' or '.join(rows)}; the rows are {known}.")
        taken = list(dict.fromkeys(seeds or self.seeds))
        first = self.seeds[0] if set(taken) & set(self.seeds) else taken[0]
        if first not in taken and not any(row.settings.method in SEEDED for row in chosen):
            raise SettingsError(f"{self.name}: no seed changes these rows; they run with seed {first} alone.")
        for seed in taken:
            for row in chosen:
                if seed == first or row.settings.method in SEEDED:
                    yield row, seed
