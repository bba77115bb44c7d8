"""Two gloo processes against one: same codebook and weights, exact resume, and both end when one of them fails.

This file is its own worker: `python test_many_processes.py FOLDER` goes through every scenario.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import VAE, VQVAE, AudioVQVAE, HierarchicalVQVAE
from stage1_vqvae.audio.tasks import AudioCodebookTask
from stage1_vqvae.images.tasks import CodebookTask, GaussianTask
from stage1_vqvae.images.training_images import TrainingImages
from stage2_prior import HierarchicalPrior, PixelCNN
from stage2_prior.training import PriorTask
from twostage.config.schema import TrainingConfig
from twostage.data.audio import AudioSplit
from twostage.distributed import process_group, rank
from twostage.errors import TwoStageError
from twostage.noise import seed_step
from twostage.storage.checkpoint import load_newest
from twostage.storage.codes import load_codes
from twostage.training.interrupts import Interrupted
from twostage.training.loop import Fit
from twostage.training.task import StepResult, Task
from twostage_pipelines.cli.main import main

STEPS = 10
# An odd batch: the parts of two processes, and those of an accumulated step, differ in size.
BUDGET = TrainingConfig(
    steps=STEPS, batch_size=9, learning_rate=3e-3, weight_ema=0.8, validate_every=4, checkpoint_every=5
)
STAGE1: dict[str, Any] = {
    "image_shape": (1, 8, 8),
    "levels": 2,
    "likelihood": "bernoulli",
    "downsampling": 2,
    "channels": 8,
    "residual_channels": 4,
    "head_channels": 6,
}
TINY = """
models = ["vq-vae", "vae"]
stage1 = {channels = 8, downsampling = 2, residual_blocks = 1, residual_channels = 4, head_channels = 4}
quantiser = {codebook_size = 8, embedding_dim = 4}
prior = {layers = 1, channels = 4}
codebook_training = {steps = 4, batch_size = 8}
prior_training = {steps = 4, batch_size = 8}
baseline_training = {steps = 4, batch_size = 8}
evaluation = {iwae_samples = 2, batch_size = 64}
"""
CODEBOOK = {"atol": 1e-6, "rtol": 1e-5}
"""Means of vectors of size 0.3, themselves right to 1e-7: fp32 rounds to 6e-8 of the value. Measured: 3e-8."""
WEIGHTS = {"atol": 2e-5, "rtol": 1e-5}
"""Sums taken in another order differ by 1e-7 of their largest term. Adam divides a gradient by its size, so a weight
whose gradient nearly cancels takes over a larger share of that rounding, at most the 0.03 of 10 steps of 3e-3, were it
nothing but rounding. Measured: 7e-8 in stage one."""
EXACT = {"atol": 1e-9, "rtol": 0.0}
"""Of priors, which train in fp64: one of their weights has such a gradient; in fp32 it differed by 3e-6 to 3e-5."""


def _images() -> tuple[TrainingImages, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    intensities = torch.randint(0, 17, (40, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images = (intensities > 8).to(torch.uint8)
    train = TrainingImages(images, horizontal_flips=True, intensities=intensities, intensity_levels=17)
    return train, images[:7]


def _codebook(update: str) -> Task:
    """Flips, dynamic binarisation, k-means, revivals: everything that is drawn for a batch."""
    train, validation = _images()
    model = VQVAE(
        **STAGE1, codebook_size=24, codebooks=2, embedding_dim=4, update=update, decay=0.7, revival_threshold=0.5
    )  # type: ignore[arg-type]
    return CodebookTask(model, train=train, validation=validation, kmeans=True, evaluation_batch_size=2, seed=0)


def _levels() -> Task:
    """The same, with codebooks of two grids."""
    train, validation = _images()
    model = HierarchicalVQVAE(**STAGE1, codebook_size=12, embedding_dim=4, decay=0.7, revival_threshold=0.5)
    return CodebookTask(model, train=train, validation=validation, kmeans=True, evaluation_batch_size=2, seed=0)


def _gaussian() -> Task:
    train, validation = _images()
    return GaussianTask(VAE(**STAGE1, latent_channels=2), train=train, validation=validation, evaluation_batch_size=2)


def _prior(dropout: float = 0.0) -> Task:
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(0, 5, (40, 2, 3, 3), generator=generator)
    labels = torch.randint(0, 3, (40, 1), generator=generator)
    prior = PixelCNN(
        codebook_size=5, grid=(3, 3), codebooks=2, classes=(3,), channels=6, layers=2, dropout=dropout,
        label_dropout=0.4,
    )  # fmt: skip
    return PriorTask(
        prior.double(),
        train=codes,
        train_condition=labels,
        validation=codes[:5],
        validation_condition=labels[:5],
        evaluation_batch_size=2,
    )


def _hierarchy() -> Task:
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(0, 5, (40, 1, 10), generator=generator)
    labels = torch.randint(0, 3, (40, 1), generator=generator)
    prior = HierarchicalPrior(
        codebook_size=5, grids=((1, 2), (2, 4)), classes=(3,), channels=6, layers=2, label_dropout=0.4
    )
    return PriorTask(
        prior.double(),
        train=codes,
        train_condition=labels,
        validation=codes[:5],
        validation_condition=labels[:5],
        evaluation_batch_size=2,
    )


def _sound() -> Task:
    """Recordings of unequal length: the parts of a batch differ in samples and in codes."""
    draw = np.random.default_rng(1)
    lengths = draw.integers(40, 700, 20)
    recordings = AudioSplit(
        samples=(3000 * draw.standard_normal(lengths.sum())).astype(np.int16),
        offsets=np.cumsum([0, *lengths]),
        labels=np.zeros(20, np.int64),
        speakers=np.zeros(20, np.int64),
        names=tuple(map(str, range(20))),
    )
    model = AudioVQVAE(
        mixtures=2, downsampling_layers=4, channels=8, residual_blocks=1, residual_channels=4, head_channels=4,
        embedding_dim=4, codebook_size=16, decay=0.7, revival_threshold=0.5,
    )  # fmt: skip
    return AudioCodebookTask(
        model, train=recordings, validation=recordings, sample_rate_hz=8000, segment_samples=256, batch_samples=4000,
        kmeans=True, seed=0,
    )  # fmt: skip


TASKS: dict[str, Callable[[], Task]] = {
    "ema": lambda: _codebook("ema"),
    "loss": lambda: _codebook("loss"),
    "levels": _levels,
    "gaussian": _gaussian,
    "prior": _prior,
    "prior of levels": _hierarchy,
    "sound": _sound,
}


def _fit(make: Callable[[], Task], folder: Path, *, accumulate: int = 1) -> Fit:
    seed_step(0, 0)
    budget = replace(BUDGET, accumulate=accumulate)
    return Fit(make(), folder=folder, budget=budget, seed=3, record={}, device=torch.device("cpu"))


def _at(fit: Fit, step: int, action: Callable[[StepResult], StepResult | None]) -> Fit:
    """Let `action` see, and perhaps replace, what the task's loss gives at a step."""
    loss = fit.task.loss

    def acting(indices: np.ndarray) -> StepResult:
        result = loss(indices)
        return (action(result) or result) if fit.step == step else result

    fit.task.loss = acting  # type: ignore[method-assign]
    return fit


