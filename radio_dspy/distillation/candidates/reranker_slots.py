"""Find the trainable rerankers of a program, and which of them share their weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import dspy
from dspy.retrievers.embeddings import Embeddings

from radio_dspy.core.errors import SettingsError
from radio_dspy.core.modules import _modules, held
from radio_dspy.models.weights import RerankerWeights
from radio_dspy.rerankers.remote import RemoteRerank
from radio_dspy.rerankers.rerank import Rerank

_MARK = "_slot"


@dataclass
class Slot:
    """One trained parameter of a program and the rerankers that share it.

    Attributes:
        name: Where it was found first, for example ``self.rerank``.
        rerankers: All that hold it.
    """

    name: str
    rerankers: list[Rerank] = field(default_factory=list)

    @property
    def weights(self) -> RerankerWeights:
        """The parameter."""
        return self.rerankers[0].weights

    def assign(self, weights: RerankerWeights) -> None:
        """Give every reranker the same new parameter."""
        for rerank in self.rerankers:
            rerank.weights = weights


def copy_to_run(program: dspy.Module) -> tuple[dspy.Module, list[Slot]]:
    """A copy to be run and thrown away, so that what a run changes (a cache, a counter) stays out of the program.

    It shares each ``dspy.retrievers.Embeddings``, whose vectors may fill the memory.

    Returns:
        The copy, and its slots in the program's order.
    """
    kept = {id(one): one for one in held(program) if isinstance(one, Embeddings)}
    try:
        made = copy.deepcopy(program, dict(kept))
    except Exception:  # an attribute cannot be copied: DSPy shares it
        made = program.deepcopy()
    return made, slots_of(made, program)


def mark(slots: Sequence[Slot]) -> None:
    """Let copies that the program makes of its rerankers while it runs, as ``dspy.BestOfN`` does, be known by slot."""
    for number, slot in enumerate(slots):
        for rerank in slot.rerankers:
            rerank.__dict__[_MARK] = (number,)  # no plain number: it is no part of what the program does


def marked(rerank: Rerank) -> int | None:
    """The slot of a reranker or of what it was copied from; None for one that no slot holds."""
    found: tuple[int] | None = rerank.__dict__.get(_MARK)
    return found[0] if found else None


def slots_of(program: dspy.Module, original: dspy.Module | None = None) -> list[Slot]:
    """The distinct reranker weights of a program, however deep they are nested.

    Modules behind a ``dspy.Tool`` are found too, where the tool is a bound method.

    Args:
        program: The program, often a copy.
        original: What it was copied from: rerankers that share their weights there share them here, even where copying
            has parted them.

    Raises:
        SettingsError: If there is none, or one was not copied.
    """
    slots: dict[int, Slot] = {}
    for path, module, source in _modules(program, original or program):
        if isinstance(module, Rerank):
            if original is not None and module is source:
                raise SettingsError(
                    f"{path} cannot be copied, so aligning it would change the student: an attribute of the program "
                    "keeps it from being copied (a lock, a connection, an open file). Make that attribute copyable."
                )
            slot = slots.setdefault(id(source.weights), Slot(path))
            slot.rerankers.append(module)
    if not slots:
        if remote := next((path for path, one, _ in _modules(program, program) if isinstance(one, RemoteRerank)), None):
            raise SettingsError(
                f"{remote} is a RemoteRerank, and a hosted reranker cannot be trained. Give the student a local "
                "radio_dspy.Rerank in its place and keep the hosted one as a teacher, "
                "RADIO(signals={RerankerScore(remote): 0.5, RetrievalScore(): 0.5}), or as a row to compare with."
            )
        raise SettingsError(
            "The program holds no trainable reranker. Add one as an attribute, for example "
            "`self.rerank = radio_dspy.Rerank('BAAI/bge-reranker-base')`, and call it on the retrieved passages. "
            "One that only lives inside a function cannot be copied: use a method of the module as the tool."
        )
    for slot in slots.values():
        slot.assign(slot.weights)
    return list(slots.values())
