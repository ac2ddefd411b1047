"""Cross-encoders: query and passage read together."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radio_dspy.core.errors import CheckpointError
from radio_dspy.core.validation import is_whole, shown
from radio_dspy.models.architecture import check_architecture
from radio_dspy.models.backends import run_by
from radio_dspy.models.computing import Backend, ScoringPrecision
from radio_dspy.models.encoder import quiet_loading
from radio_dspy.models.files import fetched_weights, safe_loading
from radio_dspy.models.randomness import RandomState
from radio_dspy.models.scorer import Pairs, _batch_size, _in_batches, _on_device
from radio_dspy.models.weights import RerankerWeights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

    Scores = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)
_HEAD_SEED = 0
_PROMPT = "rerank"  # its name in a checkpoint whose base names none


class CrossEncoderScorer:
    """Reads query and passage together; the score is the raw logit.

    That of a causal LM is the logit of its "yes" token minus that of "no", as its ``LogitScore`` module says; that of a
    head with two outputs is the second minus the first.
    """

    def __init__(
        self,
        weights: RerankerWeights,
        device: str | None = None,
        precision: ScoringPrecision = "fp32",
        backend: Backend = "torch",
    ) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        from radio_dspy.models.checks import join_outputs, outputs_of, own_errors, prepare_model, try_model
        from radio_dspy.models.packing import enable_packing
        from radio_dspy.models.tensors import check_tensors, loading

        name = weights.checkpoint
        folder = fetched_weights(name)
        # A folder was looked at when its weights were named; a saved program's may hold an untrained encoder.
        check_architecture(folder, "cross-encoder", new_head=weights.new_head or Path(name).is_dir())
        outputs = outputs_of(folder)
        # Weights without a scoring head get a fresh one: seeded, so that the base is the same in every process.
        with RandomState(_HEAD_SEED).drawing(), quiet_loading(), loading(name, "cross-encoder") as reports:
            self.module = CrossEncoder(
                str(folder),
                num_labels=outputs or 1,
                activation_fn=torch.nn.Identity(),
                device=device if backend == "torch" else "cpu",
                **safe_loading(),
            )
        with own_errors(name):
            if check_tensors(name, self.module, reports, cross_encoder=True):
                _warn_of_a_new_head(name)
            join_outputs(self.module, name)
            _check_tokens(self.module, name)
            if weights.prompt is not None:  # for scoring, training, saving and exporting alike
                self.module.default_prompt_name = self.module.default_prompt_name or _PROMPT
                self.module.prompts = {**self.module.prompts, self.module.default_prompt_name: weights.prompt}
            prepare_model(self.module, name, weights.max_length, pairs=True)
            enable_packing(self.module.eval())
            read = functools.partial(self.module.predict, show_progress_bar=False)
            try_model(read, pairs=True)
        if (precision, backend) != ("fp32", "torch"):
            with own_errors(name, precision, backend):
                run_by(self.module, backend, precision)
                try_model(read, pairs=True)
        self._precision = precision

    def score(self, pairs: Pairs) -> Scores:
        """See ``Scorer``."""
        longest = max((len(query) + len(passage) for query, passage in pairs), default=0)
        size = _batch_size(self.module, longest, self._precision)
        return self.module.predict(list(pairs), batch_size=size, show_progress_bar=False)

    def logits(self, pairs: Pairs) -> torch.Tensor:
        """See ``Scorer``."""
        prompt = self.module.prompts.get(self.module.default_prompt_name)  # as in scoring

        def forward(chunk: list[tuple[str, str]]) -> torch.Tensor:
            features = self.module.preprocess([list(pair) for pair in chunk], prompt=prompt)
            return self.module(_on_device(features, self.module))["scores"].view(-1).float()

        return _in_batches(self.module, list(pairs), lambda pair: len(pair[0]) + len(pair[1]), forward)

    def save(self, folder: Path) -> None:
        """See ``Scorer``."""
        with quiet_loading():
            self.module.save_pretrained(str(folder), create_model_card=False)


def _check_tokens(model: Any, name: str) -> None:
    """See that a causal LM scores by tokens that it knows: a tokenizer may have one for all that it does not know."""
    from sentence_transformers.cross_encoder.modules import LogitScore

    for one in model.modules():
        if not isinstance(one, LogitScore):
            continue
        yes, no = one.true_token_id, one.false_token_id
        if not is_whole(yes) or not (no is None or is_whole(no)) or yes == no or min(yes, no or 0) < 0:
            raise CheckpointError(
                f"{name}: cannot be loaded: it scores by the tokens {shown(yes)} and {shown(no)}, which are not the "
                "numbers of two different ones. Give its LogitScore module the tokens that it was trained to answer."
            )


@functools.cache
def _warn_of_a_new_head(checkpoint: str) -> None:
    """Once for each: transformers' own warning is about every loading."""
    logger.warning(
        "%s holds an encoder and no head that scores pairs. A new one was drawn, which ranks by chance before it is "
        "trained: give weights that were trained to rerank, or architecture='bi-encoder'.",
        checkpoint,
    )
