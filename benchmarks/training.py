"""Training on preference groups: groups a second against sentence-transformers and FlagEmbedding.

    pip install -r benchmarks/requirements.txt
    python benchmarks/training.py DATA [--repeats 5] [--groups 16] [--updates 4] [--before TREE]

DATA is a folder with corpus.jsonl and train.jsonl (EntailmentBank in FlashRAG's form). The groups are a question with
7 of its 20 best passages, texts as long as they come; all-MiniLM-L6-v2 as a bi-encoder and, with a fresh head, as a
cross-encoder. Each peer runs its own loss on the very same groups in its own form: sentence-transformers one column
after the other, FlagEmbedding all pairs of a step in one padded batch. First all train from the same weights without
dropout, and the loss on held-out groups is compared after each update.

TREE is another checkout (`git worktree add TREE COMMIT`): then `train_reranker` as a whole is timed against that
release's, in two processes that take turns, and it is said whether both give the same weights.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from measuring import Row, compared, interleaved, peak_flops, table

import radio_dspy as radio
from radio_dspy.distillation.losses import InfoNCE
from radio_dspy.distillation.preferences.groups import PreferenceGroup
from radio_dspy.models.bi_encoder import COSINE_TEMPERATURE
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.weights import Architecture, RerankerWeights

ENCODER = "all-MiniLM-L6-v2"
PASSAGES, GROUP, CANDIDATES = 3000, 7, 20
LEARNING_RATE = 5e-5
Step = Callable[[Sequence[PreferenceGroup]], torch.Tensor]  # the loss of some groups


def text_groups(data: Path, count: int) -> list[PreferenceGroup]:
    """A question, its best passage and six of the following."""
    passages = radio.load_corpus(data / "corpus.jsonl")[:PASSAGES]
    questions = [one.question for one in radio.load_questions(data / "train.jsonl")[:count]]
    generator = random.Random(1)
    groups = []
    for found in radio.FaissRetriever.build(passages, ENCODER).search(questions, CANDIDATES):
        texts = [one.contents for one in found.passages]
        groups.append(PreferenceGroup(found.query, texts[0], tuple(generator.sample(texts[1:], GROUP - 1))))
    return groups


def flat(groups: Sequence[PreferenceGroup]) -> list[tuple[str, str]]:
    """The (query, passage) pairs of groups, positives first."""
    return [(one.query, text) for one in groups for text in (one.positive, *one.negatives)]


def columns(groups: Sequence[PreferenceGroup]) -> list[list[str]]:
    """Queries, positives, first negatives, second negatives..."""
    return [list(one) for one in zip(*[(one.query, one.positive, *one.negatives) for one in groups], strict=True)]


def ours(weights: RerankerWeights) -> tuple[Any, Step]:
    """This library's forward pass and loss."""
    scorer = open_scorer(weights, "cpu")
    criterion = InfoNCE()
    return scorer.module, lambda groups: criterion(scorer.logits(flat(groups)), [GROUP] * len(groups), None)


