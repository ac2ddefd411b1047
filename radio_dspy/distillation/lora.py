"""Low-rank adapters (Hu et al. 2021) through peft, for rerankers too large to train whole."""

from __future__ import annotations

from typing import Any

from radio_dspy.distillation.settings import LoraSettings
from radio_dspy.errors import MissingExtraError


def add_adapters(module: Any, settings: LoraSettings) -> None:
    """Freeze the model inside a sentence-transformers module and give it trainable adapters.

    Whatever lies outside the transformer's linear layers, a fresh scoring head for example, stays trainable.

    Raises:
        MissingExtraError: If peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError("LoRA needs peft: pip install 'radio-dspy[lora]'") from error

    target = settings.target_modules
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=target if isinstance(target, str) else list(target),
        modules_to_save=_heads(module[0].model),
    )
    module[0].model = get_peft_model(module[0].model, config)


def merge_adapters(module: Any) -> None:
    """Add the adapters to the weights they adapt, so that the checkpoint is a plain one."""
    module[0].model = module[0].model.merge_and_unload()


def _heads(model: Any) -> list[str]:
    """The names of the scoring head, which is trained whole: it may be fresh."""
    return [name for name in ("score", "classifier") if hasattr(model, name)]
