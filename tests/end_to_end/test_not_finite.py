"""A number that is not finite, at every place of a training: in one process, and in one of two.

This file is its own worker: `python test_not_finite.py FOLDER` goes through all places with a pair of processes.
"""

import json
import os
import re
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import VQVAE
from stage1_vqvae.images.tasks import CodebookTask
from stage1_vqvae.images.training_images import TrainingImages
from stage2_prior import PixelCNN
from stage2_prior.training import PriorTask
from twostage.config.schema import TrainingConfig
from twostage.distributed import process_group, rank, world_size
from twostage.errors import RunError
from twostage.noise import seed_step
from twostage.storage.checkpoint import load_checkpoint, load_newest
from twostage.training.loop import Fit
from twostage.training.task import StepResult, Task

NAN, INF = float("nan"), float("inf")
BAD_STEP = 2
BUDGET = TrainingConfig(
    steps=8, batch_size=12, learning_rate=3e-3, weight_ema=0.8, validate_every=2, checkpoint_every=2
)


def _codebook() -> Task:
    images = torch.randint(0, 2, (40, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    model = VQVAE(
        image_shape=(1, 8, 8), levels=2, likelihood="bernoulli", downsampling=2, channels=4, residual_blocks=1,
        residual_channels=4, head_channels=4, codebook_size=8, embedding_dim=4, update="ema",
    )  # fmt: skip
    train = TrainingImages(images)
    return CodebookTask(model, train=train, validation=images[:7], kmeans=False, evaluation_batch_size=4, seed=0)


def _prior() -> Task:
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(0, 5, (40, 1, 3, 3), generator=generator)
    labels = torch.randint(0, 3, (40, 1), generator=generator)
    prior = PixelCNN(codebook_size=5, grid=(3, 3), classes=(4,), channels=4, layers=1)
    return PriorTask(
        prior, train=codes, train_condition=labels, validation=codes[:5], validation_condition=labels[:5],
        evaluation_batch_size=5,
    )  # fmt: skip


# What goes wrong: each is called with the fit whose step it is, before the forward pass. --------------------------


def _bad_input(fit: Fit) -> None:
    """Of the first layer: images and codes are integers, which are checked before they become numbers."""
    fit.task.model.encoder.register_forward_pre_hook(lambda _, given: (given[0] * NAN, *given[1:]))


def _bad_output_of(module: str) -> Callable[[Fit], None]:
    def spoil(fit: Fit) -> None:
        fit.task.model.get_submodule(module).register_forward_hook(lambda *passed: passed[-1] * NAN)

    return spoil


def _bad_result(change: Callable[[StepResult], StepResult]) -> Callable[[Fit], None]:
    def spoil(fit: Fit) -> None:
        loss = fit.task.loss
        fit.task.loss = lambda indices: change(loss(indices))  # type: ignore[method-assign]

    return spoil


def _bad_gradient(result: StepResult) -> StepResult:
    result.loss.register_hook(lambda gradient: gradient * INF)
    return result


def _bad_statistics(result: StepResult) -> StepResult:
    """Their sum alone overflows: loss and gradient are in order."""
    output: Any = result.output
    (statistics,) = output.levels
    return replace(result, output=replace(output, levels=(replace(statistics, sums_GKD=statistics.sums_GKD * INF),)))


def _bad_moment(name: str, value: float) -> Callable[[Fit], None]:
    def spoil(fit: Fit) -> None:
        next(iter(fit.optimiser.state.values()))[name].view(-1)[0] = value

    return spoil


def _bad_weight(tensor: str, row: int = 0) -> Callable[[Fit], None]:
    def spoil(fit: Fit) -> None:
        fit.task.model.state_dict()[tensor].data[row] = NAN

    return spoil


WEIGHT = r"\S+\.(weight|bias) of the model"
PLACES: dict[str, tuple[Callable[[], Task], Callable[[Fit], None], str]] = {
    "input": (_codebook, _bad_input, "the input of encoder"),
    "loss": (_codebook, _bad_result(lambda result: replace(result, loss=result.loss * NAN)), "the loss"),
    "gradient": (_codebook, _bad_result(_bad_gradient), r"the gradient of \S+"),
    "encoder output": (_codebook, _bad_output_of("encoder"), "the output of encoder"),
    "codebook statistics": (_codebook, _bad_result(_bad_statistics), "a statistic of the batch"),
    "codebook": (_codebook, _bad_weight("quantiser.codebook"), "quantiser.codebook of the model"),
    "prior logits": (_prior, _bad_output_of("head"), "the output of head"),
    "optimiser state": (_codebook, _bad_moment("exp_avg", NAN), WEIGHT),
    "weights": (_codebook, _bad_weight("encoder.layers.0.weight"), r"encoder\.layers\.0\.weight of the model"),
    # These spoil no loss and no gradient, and are met when they would be saved.
    "weight nobody needs": (_prior, _bad_weight("condition.0.weight", row=3), r"the tensor model \S+"),
    "optimiser state that freezes": (_codebook, _bad_moment("exp_avg_sq", INF), r"the tensor optimiser \S+"),
}
"""The task, what is done to it, and what the message calls it."""
WITH_ITEMS = ("input", "loss", "gradient", "encoder output", "codebook statistics", "prior logits")


def _stopped(place: str, folder: Path) -> dict[str, Any]:
    """Train with a fault at BAD_STEP in the last process; what was said, and whether anything has changed."""
    make, spoil, _ = PLACES[place]
    seed_step(0, 0)
    fit = Fit(make(), folder=folder / place, budget=BUDGET, seed=3, record={}, device=torch.device("cpu"))
    loss, before = fit.task.loss, []

    def spoiled(indices: np.ndarray) -> StepResult:
        if fit.step == BAD_STEP and not before:
            before.extend(tensor.clone() for tensor in _everything(fit))
            if rank() == world_size() - 1:
                fit.task.loss = loss  # type: ignore[method-assign]
                spoil(fit)
            return fit.task.loss(indices)
        return loss(indices)

    fit.task.loss = spoiled  # type: ignore[method-assign]
    with pytest.raises(RunError) as caught:
        fit.run(label="x")
    unchanged = all(map(torch.equal, before, _everything(fit)))
    return {"message": str(caught.value), "kind": type(caught.value).__name__, "unchanged": unchanged}


def _everything(fit: Fit) -> list[torch.Tensor]:
    moments = [tensor for state in fit.optimiser.state.values() for tensor in state.values()]
    return [*fit.task.model.state_dict().values(), *moments]


def _pair(folder: Path) -> None:
    """All places with two processes, in forks of this one, which has imported torch for both."""
    torch.set_num_threads(1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    children = []
    for number in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            place = {"WORLD_SIZE": 2, "RANK": number, "LOCAL_RANK": number, "MASTER_ADDR": "127.0.0.1"}
            os.environ.update({name: str(value) for name, value in (place | {"MASTER_PORT": port}).items()})
            try:
                with process_group(torch.device("cpu"), timeout_seconds=60):
                    said = {place: _stopped(place, folder) for place in PLACES}
                (folder / f"{number}.json").write_text(json.dumps(said))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", __file__, str(folder)]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("place", PLACES)
def test_what_is_not_finite_is_named_and_never_saved(
    place: str, processes: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if processes == 1:
        folder, said = tmp_path, [_stopped(place, tmp_path)]
    else:
        folder = request.getfixturevalue("pair")
        said = [json.loads((folder / f"{number}.json").read_text())[place] for number in range(2)]
    assert all(one["message"] == said[0]["message"] for one in said)
    _, _, what = PLACES[place]
    assert re.match(what + " is not finite ", said[0]["message"])
    guilty = "; process 1 of 2" if processes == 2 else ""
    if place in WITH_ITEMS:
        more = 2 if processes == 2 else 8
        items = r"; items \d+, \d+, \d+, \d+ and " + f"{more} more"
        assert re.search(f"at step {BAD_STEP} .*{guilty}{items}" + r"\) and went no further", said[0]["message"])
        assert all(one["unchanged"] for one in said)
    elif not what.startswith("the tensor"):
        assert re.search(rf"at step ({BAD_STEP}|{BAD_STEP + 1}) .*{guilty}\) and went", said[0]["message"])
    newest = load_newest(folder / place, warn=pytest.fail)
    assert newest is not None
    assert newest.state["step"] == 2
    for checkpoint in (newest, load_checkpoint(folder / place / "best")):
        assert all(t.isfinite().all() for named in checkpoint.tensors.values() for t in named.values())


if __name__ == "__main__":
    _pair(Path(sys.argv[1]))
