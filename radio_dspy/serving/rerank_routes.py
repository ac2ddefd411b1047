"""The routes that rerankers are known by: Cohere's and Jina's, text-embeddings-inference's, vLLM's."""

from __future__ import annotations

import itertools
import math
import time
import uuid
from typing import Any

from fastapi import APIRouter, Request

from radio_dspy.core.rankings import best_first
from radio_dspy.serving.service import Service
from radio_dspy.serving.shapes import (
    AnyRerankRequest,
    Document,
    RerankRequest,
    RerankResponse,
    RerankResult,
    Score,
    ScoreRequest,
    ScoreResponse,
    TeiRank,
)

router = APIRouter(tags=["rerankers"])
MODEL = "radio-dspy"  # what an answer names where the request names no model


@router.post("/v1/rerank", response_model_exclude_none=True)
@router.post("/v2/rerank", response_model_exclude_none=True)
async def rerank(body: RerankRequest, request: Request) -> RerankResponse:
    """Order documents by their relevance to a query, best first, as Cohere and Jina do.

    `relevance_score` is the reranker's own score: a cosine, or a cross-encoder's logit.
    """
    service: Service = request.app.state.service
    texts = body.texts
    (scores,) = await service.scores([(body.query, texts)])
    results = [
        RerankResult(
            index=index,
            relevance_score=scores[index],
            document=Document(text=texts[index]) if body.return_documents else None,
        )
        for index in best_first(scores)[: body.top_n]
    ]
    meta: dict[str, Any] = {
        "api_version": {"version": request.url.path[2:3] if request.url.path.startswith("/v") else "1"},
        "billed_units": {"search_units": 1},
    }
    return RerankResponse(id=str(uuid.uuid4()), model=body.model or MODEL, results=results, meta=meta)


@router.post("/rerank", response_model_exclude_none=True)
async def rerank_texts(body: AnyRerankRequest, request: Request) -> list[TeiRank] | RerankResponse:
    """Order texts, best first, as text-embeddings-inference does; with `documents` in place of `texts` as vLLM does.

    Without `raw_scores` a cross-encoder's logit goes through the logistic function. Texts are cut at the reranker's
    longest input.
    """
    if isinstance(body, RerankRequest):
        return await rerank(body, request)
    service: Service = request.app.state.service
    (scores,) = await service.scores([(body.query, body.texts)])
    if not body.raw_scores and service.loaded.rerank.weights.architecture == "cross-encoder":
        scores = [_logistic(one) for one in scores]
    return [
        TeiRank(index=index, score=scores[index], text=body.texts[index] if body.return_text else None)
        for index in best_first(scores)
    ]


@router.post("/score")
@router.post("/v1/score", include_in_schema=False)
async def score(body: ScoreRequest, request: Request) -> ScoreResponse:
    """Score one text against several, or pairs of texts, in their order, as vLLM does."""
    service: Service = request.app.state.service
    lists = await service.scores(body.lists)
    data = [Score(index=index, score=one) for index, one in enumerate(itertools.chain(*lists))]
    return ScoreResponse(id=f"score-{uuid.uuid4()}", created=int(time.time()), model=body.model or MODEL, data=data)


def _logistic(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else 1 - 1 / (1 + math.exp(logit))