def _stop(_: StepResult) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _stopped(fit: Fit) -> str:
    with pytest.raises(Interrupted) as caught:
        fit.run(label="x")
    return str(caught.value)


# What each of two processes does -------------------------------------------------------------------------------------


def _together(folder: Path) -> dict[str, Any]:
    """Everything that ends well or stops as asked, in one pair of processes; returns what is checked."""
    said: dict[str, Any] = {}
    for name, make in TASKS.items():
        _fit(make, folder / name / "two").run(label=name)
    _fit(TASKS["ema"], folder / "ema" / "two-in-parts", accumulate=2).run(label="ema")
    # Exact resume: with dropout, stopped by a signal that one process alone receives.
    _fit(lambda: _prior(0.3), folder / "dropout" / "whole").run(label="whole")
    fit = _fit(lambda: _prior(0.3), folder / "dropout" / "parts")
    said["stopped"] = _stopped(_at(fit, 3, _stop) if rank() == 1 else fit)
    _fit(lambda: _prior(0.3), folder / "dropout" / "parts").run(label="rest")
    # One process has gone before (the test itself), and goes on after.
    fit = _fit(TASKS["ema"], folder / "one-two-one")
    said["between"] = _stopped(_at(fit, 6, _stop) if rank() == 0 else fit)
    said |= {f"poisoned {where}": _poisoned(folder / f"poisoned-{where}", where) for where in ("loss", "gradient")}
    return said


def _poisoned(folder: Path, where: str) -> dict[str, Any]:
    """A NaN in process 1 at step 6: what was said, and whether anything changed."""

    def poison(result: StepResult) -> StepResult | None:
        if where == "loss":
            return replace(result, loss=result.loss * float("nan"))
        result.loss.register_hook(lambda gradient: gradient * float("inf"))
        return None

    fit = _fit(TASKS["ema"], folder)
    held = []

    def hold(_: StepResult) -> None:
        held.append([tensor.clone() for tensor in [*fit.task.model.state_dict().values(), *_moments(fit)]])

    _at(fit, 6, hold)
    if rank() == 1:
        _at(fit, 6, poison)
    with pytest.raises(TwoStageError) as caught:
        fit.run(label="x")
    after = [*fit.task.model.state_dict().values(), *_moments(fit)]
    return {"message": str(caught.value), "unchanged": all(map(torch.equal, held[0], after)), "step": fit.step}


