"""The routes of the program itself: passages, answers, feedback, and another program in its place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import StreamingResponse

from radio_dspy.core.passages import as_passages
from radio_dspy.serving.errors import answer_to
from radio_dspy.serving.feedback import add_feedback, feedback_row
from radio_dspy.serving.service import Service, in_order
from radio_dspy.serving.shapes import (
    EVENTS,
    AskRequest,
    AskResponse,
    Feedback,
    Order,
    Passage,
    RankedPassage,
    RetrieveRequest,
    RetrieveResponse,
    event,
)

router = APIRouter(tags=["program"])


@router.post("/retrieve")
async def retrieve(body: RetrieveRequest, request: Request) -> RetrieveResponse:
    """The passages for a query, in the aligned order or another one, with their places in all that are asked for."""
    service: Service = request.app.state.service
    found = await service.retrieve(body.query, body.orders)
    places = {order: in_order(scores) for order, scores in found.scores.items()}
    first = body.orders[0]
    passages = [
        RankedPassage(
            id=one.id,
            title=one.title,
            text=one.text,
            metadata=dict(one.metadata),
            score=found.scores[first][position],
            places={order: places[order][position] for order in places},
            scores={order: found.scores[order][position] for order in places},
        )
        for position, one in enumerate(found.passages)
    ]
    passages.sort(key=lambda one: one.places[first])
    return RetrieveResponse(
        query=body.query, passages=passages[: body.k or service.loaded.program.k], seconds=found.seconds
    )


@router.post("/ask", response_model=AskResponse, responses={200: {"content": {EVENTS: {}}}})
async def ask(body: AskRequest, request: Request) -> Any:
    """The answer to a question, with the passages that the LM read; with `stream` as server-sent events."""
    service: Service = request.app.state.service
    inputs: dict[str, Any] = {"question": body.question, **({"choices": body.choices} if body.choices else {})}
    program = service.answering(body.order, body.choices)
    await service.check([body.question], body.choices or [])
    started = time.perf_counter()
    if body.stream:
        events = _events(service, program, inputs, body.order, started)
        return StreamingResponse(events, media_type=EVENTS, headers={"cache-control": "no-store"})
    return _answer(await service.ask(program, inputs), body.order, started)


def _answer(prediction: Any, order: Order, started: float) -> AskResponse:
    passages = [
        Passage(id=one.id, title=one.title, text=one.text, metadata=dict(one.metadata), score=score)
        for one, score in zip(as_passages(prediction.passages), prediction.scores, strict=True)
    ]
    seconds = round(time.perf_counter() - started, 4)
    return AskResponse(answer=str(prediction.answer), order=order, passages=passages, seconds=seconds)


async def _events(
    service: Service, program: Any, inputs: dict[str, Any], order: Order, started: float
) -> AsyncIterator[str]:
    """Server-sent events: the status has gone out already, so that a failure is an event too."""
    try:
        async for one in service.stream(program, inputs):
            if hasattr(one, "chunk"):
                yield event("token", {"text": one.chunk})
            elif hasattr(one, "answer"):
                yield event("done", _answer(one, order, started).model_dump())
    except Exception as error:
        yield event("error", {"detail": answer_to(error).reason})


@router.post("/feedback", status_code=201)
async def feedback(body: Feedback, request: Request) -> dict[str, bool]:
    """Keep what somebody thinks of an answer and its passages, as data to train on."""
    service: Service = request.app.state.service
    path = service.settings.feedback
    if path is None:
        raise HTTPException(409, "feedback is not kept here: start the server with --feedback FILE.")
    await service.check([body.question, body.answer or ""], [*body.passages, *(body.choices or [])])
    found = await asyncio.to_thread(service.retriever.passages_by_id, list(body.passages))
    await asyncio.to_thread(add_feedback, path, feedback_row(body, found))
    return {"kept": True}


async def _reload_all(request: Request) -> None:
    await request.app.state.service.reload()
    request.app.state.tell_workers()


@router.post("/reload")
async def reload(request: Request) -> dict[str, str]:
    """Load the program's folder again and take it over; requests under way end with the program that they began with.

    Needs a key. Without one there is the signal SIGHUP.
    """
    service: Service = request.app.state.service
    if not request.app.state.keyed:
        raise HTTPException(403, "a server without keys is reloaded by the signal SIGHUP alone.")
    await asyncio.shield(_reload_all(request))  # also where who asked for it does not wait
    return {"fingerprint": service.loaded.fingerprint}
