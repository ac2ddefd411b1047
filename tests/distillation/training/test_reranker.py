import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from radio_dspy.core.errors import DataError, MissingExtraError, RadioError, SettingsError
from radio_dspy.core.files import sha256_of
from radio_dspy.distillation import InfoNCE, PreferenceGroup, TrainingSettings, train_reranker
from radio_dspy.distillation.training.batches import passage_lists
from radio_dspy.distillation.training.settings import LoraSettings
from radio_dspy.models.bi_encoder import PassageVectors
from radio_dspy.models.cache import open_scorer
from radio_dspy.models.encoder import Encoder
from radio_dspy.models.files import fingerprint, weight_files, weights
from radio_dspy.rerankers import Rerank, RerankerWeights
from tests.conftest import ENCODER

GROUPS = [
    PreferenceGroup("why did the dough not rise?", "Yeast dies in hot water.", ("The dough was large.", "Rise early.")),
    PreferenceGroup(
        "why is the jug cold?", "Vapour carries warmth away.", ("The jug is old.", "A cold day.", "Jugs cost more.")
    ),
    PreferenceGroup("why do ships float?", "A body displaces its weight of water.", ("Ships sail.",)),
    PreferenceGroup(
        "why does iron rust at sea?", "Salt water carries current between metals.", ("Iron is mined.", "The sea.")
    ),
]
FAST = {"learning_rate": 1e-4, "max_length": 32, "per_device_train_batch_size": 2}
# The teacher prefers as the groups do, but for the third, which it would turn round.
SCORED = [
    replace(group, scores=scores)
    for group, scores in zip(GROUPS, [(1.0, 0.2, 0.1), (0.9, 0.5, 0.0, 0.3), (0.2, 0.8), (1.0, 0.6, 0.6)], strict=True)
]


def contents(checkpoint):
    """What lies on the disk now: fingerprints are remembered by folder."""
    return {path.name: sha256_of(path) for path in weight_files(Path(checkpoint))}


def train(base, groups, output, *, watch=False, passage_vectors=None, **settings):
    return train_reranker(
        base, groups, output, TrainingSettings(**{**FAST, **settings}), watch=watch, passage_vectors=passage_vectors
    )


@pytest.fixture
def bi_encoder(small):
    return RerankerWeights(small.name, "bi-encoder")


@pytest.mark.parametrize("architecture", ["bi-encoder", pytest.param("cross-encoder", marks=pytest.mark.slow)])
def test_training_lowers_the_loss_and_reranks(tmp_path, architecture, small):
    base = RerankerWeights(small.name if architecture == "bi-encoder" else ENCODER, architecture, new_head=True)
    before = contents(base.checkpoint)
    settings = TrainingSettings(num_train_epochs=12, **FAST)
    result = train_reranker(base, GROUPS, tmp_path / "out", settings)
    assert result.updates == len(result.losses) == 24
    assert sum(result.losses[-4:]) < 0.7 * sum(result.losses[:4])
    assert contents(base.checkpoint) == before
    rerank = Rerank(str(tmp_path / "out"), architecture)
    for group in GROUPS:
        assert rerank(group.query, [*group.negatives, group.positive]).passages[0] == group.positive


def test_training_repeats_to_the_bit_and_leaves_the_callers_random_state(tmp_path, small):
    base = RerankerWeights(small.name, "bi-encoder")
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    for name in ("one", "two", "other"):
        seed = 3 if name == "other" else 1
        settings = TrainingSettings(num_train_epochs=2, seed=seed, **FAST)
        train_reranker(base, GROUPS, tmp_path / name, settings)
    assert torch.equal(torch.rand(3), expected)
    assert fingerprint(str(tmp_path / "one")) == fingerprint(str(tmp_path / "two"))
    assert fingerprint(str(tmp_path / "one")) != fingerprint(str(tmp_path / "other"))


