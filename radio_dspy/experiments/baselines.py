"""Baselines for experiments: BM25, reciprocal rank fusion, fine-tuning on passages with the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from radio_dspy.core.errors import DataError, MissingExtraError
from radio_dspy.core.passages import Passage, Ranking, RankRequest
from radio_dspy.core.text import contains_answer, telling
from radio_dspy.distillation.training.settings import TrainingSettings
from radio_dspy.models.encoder import quiet_loading
from radio_dspy.retrievers.base import Retriever

RRF_K = 60  # Cormack et al. 2009
_INSTALL = "pip install 'radio-dspy[experiments]'"


class BM25Retriever(Retriever):
    """BM25 over the words of title and text (bm25s, Lucene's variant, English stop words).

    Example:
        >>> found = BM25Retriever([Passage("a", "Yeast dies in heat."), Passage("b", "Ice floats.")]).search(["ice"], 1)
        >>> found[0].ids
        ('b',)
    """

    def __init__(self, passages: Sequence[Passage], k: int = 20) -> None:
        super().__init__(k)
        try:
            import bm25s
        except ImportError as error:
            raise MissingExtraError(f"BM25 needs bm25s: {_INSTALL}") from error
        self.passages = tuple(passages)
        self._tokenize = bm25s.tokenize
        self._index = bm25s.BM25()
        self._index.index(self._tokens([one.contents for one in self.passages]), show_progress=False)

    def search(self, queries: Sequence[str], k: int) -> list[Ranking]:
        """Find the ``k`` best passages for each query."""
        tokens = self._tokens(list(queries))
        rows, scores = self._index.retrieve(tokens, k=min(k, len(self.passages)), show_progress=False)
        return [
            Ranking(query, tuple(self.passages[row] for row in found), tuple(map(float, values)))
            for query, found, values in zip(queries, rows, scores, strict=True)
        ]

    def _tokens(self, texts: list[str]) -> list[list[str]]:
        found: list[list[str]] = self._tokenize(texts, stopwords="en", return_ids=False, show_progress=False)
        return found


def reciprocal_rank_fusion(rankings: Sequence[Ranking], k: int | None = None) -> Ranking:
    """One ranking of several: a passage scores the sum of ``1 / (60 + rank)``.

    Example:
        >>> a, b, c = (Passage(one, one) for one in "abc")
        >>> first, second = Ranking("q", (a, b), (2.0, 1.0)), Ranking("q", (b, c), (9.0, 8.0))
        >>> reciprocal_rank_fusion([first, second]).ids
        ('b', 'a', 'c')
    """
    scores: dict[str, float] = defaultdict(float)
    passages: dict[str, Passage] = {}
    for ranking in rankings:
        for rank, passage in enumerate(ranking.passages, start=1):
            scores[passage.id] += 1 / (RRF_K + rank)
            passages.setdefault(passage.id, passage)
    return Ranking.from_scores(rankings[0].query, list(passages.values()), [scores[key] for key in passages]).top(k)


class FixedRankings(Retriever):
    """Gives rankings that are there already, so that every method's passages are read by the same program."""

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
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from radio_dspy.models.files import fetched_weights, safe_loading

    target = folder / "answer-passages"
    with quiet_loading():
        folder_of_base = str(fetched_weights(checkpoint))
        model = SentenceTransformer(folder_of_base, **safe_loading())
        window, model.max_seq_length = model.max_seq_length, settings.max_length
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=str(folder / "trainer"),
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
            ),
            train_dataset=Dataset.from_dict(columns),
            loss=MultipleNegativesRankingLoss(model),
        )
        trainer.train()
        model.max_seq_length = window  # as an aligned one, it reads as far as its base does
        model.save_pretrained(str(target), create_model_card=False)
    return str(target), len(columns["anchor"])