def sentence_transformers_bi(weights: RerankerWeights) -> tuple[Any, Step]:
    """Its MultipleNegativesRankingLoss, which also takes the passages of the other groups as negatives."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model = SentenceTransformer(weights.checkpoint, device="cpu")
    loss = MultipleNegativesRankingLoss(model, scale=1 / COSINE_TEMPERATURE)
    labels = torch.zeros(0)
    return model, lambda groups: loss([model.preprocess(one) for one in columns(groups)], labels)


def sentence_transformers_cross(weights: RerankerWeights) -> tuple[Any, Step]:
    """Its MultipleNegativesRankingLoss for cross-encoders, on raw logits and without passages of other groups."""
    from sentence_transformers.cross_encoder.losses import MultipleNegativesRankingLoss

    class OwnNegatives(MultipleNegativesRankingLoss):
        def get_in_batch_negatives(self, anchors: Any, candidates: Any) -> Any:
            yield from ()

    model = padded_cross_encoder(weights)
    loss = OwnNegatives(model, scale=1, activation_fn=torch.nn.Identity())
    return model, lambda groups: loss(columns(groups), torch.zeros(len(groups)))


def flagembedding_cross(weights: RerankerWeights) -> tuple[Any, Step]:
    """Its model, its tokens of a pair and its collator."""
    from FlagEmbedding.abc.finetune.reranker.AbsDataset import AbsRerankerCollator
    from FlagEmbedding.finetune.reranker.encoder_only.base.modeling import CrossEncoderModel
    from FlagEmbedding.utils.tokenizer_compat import prepare_for_model_compat

    inner = padded_cross_encoder(weights)
    tokenizer = inner.tokenizer
    model = CrossEncoderModel(inner[0].model, tokenizer)
    collate = AbsRerankerCollator(tokenizer, query_max_len=128, passage_max_len=128)

    def pair(query: str, passage: str) -> Any:
        tokens = [tokenizer.encode(one, add_special_tokens=False) for one in (query, passage)]
        return prepare_for_model_compat(tokenizer, *tokens, truncation="only_second", max_length=256, padding=False)

    def step(groups: Sequence[PreferenceGroup]) -> torch.Tensor:
        batch = collate([([pair(*one) for one in flat([group])], None) for group in groups])
        model.train_batch_size = len(groups)
        logits = model.encode(batch["pair"]).view(len(groups), -1)
        return model.compute_loss(logits, torch.zeros(len(groups), dtype=torch.long))

    return inner, step


def padded_cross_encoder(weights: RerankerWeights) -> Any:
    """The same cross-encoder, head included, as sentence-transformers runs it."""
    module: Any = open_scorer(weights, "cpu").module
    module[0].unpad_inputs = False
    module[0].model.set_attn_implementation("sdpa")
    return module


PEERS: dict[tuple[Architecture, str], Callable[[RerankerWeights], tuple[Any, Step]]] = {
    ("bi-encoder", "sentence-transformers"): sentence_transformers_bi,
    ("cross-encoder", "sentence-transformers"): sentence_transformers_cross,
    ("cross-encoder", "FlagEmbedding"): flagembedding_cross,
}


def trainer(module: Any, step: Step, batches: Sequence[Sequence[PreferenceGroup]]) -> Callable[[], None]:
    """One update for each batch."""
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE)

    def train() -> None:
        for batch in batches:
            step(batch).backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return train


def held_out_losses(
    made: tuple[Any, Step],
    batches: Sequence[Sequence[PreferenceGroup]],
    scored: Sequence[PreferenceGroup],
    weights: RerankerWeights,
) -> list[float]:
    """The loss of held-out groups after each update without dropout, by the same measure for everybody."""
    module, step = made
    module.eval()  # no dropout, so that nothing but the arithmetic differs
    judge, judged = ours(weights)
    judge.eval()
    losses = []
    for batch in batches:
        trainer(module, step, [batch])()
        judge.load_state_dict(module.state_dict())
        with torch.no_grad():
            losses.append(judged(scored).item())
    return losses


def measure(data: Path, *, repeats: int = 5, size: int = 16, updates: int = 4) -> list[Row]:
    """Train with everybody on the same groups.

    Args:
        data: The folder.
        repeats: Rounds of the timing.
        size: Groups an update.
        updates: Updates a round.
    """
    groups = text_groups(data, size * (updates + 4))
    scored, groups = groups[: 4 * size], groups[4 * size :]
    batches = [groups[start : start + size] for start in range(0, len(groups), size)]
    peak = peak_flops()
    rows = []
    for (architecture, peer), make in PEERS.items():
        weights = RerankerWeights(radio.weights(ENCODER), architecture, new_head=True)
        curves = [held_out_losses(one(weights), batches, scored, weights) for one in (ours, make)]
        apart = max(abs(one - other) for one, other in zip(*curves, strict=True))
        trained = {"ours": ours(weights), peer: make(weights)}
        for module, _ in trained.values():
            module.train()
        work = {name: trainer(module, step, batches) for name, (module, step) in trained.items()}
        seconds = interleaved(work, repeats)
        ratio, spread = compared(seconds, "ours", peer)
        speed = {name: size * updates / statistics.median(one) for name, one in seconds.items()}
        flops = 6 * tokens(trained["ours"][0], groups, architecture) * encoder_size(trained["ours"][0])
        share = flops / statistics.median(seconds["ours"]) / peak
        rows.append(
            Row(
                f"training, {architecture}",
                f"{speed['ours']:.1f} groups/s",
                f"{peer} {speed[peer]:.1f} groups/s",
                ratio,
                2.0,
                "at least",
                f"{spread}; held-out loss {curves[0][-1]:.4f}, peer {curves[1][-1]:.4f}, at most {apart:.4f} apart",
                f"{share:.0%} of FLOP/s",
            )
        )
    return rows


# In the process of each tree: a line asks for one training, a hash of its weights is the answer.
_TRAINING = """
import json, sys, tempfile
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import radio_dspy
from radio_dspy.core.files import sha256_of
from radio_dspy.distillation import PreferenceGroup, TrainingSettings, train_reranker
from radio_dspy.models.weights import RerankerWeights
assert Path(radio_dspy.__file__).is_relative_to(sys.argv[1]), radio_dspy.__file__
given = json.loads(Path(sys.argv[2]).read_text())
groups = [PreferenceGroup(one["query"], one["positive"], tuple(one["negatives"])) for one in given["groups"]]
how = {"num_train_epochs": 1, "disable_tqdm": True, "device": "cpu"}
settings = TrainingSettings(per_device_train_batch_size=given["size"], **how)
new_head = {"new_head": True} if "new_head" in RerankerWeights.__dataclass_fields__ else {}
weights = RerankerWeights(given["weights"], given["architecture"], **new_head)
for line in sys.stdin:
    with tempfile.TemporaryDirectory() as place:
        train_reranker(weights, groups, Path(place) / "out", settings, watch=True)
        print("done", sha256_of(Path(place) / "out" / "model.safetensors"), flush=True)
