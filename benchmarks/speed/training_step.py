"""Training step of stage one of recipe `mnist` against the same network written plainly in torch, without this project.

    python benchmarks/speed/training_step.py --data FOLDER

FOLDER holds the official MNIST files; without it the images are noise with MNIST's share of zeros, on which the hurdle
likelihood costs the same. Ours is `Fit.train_step` on the real task. The plain side below does the same operations and
nothing else: batch of the same permutation (drawn once an epoch), bf16 autocast, encoder, nearest codes,
straight-through gradient, hurdle likelihood, commitment, backward, clipping, finite check, AdamW with two groups,
moving averages, revival. It records no numbers but the loss. Both start from the same weights and see the same batches;
the losses of the first steps are compared. After that short blocks of either side alternate in one process, and the
overhead is the median over rounds of the ratio within a round, by wall clock and by the process's CPU time, which other
programs disturb less. The matrix-multiply rate is that of square bf16 matrices, measured in every round; the step's
FLOPs are counted by torch's FlopCounterMode over forward and backward (convolutions and matrix products only).

Shape letters: B items, N = B * 7 * 7 tokens, K codes, D channels per token, F features, M pixels above zero.
"""

import argparse
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from stage1_vqvae import VQVAE
from stage1_vqvae.images.tasks import CodebookTask
from stage1_vqvae.images.training_images import TrainingImages
from twostage.config.load import load_recipe
from twostage.config.model_names import model_spec
from twostage.data import ImageDataset, Split, load_dataset
from twostage.noise import seed_step
from twostage.training.loop import Fit
from twostage.training.precision import Setting
from twostage_pipelines.modality.images import build_stage1, stage1_architecture

ZERO_SHARE = 0.81  # of MNIST's training pixels
ITEMS = 55_000

# The plain side uses nothing of the project: configs/mnist.toml once more. A drift shows in the compared losses.
WIDTH, RESIDUAL_WIDTH, FEATURES, DIM, CODES, LEVELS = 128, 64, 32, 32, 16, 256
BATCH, STEPS, WARMUP, PEAK_RATE, CLIP_NORM = 32, 12_500, 100, 1e-3, 1.0
BETA, DECAY, REVIVAL = 0.25, 0.99, 0.03


class Residual(nn.Module):
    """ReLU, 3x3, ReLU, 1x1, and the input again."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(WIDTH, RESIDUAL_WIDTH, 3, padding=1)
        self.pointwise = nn.Conv2d(RESIDUAL_WIDTH, WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(F.relu(self.spatial(F.relu(x))))


class PlainVQVAE(nn.Module):
    """The network of the recipe."""

    codebook: Tensor
    usage: Tensor
    sums: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, WIDTH // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH // 2, WIDTH, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            Residual(),
            Residual(),
            nn.ReLU(),
            nn.Conv2d(WIDTH, DIM, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(DIM, WIDTH, 3, padding=1),
            Residual(),
            Residual(),
            nn.ReLU(),
            nn.ConvTranspose2d(WIDTH, WIDTH // 2, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(WIDTH // 2, FEATURES, 4, stride=2, padding=1),
            nn.ReLU(),
        )
        self.zero_logit = nn.Linear(FEATURES, 1)
        self.above_logits = nn.Linear(FEATURES, LEVELS - 1)
        self.register_buffer("codebook", torch.zeros(CODES, DIM))
        self.register_buffer("usage", torch.zeros(CODES))
        self.register_buffer("sums", torch.zeros(CODES, DIM))
        self.register_buffer("weight", torch.zeros(()))

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, tokens `[N, D]` and codes `[N]`."""
        z_BDHW = self.encoder(x_BCHW.float() * (2 / (LEVELS - 1)) - 1)
        with torch.autocast("cpu", enabled=False):
            z_BHWD = z_BDHW.float().permute(0, 2, 3, 1).contiguous()
            z_ND = z_BHWD.view(-1, DIM)
            with torch.no_grad():
                codes_N = torch.addmm(self.codebook.square().sum(1), z_ND, self.codebook.t(), alpha=-2).argmin(1)
            e_ND = self.codebook[codes_N]
            commitment = F.mse_loss(z_ND, e_ND)
            q_BHWD = z_BHWD + (e_ND.view_as(z_BHWD) - z_BHWD).detach()
        features_BHWF = self.decoder(q_BHWD.permute(0, 3, 1, 2)).movedim(1, -1)
        above_BHW = x_BCHW[:, 0] > 0
        zero_logit_BHW = self.zero_logit(features_BHWF).squeeze(-1).float()
        nats = -F.logsigmoid(torch.where(above_BHW, -zero_logit_BHW, zero_logit_BHW)).sum()
        logits_ML = self.above_logits(features_BHWF[above_BHW]).float()
        nats = nats + F.cross_entropy(logits_ML, x_BCHW[:, 0][above_BHW].long() - 1, reduction="sum")
        return nats / x_BCHW.numel() + BETA * commitment, z_ND.detach(), codes_N

    @torch.no_grad()
    def update(self, z_ND: Tensor, codes_N: Tensor) -> None:
        """Moving averages, then revival of codes that hardly any token chose."""
        counts_K = torch.bincount(codes_N, minlength=CODES).float()
        batch_sums_KD = torch.zeros_like(self.sums).index_add_(0, codes_N, z_ND)
        self.weight.mul_(DECAY).add_(1 - DECAY)
        self.usage.mul_(DECAY).add_(counts_K / len(codes_N), alpha=1 - DECAY)
        self.sums.mul_(DECAY).add_(batch_sums_KD / len(codes_N), alpha=1 - DECAY)
        self.codebook.copy_(torch.where(counts_K[:, None] > 0, self.sums / self.usage[:, None], self.codebook))
        dead = (self.usage < REVIVAL * self.weight / CODES).nonzero()[:, 0]
        if len(dead):
            rows = torch.unique(z_ND[torch.randperm(len(z_ND))[: len(dead)]], dim=0)
            dead, share = dead[: len(rows)], self.weight / CODES
            self.codebook[dead], self.usage[dead], self.sums[dead] = rows, share, rows * share


