"""Sampling sequences with an end: against a forward per code, their frequencies, and whose noise is whose."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stage2_prior import PixelCNN, WaveNet, sample
from twostage.categorical import draw
from twostage.errors import RunError, UsageError
from twostage.noise import uniform_noise


def build(**changes: Any) -> WaveNet:
    """A small prior far from uniform in codes and end."""
    arguments: dict[str, Any] = {"codebook_size": 5, "max_length": 9, "channels": 8, "blocks": 2, "layers_per_block": 2}
    torch.manual_seed(0)
    prior = WaveNet(**(arguments | changes))
    torch.nn.init.normal_(prior.head.output_weight_GSK, std=1.0)
    torch.nn.init.normal_(prior.end.weight, std=0.3)
    torch.nn.init.constant_(prior.end.bias, -1.0)
    return prior.eval()


def slow_sample(
    prior: WaveNet, *, item: int, seed: int, condition: Tensor | None, known: Tensor, length: int | None, **options: Any
) -> Tensor:
    """Reference: one item [G, T], a full forward for every code and every decision."""
    codebooks, longest = prior.code_shape
    noise_TG = uniform_noise(seed=seed, first_item=item, count=1, symbols=longest * codebooks).view(longest, codebooks)
    end_noise_T = uniform_noise(seed=seed, first_item=item, count=1, symbols=longest, stream=2)[0]
    codes = torch.zeros(1, codebooks, longest, dtype=torch.int64)
    with torch.no_grad():
        for t in range(longest if length is None else length):
            if length is None and t >= max(1, known.shape[1]):
                end = prior(codes, condition)[1][0, t - 1].double().sigmoid()
                if end_noise_T[t] < end:
                    return codes[0, :, :t]
            for g in range(codebooks):
                logits_BK = prior(codes, condition)[0][:, g, t]
                drawn = draw(logits_BK, noise_TG[t, g : g + 1], **options)
                codes[0, g, t] = known[g, t] if t < known.shape[1] else drawn
    return codes[0, :, : longest if length is None else length]


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_k": 3}, {"top_p": 0.8}], ids=str
)
@pytest.mark.parametrize(("codebooks", "classes"), [(1, ()), (3, (3, 2))])
@pytest.mark.parametrize("known_positions", [0, 2])
@pytest.mark.parametrize("length", [None, 7])
def test_cached_sampling_equals_a_full_forward_per_code(
    codebooks: int, classes: tuple[int, ...], known_positions: int, length: int | None, options: dict[str, Any]
) -> None:
    prior = build(codebooks=codebooks, classes=classes)
    known = torch.randint(5, (4, codebooks, known_positions), generator=torch.Generator().manual_seed(2))
    condition = torch.tensor([[0, 0], [2, 1], [1, 1], [0, 1]]) if classes else None
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | options
    drawn = sample(prior, count=4, condition=condition, known=known, length=length, seed=3, first_item=5, **settings)
    assert drawn.codes.shape[2] == drawn.lengths.max()
    for index in range(4):
        expected = slow_sample(
            prior,
            item=5 + index,
            seed=3,
            condition=None if condition is None else condition[index : index + 1],
            known=known[index],
            length=length,
            **settings,
        )
        assert drawn.lengths[index] == expected.shape[1]
        padded = F.pad(expected, (0, drawn.codes.shape[2] - expected.shape[1]))
        assert torch.equal(drawn.codes[index], padded)


@pytest.mark.parametrize("codebooks", [1, 2])
def test_sequences_have_the_frequencies_the_prior_states(codebooks: int) -> None:
    prior = build(codebook_size=2, max_length=3, codebooks=codebooks, classes=(2,))
    for label in range(2):
        condition = torch.full((6000, 1), label)
        drawn = sample(prior, count=6000, condition=condition, batch_size=6000)
        codes = F.pad(drawn.codes, (0, 3 - drawn.codes.shape[2]))
        items = torch.cat([drawn.lengths[:, None], codes.flatten(1)], dim=1)
        seen, counts = items.unique(dim=0, return_counts=True)
        with torch.no_grad():
            log_prob_B = prior.log_prob(seen[:, 1:].view(-1, codebooks, 3), condition[: len(seen)], seen[:, 0])
        mass = log_prob_B.exp()
        # What was never seen counts in full. 84 shares of 20 000 draws: an exact sampler is 0.03 off at most.
        distance = ((counts / 6000 - mass).abs().sum() + 1 - mass.sum()) / 2
        assert distance < 0.05
        shares = torch.bincount(drawn.lengths, minlength=4)[1:] / 6000
        assert shares.min() > 0.05


def test_sequences_depend_on_seed_and_item_number_alone() -> None:
    prior = build(codebooks=2, classes=(4,))
    condition = torch.arange(7)[:, None] % 4
    whole = sample(prior, count=7, condition=condition, seed=3)
    assert whole.lengths.unique().numel() > 2
    assert not torch.equal(whole.lengths, sample(prior, count=7, condition=condition, seed=12).lengths)
    pieces = sample(prior, count=7, condition=condition, seed=3, batch_size=3)
    assert torch.equal(whole.codes, pieces.codes)
    assert torch.equal(whole.lengths, pieces.lengths)
    for index in range(7):
        alone = sample(prior, count=1, condition=condition[index : index + 1], seed=3, first_item=index)
        length = int(whole.lengths[index])
        assert alone.lengths.tolist() == [length]
        assert torch.equal(alone.codes[0], whole.codes[index, :, :length])
    none = sample(prior, count=0, condition=condition[:0])
    assert none.codes.shape == (0, 2, 0)
    assert none.lengths.shape == (0,)


def test_a_fixed_length_keeps_the_codes_of_the_free_one() -> None:
    prior = build(codebooks=2)
    free, fixed = sample(prior, count=6, seed=4), sample(prior, count=6, seed=4, length=9)
    assert fixed.lengths.tolist() == [9] * 6
    for index, length in enumerate(free.lengths.tolist()):
        assert torch.equal(free.codes[index, :, :length], fixed.codes[index, :, :length])
    for known in (4, 9):
        completed = sample(prior, count=6, seed=4, known=fixed.codes[:, :, :known], length=9)
        assert torch.equal(completed.codes, fixed.codes)
        assert completed.lengths.tolist() == [9] * 6


def test_drawing_stops_when_all_items_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = build(max_length=400)
    with torch.no_grad():
        prior.end.bias.fill_(50.0)
    steps, step = [], prior.step
    monkeypatch.setattr(prior, "step", lambda *arguments: steps.append(1) or step(*arguments))
    seen: list[tuple[int, int]] = []
    drawn = sample(prior, count=3, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert drawn.lengths.tolist() == [1, 1, 1]
    assert drawn.codes.shape == (3, 1, 1)
    assert len(steps) == 4
    assert seen == [(2, 1200), (800, 1200), (801, 1200), (1200, 1200)]
    known = torch.zeros(3, 1, 6, dtype=torch.int64)
    assert sample(prior, count=3, known=known).lengths.tolist() == [6, 6, 6]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature 0 .*got -0.1"),
        ({"top_k": 6}, r"top_k 0 \(all codes\) to 5, got 6"),
        ({"condition": None}, r"condition of shape \[2, 1\].*got none"),
        ({"length": 0}, "length of 1 to 9 positions, got 0"),
        ({"length": 10}, "length of 1 to 9 positions, got 10"),
        ({"known": torch.zeros(2, 1, 4, dtype=torch.int64), "length": 3}, "length of 4 to 9 positions, got 3"),
        ({"known": torch.zeros(2, 1, 10, dtype=torch.int64)}, r"shape \[2, 1, 0 to 9\].*got \[2, 1, 10\]"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    prior = build(classes=(3,))
    with pytest.raises(UsageError, match=message):
        sample(prior, **({"count": 2, "condition": torch.tensor([[0], [1]])} | arguments))


def test_a_sequence_has_no_mask() -> None:
    known, mask = torch.zeros(1, 1, 9, dtype=torch.int64), torch.ones(9, dtype=torch.bool)
    with pytest.raises(UsageError, match="Expected no mask"):
        sample(build(), count=1, known=known, known_mask=mask)


def test_a_grid_has_no_length_to_ask_for() -> None:
    with pytest.raises(UsageError, match="Expected no length"):
        sample(PixelCNN(codebook_size=5, grid=(1, 4), channels=4, layers=1), count=2, length=3)


def test_a_diverged_prior_is_named() -> None:
    prior = build()
    with torch.no_grad():
        prior.head.output_bias_GK[0, 2] = float("nan")
    with pytest.raises(RunError, match="finite logits"):
        sample(prior, count=1)
