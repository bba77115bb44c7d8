"""How near the forecast of a recipe's trainings comes to what they take: processor time, and growth of resident memory.

    python benchmarks/speed/forecast.py digits
    python benchmarks/speed/forecast.py images --path FOLDER --steps 300

Every training runs in a process of its own, forked when the data are in memory, so that what one frees is not there for
the next. Processor time, because a shared machine moves the time on the wall. `--steps` shortens every training.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from twostage.config.load import load_recipe
from twostage.config.model_names import model_spec
from twostage.config.schema import Recipe
from twostage_pipelines.modality.choose import load_data, modality_of
from twostage_pipelines.runs.forecast import Forecaster
from twostage_pipelines.runs.run import Run
from twostage_pipelines.runs.session import prepare
from twostage_pipelines.train.train import all_jobs, evaluate_and_report, train_jobs


def resident_bytes(name: str) -> int:
    """VmRSS, resident memory now, or VmHWM, the most since `reset_peak`."""
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(name))
    return int(line.split()[1]) * 1024


def reset_peak() -> None:
    """The most resident memory is counted from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def forked(work: Callable[[], Any]) -> Any:
    """What `work` gives in a process of its own, as JSON carries it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, json.dumps(work()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    return json.loads(text)


def shortened(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with at most so many steps in every training."""
    for name in ("codebook_training", "decoder_training", "prior_training", "baseline_training"):
        training = getattr(recipe, name)
        fewer = min(training.steps, steps)
        every = min(training.validate_every, fewer)
        warmup = min(training.warmup_steps, fewer)
        less = replace(training, steps=fewer, validate_every=every, warmup_steps=warmup)
        recipe = replace(recipe, **{name: less if training.steps > steps else training})
    return recipe


def compared(run: Run, dataset: Any, job: Any) -> dict[str, float]:
    """A job as it was foreseen and as it went: seconds of processor time, and bytes beyond those of the start."""
    modality, device = modality_of(run.recipe), torch.device("cpu")
    before, forecaster = resident_bytes("VmRSS"), Forecaster(run, dataset, device)
    stage1 = None
    if job.stage == "stage1":
        stage1 = modality.build(*modality.stage1(model_spec(job.model, run.recipe), run.recipe, dataset))
    began = time.process_time()
    foreseen = forecaster.of(job, stage1)
    assert foreseen is not None
    rehearsed = time.process_time() - began
    session = prepare(run, dataset, [job], device="cpu", resume="auto", forecast=False)
    assert session is not None
    reset_peak()
    began = time.process_time()
    train_jobs(session, [job])
    return {
        "rehearsed": rehearsed,
        "seconds": time.process_time() - began,
        "foreseen_seconds": foreseen.time.cpu_seconds,
        "bytes": resident_bytes("VmHWM") - before,
        "foreseen_bytes": foreseen.bytes - before,
    }


def evaluated(run: Run, dataset: Any) -> float:
    """Processor time of evaluation and report."""
    began = time.process_time()
    evaluate_and_report(run, dataset, device=torch.device("cpu"))
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipe")
    parser.add_argument("--path")
    parser.add_argument("--steps", type=int, default=1 << 31)
    arguments = parser.parse_args()
    recipe = shortened(load_recipe(arguments.recipe), arguments.steps)
    recipe = replace(recipe, threads=1, data=replace(recipe.data, path=arguments.path or recipe.data.path))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run, dataset = Run(path=Path(folder) / "run", recipe=recipe), load_data(recipe)
        jobs = all_jobs(run, dataset)
        print("| training | rehearsal s | CPU s | forecast | ratio | MiB | forecast | ratio |")
        print("|---|---:|---:|---:|---:|---:|---:|---:|")
        for job in jobs:
            found = forked(lambda job=job: compared(run, dataset, job))
            cells = [f"{found['rehearsed']:.1f}"]
            for what, unit in (("seconds", 1), ("bytes", 2**20)):
                real, foreseen = found[what] / unit, found[f"foreseen_{what}"] / unit
                cells += [f"{real:.1f}", f"{foreseen:.1f}", f"{foreseen / real:.2f}"]
            print(f"| {job.label} | {' | '.join(cells)} |", flush=True)
        seconds = forked(lambda: evaluated(run, dataset))
        print(f"evaluation and report: {seconds:.1f} s")


if __name__ == "__main__":
    main()
