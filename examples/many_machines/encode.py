"""Encode a corpus with many processes and index it.

    accelerate launch --multi_gpu --num_processes 8 examples/many_machines/encode.py corpus.jsonl WORK/index

The corpus is read as Arrow, memory-mapped: a process holds the texts of its block and no others. The folder must be
one that all processes see. Started again, it skips the blocks that are finished.
"""

import argparse
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate import PartialState
from blocks import all_blocks, own_blocks

import radio_dspy as radio
from radio_dspy.core.files import replacing

BLOCK = 4096  # passages


def main() -> None:
    """Encode the own blocks, then index in the first process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="JSON Lines of {id, contents}")
    parser.add_argument("index", type=Path, help="the folder to write")
    parser.add_argument("--encoder", default="all-MiniLM-L6-v2")
    parser.add_argument("--batch-size", type=int, default=32, help="larger on a GPU; it decides the last bits, too")
    parser.add_argument("--block", type=int, default=BLOCK)
    options = parser.parse_args()
    state = PartialState(cpu=not torch.cuda.is_available())
    encoder = radio.Encoder(options.encoder, device=str(state.device), batch_size=options.batch_size)

    with state.local_main_process_first():  # one process of each machine writes the Arrow file
        rows = datasets.Dataset.from_json(str(options.corpus))
    parts = options.index.with_name(f"{options.index.name}-blocks")
    for path, block in own_blocks(parts, len(rows), options.block, ".npy", state):
        vectors = encoder.encode_passages(radio.load_corpus(rows.select(block)))
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, vectors, allow_pickle=False)
        print(f"process {state.process_index}: {path.name}", flush=True)

    state.wait_for_everyone()
    if state.is_main_process:
        files = all_blocks(parts, len(rows), options.block, ".npy")
        vectors = np.concatenate([np.load(path, allow_pickle=False) for path in files])
        radio.FaissRetriever.build(radio.load_corpus(rows), encoder, vectors=vectors).save(options.index)
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main()
