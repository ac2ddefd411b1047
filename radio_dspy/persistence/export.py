"""Aligned rerankers for other tools: sentence-transformers, FlagEmbedding and ONNX."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import dspy

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.files import check_new, new_folder, write_lines
from radio_dspy.datasets.groups import load_groups, rows_of_groups
from radio_dspy.distillation.candidates.reranker_slots import slots_of
from radio_dspy.models.encoder import quiet_loading
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.persistence.classic_form import write_classic_form
from radio_dspy.persistence.model_card import exported_card
from radio_dspy.persistence.onnx import require_onnx, write_graph
from radio_dspy.persistence.saving import load_weights
from radio_dspy.retrievers.base import retriever_of
from radio_dspy.retrievers.vector import vector_part

Format = Literal["sentence-transformers", "flagembedding", "onnx"]
GROUPS = "train.jsonl"
_NEW = "give a new folder, exports do not overwrite."
QUERY_SIDE, PASSAGE_SIDE = "query-encoder", "passage-encoder"
_FLAG_POOLING = ("cls", "mean")  # what FlagModel can do


def export(
    program: dspy.Module | str | PathLike[str],
    path: str | PathLike[str],
    format: Format = "sentence-transformers",  # noqa: A002  the word that everybody looks for
    *,
    reranker: str | None = None,
    groups: Sequence[dspy.Example] | str | PathLike[str] | None = None,
) -> Path:
    """Write a reranker into a new folder that other tools load and score alike, with a card that says what trained it.

    ``"sentence-transformers"``: ``CrossEncoder(folder).predict`` gives our raw logits, and ``SentenceTransformer(
    folder)`` our cosines, by ``similarity(encode_query(...), encode_document(...))``, ``MultiVectorEncoder(folder)``
    alike where there is one vector a token; prefixes and the longest input are part of it. An encoder whose query side
    alone was trained becomes one model with two routes.

    ``"flagembedding"``: the plain transformers folder that ``FlagReranker`` or ``FlagModel`` loads.

    ``"onnx"``: a graph for onnxruntime, with its tokenizer.

    A bi-encoder whose query side alone was trained becomes two folders in the last two formats, ``query-encoder`` and
    ``passage-encoder``. ``README.md`` holds the lines that load what was written. To load a program here again, use
    ``save``: an export has no prompts and no program.

    Args:
        program: A program, a ``Rerank``, or a folder that ``save`` wrote.
        path: A folder that does not exist yet, or is empty.
        format: Who is to load it.
        reranker: Which one, for example ``"rerank"``, where the program holds several.
        groups: With ``"flagembedding"``: preference groups to write beside it as ``train.jsonl``: examples as
            ``load_groups`` returns them, or a file of them. ``RUN_DIR/groups.jsonl`` takes the texts from the program's
            retriever.

    Returns:
        The folder.

    Raises:
        SettingsError: If the folder holds something already, the reranker is not clear, or its model is of a kind that
            the format cannot hold.
        MissingExtraError: If ``"onnx"`` lacks its packages.

    Example:
        >>> import tempfile
        >>> from radio_dspy import Rerank
        >>> folder = Path(tempfile.mkdtemp()) / "reranker"
        >>> sorted(one.name for one in export(Rerank("all-MiniLM-L6-v2", "bi-encoder"), folder).glob("*.md"))
        ['README.md']
    """
    _check_format(format, groups)
    folder = Path(path)
    check_new(folder, _NEW)
    weights = _chosen(_rerankers_of(program), reranker)
    examples = _examples(groups, program)
    with new_folder(folder, _NEW) as making:
        write = _write_cross_encoder if weights.architecture == "cross-encoder" else _write_encoder
        facts = write(weights, making, format)
        if examples:
            write_lines(making / GROUPS, rows_of_groups(examples))
        card = exported_card(folder.name, weights, format, facts)
        (making / "README.md").write_text(card, encoding="utf-8")
    return folder


def _check_format(given: str, groups: object) -> None:
    if given not in get_args(Format):
        raise SettingsError(f"format must be one of {get_args(Format)}, got {given!r}.")
    if groups is not None and given != "flagembedding":
        raise SettingsError(f"groups are written in FlagEmbedding's form: they do not go with format={given!r}.")
    if given == "onnx":
        require_onnx()


def _rerankers_of(program: dspy.Module | str | PathLike[str]) -> dict[str, RerankerWeights]:
    if isinstance(program, str | PathLike):
        return {name.removesuffix(".weights"): one for name, one in load_weights(program).items()}
    return {slot.name.removeprefix("self."): slot.weights for slot in slots_of(program)}


def _chosen(found: dict[str, RerankerWeights], name: str | None) -> RerankerWeights:
    names = ", ".join(map(repr, found))
    if name is not None:
        if name.removeprefix("self.") not in found:
            raise SettingsError(f"The program holds no reranker {name!r}; it holds {names}.")
        return found[name.removeprefix("self.")]
    if len({json.dumps(one.dump_state(), sort_keys=True) for one in found.values()}) > 1:
        raise SettingsError(f"The program holds several rerankers; give reranker= one of {names}.")
    return next(iter(found.values()))


def _examples(
    groups: Sequence[dspy.Example] | str | PathLike[str] | None, program: dspy.Module | str | PathLike[str]
) -> list[dspy.Example]:
    if groups is None:
        return []
    if not isinstance(groups, str | PathLike):
        return list(groups)
    retriever = retriever_of(program) if isinstance(program, dspy.Module) else None
    held: Any = vector_part(retriever)
    return load_groups(groups, passages=getattr(retriever, "passages", ()) if held is None else held)


def _write_cross_encoder(weights: RerankerWeights, folder: Path, format: Format) -> dict[str, Any]:  # noqa: A002
    from radio_dspy.models.checks import window_of
    from radio_dspy.models.cross_encoder import CrossEncoderScorer

    scorer = CrossEncoderScorer(weights, "cpu")
    if format == "sentence-transformers":
        scorer.save(folder)  # also says that scores are raw logits
        return {}
    _check_modules(scorer.module, ["Transformer"], format)
    _write_plain(scorer.module, folder, format, pairs=True)
    return {"max_length": window_of(scorer.module)}


def _write_encoder(weights: RerankerWeights, folder: Path, format: Format) -> dict[str, Any]:  # noqa: A002
    """What reads query and passage apart, with one vector a text or one a token."""
    from radio_dspy.models.cache import open_scorer
    from radio_dspy.models.checks import window_of

    scorer: Any = open_scorer(weights, "cpu")
    passages = None
    if weights.passage_side != weights.checkpoint:
        passages = scorer.open_model(weights.passage_side, "cpu", weights.max_length)
    if format == "sentence-transformers":
        _write_sentence_transformer(scorer, passages, folder)
        return {}
    sides = {QUERY_SIDE: scorer.module, PASSAGE_SIDE: passages} if passages is not None else {"": scorer.module}
    for name, module in sides.items():
        _check_modules(module, ["Transformer", "Pooling"], format)
        _write_plain(module, folder / name, format, pairs=False)
    return {
        "max_length": window_of(scorer.module),
        "pooling": scorer.module[1].pooling_mode,
        "prompts": scorer.prompts,
        "sides": list(sides),
    }


def _write_sentence_transformer(scorer: Any, passages: Any, folder: Path) -> None:
    """One model: shared, or with a route for queries and one for documents."""
    from radio_dspy.models.checks import window_of

    model = scorer.module
    by_tokens = not hasattr(model, "truncate_dim")
    if passages is not None:
        from sentence_transformers.base.modules import Router

        router = Router.for_query_document(list(model.children()), list(passages.children()))
        own = {"similarity_fn_name": model.similarity_fn_name} if by_tokens else {"truncate_dim": model.truncate_dim}
        scorer.module = type(model)(modules=[router], prompts=model.prompts, device="cpu", **own)
    if not by_tokens:
        scorer.module.similarity_fn_name = "cosine"
    scorer.save(folder)
    write_classic_form(folder, window_of(scorer.module))


def _write_plain(module: Any, folder: Path, format: Format, *, pairs: bool) -> None:  # noqa: A002
    """A folder without anything of sentence-transformers: the tokenizer, and transformers' weights or a graph."""
    folder.mkdir(exist_ok=True)
    with quiet_loading():
        module.tokenizer.save_pretrained(folder)
        if format == "onnx":
            write_graph(module, folder, pairs=pairs)
        else:
            module.transformers_model.save_pretrained(folder)


