"""Questions, indexes, LMs and rationales that the rows of an experiment share."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.files import sha256_of
from radio_dspy.core.passages import Passage
from radio_dspy.core.redaction import logger_of
from radio_dspy.datasets.examples import answer_texts, check_judgeable, check_labels
from radio_dspy.datasets.loading import demo, load_corpus, load_questions, read_jsonl
from radio_dspy.experiments.records import hash_of_settings
from radio_dspy.experiments.settings import (
    DEMO,
    LM_FILE,
    DataSettings,
    FirstStageSettings,
    RationaleSource,
    RowSettings,
)
from radio_dspy.lm.opening import open_lm
from radio_dspy.models.open_encoder import as_encoder
from radio_dspy.retrievers.faiss import FaissRetriever

if TYPE_CHECKING:
    from radio_dspy.distillation.rationales.writing import RationaleCounts
    from radio_dspy.models.encoder import TextEncoder

logger = logger_of(__name__)

_DEMO_FILES = ("passages.jsonl", "questions.jsonl")


@dataclass(frozen=True)
class Questions:
    """The questions of one row.

    Attributes:
        train: To learn from.
        held_out: Kept for the gate; may be empty.
        test: To judge by.
    """

    train: list[dspy.Example]
    held_out: list[dspy.Example]
    test: list[dspy.Example]


class Materials:
    """Makes and keeps what rows share; a context manager, since local LMs run for the length of a block.

    Args:
        out: Folder for indexes, rationales and scores.
        show_progress: Show progress bars.
    """

    def __init__(self, out: Path, *, show_progress: bool = True) -> None:
        self.out = out
        self.show_progress = show_progress
        self._stack = contextlib.ExitStack()
        self._lms: dict[tuple[Any, ...], dspy.LM | None] = {}
        self._corpora: dict[str, list[Passage]] = {}
        self._indexes: dict[tuple[str | None, ...], FaissRetriever] = {}
        self._hashes: dict[Path, str] = {}

    def __enter__(self) -> Materials:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def hashes(self, settings: RowSettings) -> dict[str, str]:
        """The hash of every file that a row reads, by its name; an LM's weights only where they are here."""
        data = settings.data
        names = [data.corpus, data.train, data.test, data.test_corpus, settings.rationale.file]
        if data.corpus == DEMO:
            folder = files("radio_dspy.datasets") / "demo"
            found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16] for name in _DEMO_FILES}
            named = [name for name in names[1:] if name]
        else:
            found, named = {}, [name for name in names if name]
        lms = {*settings.teaching_lms, settings.generator.lm}
        paths = {name: located(data, name) for name in named}
        weights = {name: _weights_of(name, data) for name in lms if name.endswith(LM_FILE)}
        for name, path in {**paths, **weights}.items():
            if path.is_file():  # a row whose LM is missing says so when it runs, and the others go on
                if path not in self._hashes:
                    self._hashes[path] = sha256_of(path)[:16]
                found[name] = self._hashes[path]
        return dict(sorted(found.items()))

    def questions(self, settings: RowSettings) -> Questions:
        """The row's questions, checked against the corpus that they are asked of."""
        data = settings.data
        if data.train is None:
            bundled = demo()
            train, test = bundled.train, bundled.test
        else:
            train = load_questions(located(data, data.train))
            test = load_questions(located(data, data.test)) if data.test else []
        if not test:
            train, test = halved(train)
        test = check_labels(test, {one.id for one in self.corpus(data, data.test_corpus or data.corpus)})
        check_judgeable(test, data.test or data.train or DEMO)
        if data.shuffle_test:
            test = sorted(test, key=_hash_of_id)
        count = data.train_questions or len(train)
        gate = settings.gate
        held_out = train[count : count + gate.questions] if gate.by != "none" else []
        if gate.by != "none" and data.train_questions and not held_out:
            raise SettingsError(
                f"gate.by: {gate.by} needs questions beyond the first {count}; {data.train or DEMO} has {len(train)}. "
                "Give a smaller data.train_questions, or none."
            )
        return Questions(train[:count], held_out, test[: data.test_questions])

    def corpus(self, data: DataSettings, name: str) -> list[Passage]:
        """Passages by their file's name, read once."""
        if name not in self._corpora:
            self._corpora[name] = demo().passages if name == DEMO else load_corpus(located(data, name))
        return self._corpora[name]

    def encoder(self, first_stage: FirstStageSettings) -> TextEncoder:
        """The first stage's encoder."""
        return as_encoder(
            first_stage.encoder,
            query_prefix=first_stage.query_prefix,
            passage_prefix=first_stage.passage_prefix,
        )

    def retriever(self, settings: RowSettings, *, test: bool = False) -> FaissRetriever:
        """The index of the row's corpus, or of the one that its test questions are asked of; built once."""
        data, first_stage = settings.data, settings.first_stage
        name = (data.test_corpus if test else None) or data.corpus
        key = (name, first_stage.encoder, first_stage.query_prefix, first_stage.passage_prefix)
        if key not in self._indexes:
            encoder = self.encoder(first_stage)
            passages = self.corpus(data, name)
            told = [name, [(one.id, one.contents) for one in passages], encoder.identity, encoder.query_settings]
            digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
            folder = self.out / "indexes" / digest[:16]
            if not (folder / "manifest.json").is_file():
                logger.info("Encoding %d passages of %s.", len(passages), name)
                FaissRetriever.build(passages, encoder, show_progress=self.show_progress).save(folder)
            self._indexes[key] = FaissRetriever.load(folder, encoder=encoder)
        return self._indexes[key]

    def lm(
        self, name: str, data: DataSettings, *, max_tokens: int, temperature: float = 0.2, seed: int = 42
    ) -> dspy.LM | None:
        """An LM by name, started at its first use; a GGUF file may also lie in the data's folder."""
        if name.endswith(LM_FILE):
            path = _weights_of(name, data)
            name = str(path if path.is_file() else located(data, name))
        key = (name, max_tokens, temperature, seed)
        if key not in self._lms:
            opened = open_lm(name, seed=seed, max_tokens=max_tokens, temperature=temperature)
            self._lms[key] = self._stack.enter_context(opened)
        return self._lms[key]

    def rationales(
        self, settings: RowSettings, questions: Sequence[dspy.Example], encoder: TextEncoder
    ) -> tuple[dict[str, str], RationaleCounts]:
        """A rationale for every question, whoever writes it; those that an LM wrote are kept for all rows and seeds."""
        from radio_dspy.distillation.rationales.extractor import RationaleExtractor
        from radio_dspy.distillation.rationales.writing import explain
        from radio_dspy.retrievers.requests import question_id
        from radio_dspy.runs.run import Run

        own = settings.rationale
        lm = self.lm(own.lm, settings.data, max_tokens=own.max_tokens, temperature=own.temperature, seed=own.seed)
        asked = [(question_id(one), one.question, answer_texts(one)) for one in questions]
        run = Run(rationale_folder(self.out, settings))
        with run.exclusive():
            return explain(
                [one for one in asked if one[2]],
                run,
                lm=lm,
                extractor=RationaleExtractor(),
                given=_given(settings.data, own, questions),
                encoder=encoder,
                check=own.check,
                show_progress=self.show_progress,
            )


