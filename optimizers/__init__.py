"""Optimizers: RADIO and GroupFinetune."""

from typing import TYPE_CHECKING

from radio_dspy.core.lazy import lazy_module

if TYPE_CHECKING:
    from radio_dspy.optimizers.group_finetune import GroupFinetune as GroupFinetune
    from radio_dspy.optimizers.radio import RADIO as RADIO

_HOMES = {"GroupFinetune": "radio_dspy.optimizers.group_finetune", "RADIO": "radio_dspy.optimizers.radio"}
__all__ = sorted(_HOMES)
__getattr__, __dir__ = lazy_module(__name__, _HOMES)
