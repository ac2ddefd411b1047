"""Requests and answers, in the shapes that clients know."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

EVENTS = "text/event-stream"
Order = Literal["first_stage", "base", "aligned"]
Text = Annotated[str, Field(min_length=1)]
Texts = str | Annotated[list[str], Field(min_length=1)]
TopN = Annotated[int | None, Field(ge=1, description="How many to return, best first; null returns all.")]
Model = Annotated[str | None, Field(description="Any name: the server has one reranker.")]


class _Shape(BaseModel):
    # Clients send more than is known here; what changes nothing is passed over.
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class Refusal(_Shape):
    """Why a request is not answered."""

    detail: str


class Document(_Shape):
    """A document that is an object."""

    text: str


class RerankRequest(_Shape):
    """A request as Cohere's and Jina's clients send it."""

    query: Text
    documents: list[str | Document] = Field(min_length=1)
    model: Model = None
    top_n: TopN = None
    return_documents: bool | None = False
    rank_fields: list[Literal["text"]] | None = Field(None, description="Documents are ranked by their text alone.")

    @property
    def texts(self) -> list[str]:
        """The documents as texts."""
        return [one if isinstance(one, str) else one.text for one in self.documents]


class RerankResult(_Shape):
    """A document's place in the request, and its score."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankResponse(_Shape):
    """An answer that Cohere's and Jina's clients read."""

    id: str
    object: Literal["list"] = "list"
    model: str
    results: list[RerankResult]
    meta: dict[str, Any]


class TeiRequest(_Shape):
    """A request as text-embeddings-inference takes it."""

    query: Text
    texts: list[str] = Field(min_length=1)
    raw_scores: bool = Field(False, description="Logits in place of probabilities; a bi-encoder's cosines stay.")
    return_text: bool = False


class TeiRank(_Shape):
    """A text's place in the request, and its score."""

    index: int
    score: float
    text: str | None = None


def _kind(body: Any) -> str:
    return "documents" if isinstance(body, dict | RerankRequest) and "documents" in dict(body) else "texts"


AnyRerankRequest = Annotated[
    Annotated[TeiRequest, Tag("texts")] | Annotated[RerankRequest, Tag("documents")], Discriminator(_kind)
]


class ScoreRequest(_Shape):
    """A request as vLLM's score route takes it: one text against each of several, or pair by pair.

    vLLM has several names for the two sides: `queries` and `documents` (or `items`), `data_1` and `data_2`.
    """

    text_1: Texts = Field(validation_alias=AliasChoices("text_1", "queries", "data_1"))
    text_2: Texts = Field(validation_alias=AliasChoices("text_2", "documents", "items", "data_2"))
    model: Model = None

    @model_validator(mode="after")
    def _lengths(self) -> ScoreRequest:
        if isinstance(self.text_1, list) and len(self.text_1) not in (1, len(self._second)):
            raise ValueError(f"text_1 has {len(self.text_1)} texts, text_2 {len(self._second)}: give one, or as many")
        return self

    @property
    def _second(self) -> list[str]:
        return [self.text_2] if isinstance(self.text_2, str) else self.text_2

    @property
    def lists(self) -> list[tuple[str, list[str]]]:
        """Each query with its texts."""
        if isinstance(self.text_1, str):
            return [(self.text_1, self._second)]
        if len(self.text_1) == 1:
            return [(self.text_1[0], self._second)]
        return [(query, [text]) for query, text in zip(self.text_1, self._second, strict=True)]


class Score(_Shape):
    """A pair's place in the request, and its score."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreResponse(_Shape):
    """An answer as vLLM gives it."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Score]


class RetrieveRequest(_Shape):
    """A question for the first stage and the rerankers."""

    query: Text
    k: int | None = Field(None, ge=1, description="How many candidates to return; null takes the program's own number.")
    orders: list[Order] = Field(["aligned"], min_length=1, description="The first one orders the answer.")

    @field_validator("orders")
    @classmethod
    def _each_once(cls, orders: list[Order]) -> list[Order]:
        return list(dict.fromkeys(orders))


class Passage(_Shape):
    """A passage, with its score in an order."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any]
    score: float


class RankedPassage(Passage):
    """A passage, with its place (1 is the first) and score in each order asked for."""

    places: dict[Order, int]
    scores: dict[Order, float]


class RetrieveResponse(_Shape):
    """The best passages, and the seconds that each step took."""

    query: str
    passages: list[RankedPassage]
    seconds: dict[str, float]


class AskRequest(_Shape):
    """A question for the whole program."""

    question: Text
    choices: list[Text] | None = Field(None, description="The options of a multiple-choice question.")
    order: Order = Field("aligned", description="Which order of the passages the LM reads.")
    stream: bool = Field(False, description="Server-sent events: `token` with a piece of the answer, at last `done`.")


class AskResponse(_Shape):
    """The answer, and the passages that the LM read, best first."""

    answer: str
    order: Order
    passages: list[Passage]
    seconds: float


class Feedback(_Shape):
    """What somebody thinks of an answer and of the passages found for it."""

    question: Text
    answer: str | None = None
    good: bool | None = Field(None, description="Whether the answer is right.")
    passages: dict[str, bool] = Field({}, description="Passage id -> whether the passage answers the question.")
    choices: list[Text] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Feedback:
        if not self.passages and (self.good is None or self.answer is None):
            raise ValueError("nothing to keep: give passages, or an answer and whether it is good")
        return self


class Ready(_Shape):
    """Whether a request would be taken."""

    ready: bool


class Version(_Shape):
    """What is served."""

    release: str
    program: str
    base: str
    fingerprint: str = Field(description="A hash of the reranker's weights.")
    lm: str | None
    orders: list[Order]
    candidates: int
    k: int
    feedback: bool
    choices: bool = Field(description="Whether a question needs options.")


def event(name: str, data: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"  # JSON has no line break
