"""Low-rank adapters (Hu et al. 2021) through peft, for rerankers too large to train whole."""

from __future__ import annotations

from typing import Any

from sentence_transformers.base.modules import Transformer

from radio_dspy.core.errors import MissingExtraError, SettingsError
from radio_dspy.distillation.training.settings import LoraSettings


def add_adapters(module: Any, settings: LoraSettings) -> None:
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

    target = settings.target_modules
    found = _transformers(module)
    if not found:
        raise SettingsError(f"LoRA adapts transformers, and this is a {type(module[0]).__name__}; leave lora= out.")
    for one in found:
        heads = _heads(one.model)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            target_modules=target if isinstance(target, str) else list(target),
            # peft takes every name that ends so for the head's: DistilBERT has a pre_classifier
            exclude_modules=[name for name, _ in one.model.named_modules() if name.endswith(tuple(heads))],
            modules_to_save=heads,
        )
        one.model = get_peft_model(one.model, config)


def merge_adapters(module: Any) -> None:
    """Add the adapters to the weights they adapt, so that the checkpoint is a plain one."""
    for one in _transformers(module):
        one.model = one.model.merge_and_unload()


def _transformers(module: Any) -> list[Any]:
    """Its transformers: a router has one in each route."""
    return [one for one in module.modules() if isinstance(one, Transformer)]


def _heads(model: Any) -> list[str]:
    """The names of the scoring head, which is trained whole: it may be fresh."""
    return [name for name in ("score", "classifier") if hasattr(model, name)]