"""


@contextlib.contextmanager
def training_in(tree: Path, given: Path, hashes: set[str]) -> Iterator[Callable[[], None]]:
    """A training by the library of another checkout."""
    command = [sys.executable, "-c", _TRAINING, str(tree.resolve()), str(given)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asked, answers = process.stdin, process.stdout

        def train() -> None:
            asked.write("train\n")
            asked.flush()
            found = next((line.split() for line in answers if line.startswith("done ")), None)
            if found is None:
                raise SystemExit(f"the training of {tree} failed")
            hashes.add(found[1])

        yield train
        asked.close()


def against(tree: Path, data: Path, *, repeats: int, size: int, updates: int) -> list[Row]:
    """``train_reranker`` as a whole, here and in another checkout, on four times as many updates."""
    groups = text_groups(data, 4 * size * updates)
    rows = []
    for architecture in ("bi-encoder", "cross-encoder"):
        hashes: set[str] = set()
        with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
            given = Path(place) / "given.json"
            about = {"weights": radio.weights(ENCODER), "architecture": architecture, "size": size}
            given.write_text(json.dumps({**about, "groups": [asdict(one) for one in groups]}))
            trees = {"ours": Path(__file__).parents[1], "before": tree}
            work = {name: stack.enter_context(training_in(one, given, hashes)) for name, one in trees.items()}
            seconds = interleaved(work, repeats)
        ratio, spread = compared(seconds, "ours", "before")
        speed = {name: len(groups) / statistics.median(one) for name, one in seconds.items()}
        note = f"{spread}; weights {'equal to the bit' if len(hashes) == 1 else 'DIFFERENT'}"
        names = f"{speed['ours']:.1f} groups/s", f"{tree.name} {speed['before']:.1f} groups/s"
        rows.append(Row(f"train_reranker, {architecture}", *names, ratio, 0.95, "at least", note))
    return rows


def tokens(module: Any, groups: Sequence[PreferenceGroup], architecture: Architecture) -> int:
    """Real tokens of the groups, each distinct text of a bi-encoder's update once."""
    if architecture == "cross-encoder":
        return sum(
            len(one)
            for one in module.tokenizer([one for one, _ in flat(groups)], [two for _, two in flat(groups)])["input_ids"]
        )
    texts = {text for pair in flat(groups) for text in pair}
    return sum(len(one) for one in module.tokenizer(list(texts))["input_ids"])


def encoder_size(module: Any) -> int:
    """Parameters of the layers, which every token passes."""
    return sum(one.numel() for one in module[0].model.base_model.encoder.parameters())


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--groups", type=int, default=16)
    parser.add_argument("--updates", type=int, default=4)
    parser.add_argument("--before", type=Path, metavar="TREE", help="another checkout to compare with, instead")
    options = parser.parse_args()
    how = {"repeats": options.repeats, "size": options.groups, "updates": options.updates}
    print(table(against(options.before, options.data, **how) if options.before else measure(options.data, **how)))


if __name__ == "__main__":
    main()
