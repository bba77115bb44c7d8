"""What checkpoints cost: share of the training time of shipped recipes.

    python benchmarks/speed/checkpoint_cost.py

For stage one and the prior of each recipe: the median time of an optimiser step, the median time of a saved training
state (write, SHA-256, fsync, rename, removal of the oldest), and the share of the second in `checkpoint_every` of the
first with one state: at the recipe's own interval, and at the default one, which must stay below 3 %. `best/` is
counted as if every validation brought a new best. Networks, batches and optimiser are
the recipe's; the images are random, which changes no time. One thread; the disk is that of `--folder`.

A step is counted by its processor time, which is its duration on a core of its own, and saving by the clock, waits for
the disk and for other programs included: a busy machine makes waits longer, and the share rather too high than too low.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from stage1_vqvae import VQVAE
from stage1_vqvae.images.tasks import CodebookTask
from stage1_vqvae.images.training_images import TrainingImages
from stage2_prior import PixelCNN
from stage2_prior.training import PriorTask
from twostage.config.load import load_recipe
from twostage.config.schema import Recipe, TrainingConfig
from twostage.storage.checkpoint import save_checkpoint
from twostage.training.loop import Fit
from twostage.training.record import Metrics
from twostage.training.task import Task
from twostage_pipelines.modality.images import build_stage1, prior_architecture

SHAPES = {"digits": ((1, 8, 8), 17), "mnist": ((1, 28, 28), 256)}
"""Image shape and levels of the recipes' data."""
ITEMS, CLASSES = 512, 10


def tasks(recipe: Recipe) -> dict[str, Task]:
    """Both trainings of the recipe on random items."""
    shape, levels = SHAPES[recipe.name]
    quantiser = recipe.quantiser.arguments(update=recipe.quantiser.update)
    architecture = {"image_shape": shape, "levels": levels, **recipe.stage1.networks, **quantiser}
    model = build_stage1("vq-vae", architecture)
    assert isinstance(model, VQVAE)
    images = torch.randint(levels, (ITEMS, *shape), dtype=torch.uint8)
    codebook = CodebookTask(
        model, train=TrainingImages(images), validation=images[:8], kmeans=False, evaluation_batch_size=8, seed=0
    )
    prior = PixelCNN(**prior_architecture(recipe, model, CLASSES))
    codes = torch.randint(model.codebook_size, (ITEMS, *model.code_shape))
    labels = torch.randint(CLASSES, (ITEMS, 1))
    return {
        "codebook": codebook,
        "prior": PriorTask(
            prior,
            train=codes,
            train_condition=labels,
            validation=codes[:8],
            validation_condition=labels[:8],
            evaluation_batch_size=8,
        ),
    }


def median_seconds(action: Callable[[], object], *, times: int, clock: Callable[[], float]) -> float:
    """Median time of an action, once tried."""
    action()
    taken = []
    for _ in range(times):
        begun = clock()
        action()
        taken.append(clock() - begun)
    return statistics.median(taken)


def share_of(step: float, *, state: float, best: float, budget: TrainingConfig) -> float:
    """Share of saving in training and saving; all in seconds."""
    training = step * budget.checkpoint_every
    saving = state + best * budget.checkpoint_every / budget.validate_every
    return saving / (training + saving)


def row(name: str, stage: str, task: Task, recipe: Recipe, folder: Path, *, times: int) -> tuple[str, float]:
    """A line of the table and the share at the default interval."""
    budget = recipe.codebook_training if stage == "codebook" else recipe.prior_training
    fit = Fit(task, folder=folder, budget=budget, seed=0, record={}, device=torch.device("cpu"))
    folder.mkdir(parents=True)
    metrics = Metrics(folder / "metrics.jsonl", size=0)
    step = median_seconds(fit.train_step, times=times, clock=time.process_time)

    def save() -> None:
        fit.step += 1  # a name of its own, so that the oldest is removed as in training
        fit.save(metrics)

    state = median_seconds(save, times=times, clock=time.perf_counter)
    model = {"model": task.model.state_dict()}

    def save_best() -> None:
        save_checkpoint(folder / "best", tensors=model, state={})

    best = median_seconds(save_best, times=times, clock=time.perf_counter)
    metrics.close()
    own, default = (share_of(step, state=state, best=best, budget=interval) for interval in (budget, TrainingConfig()))
    size = sum(path.stat().st_size for path in max(folder.glob("step-*")).iterdir())
    line = (
        f"| {name}, {stage} | {step * 1e3:.1f} ms | {size / 2**20:.2f} MiB | {state * 1e3:.1f} ms | "
        f"{best * 1e3:.1f} ms | {budget.checkpoint_every} | {own:.2%} | {default:.2%} |"
    )
    return line, default


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=15, help="measurements of each")
    parser.add_argument("--folder", type=Path, help="where it writes, removed afterwards; must be on a disk")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shares = []
    default = TrainingConfig().checkpoint_every
    print(f"| training | step | state | saving it | saving best | steps between | share | share at {default} |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    with TemporaryDirectory(dir=options.folder) as place:
        for name in SHAPES:
            recipe = load_recipe(name)
            for stage, task in tasks(recipe).items():
                line, share = row(name, stage, task, recipe, Path(place) / name / stage, times=options.times)
                print(line, flush=True)
                shares.append(share)
    return 1 if max(shares) > 0.03 else 0


if __name__ == "__main__":
    sys.exit(main())