@pytest.fixture
def without_dropout(tmp_path, small):
    """A checkpoint whose training is the same function whatever the batch."""
    folder = tmp_path / "plain"
    shutil.copytree(weights(small.name), folder)
    config = json.loads((folder / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (folder / "config.json").write_text(json.dumps(config))
    return RerankerWeights(str(folder), "bi-encoder")


def test_accumulated_batches_train_like_one_large_batch(without_dropout, tmp_path):
    losses = []
    # Three and one: a short last batch must not weigh more than its groups.
    for per_device_train_batch_size, accumulation in ((4, 1), (2, 2), (3, 2)):
        settings = TrainingSettings(
            num_train_epochs=3,
            learning_rate=1e-4,
            per_device_train_batch_size=per_device_train_batch_size,
            gradient_accumulation_steps=accumulation,
        )
        result = train_reranker(without_dropout, GROUPS, tmp_path / f"{per_device_train_batch_size}", settings)
        losses.append(result.losses)
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    assert losses[2] == pytest.approx(losses[0], abs=1e-4)


def test_the_checkpoint_reads_as_far_as_its_base(tmp_path, small):
    result = train_reranker(
        RerankerWeights(small.name, "bi-encoder"),
        GROUPS,
        tmp_path / "out",
        TrainingSettings(num_train_epochs=1, **FAST),
    )
    base, aligned = Encoder(small.name), Encoder(str(result.checkpoint))
    text = "filler " * 100
    for encoder in (base, aligned):
        tail, other = encoder.encode_passages([text + "yeast", text + "granite"])
        assert float(tail @ other) < 0.9999


def test_the_papers_accumulation_gives_way_to_enough_updates():
    settings = TrainingSettings()
    assert settings.accumulation(20_000) == 4
    assert settings.accumulation(160) == 1
    assert TrainingSettings(gradient_accumulation_steps=2).accumulation(160) == 2


def test_defaults_are_the_papers():
    settings = TrainingSettings()
    assert (settings.num_train_epochs, settings.learning_rate, settings.weight_decay) == (2, 6e-5, 0.01)
    assert (settings.per_device_train_batch_size, settings.max_length, settings.temperature) == (16, 512, 1.0)


def test_bf16_trains(tmp_path, small):
    settings = TrainingSettings(num_train_epochs=1, precision="bf16", **FAST)
    result = train_reranker(RerankerWeights(small.name, "bi-encoder"), GROUPS, tmp_path / "out", settings)
    full = TrainingSettings(num_train_epochs=1, precision="fp32", **FAST)
    other = train_reranker(RerankerWeights(small.name, "bi-encoder"), GROUPS, tmp_path / "full", full)
    assert result.losses == pytest.approx(other.losses, rel=0.1)
    assert result.losses != other.losses


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path, small):
    settings = TrainingSettings(num_train_epochs=30, learning_rate=1e30, max_length=32, per_device_train_batch_size=2)
    with pytest.raises(RadioError, match=r"training diverged\. Lower learning_rate"):
        train_reranker(RerankerWeights(small.name, "cross-encoder", new_head=True), GROUPS, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_checkpoints_are_never_overwritten(tmp_path, small):
    (tmp_path / "there").mkdir()
    with pytest.raises(SettingsError, match="never overwritten"):
        train_reranker(RerankerWeights(small.name, "bi-encoder"), GROUPS, tmp_path / "there")
    with pytest.raises(DataError, match="no preference groups"):
        train_reranker(RerankerWeights(small.name, "bi-encoder"), [], tmp_path / "new")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_train_epochs": 0}, "num_train_epochs must be .*, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, got nan"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"temperature": 0}, "temperatures above 0, got 0.01, 0 and 0.05"),
        ({"target_temperature": 0}, "temperatures above 0, got 0.01, 1.0 and 0"),
        ({"tower": "passage"}, "tower must be one of"),
        ({"tower": "query", "lora": LoraSettings()}, "does not go with lora"),
        ({"loss": "triplet"}, "loss must be one of"),
    ],
)
def test_settings_are_checked(setting, message):
    with pytest.raises(SettingsError, match=message):
        TrainingSettings(**setting)


# One tower


def test_the_query_tower_learns_and_the_passages_stay(bi_encoder, tmp_path):
    before = contents(bi_encoder.checkpoint)
    result = train(bi_encoder, GROUPS, tmp_path / "out", tower="query", num_train_epochs=4, learning_rate=1e-3)
    assert sum(result.losses[-2:]) < 0.8 * sum(result.losses[:2])
    assert contents(bi_encoder.checkpoint) == before
    # What was learnt holds for the new query side against the old passage vectors.
    queries = Encoder(str(result.checkpoint)).encode_queries([group.query for group in GROUPS])
    before = Encoder(bi_encoder.checkpoint).encode_queries([group.query for group in GROUPS])
    assert not np.allclose(queries, before, atol=1e-2)
    trained = bi_encoder.with_checkpoint(result.checkpoint, bi_encoder.checkpoint)
    texts = [text for group in GROUPS for text in (group.positive, *group.negatives)]
    stayed = PassageVectors.encode(trained, texts).tensor(texts)
    assert torch.equal(stayed, PassageVectors.encode(bi_encoder, texts).tensor(texts))
    passages = PassageVectors.encode(bi_encoder, texts)
    for group, query in zip(GROUPS, queries, strict=True):
        cosines = passages.tensor([group.positive, *group.negatives]).numpy() @ query
        assert cosines.argmax() == 0