class PlainTraining:
    """The loop: one `step` is one optimiser step."""

    def __init__(self, model: PlainVQVAE, images: Tensor) -> None:
        self.model, self.images, self.done, self.epoch = model, images, 0, 0
        self.order = np.empty(0, dtype=np.int64)
        kernels = [p for p in model.parameters() if p.ndim > 1]
        rest = [p for p in model.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW([{"params": kernels}, {"params": rest}], weight_decay=0.0)

    def batch(self) -> Tensor:
        while len(self.order) < BATCH:
            generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([0, self.epoch])))
            self.order = np.concatenate([self.order, generator.permutation(len(self.images))])
            self.epoch += 1
        indices, self.order = self.order[:BATCH], self.order[BATCH:]
        return self.images[torch.from_numpy(indices)]

    def step(self) -> float:
        x_BCHW = self.batch()
        rate = (self.done + 1) / WARMUP
        if self.done >= WARMUP:
            rate = 0.5 * (1 + math.cos(math.pi * (self.done - WARMUP) / (STEPS - WARMUP)))
        for group in self.optimiser.param_groups:
            group["lr"] = PEAK_RATE * rate
        with torch.autocast("cpu", torch.bfloat16):
            loss, z_ND, codes_N = self.model(x_BCHW)
        self.optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        value = loss.item()
        if not (math.isfinite(value) and math.isfinite(norm.item())):
            raise RuntimeError("not finite")
        self.optimiser.step()
        self.model.update(z_ND, codes_N)
        self.done += 1
        return value


@dataclass(frozen=True)
class Agreement:
    """How far both sides are the same training, from the same weights on."""

    parameters: int
    steps: int
    first_loss_difference: float
    largest_loss_difference: float


def synthetic() -> ImageDataset:
    """Noise in MNIST's shape, with its share of zeros."""
    generator = np.random.default_rng(0)
    shape = (ITEMS, 1, 28, 28)
    images = generator.integers(1, LEVELS, shape, dtype=np.uint8) * (generator.random(shape) >= ZERO_SHARE)
    part = Split(images=images.astype(np.uint8), labels=np.zeros(ITEMS, dtype=np.int64))
    return ImageDataset(name="noise", levels=LEVELS, classes=(), train=part, validation=part, test=part)


def our_training(dataset: ImageDataset, folder: Path, precision: Setting = "bf16-forced") -> tuple[Fit, VQVAE]:
    """The recipe's codebook training in that precision, k-means start included, ready for its first step."""
    recipe = load_recipe("mnist")
    seed_step(recipe.seed, 0)
    model = build_stage1("vq-vae", stage1_architecture(model_spec("vq-vae", recipe), recipe, dataset))
    assert isinstance(model, VQVAE)
    task = CodebookTask(
        model,
        train=TrainingImages(torch.from_numpy(dataset.train.images)),
        validation=torch.from_numpy(dataset.validation.images),
        kmeans=recipe.quantiser.init == "kmeans",
        evaluation_batch_size=recipe.evaluation.batch_size,
        seed=recipe.seed,
    )
    budget, device = replace(recipe.codebook_training, precision=precision), torch.device("cpu")
    fit = Fit(task, folder=folder, budget=budget, seed=recipe.seed, record={}, device=device)
    task.start()
    model.train()
    return fit, model


def plain_copy(model: VQVAE, images: Tensor) -> PlainTraining:
    """The plain side with the same weights and codebook; parameters are paired by their order."""
    plain = PlainVQVAE()
    with torch.no_grad():
        for target, source in zip(plain.parameters(), model.parameters(), strict=True):
            assert target.shape == source.shape, f"{target.shape} is not {source.shape}: the networks differ"
            target.copy_(source)
        quantiser = model.quantiser
        plain.codebook.copy_(quantiser.codebook[0])
        plain.usage.copy_(quantiser.usage[0])
        plain.sums.copy_(quantiser.sums[0])
        plain.weight.copy_(quantiser.weight)
    return PlainTraining(plain, images)


