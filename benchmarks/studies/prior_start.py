"""How quickly a PixelCNN prior learns: validation bits/code after so many steps, on k-means codes of MNIST patches.

    python benchmarks/studies/prior_start.py --data FOLDER [--setting 8x64 6x32] [--seeds 3] [--beside FILE.py]

The codes are the nearest of K = 64 centres to each 4x4 patch, a grid of 7x7, given the digit; the first 5000 training
images train, the last 2000 validate. Adam at a constant learning rate, batches of 32, no warm-up, no clipping; the
learning rates and steps are `SETTINGS`. FILE.py holds another network for comparison: a function
`build(*, codebook_size, grid, classes, channels, layers)` that returns a module which maps codes [B, H, W] and labels
[B], both int64, to logits [B, K, H, W]. Both sides get the same batches and one thread, and take turns.
"""

import argparse
import importlib.util
import math
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stage1_vqvae.quantiser.kmeans import kmeans
from stage1_vqvae.quantiser.nearest import nearest_codes
from stage2_prior import PixelCNN
from twostage.config.schema import DataConfig
from twostage.data import load_dataset

CODEBOOK_SIZE, PATCH, BATCH = 64, 4, 32
TRAIN_ITEMS, VALIDATION_ITEMS = 5000, 2000


@dataclass(frozen=True)
class Setting:
    """Size of the network and its budget."""

    layers: int
    channels: int
    learning_rate: float
    steps: int


SETTINGS = {"8x64": Setting(8, 64, 2e-3, 150), "6x32": Setting(6, 32, 4e-3, 250)}


@dataclass(frozen=True)
class Codes:
    """Codes [N, H, W] and labels [N], int64."""

    codes_NHW: Tensor
    labels_N: Tensor


class Ours(nn.Module):
    """The project's prior with the interface of the other side."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.prior = PixelCNN(**settings)  # type: ignore[arg-type]

    def forward(self, codes_BHW: Tensor, labels_B: Tensor) -> Tensor:
        return self.prior(codes_BHW[:, None], labels_B[:, None])[:, 0].permute(0, 3, 1, 2)


def ours(*, classes: int, **settings: object) -> nn.Module:
    """The project's prior for one attribute of so many classes."""
    return Ours(classes=(classes,), **settings)


def codes_of(folder: str) -> tuple[Codes, Codes]:
    """Training and validation codes; the centres are those of the training patches."""
    dataset = load_dataset(DataConfig(name="mnist", path=folder))
    sets = []
    for split, rows in ((dataset.train, slice(TRAIN_ITEMS)), (dataset.validation, slice(-VALIDATION_ITEMS, None))):
        images_NHW = torch.from_numpy(split.images[rows]).float().flatten(1).view(-1, 28, 28) / 255
        patches_NHWP = images_NHW.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).flatten(3)
        sets.append((patches_NHWP, torch.from_numpy(split.labels[rows]).long().flatten()))
    train_patches = sets[0][0].flatten(0, 2)
    generator = torch.Generator().manual_seed(0)
    shuffled = train_patches[torch.randperm(len(train_patches), generator=generator)]
    centres_KP = kmeans(shuffled, clusters=CODEBOOK_SIZE, generator=generator).centres_KD
    train, validation = (
        Codes(nearest_codes(patches.flatten(0, 2), centres_KP).view(patches.shape[:3]), labels)
        for patches, labels in sets
    )
    return train, validation


def bits_per_code(network: nn.Module, data: Codes) -> float:
    """Mean over all codes."""
    network.eval()
    with torch.no_grad():
        parts = zip(data.codes_NHW.split(500), data.labels_N.split(500), strict=True)
        nats = sum(float(F.cross_entropy(network(codes, labels), codes, reduction="sum")) for codes, labels in parts)
    network.train()
    return nats / data.codes_NHW.numel() / math.log(2)


def fit(build: Callable[..., nn.Module], setting: Setting, seed: int, train: Codes, validation: Codes) -> float:
    """Validation bits/code of a network trained from that seed."""
    torch.manual_seed(seed)
    network = build(
        codebook_size=CODEBOOK_SIZE, grid=(7, 7), classes=10, channels=setting.channels, layers=setting.layers
    )
    optimiser = torch.optim.Adam(network.parameters(), setting.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(setting.steps):
        rows = torch.randint(len(train.codes_NHW), (BATCH,), generator=generator)
        codes_BHW = train.codes_NHW[rows]
        loss = F.cross_entropy(network(codes_BHW, train.labels_N[rows]), codes_BHW)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return bits_per_code(network, validation)


def loaded(path: Path) -> Callable[..., nn.Module]:
    """The function `build` of that file."""
    spec = importlib.util.spec_from_file_location("beside", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build


def main() -> None:
    """Print a Markdown table: one line a setting and side, a column a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of MNIST's files")
    parser.add_argument("--setting", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--beside", type=Path, help="Python file with another network")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sides = {"ours": ours} | ({"beside": loaded(arguments.beside)} if arguments.beside else {})
    train, validation = codes_of(arguments.data)
    print(f"torch {torch.__version__}, Python {platform.python_version()}, 1 thread; validation bits/code\n")
    print("| setting | side |" + "".join(f" seed {seed} |" for seed in range(arguments.seeds)) + " mean |")
    print("|---|---|" + "---:|" * (arguments.seeds + 1))
    for name in arguments.setting:
        bits: dict[str, list[float]] = {side: [] for side in sides}
        for seed in range(arguments.seeds):
            for side, build in sides.items():
                bits[side].append(fit(build, SETTINGS[name], seed, train, validation))
        for side, values in bits.items():
            cells = [f"{value:.4f}" for value in [*values, sum(values) / len(values)]]
            print(f"| {name} | {side} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
