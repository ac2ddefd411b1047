"""Low-rank adapters (Hu et al. 2021) through peft, for rerankers too large to train whole."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_transformers.base.modules import Transformer

from radio_dspy.core.errors import MissingExtraError, SettingsError
from radio_dspy.distillation.training.settings import LoraSettings

if TYPE_CHECKING:
    from peft import LoraConfig


@contextlib.contextmanager
def adapted(module: Any, settings: LoraSettings | LoraConfig | None, save_adapter: str | None = None) -> Iterator[None]:
    """Train low-rank adapters inside the block, and merge them into the weights after it; None adds none.

    Args:
        module: A sentence-transformers module.
        settings: Which adapters.
        save_adapter: Also keep them here, as peft does.
    """
    if settings is None:
        yield
        return
    add_adapters(module, settings)
    yield
    if save_adapter is not None:
        found = transformers_of(module)
        for row, one in enumerate(found):  # a router has one for each route
            one.model.save_pretrained(Path(save_adapter) / (str(row) if len(found) > 1 else ""))
    merge_adapters(module)


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