def compare(fit: Fit, plain: PlainTraining, steps: int) -> Agreement:
    """Take the first steps of both, with the same random numbers, and compare their losses."""
    differences = []
    for step in range(steps):
        ours = fit.train_step()["loss"]
        seed_step(fit.seed, step)
        differences.append(abs(ours - plain.step()))
    parameters = sum(p.numel() for p in plain.model.parameters()) + plain.model.codebook.numel()
    return Agreement(parameters, steps, differences[0], max(differences))


def step_flops(plain: PlainTraining) -> int:
    """FLOPs of convolutions and matrix products in forward and backward of one batch."""
    x_BCHW = plain.images[:BATCH]
    with FlopCounterMode(display=False) as counter:
        with torch.autocast("cpu", torch.bfloat16):
            loss = plain.model(x_BCHW)[0]
        loss.backward()
    return counter.get_total_flops()


def matmul_gflops(side: int, seconds: float = 0.05) -> float:
    """Rate of bf16 products of two square matrices over about that many seconds."""
    a, b = torch.randn(2, side, side).bfloat16()
    out = torch.empty_like(a)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        torch.mm(a, b, out=out)
        count += 1
    return 2e-9 * side**3 * count / (time.perf_counter() - start)


@dataclass(frozen=True)
class Block:
    """Seconds per step of one block."""

    wall: float
    cpu: float


def time_block(step: Callable[[], object], steps: int) -> Block:
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    return Block(wall=(time.perf_counter() - wall) / steps, cpu=(time.process_time() - cpu) / steps)


def quartiles(values: Iterable[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with the MNIST files; noise of that shape unless given")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--block", type=int, default=2, help="steps of one side before the other has its turn")
    parser.add_argument("--compared", type=int, default=20, help="first steps whose losses are compared")
    parser.add_argument("--matrix", type=int, default=1024, help="side of the matrices of the reference product")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dataset = synthetic()
    if arguments.data:
        dataset = load_dataset(replace(load_recipe("mnist").data, path=arguments.data))
    with tempfile.TemporaryDirectory() as folder:
        fit, model = our_training(dataset, Path(folder))
        plain = plain_copy(model, torch.from_numpy(dataset.train.images))
        agreement = compare(fit, plain, arguments.compared)
        sides: dict[str, Callable[[], object]] = {"this project": fit.train_step, "plain torch": plain.step}
        blocks: dict[str, list[Block]] = {name: [] for name in sides}
        rates: list[float] = []
        for index in range(arguments.rounds):
            # Who goes first changes from round to round: a block leaves its weights in the cache.
            for name in sorted(sides, reverse=bool(index % 2)):
                blocks[name].append(time_block(sides[name], arguments.block))
            rates.append(matmul_gflops(arguments.matrix))
    print(
        f"Recipe mnist, stage one, batch {BATCH}, bf16 autocast, 1 thread, {dataset.name} images; {arguments.rounds} "
        f"rounds of {arguments.block} steps a side; torch {torch.__version__}, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f}\n"
    )
    gflop, rate = 1e-9 * step_flops(plain), statistics.median(rates)
    print_sides(blocks, gflop=gflop, rate=rate)
    print(
        f"- Parameters of either side, codebook included: {agreement.parameters:,}; loss difference at step 0 "
        f"{agreement.first_loss_difference:.1e}, largest over {agreement.steps} steps "
        f"{agreement.largest_loss_difference:.1e}\n"
        f"- One step: {gflop:.2f} GFLOP in convolutions and matrix products; bf16 products of "
        f"{arguments.matrix}x{arguments.matrix} matrices: {rate:.0f} GFLOP/s"
    )


def print_sides(blocks: dict[str, list[Block]], *, gflop: float, rate: float) -> None:
    """The table, and the overhead by either clock."""
    print("| side | images/s | quartiles | ms/step | CPU ms/step | share of the matrix-multiply rate |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, timed in blocks.items():
        low, middle, high = quartiles(block.wall for block in timed)
        cpu = statistics.median(block.cpu for block in timed)
        print(
            f"| {name} | {BATCH / middle:.1f} | {BATCH / high:.1f} to {BATCH / low:.1f} | {1e3 * middle:.2f} "
            f"| {1e3 * cpu:.2f} | {gflop / middle / rate:.1%} |"
        )
    print()
    pairs = list(zip(blocks["this project"], blocks["plain torch"], strict=True))
    for clock, ratios in (
        ("wall clock", [ours.wall / plain.wall for ours, plain in pairs]),
        ("CPU time", [ours.cpu / plain.cpu for ours, plain in pairs]),
    ):
        low, middle, high = quartiles(ratios)
        print(f"- Overhead by {clock}: {middle - 1:+.1%} (quartiles of the rounds {low - 1:+.1%} to {high - 1:+.1%})")


if __name__ == "__main__":
    main()
