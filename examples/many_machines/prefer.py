"""Ask for rationales and build the training groups with many processes.

    accelerate launch --multi_gpu --num_processes 8 examples/many_machines/prefer.py \
        WORK/index train.jsonl WORK/groups --lm openai/gpt-4o-mini --threads 4

Each block of questions has a run folder of its own, with its rationales: what was paid for is not paid for again, also
with another number of processes. Without --lm the guide is `question. answers`. The groups end in WORK/groups.jsonl.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import datasets
import dspy
import torch
from accelerate import PartialState
from blocks import all_blocks, own_blocks

import radio_dspy as radio
from radio_dspy.core.files import write_lines
from radio_dspy.distillation import (
    PreferenceSettings,
    RationaleSimilarity,
    RetrievalScore,
    build_groups,
    fused_rankings,
)
from radio_dspy.distillation.rationales.writing import explain
from radio_dspy.retrievers.requests import rank_requests, usable
from radio_dspy.runs.run import Run

BLOCK = 64  # questions


def groups_of(
    examples: list[dspy.Example], index: radio.FaissRetriever, lm: dspy.LM | None, run: Run, threads: int
) -> list[dict[str, object]]:
    """One block, the whole way: candidates, rationales, fused scores, groups with their texts."""
    requests, _ = usable(rank_requests(examples, index, candidates=50))
    rationales, _ = explain(
        [(one.id, one.query, one.answers) for one in requests],
        run,
        lm=lm,
        extractor=radio.RationaleExtractor(),
        given={},
        encoder=index.encoder,
        num_threads=threads,
        show_progress=False,
    )
    requests = [replace(one, rationale=rationales[one.id]) for one in requests]
    signals = {RationaleSimilarity(index.encoder, index=index): 0.5, RetrievalScore(): 0.5}
    groups, _ = build_groups(
        requests, fused_rankings(requests, signals), PreferenceSettings(false_negatives=radio.FalseNegatives())
    )
    return [asdict(one) for one in groups]


def main() -> None:
    """Work on the own blocks, then join the groups in the first process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, help="what encode.py wrote")
    parser.add_argument("questions", type=Path, help="JSON Lines of {id, question, golden_answers}")
    parser.add_argument("groups", type=Path, help="the folder to write")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2", help="the one that made the index")
    parser.add_argument("--lm", help="a LiteLLM name, with its key in the environment")
    parser.add_argument("--threads", type=int, default=1, help="calls in flight, in each process")
    parser.add_argument("--block", type=int, default=BLOCK)
    options = parser.parse_args()
    state = PartialState(cpu=not torch.cuda.is_available())
    encoder = radio.Encoder(options.encoder, device=str(state.device))
    index = radio.FaissRetriever.load(options.index, encoder=encoder)
    lm = dspy.LM(options.lm) if options.lm else None

    with state.local_main_process_first():
        rows = datasets.Dataset.from_json(str(options.questions))
    for path, block in own_blocks(options.groups, len(rows), options.block, ".jsonl", state):
        run = Run(path.with_suffix(""))
        write_lines(path, groups_of(radio.load_questions(rows.select(block)), index, lm, run, options.threads))
        print(f"process {state.process_index}: {path.name}", flush=True)

    state.wait_for_everyone()
    if state.is_main_process:
        files = all_blocks(options.groups, len(rows), options.block, ".jsonl")
        lines = (json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines())
        write_lines(options.groups.with_suffix(".jsonl"), lines)
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main()
