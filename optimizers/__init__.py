"""Optimizers: students in, aligned students out."""

from radio_dspy.optimizers.group_finetune import GroupFinetune
from radio_dspy.optimizers.radio import RADIO

__all__ = ["RADIO", "GroupFinetune"]
