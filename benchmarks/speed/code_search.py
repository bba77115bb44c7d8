"""What test-time code search saves: bits/dim of the same items with the encoder's codes and with searched ones.

    python benchmarks/speed/code_search.py RUN --items 1000 --candidates 3

The numbers are those of `twostage evaluate RUN --evaluation.search-items N`, without the rows of the whole split. The
items are spread evenly over the split; the difference is paired over items.
"""

import argparse
import time
from pathlib import Path

import torch

from stage1_vqvae import VQVAE
from twostage.config.model_names import MAIN_MODEL
from twostage.data import load_dataset
from twostage.metrics.statistics import evenly, standard_error
from twostage_pipelines.bits.code_search import search_codes
from twostage_pipelines.bits.distortion import distortion_bits
from twostage_pipelines.bits.rate import label_frequencies, learned_rate
from twostage_pipelines.evaluate.row_writer import RowWriter
from twostage_pipelines.runs.codes import extract_codes
from twostage_pipelines.runs.run import Run


def main() -> None:
    """Print the Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--sweeps", type=int, default=1)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device, run = torch.device("cpu"), Run.open(options.run)
    dataset, stage1 = load_dataset(run.recipe.data), run.stage1(MAIN_MODEL, device)
    run.check_data(stage1, dataset)
    model, prior = stage1.model, run.prior(MAIN_MODEL, stage1, device).model
    assert isinstance(model, VQVAE)
    settings, split = run.recipe.evaluation, dataset.split(options.split)
    files = extract_codes(run, MAIN_MODEL, stage1, dataset, device)
    rows, labels = evenly(len(split), options.items), files["train"].labels
    writer, own = RowWriter(run, dataset, options.split, device), files[options.split].codes[rows]
    search = {"candidates": options.candidates, "sweeps": options.sweeps}
    batches = writer.batches(model, rows, copies=options.candidates - 1)
    started = time.perf_counter()
    found = search_codes(model, prior, batches, items=len(rows), train_labels=labels, **search)
    seconds = time.perf_counter() - started
    totals = []
    print(f"{dataset.name}, {options.split} set, {len(rows)} items: {search}")
    print(f"{seconds:.0f} s of search; {(own != found).mean():.1%} of the codes changed\n")
    print("| codes | total bits/dim | ± s.e. | distortion | rate |\n|---|---:|---:|---:|---:|")
    for name, codes in (("encoder's", own), ("searched", found)):
        distortion = distortion_bits(model, writer.batches(model, rows), codes, label="distortion")[0] / model.dims
        frequencies = label_frequencies(prior, labels)
        found_rate = learned_rate(prior, codes, frequencies=frequencies, device=device, batch_size=settings.batch_size)
        rate = found_rate.bits / model.dims
        totals.append(distortion + rate)
        error = standard_error(totals[-1])
        print(f"| {name} | {totals[-1].mean():.4f} | {error:.4f} | {distortion.mean():.4f} | {rate.mean():.4f} |")
    saved = totals[0] - totals[1]
    print(f"\nSaved: {saved.mean():.4f} ± {standard_error(saved):.4f} bits/dim (paired).")


if __name__ == "__main__":
    main()