def test_given_passage_vectors_are_the_ones_that_would_be_computed(bi_encoder, tmp_path):
    texts = [text for group in GROUPS for text in (group.positive, *group.negatives)]
    given = PassageVectors.encode(bi_encoder, [*reversed(texts), "Another passage."])
    computed = train(bi_encoder, GROUPS, tmp_path / "computed", tower="query", num_train_epochs=1)
    taken = train(bi_encoder, GROUPS, tmp_path / "given", tower="query", num_train_epochs=1, passage_vectors=given)
    assert taken.losses == pytest.approx(computed.losses, abs=1e-4)
    first, second = (load_file(result.checkpoint / "model.safetensors") for result in (computed, taken))
    assert all(torch.allclose(first[name].float(), second[name].float(), atol=1e-4) for name in first)
    # And it is the given ones that count.
    turned = PassageVectors(texts, -PassageVectors.encode(bi_encoder, texts).tensor(texts).numpy())
    other = train(bi_encoder, GROUPS, tmp_path / "turned", tower="query", num_train_epochs=1, passage_vectors=turned)
    assert other.losses[0] != pytest.approx(computed.losses[0], abs=0.1)


def test_a_cross_encoder_has_no_query_tower(tmp_path, small):
    with pytest.raises(SettingsError, match="tower='query' needs a bi-encoder"):
        train(RerankerWeights(small.name, "cross-encoder", new_head=True), GROUPS, tmp_path / "out", tower="query")
    assert not (tmp_path / "out").exists()


# In-batch negatives


def group(query, positive, *negatives, **options):
    return PreferenceGroup(query, positive, negatives, **options)


def test_the_other_positives_of_a_batch_become_negatives():
    batch = [
        group("a?", "A.", "x", "y", scores=(1.0, 0.5, 0.1)),
        group("b?", "B.", "A.", scores=(0.9, 0.2)),
        group("c?", "C holds the answer.", "z", scores=(0.8, 0.3), answers=("a",)),
        group("d?", "D.", "w", scores=(0.7, 0.0), answers=("The Answer",)),
        group("a?", "A, second best.", "y", scores=(0.6, 0.1)),
    ]
    lists = passage_lists(batch, in_batch=True)
    assert [texts for texts, _ in lists] == [
        # Not what is preferred in another group of the same question
        ["A.", "x", "y", "B.", "C holds the answer.", "D."],
        # Not a second time what is in the list
        ["B.", "A.", "C holds the answer.", "D.", "A, second best."],
        # "a" is an article: such an answer is none
        ["C holds the answer.", "z", "A.", "B.", "D.", "A, second best."],
        # Not what holds the answer
        ["D.", "w", "A.", "B.", "A, second best."],
        ["A, second best.", "y", "B.", "C holds the answer.", "D."],
    ]
    assert [scores for _, scores in lists][:2] == [[1.0, 0.5, 0.1, 0.0, 0.0, 0.0], [0.9, 0.2, 0.0, 0.0, 0.0]]
    assert all(len(texts) == len(scores) == len(set(texts)) for texts, scores in lists)


def test_a_question_in_other_letters_is_the_same_question():
    batch = [group("Why is it cold?", "A.", "x"), group("why is it COLD", "B.", "y"), group("c?", "C.", "z")]
    assert [texts for texts, _ in passage_lists(batch, in_batch=True)][:2] == [["A.", "x", "C."], ["B.", "y", "C."]]


def test_positives_that_two_groups_share_are_taken_once():
    batch = [group("a?", "A.", "x"), group("b?", "Same.", "y"), group("c?", "Same.", "z")]
    assert [texts for texts, _ in passage_lists(batch, in_batch=True)] == [
        ["A.", "x", "Same."],
        ["Same.", "y", "A."],
        ["Same.", "z", "A."],
    ]


def test_without_in_batch_negatives_a_group_is_what_it_was():
    batch = [group("a?", "A.", "x", scores=(1.0, 0.5)), group("b?", "B.", "y", "z")]
    assert passage_lists(batch, in_batch=False) == [(["A.", "x"], [1.0, 0.5]), (["B.", "y", "z"], [0.0, 0.0, 0.0])]


class Watched(InfoNCE):
    """A loss of one's own that remembers what it was given; from update ``nan_from`` on it is no number."""

    needs_scores = True

    def __init__(self, nan_from=None):
        super().__init__()
        self.sizes, self.scores, self.nan_from = [], [], nan_from

    def forward(self, logits, sizes, scores=None):
        self.sizes.append(list(sizes))
        self.scores.append(scores.tolist())
        loss = super().forward(logits, sizes)
        return loss * float("nan") if self.nan_from and len(self.sizes) >= self.nan_from else loss


