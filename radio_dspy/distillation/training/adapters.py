"""Low-rank adapters (Hu et al. 2021) through peft, for rerankers too large to train whole."""

from __future__ import annotations

import contextlib
import copy
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_transformers.base.modules import Transformer

from radio_dspy.core.errors import MissingExtraError, SettingsError
from radio_dspy.core.files import is_empty
from radio_dspy.core.redaction import logger_of
from radio_dspy.distillation.training.settings import LoraSettings

if TYPE_CHECKING:
    from peft import LoraConfig

logger = logger_of(__name__)


@contextlib.contextmanager
def adapted(module: Any, settings: LoraSettings | LoraConfig | None, save_adapter: str | None = None) -> Iterator[None]:
    """Train low-rank adapters inside the block, and merge them into the weights after it; None adds none.

    Args:
        module: A sentence-transformers module.
        settings: Which adapters.
        save_adapter: Also keep them here, as peft does; where something is already, in the next free name.
    """
    if settings is None:
        yield
        return
    add_adapters(module, settings)
    yield
    if save_adapter is not None:
        found, folder = transformers_of(module), _free(Path(save_adapter))
        for row, one in enumerate(found):  # a router has one for each route
            one.model.save_pretrained(folder / (str(row) if len(found) > 1 else ""))
        logger.info("The adapters are in %s.", folder)
    merge_adapters(module)


def _free(folder: Path) -> Path:
    """The folder, or the first of ``folder-2``, ``folder-3``... that is new or empty: nothing there is replaced."""
    names = (folder.with_name(f"{folder.name}-{number}") for number in itertools.count(2))
    return next(
        one for one in itertools.chain([folder], names) if not os.path.lexists(one) or (one.is_dir() and is_empty(one))
    )


def add_adapters(module: Any, settings: LoraSettings | LoraConfig) -> None:
    """Freeze the models inside a sentence-transformers module and give them trainable adapters.

    Whatever lies outside the transformer's linear layers, a fresh scoring head for example, stays trainable.

    Raises:
        MissingExtraError: If peft is not installed.
        SettingsError: If it holds no transformer.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError("LoRA needs peft: pip install 'radio-dspy[lora]'") from error

    found = transformers_of(module)
    if not found:
        raise SettingsError(f"LoRA adapts transformers, and this is a {type(module[0]).__name__}; leave lora= out.")
    for one in found:
        if isinstance(settings, LoraSettings):
            target = settings.target_modules
            config = LoraConfig(
                r=settings.rank,
                lora_alpha=settings.alpha,
                lora_dropout=settings.dropout,
                target_modules=target if isinstance(target, str) else list(target),
            )
        else:
            config = copy.deepcopy(settings)
        heads = _heads(one.model)
        if config.exclude_modules is None:
            # peft takes every name that ends so for the head's: DistilBERT has a pre_classifier
            config.exclude_modules = [name for name, _ in one.model.named_modules() if name.endswith(tuple(heads))]
        config.modules_to_save = config.modules_to_save or heads
        one.model = get_peft_model(one.model, config)


def merge_adapters(module: Any) -> None:
    """Add the adapters to the weights they adapt, so that the checkpoint is a plain one."""
    for one in transformers_of(module):
        one.model = one.model.merge_and_unload()


def transformers_of(module: Any) -> list[Any]:
    """Its transformers: a router has one in each route."""
    return [one for one in module.modules() if isinstance(one, Transformer)]


def _heads(model: Any) -> list[str]:
    """The names of the scoring head, which is trained whole: it may be fresh."""
    return [name for name in ("score", "classifier") if hasattr(model, name)]