def rationale_folder(out: Path, settings: RowSettings) -> Path:
    """Where an LM's rationales are kept; rows that ask the same share it, whether they check what it says or not."""
    own = settings.rationale.model_dump(exclude={"check"})
    return out / "rationales" / hash_of_settings({"data": settings.data.train, **own})


def located(data: DataSettings, name: str) -> Path:
    """A file of the data.

    Raises:
        SettingsError: If it is not there; the message says what to give.
    """
    path = Path(data.root or ".") / name  # an absolute name stays as it is
    if not path.is_file():
        where = f"below {data.root}" if data.root else "here, and no data folder was given"
        raise SettingsError(
            f"{name}: no such file {where}. Give the folder of the data with --data FOLDER (or --set "
            "data.root=FOLDER); another name with --set data.corpus=... and so on."
        )
    return path


def _weights_of(name: str, data: DataSettings) -> Path:
    """Where an LM's file is or would be: as it is named, or in the data's folder."""
    return Path(name) if Path(name).is_file() else Path(data.root or ".") / name


def halved(questions: Sequence[dspy.Example]) -> tuple[list[dspy.Example], list[dspy.Example]]:
    """Two halves by a hash of the id: which half a question is in does not depend on the others."""
    sides: tuple[list[dspy.Example], list[dspy.Example]] = ([], [])
    for one in questions:
        sides[_hash_of_id(one)[0] % 2].append(one)
    return sides


def _hash_of_id(question: dspy.Example) -> bytes:
    return hashlib.sha256(str(question.id).encode()).digest()


def _given(data: DataSettings, own: RationaleSource, questions: Sequence[dspy.Example]) -> dict[str, str]:
    """Precomputed rationales: of a file, or a field of the questions' metadata."""
    found: dict[str, str] = {}
    if own.file:
        path = located(data, own.file)
        for where, row in read_jsonl(path):
            if not isinstance(row.get("rationale"), str) or "id" not in row:
                raise SettingsError(f"{where}: needs 'id' and a string 'rationale', got {sorted(row)!r}.")
            found.setdefault(str(row["id"]), row["rationale"])
    if own.field:
        for one in questions:
            if isinstance(text := one.metadata.get(own.field), str):
                found.setdefault(str(one.id), text)
        if not found:
            raise SettingsError(f"rationale.field: no question's metadata has a text {own.field!r}.")
    return found
