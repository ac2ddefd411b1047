"""Baselines for experiments: given rankings, fine-tuning on passages with the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from radio_dspy.core.errors import DataError, MissingExtraError
from radio_dspy.core.rankings import Ranking, RankRequest
from radio_dspy.core.text import contains_answer, telling
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.models.encoder import quiet_loading
from radio_dspy.retrievers.base import Retriever

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformerTrainingArguments

TRAINED, TRAINER = "answer-passages", "trainer"  # folders of a training
_INSTALL = "pip install 'radio-dspy[experiments]'"


class FixedRankings(Retriever):
    """Returns rankings that were computed before, so that one program reads the passages of every method."""

    def __init__(self, rankings: Mapping[str, Ranking], k: int = 20) -> None:
        super().__init__(k)
        self._rankings = dict(rankings)

    def search(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """The first ``k`` of each query's ranking."""
        return [self._rankings[query].top(k) for query in queries]


def answer_triplets(requests: Sequence[RankRequest]) -> dict[str, list[str]]:
    """For each question with one: the first candidate that contains an answer, and the first that does not."""
    found: dict[str, list[str]] = {"anchor": [], "positive": [], "negative": []}
    for one in requests:
        answers = telling(one.answers)
        holds = [contains_answer(passage, answers) for passage in one.candidates]
        if any(holds) and not all(holds):
            texts = (one.candidates[holds.index(held)].contents for held in (True, False))
            for column, text in zip(found.values(), (one.query, *texts), strict=True):
                column.append(text)
    return found


def finetune_on_answers(
    checkpoint: str, requests: Sequence[RankRequest], settings: TrainingSettings, seed: int, folder: Path
) -> tuple[str, int]:
    """Fine-tune a bi-encoder by sentence-transformers' own trainer on passages that contain the answer.

    The usual recipe: multiple negatives ranking, in-batch negatives and one hard negative a question.

    Args:
        checkpoint: Weights to start from.
        requests: Training questions with their candidates.
        settings: Epochs, learning rate, questions a step and longest input are taken from here.
        seed: Of the trainer.
        folder: Where the weights go.

    Returns:
        The folder of the weights, and how many questions were learnt from.

    Raises:
        MissingExtraError: If datasets or accelerate is missing.
        DataError: If no candidate contains an answer.
    """
    columns = answer_triplets(requests)
    if not columns["anchor"]:
        raise DataError(f"None of the {len(requests)} training questions has a candidate that contains its answer.")
    try:
        import accelerate  # noqa: F401  # the trainer asks for it late and in other words
        from datasets import Dataset
    except ImportError as error:
        raise MissingExtraError(f"sentence-transformers' trainer needs datasets and accelerate: {_INSTALL}") from error
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from radio_dspy.models.files import fetched_weights, safe_loading

    target = folder / TRAINED
    with quiet_loading():
        model = SentenceTransformer(str(fetched_weights(checkpoint)), **safe_loading())
        window, model.max_seq_length = model.max_seq_length, settings.max_length
        SentenceTransformerTrainer(
            model=model,
            args=_arguments(settings, seed, folder / TRAINER),
            train_dataset=Dataset.from_dict(columns),
            loss=MultipleNegativesRankingLoss(model),
        ).train()
        model.max_seq_length = window  # as an aligned one, it reads as far as its base does
        model.save_pretrained(str(target), create_model_card=False)
    return str(target), len(columns["anchor"])


def _arguments(settings: TrainingSettings, seed: int, folder: Path) -> SentenceTransformerTrainingArguments:
    from sentence_transformers import SentenceTransformerTrainingArguments

    return SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.num_train_epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        per_device_train_batch_size=settings.per_device_train_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps or 1,
        seed=seed,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