@pytest.mark.parametrize("tower", ["both", "query"])
def test_a_loss_of_ones_own_sees_every_list_with_its_scores(bi_encoder, tmp_path, tower):
    for in_batch in (False, True):
        loss = Watched()
        train(
            bi_encoder,
            SCORED,
            tmp_path / f"{in_batch}",
            tower=tower,
            loss=loss,
            in_batch_negatives=in_batch,
            num_train_epochs=1,
            per_device_train_batch_size=4,
        )
        ((sizes,), (scores,)) = loss.sizes, loss.scores
        assert sorted(sizes) == ([5, 6, 6, 7] if in_batch else [2, 3, 3, 4])
        rows = [[round(one, 6) for one in row.tolist()] for row in torch.tensor(scores).split(sizes)]
        expected = [[*group.scores, *([0.0] * 3 if in_batch else [])] for group in SCORED]
        assert sorted(rows) == sorted(expected)


# The other losses


@pytest.mark.parametrize("loss", ["listwise", "margin"])
def test_the_other_losses_train(bi_encoder, tmp_path, loss):
    result = train(
        bi_encoder, SCORED, tmp_path / "out", loss=loss, num_train_epochs=4, learning_rate=1e-3, target_temperature=0.2
    )
    assert sum(result.losses[-2:]) < 0.8 * sum(result.losses[:2])
    rerank = Rerank(str(result.checkpoint), "bi-encoder")
    ranked = [rerank(group.query, [group.positive, *group.negatives]).indices for group in SCORED]
    assert ranked[0][0] == ranked[1][0] == ranked[3][0] == 0
    # The listwise loss follows the teacher where it prefers the other passage; the margin loss leaves that group alone.
    assert loss != "listwise" or ranked[2][0] == 1


@pytest.mark.parametrize("loss", ["listwise", "margin", Watched()])
def test_a_loss_that_reads_scores_needs_them_of_every_group(bi_encoder, tmp_path, loss):
    with pytest.raises(DataError, match="reads the teacher's scores"):
        train(bi_encoder, [*SCORED[:2], GROUPS[2]], tmp_path / "out", loss=loss)
    assert not (tmp_path / "out").exists()


def test_scores_and_passages_of_a_group_must_match():
    with pytest.raises(DataError, match=r"'why\?': 2 scores for 3 passages"):
        PreferenceGroup("why?", "a", ("b", "c"), (1.0, 0.5))


# Watching


@pytest.mark.parametrize("architecture", ["bi-encoder", "cross-encoder"])
def test_a_ruinous_learning_rate_is_stopped_and_leaves_no_checkpoint(tmp_path, architecture, small):
    base = RerankerWeights(small.name, architecture, new_head=True)
    result = train(base, GROUPS, tmp_path / "out", watch=True, learning_rate=1e3, num_train_epochs=12)
    assert result.checkpoint is None
    assert result.stopped.endswith(f"at update {result.updates}")
    assert result.updates == len(result.losses) < 24
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_no_number_is_stopped_where_someone_watches_and_an_error_where_nobody_does(bi_encoder, tmp_path):
    # Watched, each update asks the loss a second time: for that of equal scores.
    result = train(bi_encoder, SCORED, tmp_path / "out", watch=True, loss=Watched(nan_from=3), num_train_epochs=2)
    assert (result.stopped, result.updates, result.checkpoint) == ("the loss became nan at update 2", 2, None)
    with pytest.raises(RadioError, match=r"The loss became nan at update 3: training diverged"):
        train(bi_encoder, SCORED, tmp_path / "out", loss=Watched(nan_from=3), num_train_epochs=2)
    assert not (tmp_path / "out").exists()


def test_watching_changes_nothing_where_all_is_well(bi_encoder, tmp_path):
    watched = train(bi_encoder, GROUPS, tmp_path / "watched", watch=True, num_train_epochs=1)
    plain = train(bi_encoder, GROUPS, tmp_path / "plain", num_train_epochs=1)
    assert (watched.stopped, watched.losses) == ("", plain.losses)
    assert fingerprint(str(watched.checkpoint)) == fingerprint(str(plain.checkpoint))


# Low-rank adapters, on a causal model with a scoring head as large rerankers are