def _moments(fit: Fit) -> list[torch.Tensor]:
    return [tensor for state in fit.optimiser.state.values() for tensor in state.values()]


def _killed(folder: Path) -> dict[str, Any]:
    fit = _fit(TASKS["ema"], folder / "killed")
    if rank() == 1:
        _at(fit, 6, lambda _: os.kill(os.getpid(), signal.SIGKILL))
    fit.run(label="x")
    return {}


def _hanging(folder: Path) -> dict[str, Any]:
    fit = _fit(TASKS["ema"], folder / "hanging")
    if rank() == 1:
        _at(fit, 6, lambda _: time.sleep(60))
    fit.run(label="x")
    return {}


def _unlike(folder: Path) -> dict[str, Any]:
    """Process 1 is given another setting."""
    _fit(TASKS["ema"], folder / "unlike", accumulate=1 + rank()).run(label="x")
    return {}


SCENARIOS: dict[str, tuple[Callable[[Path], dict[str, Any]], float]] = {
    "together": (_together, 300),
    "unlike": (_unlike, 300),
    "killed": (_killed, 300),
    "hanging": (_hanging, 8),
}
"""What is done, and the timeout in seconds."""


def _work(scenario: str, folder: Path, number: int, port: int) -> None:
    place = {"WORLD_SIZE": 2, "RANK": number, "LOCAL_RANK": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    act, timeout = SCENARIOS[scenario]
    try:
        with process_group(torch.device("cpu"), timeout_seconds=timeout):
            said = act(folder)
    except TwoStageError as error:
        said = {"error": str(error), "kind": type(error).__name__}
        if number == 0:
            time.sleep(1)  # it holds the store that, under torchrun, the agent would hold
    (folder / f"{scenario}-{number}.json").write_text(json.dumps(said))


def _all_scenarios(folder: Path) -> None:
    """Each in a pair of forks of this process, which has imported torch once for all of them."""
    torch.set_num_threads(1)
    for scenario in SCENARIOS:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        children = []
        for number in range(2):
            children.append(os.fork())
            if children[-1] == 0:
                try:
                    _work(scenario, folder, number, port)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
        for number, child in enumerate(children):
            _, status = os.waitpid(child, 0)
            if number == 0 and scenario == "hanging":
                os.kill(children[1], signal.SIGKILL)
            assert status == 0 or (number == 1 and scenario in ("killed", "hanging")), (scenario, number)


# The tests -----------------------------------------------------------------------------------------------------------


def _said(folder: Path, scenario: str, number: int) -> dict[str, Any]:
    return json.loads((folder / f"{scenario}-{number}.json").read_text())


def _state(folder: Path) -> dict[str, torch.Tensor]:
    newest = load_newest(folder, warn=pytest.fail)
    assert newest is not None
    assert newest.state["step"] == STEPS
    return {f"{file} {key}": value for file, named in newest.tensors.items() for key, value in named.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pairs of processes have been through every scenario; the voyage one-two-one begins before."""
    folder = tmp_path_factory.mktemp("many_processes")
    _stopped(_at(_fit(TASKS["ema"], folder / "one-two-one"), 2, _stop))
    command = [sys.executable, "-W", "error", __file__, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def ema_alone(folder: Path) -> dict[str, torch.Tensor]:
    _fit(TASKS["ema"], folder / "ema" / "one").run(label="one")
    return _state(folder / "ema" / "one")


@pytest.mark.parametrize("name", ["loss", "levels", "gaussian", "prior", "prior of levels", "sound"])
def test_one_and_two_processes_give_the_same_weights(name: str, folder: Path) -> None:
    _fit(TASKS[name], folder / name / "one").run(label=name)
    one, two = _state(folder / name / "one"), _state(folder / name / "two")
    for key in one:
        limit = EXACT if "prior" in name else CODEBOOK if "quantiser.codebook" in key and name == "sound" else WEIGHTS
        torch.testing.assert_close(two[key], one[key], **limit, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("parts", ["two", "two-in-parts", "one-in-parts"])
def test_an_ema_codebook_with_revivals_is_the_same_however_the_batch_is_cut(
    parts: str, folder: Path, ema_alone: dict[str, torch.Tensor]
) -> None:
    if parts == "one-in-parts":
        _fit(TASKS["ema"], folder / "ema" / parts, accumulate=3).run(label=parts)
    rows = [json.loads(line) for line in (folder / "ema" / "one" / "metrics.jsonl").read_text().splitlines()]
    assert sum(row.get("revived", 0) for row in rows) > 10
    cut = _state(folder / "ema" / parts)
    for key, value in ema_alone.items():
        limit = CODEBOOK if "quantiser" in key else WEIGHTS
        torch.testing.assert_close(cut[key], value, **limit, msg=lambda text, key=key: f"{key}: {text}")
    others = [json.loads(line) for line in (folder / "ema" / parts / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in others] == [row["step"] for row in rows]  # written by one process
    for row, other in zip(rows, others, strict=True):  # numbers of the whole batch, not of the first process's part
        assert other == pytest.approx(row, rel=1e-4, abs=1e-5)


def test_two_processes_go_on_bit_for_bit_from_where_a_signal_to_one_of_them_stopped_both(folder: Path) -> None:
    said = [_said(folder, "together", number)["stopped"] for number in range(2)]
    assert said[0] == said[1]
    assert re.search("after step [45] of 10; the state is saved", said[0])
    whole, parts = _state(folder / "dropout" / "whole"), _state(folder / "dropout" / "parts")
    assert [key for key in whole if not torch.equal(whole[key], parts[key])] == []
    records = [(folder / "dropout" / name / "metrics.jsonl").read_bytes() for name in ("whole", "parts")]
    assert records[0] == records[1]


def test_from_one_process_to_two_and_back(
    folder: Path, ema_alone: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    assert re.search("after step [78] of 10", _said(folder, "together", 0)["between"])
    _fit(TASKS["ema"], folder / "one-two-one").run(label="x")
    assert "trained with processes 2 and goes on with 1; the result will differ in the last" in capsys.readouterr().err
    for key, value in _state(folder / "one-two-one").items():
        torch.testing.assert_close(value, ema_alone[key], **WEIGHTS, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize(("where", "what"), [("loss", "the loss"), ("gradient", r"the gradient of \S+")])
def test_a_number_that_is_not_finite_in_one_process_stops_both_before_anything_changes(
    where: str, what: str, folder: Path
) -> None:
    for number in range(2):
        said = _said(folder, "together", number)[f"poisoned {where}"]
        pattern = what + r" is not finite at step 6 .*process 1 of 2; items \d+, \d+, \d+, \d+\) and went no further"
        assert re.match(pattern, said["message"])
        assert said["unchanged"]
        assert said["step"] == 6
    newest = load_newest(folder / f"poisoned-{where}", warn=pytest.fail)
    assert newest is not None
    assert newest.state["step"] == 5


@pytest.mark.parametrize("scenario", ["killed", "hanging"])
def test_a_process_that_dies_or_hangs_ends_the_job_with_a_sentence(scenario: str, folder: Path) -> None:
    said = _said(folder, scenario, 0)
    assert said["kind"] == "LostProcess"
    assert re.match(r"process 0 of 2 lost another one \(.*\): .*run the same command again", said["error"])
    assert not (folder / f"{scenario}-1.json").exists()
    newest = load_newest(folder / scenario, warn=pytest.fail)
    assert newest is not None
    assert newest.state["step"] == 5


def test_processes_that_disagree_stop_and_one_says_so(folder: Path) -> None:
    said = [_said(folder, "unlike", number) for number in range(2)]
    assert "differ in the settings, data or checkpoints of x" in said[0]["error"]
    assert said[1] == {"error": "", "kind": "SaidElsewhere"}


def test_torchrun_trains_a_run_and_its_first_process_alone_writes_and_speaks(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "twostage_pipelines"]
    command = [*torchrun, "train", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("vq-vae codes, train: 1297/1297 images") == 1
    assert done.stderr.count("written: ") == 2
    assert done.stdout.count("digits, test set: 300 items") == 1
    for stage in ("stage1", "prior"):
        record = (tmp_path / "run" / "models" / "vq-vae" / stage / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in record] == [4, 4]
        pictures = tmp_path / "run" / "models" / "vq-vae" / stage / "pictures"
        assert sorted(place.name for place in pictures.iterdir()) == ["step-00000004.png", "strip.png"]
    assert load_codes(tmp_path / "run" / "codes" / "vq-vae" / "train.safetensors").codes.max() > 0
    shared = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert main(["evaluate", str(tmp_path / "run"), "--device", "cpu"]) == 0
    alone = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    # numpy's matrix products round by the number of its own threads, which is another one here.
    said = [[(found["model"], found["sentences"]) for found in whole.pop("diagnoses")] for whole in (shared, alone)]
    assert said[0] == said[1]
    assert len(said[0]) == 2
    assert shared == alone


def test_a_verb_for_one_process_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["doctor"]) == 2
    assert "doctor is the work of one process, but torchrun started 2" in capsys.readouterr().err
    assert main(["train", "digits"]) == 2
    assert "WORLD_SIZE is 2, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT not set" in capsys.readouterr().err


if __name__ == "__main__":
    _all_scenarios(Path(sys.argv[1]))