def _check_modules(module: Any, wanted: list[str], format: Format) -> None:  # noqa: A002
    """Only what the tool does itself may be left out of its folder."""
    found = [type(one).__name__ for one in module]
    kept = [name for name in found if name != "Normalize"]
    if kept != wanted:
        raise SettingsError(
            f"format={format!r} cannot hold a model of {' and '.join(found)}; use format='sentence-transformers'."
        )
    if "Pooling" not in wanted and (prompt := module.prompts.get(module.default_prompt_name)):
        raise SettingsError(
            f"format={format!r} cannot hold the prompt {prompt!r:.80} that this cross-encoder puts before its texts; "
            "use format='sentence-transformers'."
        )
    if format == "flagembedding" and "Pooling" in wanted:
        pooling = module[1]
        if module.truncate_dim is not None:
            raise SettingsError(
                f"FlagModel cannot cut vectors to {module.truncate_dim} dimensions; use format='sentence-transformers'."
            )
        if pooling.pooling_mode not in _FLAG_POOLING or not pooling.include_prompt:
            raise SettingsError(
                f"FlagModel pools by {' or '.join(_FLAG_POOLING)} over all tokens, this model by "
                f"{pooling.pooling_mode!r}{'' if pooling.include_prompt else ' without the prompt'}; use "
                "format='sentence-transformers'."
            )