PAIRS = [("why is the jug cold?", "vapour carries warmth away"), ("why do ships float?", "ships sail")]


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    """A random two-layer Llama with the tokenizer of the packaged encoder."""
    pytest.importorskip("peft")
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path_factory.mktemp("causal")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(Path(weights(ENCODER)) / name, folder)
    config = LlamaConfig(
        vocab_size=30522,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        num_labels=1,
        pad_token_id=0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForSequenceClassification(config).save_pretrained(folder)
    return RerankerWeights(str(folder), "cross-encoder")


def adapted(base, **settings):
    from radio_dspy.distillation.training.adapters import add_adapters

    scorer = open_scorer(base)
    add_adapters(scorer.module, LoraSettings(**settings))
    return scorer


def test_only_adapters_and_the_head_are_trained(causal):
    scorer = adapted(causal, rank=2)
    scorer.logits(PAIRS).sum().backward()
    moving = {name for name, value in scorer.module.named_parameters() if value.grad is not None}
    assert moving == {name for name, value in scorer.module.named_parameters() if value.requires_grad}
    heads = {name for name in moving if ".score." in name}
    adapters = {name for name in moving if ".lora_A." in name or ".lora_B." in name}
    assert len(heads) == 1
    assert moving == heads | adapters
    assert len(adapters) == 2 * 2 * 7  # A and B, in two layers, on the seven linear layers of each
    assert "lora" not in next(iter(heads))


def test_the_layers_to_adapt_can_be_named(causal):
    scorer = adapted(causal, target_modules=("q_proj", "v_proj"))
    names = [name for name, value in scorer.module.named_parameters() if value.requires_grad and "lora" in name]
    assert len(names) == 2 * 2 * 2
    assert all("q_proj" in name or "v_proj" in name for name in names)


def test_adapters_begin_as_nothing_and_merge_without_a_difference(causal):
    from radio_dspy.distillation.training.adapters import merge_adapters

    before = open_scorer(causal).score(PAIRS)
    scorer = adapted(causal, rank=2)
    assert scorer.score(PAIRS) == pytest.approx(before, abs=1e-6)
    with torch.no_grad():
        for value in scorer.module.parameters():
            if value.requires_grad:
                value.add_(0.1)
    moved = scorer.score(PAIRS)
    assert not np.allclose(moved, before, atol=1e-3)
    merge_adapters(scorer.module)
    assert scorer.score(PAIRS) == pytest.approx(moved, abs=1e-4)
    assert not [name for name, _ in scorer.module.named_parameters() if "lora" in name or "modules_to_save" in name]


def test_a_checkpoint_trained_by_adapters_is_a_plain_one(causal, tmp_path, monkeypatch):
    before = contents(causal.checkpoint)
    settings = {"lora": LoraSettings(rank=4), "learning_rate": 1e-2, "num_train_epochs": 1}
    result = train(causal, GROUPS, tmp_path / "out", **settings)
    assert result.updates == 2
    assert contents(causal.checkpoint) == before
    first, second = (load_file(Path(one) / "model.safetensors") for one in (causal.checkpoint, result.checkpoint))
    assert first.keys() == second.keys()
    changed = {name for name in first if not torch.allclose(first[name], second[name], atol=1e-6)}
    assert {"score.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"} <= changed
    assert not any("embed_tokens" in name or "norm" in name for name in changed)
    assert not list(result.checkpoint.glob("adapter*"))
    monkeypatch.setitem(sys.modules, "peft", None)  # importing it fails from here on
    query, texts = GROUPS[0].query, [GROUPS[0].positive, *GROUPS[0].negatives]
    scores = [Rerank(str(one), "cross-encoder")(query, texts).scores for one in (causal.checkpoint, result.checkpoint)]
    assert scores[1] != pytest.approx(scores[0], abs=1e-4)


def test_an_encoder_can_be_trained_by_adapters_too(bi_encoder, tmp_path):
    pytest.importorskip("peft")
    result = train(
        bi_encoder, GROUPS[:2], tmp_path / "out", lora=LoraSettings(rank=2), learning_rate=1e-2, num_train_epochs=1
    )
    texts = ["Yeast dies in hot water."]
    moved, stayed = (Encoder(one).encode_passages(texts) for one in (str(result.checkpoint), bi_encoder.checkpoint))
    assert not np.allclose(moved, stayed, atol=1e-3)


def test_without_peft_the_error_says_what_to_install(bi_encoder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"LoRA needs peft: pip install 'radio-dspy\[lora\]'"):
        train(bi_encoder, GROUPS, tmp_path / "out", lora=LoraSettings())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("setting", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_adapter_settings_are_checked(setting):
    with pytest.raises(SettingsError, match="Need rank >= 1, alpha >= 1 and 0 <= dropout < 1"):
        LoraSettings(**setting)
