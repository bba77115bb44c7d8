"""The task that fits a prior to codes: to grids, and to sequences of unequal length."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from stage2_prior import HierarchicalPrior, PixelCNN, WaveNet
from stage2_prior.training import PriorTask
from twostage.config.schema import TrainingConfig
from twostage.training.loop import Fit

ITEMS, LONGEST = 24, 9


def task(*, classes: tuple[int, ...] = (), padding: int = 0) -> PriorTask:
    """Codes count upwards from the label; what lies behind an item's length is `padding`."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(1, LONGEST + 1, (ITEMS,), generator=generator)
    labels = torch.arange(ITEMS)[:, None] % 2
    codes = (torch.arange(LONGEST)[None, None] + labels[:, :, None]) % 5
    codes = codes.where(torch.arange(LONGEST) < lengths[:, None, None], padding)
    model = WaveNet(codebook_size=5, max_length=12, classes=classes, channels=8, blocks=1, layers_per_block=2)
    return PriorTask(
        model,
        train=codes,
        train_lengths=lengths,
        train_condition=labels if classes else None,
        validation=codes,
        validation_lengths=lengths,
        validation_condition=labels if classes else None,
        evaluation_batch_size=5,
    )


def test_loss_is_nats_per_real_code_with_the_end_paid() -> None:
    made = task()
    made.model.eval()
    rows = np.array([3, 0, 7])
    nats = 0.0
    with torch.no_grad():
        for row in rows:
            length = int(made.train_lengths[row])
            nats -= float(made.model.log_prob(made.train[row : row + 1, :, :length])[0])
        loss = float(made.loss(rows).loss)
    codes = int(made.train_lengths[torch.from_numpy(rows)].sum())
    assert loss == pytest.approx(nats / codes, abs=1e-6)


def test_validation_covers_every_item_once_whatever_the_batch() -> None:
    made = task(classes=(2,))
    made.model.eval()
    with torch.no_grad():
        found = made.validate()
        made.evaluation_batch_size = 100
        assert made.validate()["bits_per_code"] == pytest.approx(found["bits_per_code"], abs=1e-6)
        nats = sum(
            float(made.model.log_prob(made.train[row : row + 1, :, : int(length)], torch.tensor([[row % 2]]))[0])
            for row, length in enumerate(made.train_lengths)
        )
    assert found["bits_per_code"] == pytest.approx(-nats / math.log(2) / int(made.train_lengths.sum()), abs=1e-5)


def test_padding_changes_nothing() -> None:
    rows = np.arange(8)
    first, second = task(), task(padding=4)
    assert torch.equal(first.loss(rows).loss, second.loss(rows).loss)
    first.model.eval(), second.model.eval()
    with torch.no_grad():
        assert first.validate() == second.validate()


def test_a_grid_pays_for_its_codes_alone() -> None:
    torch.manual_seed(0)
    codes = torch.randint(0, 5, (7, 2, 3, 4), generator=torch.Generator().manual_seed(1))
    labels = torch.arange(7)[:, None] % 2
    model = PixelCNN(codebook_size=5, codebooks=2, grid=(3, 4), classes=(2,), channels=4, layers=2).eval()
    both = {"train_condition": labels, "validation_condition": labels}
    made = PriorTask(model, train=codes, validation=codes, **both, evaluation_batch_size=3)
    with torch.no_grad():
        nats_N = -model.log_prob(codes, labels)
        assert torch.equal(made.loss(np.array([5, 1])).loss, nats_N[[5, 1]].mean() / 24)
        found = made.validate()
    assert found == {"bits_per_code": pytest.approx(nats_N.double().mean().item() / (math.log(2) * 24))}


def test_it_learns(tmp_path: Path) -> None:
    made = task(classes=(2,))
    made.model.eval()
    with torch.no_grad():
        before = made.validate()["bits_per_code"]
    budget = TrainingConfig(steps=150, batch_size=8, learning_rate=1e-2, validate_every=50, checkpoint_every=150)
    fit = Fit(made, folder=tmp_path, budget=budget, seed=0, record={"config": {}}, device=torch.device("cpu"))
    # Codes are certain given the label; what is left is the length.
    assert fit.run(label="prior").best_value < 0.35 * before


def test_a_hierarchy_says_what_every_level_costs() -> None:
    torch.manual_seed(0)
    codes = torch.randint(0, 5, (7, 2, 10), generator=torch.Generator().manual_seed(1))
    labels = torch.arange(7)[:, None] % 2
    model = HierarchicalPrior(
        codebook_size=5, codebooks=2, grids=((1, 2), (2, 4)), classes=(2,), channels=4, layers=2
    ).eval()
    for level in range(2):
        torch.nn.init.normal_(model.level(level).head.output_weight_GSK)
    made = PriorTask(
        model,
        train=codes,
        train_condition=labels,
        validation=codes,
        validation_condition=labels,
        evaluation_batch_size=3,
    )
    with torch.no_grad():
        log_prob_BGNK = model(codes, labels).log_softmax(-1) / math.log(2)
        bits_N = -log_prob_BGNK.gather(-1, codes[..., None])[..., 0].mean((0, 1))
        found, loss = made.validate(), made.loss(np.arange(7))
    assert found.keys() == {"bits_per_code", "bits_per_code_1x2", "bits_per_code_2x4"}
    assert found["bits_per_code"] == pytest.approx(float(bits_N.mean()), abs=1e-5)
    assert found["bits_per_code_1x2"] == pytest.approx(float(bits_N[:2].mean()), abs=1e-5)
    assert found["bits_per_code_2x4"] == pytest.approx(float(bits_N[2:].mean()), abs=1e-5)
    assert float(loss.metrics["bits_per_code"]) == pytest.approx(found["bits_per_code"], abs=1e-5)
