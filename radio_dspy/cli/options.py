"""Options that several commands share, and options made of settings: each is declared once, in its dataclass."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from radio_dspy.core.fields import field_docs
from radio_dspy.distillation.training.settings import Tower

DEFAULT_ENCODER = "all-MiniLM-L6-v2"
# Fields that the command line, like ``RADIO``, knows by a shorter or fuller name.
FLAGS = {"num_train_epochs": "epochs", "weight": "rationale_weight"}
Architecture = Literal["cross-encoder", "bi-encoder", "late-interaction"]
TaskName = Literal["qa", "choice", "multihop"]
Lm = Annotated[
    str, typer.Option("--lm", help="`local`, `none`, a GGUF file, or any LiteLLM name (openai/gpt-4o-mini).")
]
JsonFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        help="Also write the result to this file: a new one, or that of an earlier result. `-`: write it to standard "
        "output, and all else to standard error.",
        metavar="FILE",
    ),
]
EncoderName = Annotated[
    str | None, typer.Option("--encoder", help="Folder, hub name or LiteLLM name; else the index's own.")
]
IndexFolder = Annotated[Path | None, typer.Option("--index", help="Folder that `radio-dspy index` wrote.")]
CorpusFile = Annotated[Path | None, typer.Option("--corpus", help="Passages as JSON Lines, instead of --index.")]
StoreAddress = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="Vector store, instead of --index: postgresql://user@host/database, qdrant+http://host:6333, "
        "lancedb:///folder, chroma:///folder, milvus:///file.db. Needs --table and --encoder.",
        metavar="ADDRESS",
    ),
]
StoreTable = Annotated[str | None, typer.Option("--table", help="Table or collection of the store.")]
StoreColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        help="Name of a column or field of the store, such as text=body (id, text, title, embedding, metadata). Give "
        "it once for each, and for each column of metadata.",
        metavar="PART=NAME",
    ),
]
StoreFilter = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        help="Only passages of the store with this metadata, such as year=2025. Give it once for each field, and again "
        "for another value that will do.",
        metavar="FIELD=VALUE",
    ),
]
BaseWeights = Annotated[str, typer.Option(help="Folder or hub name of the weights to start from.")]
Scoring = Annotated[Architecture, typer.Option(help="How the reranker scores.")]
TrainedTower = Annotated[
    Tower | None, typer.Option(help="query (a bi-encoder's default): its query side alone; the index stays valid.")
]
Candidates = Annotated[int, typer.Option(help="Passages reranked for a question when answering.")]
ReadPassages = Annotated[int, typer.Option(help="Passages that the answering LM reads.")]
Judges = Annotated[Path | None, typer.Option(help="What to judge by; else a fifth of what is trained on is held out.")]
GivenRationales = Annotated[Path | None, typer.Option(help='Precomputed rationales: {"id", "rationale"} lines.')]
Task = Annotated[TaskName, typer.Option(help="qa: short answers; choice: letters; multihop: several searches.")]
GateSwitch = Annotated[bool, typer.Option(help="Return the base where nothing beats it on held-out questions.")]
Processes = Annotated[int, typer.Option(help="Train in so many processes, by accelerate launch or on --ray.", min=1)]
Batches = Annotated[
    bool, typer.Option("--batch", help="Ask the LM in batches: half the price, within a day; needs --run-dir.")
]
RayCluster = Annotated[
    str | None,
    typer.Option("--ray", help="Encode and ask LMs on this Ray cluster: `auto`, HOST:6379.", metavar="ADDRESS"),
]
RunDir = Annotated[Path | None, typer.Option(help="Keep records here; a run that stopped goes on from them.")]
Limit = Annotated[int | None, typer.Option(help="Use only the first N questions.", min=1)]
Program = Annotated[Path, typer.Argument(help="Folder that `radio-dspy compile` or radio_dspy.save wrote.")]


def declared(**parts: tuple[Any, tuple[str, ...]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for fields of its settings: name, type, default and help are the field's own.

    The command gets whole settings objects. Where it has a parameter ``given``, that gets every option's value by name.

    Args:
        **parts: Parameter of the command -> settings whose values are the defaults, and the names of the fields.
    """

    def wrapped(function: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(function, include_extras=True)
        parameters: list[inspect.Parameter] = []
        routes: dict[str, tuple[str, str]] = {}
        for name, one in inspect.signature(function).parameters.items():
            if name in parts:
                for field, option in _options_of(*parts[name]).items():
                    parameters.append(option)
                    routes[option.name] = (name, field)
            elif name != "given":
                parameters.append(one.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY))
        signature = inspect.Signature(parameters)

        @functools.wraps(function)
        def run(**given: Any) -> None:
            bound = signature.bind(**given)
            bound.apply_defaults()
            rest = {name: value for name, value in bound.arguments.items() if name not in routes}
            values: dict[str, dict[str, Any]] = {name: {} for name in parts}
            for option, (name, field) in routes.items():
                values[name][field] = bound.arguments[option]
            made = {name: replace(base, **values[name]) for name, (base, _) in parts.items()}
            told = {"given": dict(bound.arguments)} if "given" in inspect.signature(function).parameters else {}
            function(**rest, **made, **told)

        run.__signature__ = signature  # type: ignore[attr-defined]  # typer and `runs resume` read it
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return wrapped


def _options_of(base: Any, fields: tuple[str, ...]) -> dict[str, inspect.Parameter]:
    kind, docs = type(base), field_docs(type(base))
    known = vars(sys.modules[kind.__module__])
    found = {}
    for field in fields:
        hint: Any = eval(kind.__annotations__[field], known)
        if get_origin(hint) is not Annotated:  # else the field is an option already
            hint = Annotated[_plain_type(hint), typer.Option(help=_first_sentence(docs[field]))]
        found[field] = inspect.Parameter(
            FLAGS.get(field, field), inspect.Parameter.KEYWORD_ONLY, default=getattr(base, field), annotation=hint
        )
    return found


def _plain_type(hint: Any) -> Any:
    """The part of a field's type that a command line can hold: names, numbers and texts, and None."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    kept = [one for one in get_args(hint) if one in (bool, int, float, str, type(None)) or get_origin(one) is Literal]
    return Union[tuple(kept)]  # noqa: UP007  # of types that are known only now


def _first_sentence(text: str) -> str:
    return f"{re.split(r'[.;] ', text.rstrip('.'))[0]}."
