"""How quickly a VQ-VAE learns under each likelihood: PSNR, colour, bits/dim of validation images after so many steps.

    python benchmarks/studies/likelihood_study.py images --data FOLDER --channels 64 --checkpoints 300 1500

Networks, quantiser, batch and learning rate are the recipe's; the last checkpoint is the end of the schedule. All
likelihoods see the same batches from the same k-means start. Distortion is -log2 p(x|z), without the codes' own bits;
PSNR is that of the mean of p(x|z). Chroma is the root mean square of a pixel's channels around their mean, in levels,
averaged over all pixels: the table gives that of the reconstructions and, in the head, of the originals. `used` counts
the codes that occur. Autoregressive layers have no mean image, hence no PSNR.
"""

import argparse
import math
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from stage1_vqvae import VQVAE
from stage1_vqvae.images.tasks import CodebookTask
from stage1_vqvae.images.training_images import TrainingImages
from twostage.config.load import load_recipe
from twostage.config.model_names import MAIN_MODEL, model_spec
from twostage.config.schema import Recipe
from twostage.data import load_dataset
from twostage.data.batches import batch_indices
from twostage.data.images.dataset import ImageDataset, Split
from twostage.errors import TwoStageError
from twostage.metrics.statistics import psnr_db
from twostage.noise import step_seed
from twostage.training.optimiser import learning_rate_at, make_optimiser
from twostage_pipelines.modality.images import stage1_architecture

HEADINGS = ("likelihood", "mean weight", "seed", "steps", "distortion bits/dim", "PSNR dB", "chroma", "used", "CPU s")
BATCH = 50
"""Validation images at a time."""


def chroma(images_BCHW: Tensor) -> Tensor:
    """Root mean square of the channels of every pixel around their mean, `[B, H, W]`."""
    return (images_BCHW - images_BCHW.mean(1, keepdim=True)).square().mean(1).sqrt()


@torch.no_grad()
def scores(model: VQVAE, validation: Tensor) -> list[str]:
    """Cells of the table: bits/dim, PSNR, chroma, codes in use."""
    model.eval()
    nats, error, colour, used = 0.0, 0.0, 0.0, set[int]()
    for x_BCHW in validation.split(BATCH):
        codes_BGHW = model.encode(x_BCHW)
        used.update(codes_BGHW.unique().tolist())
        nats -= float(model.log_prob(x_BCHW, codes_BGHW).double().sum())
        if not model.autoregressive:
            mean_BCHW = model.decode(codes_BGHW)
            error += float((mean_BCHW - x_BCHW.float()).square().double().sum())
            colour += float(chroma(mean_BCHW).mean((1, 2)).sum())
    model.train()
    bits = f"{nats / math.log(2) / validation.numel():.4f}" if model.likelihood_is_discrete else "-"
    if model.autoregressive:
        return [bits, "-", "-", str(len(used))]
    psnr = psnr_db(error, validation.numel(), model.levels)
    return [bits, "-" if psnr is None else f"{psnr:.2f}", f"{colour / len(validation):.1f}", str(len(used))]


def fit(recipe: Recipe, dataset: ImageDataset, checkpoints: list[int]) -> Iterator[list[str]]:
    """Train the recipe's model; the cells of a line at every checkpoint."""
    torch.manual_seed(recipe.seed)
    model = VQVAE(**stage1_architecture(model_spec(MAIN_MODEL, recipe), recipe, dataset))
    budget = replace(recipe.codebook_training, steps=max(checkpoints))
    images = torch.from_numpy(dataset.train.images)
    train = TrainingImages(images, horizontal_flips=recipe.data.horizontal_flips)
    validation = torch.from_numpy(dataset.validation.images)
    starts = recipe.quantiser.starts_from_data
    task = CodebookTask(
        model, train=train, validation=validation, kmeans=starts, evaluation_batch_size=BATCH, seed=recipe.seed
    )
    task.start()
    optimiser, started = make_optimiser(model, budget), time.process_time()
    for step in range(budget.steps):
        torch.manual_seed(step_seed(recipe.seed, step))  # of the flips, whatever the model has drawn at its start
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(budget, step)
        result = task.loss(batch_indices(seed=recipe.seed, step=step, batch_size=budget.batch_size, items=len(images)))
        optimiser.zero_grad()
        result.loss.backward()
        optimiser.step()
        task.after_step(result, optimiser)
        if step + 1 in checkpoints:
            yield [*scores(model, validation), f"{time.process_time() - started:.0f}"]


def main() -> None:
    """Print a Markdown table, a line a likelihood, seed and checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="shipped name or TOML file, of images")
    parser.add_argument("--data", help="folder of the data; the recipe's own unless given")
    parser.add_argument("--likelihoods", nargs="+", default=["mse", "logistic-mixture"])
    parser.add_argument("--mean-weights", nargs="+", type=float, help="of logistic-mixture; the recipe's unless given")
    parser.add_argument("--channels", type=int, help="width of encoder and decoder; the recipe's unless given")
    parser.add_argument("--checkpoints", nargs="+", type=int, default=[300, 1500])
    parser.add_argument("--items", type=int, default=1000, help="validation images at most")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        recipe = load_recipe(arguments.recipe)
        channels = arguments.channels or recipe.stage1.channels
        weights = arguments.mean_weights or [recipe.stage1.mean_weight]
        dataset = load_dataset(replace(recipe.data, path=arguments.data or recipe.data.path))
        validation, items = dataset.validation, arguments.items
        dataset = replace(dataset, validation=Split(validation.images[:items], validation.labels[:items]))
        original = float(chroma(torch.from_numpy(dataset.validation.images).float()).mean())
        print(
            f"Recipe {recipe.name}, {channels} channels, {len(dataset.train)} training and {len(dataset.validation)} "
            f"validation images of {dataset.shape}, chroma {original:.1f}; 1 thread, torch {torch.__version__}, Python "
            f"{platform.python_version()}\n\n| " + " | ".join(HEADINGS) + " |\n|---|" + "---:|" * (len(HEADINGS) - 1)
        )
        for seed in arguments.seeds:
            for likelihood in arguments.likelihoods:
                asked = sorted(set(arguments.checkpoints))
                plain = replace(recipe.stage1, channels=channels, likelihood=likelihood, mean_weight=0.0)
                for weight in weights if plain.has_mean_weight else [0.0]:
                    stage1 = replace(plain, mean_weight=weight)
                    lines = fit(replace(recipe, seed=seed, stage1=stage1), dataset, asked)
                    for steps, cells in zip(asked, lines, strict=True):
                        start = [likelihood, f"{weight:g}", str(seed), str(steps)]
                        print("| " + " | ".join([*start, *cells]) + " |", flush=True)
    except TwoStageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
