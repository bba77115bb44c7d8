"""The prior of a hierarchy: normalisation, order of dependence, cached step, what the coarser codes are worth."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from stage2_prior import HierarchicalPrior, PixelCNN
from twostage.errors import UsageError
from twostage.grids import split_levels


def build(**changes: Any) -> HierarchicalPrior:
    """A small prior far from uniform, so that no dependence drowns in rounding."""
    arguments: dict[str, Any] = {
        "codebook_size": 5,
        "grids": ((2, 3), (4, 6)),
        "channels": 8,
        "layers": 2,
        "first_kernel": 3,
    }
    torch.manual_seed(0)
    prior = HierarchicalPrior(**(arguments | changes))
    for index in range(len(prior.grids)):
        torch.nn.init.normal_(prior.level(index).head.output_weight_GSK, std=1.0)
    return prior.eval()


def random_codes(prior: HierarchicalPrior, items: int) -> Tensor:
    return torch.randint(prior.codebook_size, (items, *prior.code_shape), generator=torch.Generator().manual_seed(1))


def by_symbol(values_BGNX: Tensor) -> Tensor:
    """[B, G, N, ...] in the order of the symbols, [B, N G, ...]."""
    return values_BGNX.transpose(1, 2).flatten(1, 2)


@pytest.mark.parametrize(
    ("grids", "codebooks", "classes", "label_dropout"),
    [
        (((1, 1), (2, 2)), 1, (), 0.0),
        (((1, 1), (2, 2)), 2, (2,), 0.1),
        (((1, 1), (1, 2), (2, 4)), 1, (2, 2), 0.0),
    ],
)
def test_probabilities_of_all_hierarchies_sum_to_one(
    grids: tuple[tuple[int, int], ...], codebooks: int, classes: tuple[int, ...], label_dropout: float
) -> None:
    changes: dict[str, Any] = {"codebooks": codebooks, "classes": classes, "label_dropout": label_dropout}
    prior = build(codebook_size=2, grids=grids, **changes).double()
    numbers = math.prod(prior.code_shape)
    every = torch.tensor(list(itertools.product(range(2), repeat=numbers))).view(-1, *prior.code_shape)
    hidden = [()] if label_dropout else []
    for condition in [*itertools.product(*(range(size) for size in classes)), *hidden]:
        condition_BA = torch.tensor([condition] * len(every)) if condition else None
        with torch.no_grad():
            log_prob_B = prior(every, condition_BA).log_softmax(-1).gather(-1, every[..., None]).flatten(1).sum(1)
            torch.testing.assert_close(prior.log_prob(every, condition_BA), log_prob_B, rtol=0, atol=1e-10)
        assert log_prob_B.exp().sum().item() == pytest.approx(1, abs=1e-9)
        assert log_prob_B.std() > 0.1  # not the uniform distribution, which sums to one whatever is wrong


CASES: list[dict[str, Any]] = [
    {},
    {"codebooks": 3},
    {"codebooks": 2, "classes": (3, 2), "grids": ((1, 2), (2, 2), (4, 6))},
    {"classes": (3, 2), "label_dropout": 0.5, "level_blocks": 0},
    {"layers": 3, "attention_every": 1, "attention_heads": 2, "codebooks": 2, "classes": (3, 2), "dropout": 0.5},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
@pytest.mark.parametrize("items", [1, 3])
def test_step_equals_forward(changes: dict[str, Any], items: int) -> None:
    prior = build(**changes)
    codes_BGN = random_codes(prior, items)
    labelled = prior.classes and not prior.condition_optional  # with label dropout: the way without a label
    condition_BA = torch.tensor([[2, 0], [0, 1], [1, 1]])[:items] if labelled else None
    with torch.no_grad():
        expected_BNK = by_symbol(prior(codes_BGN, condition_BA))
    codes_BN = by_symbol(codes_BGN)
    state = prior.initial_state(items, condition_BA)
    for n in range(codes_BN.shape[1]):
        logits_BK, state = prior.step(state, codes_BN[:, n - 1] if n else None, condition_BA)
        torch.testing.assert_close(logits_BK, expected_BNK[:, n], rtol=0, atol=1e-4)
        assert torch.equal(prior.end_logit(state), torch.full((items,), -math.inf))
    with pytest.raises(UsageError, match=r"Expected at most .* steps"):
        prior.step(state, codes_BN[:, -1], condition_BA)


@pytest.mark.parametrize("codebooks", [1, 2])
def test_a_code_changes_later_logits_and_no_earlier_one(codebooks: int) -> None:
    """Every code of a coarser level reaches every later level; inside a level the field of view covers the grid."""
    prior = build(codebooks=codebooks, first_kernel=7, grids=((2, 2), (2, 4), (4, 4))).double()
    codes_BGN = random_codes(prior, 1)
    with torch.no_grad():
        before_NK = by_symbol(prior(codes_BGN))[0]
    for n in range(before_NK.shape[0]):
        position, codebook = divmod(n, codebooks)
        changed = codes_BGN.clone()
        changed[0, codebook, position] = (changed[0, codebook, position] + 1) % 5
        with torch.no_grad():
            moved_N = (by_symbol(prior(changed))[0] - before_NK).abs().amax(1) > 0
        assert torch.equal(moved_N, torch.arange(len(moved_N)) > n), f"symbol {n}"


def test_a_state_keeps_the_weights_it_was_made_with() -> None:
    prior = build(codebooks=2, classes=(3,))
    condition_BA = torch.tensor([[1]])
    codes_BN = by_symbol(random_codes(prior, 1))

    def walk(state: Any, start: int, end: int) -> list[Tensor]:
        return [prior.step(state, codes_BN[:, n - 1] if n else None)[0] for n in range(start, end)]

    end = codes_BN.shape[1]
    before = walk(prior.initial_state(1, condition_BA), 0, end)
    state = prior.initial_state(1, condition_BA)
    mixed = walk(state, 0, 7)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.1)
    mixed += walk(state, 7, end)
    after = walk(prior.initial_state(1, condition_BA), 0, end)
    assert all(torch.equal(a, b) for a, b in zip(before, mixed, strict=True))
    assert not any(torch.allclose(a, b) for a, b in zip(before, after, strict=True))


def test_steps_out_of_place_are_refused() -> None:
    prior = build(classes=(3,))
    condition_BA = torch.tensor([[0], [1]])
    state = prior.initial_state(2, condition_BA)
    with pytest.raises(UsageError, match="no symbol at the first step"):
        prior.step(state, torch.tensor([0, 0]))
    prior.step(state, None)
    for _ in range(5):
        prior.step(state, torch.tensor([0, 0]))
    for wrong in (None, torch.tensor([0]), torch.tensor([0.0, 0.0])):  # where the next level begins
        with pytest.raises(UsageError, match="symbol"):
            prior.step(state, wrong)
    with pytest.raises(UsageError, match="Expected the condition that the state was made with"):
        prior.step(state, torch.tensor([0, 0]), torch.tensor([[0], [2]]))
    logits_BK, _ = prior.step(state, torch.tensor([0, 0]), condition_BA)  # what was refused has moved nothing
    with torch.no_grad():
        expected_BK = prior(torch.zeros(2, *prior.code_shape, dtype=torch.int64), condition_BA)[:, 0, 6]
    torch.testing.assert_close(logits_BK, expected_BK, rtol=0, atol=1e-4)


def test_step_is_eval_mode_whatever_the_module_is_in() -> None:
    prior = build(dropout=0.5, classes=(3,), label_dropout=0.9)
    codes_BGN, condition_BA = random_codes(prior, 2), torch.tensor([[0], [1]])
    with torch.no_grad():
        expected_BNK = by_symbol(prior(codes_BGN, condition_BA))
    prior.train()
    state, codes_BN = prior.initial_state(2, condition_BA), by_symbol(codes_BGN)
    for n in range(codes_BN.shape[1]):
        logits_BK, state = prior.step(state, codes_BN[:, n - 1] if n else None)
        torch.testing.assert_close(logits_BK, expected_BNK[:, n], rtol=0, atol=1e-4)
        assert not logits_BK.requires_grad


def test_several_conditions_in_one_pass_equal_one_pass_each() -> None:
    prior = build(codebooks=2, classes=(3,), label_dropout=0.1)
    codes_BGN = random_codes(prior, 4)
    conditions = [torch.full((4, 1), label) for label in range(3)] + [None]
    seen = []
    prior.coarser[0].register_forward_hook(lambda *_: seen.append(1))
    with torch.no_grad():
        found = list(prior.log_probs_by_code(codes_BGN, iter(conditions)))
        assert len(found) == 4
        assert len(seen) == 1  # what does not see the label is computed once
        for condition_BA, parts in zip(conditions, found, strict=True):
            log_prob_BGNK = prior(codes_BGN, condition_BA).log_softmax(-1)
            expected_BGN = log_prob_BGNK.gather(-1, codes_BGN[..., None])[..., 0]
            torch.testing.assert_close(parts.codes, expected_BGN, rtol=0, atol=1e-5)
            assert parts.end.shape == (4, 0)
            whole = prior.log_prob_parts(codes_BGN, condition_BA)
            torch.testing.assert_close(whole.codes, expected_BGN.sum((1, 2)), rtol=0, atol=1e-4)
            assert torch.equal(whole.end, torch.zeros(4))


def test_the_first_level_is_a_pixelcnn_and_the_others_are_one_with_a_map() -> None:
    prior = build(codebooks=2)
    top, bottom = split_levels(random_codes(prior, 3), prior.grids)
    with torch.no_grad():
        given_BFHW = prior.coarser[0]([top])
        expected = prior.level(0).log_prob(top) + prior.level(1).log_prob(bottom, map_BFHW=given_BFHW)
        torch.testing.assert_close(prior.log_prob(random_codes(prior, 3)), expected)
    assert isinstance(prior.level(0), PixelCNN)
    assert given_BFHW.shape == (3, 8, 4, 6)


def test_every_weight_is_used() -> None:
    prior = build(codebooks=2, classes=(3, 2), layers=3, grids=((3, 3), (3, 6), (6, 6)))
    prior.log_prob(random_codes(prior, 30), torch.tensor([[0, 0], [1, 1], [2, 0]] * 10)).sum().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).float().mean() > 0.9, name  # all but a ReLU that is dead from the start


@pytest.mark.parametrize("codebooks", [1, 4])
def test_an_untrained_prior_costs_log_k(codebooks: int) -> None:
    torch.manual_seed(0)
    prior = HierarchicalPrior(codebook_size=512, grids=((4, 4), (8, 8)), codebooks=codebooks, classes=(10,))
    with torch.no_grad():
        log_prob_B = prior.log_prob(random_codes(prior, 4), torch.tensor([[0], [3], [5], [9]]))
    nats_per_code = -log_prob_B / (80 * codebooks)
    assert nats_per_code.min() >= math.log(512) - 0.05
    assert nats_per_code.max() <= math.log(512) + 0.05


def fit(prior: HierarchicalPrior, codes: Tensor, *, steps: int) -> None:
    optimiser = torch.optim.Adam(prior.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        loss = -prior.log_prob(codes[torch.randint(len(codes), (32,), generator=generator)]).mean()
        optimiser.zero_grad()
        (loss / codes[0].numel()).backward()
        optimiser.step()
        schedule.step()


def test_a_fitted_prior_reads_the_coarser_levels() -> None:
    """Uniform coarse codes, which cost what they cost; finer levels are functions of one or both coarser ones."""
    torch.manual_seed(0)
    top, middle = torch.randint(4, (1024, 1, 2, 2)), torch.randint(4, (1024, 1, 2, 4))
    top_wide = top.repeat_interleave(2, 3)
    bottom = ((top_wide + middle) % 4).repeat_interleave(2, 2)
    bottom[:, :, :, ::2] = middle.repeat_interleave(2, 2)[:, :, :, ::2]
    codes = torch.cat([level.flatten(2) for level in (top, middle, bottom)], dim=2)
    prior = HierarchicalPrior(
        codebook_size=4, grids=((2, 2), (2, 4), (4, 4)), channels=16, layers=2, first_kernel=3, level_blocks=1
    )
    fit(prior, codes[:768], steps=300)
    with torch.no_grad():
        parts = next(prior.eval().log_probs_by_code(codes[768:], [None]))
    bits = [-level.mean().item() / math.log(2) for level in split_levels(parts.codes, prior.grids)]
    assert bits[0] == pytest.approx(2, abs=0.1)
    assert bits[1] == pytest.approx(2, abs=0.1)
    assert bits[2] < 0.02


def test_log_prob_is_summed_in_single_precision_whatever_the_layers_use() -> None:
    prior = build()
    codes_BGN = random_codes(prior, 2)
    with torch.no_grad():
        expected_B = prior.log_prob(codes_BGN)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast_B = prior.log_prob(codes_BGN)
            by_code = next(prior.log_probs_by_code(codes_BGN, [None])).codes
        half_B = prior.bfloat16().log_prob(codes_BGN)
    for log_prob_B in (autocast_B, half_B, by_code.sum((1, 2))):
        assert log_prob_B.dtype == torch.float32
        torch.testing.assert_close(log_prob_B, expected_B, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grids": ((4, 4),)}, "at least two levels.*a single grid takes a PixelCNN"),
        ({"grids": ((4, 4), (2, 2))}, r"whole multiple.*got \(4, 4\) and \(2, 2\)"),
        ({"grids": ((2, 2), (4, 5))}, r"got \(2, 2\) and \(4, 5\)"),
        ({"grids": ((2, 2), (2, 2))}, r"and larger, got \(2, 2\) and \(2, 2\)"),
        ({"grids": ((0, 2), (2, 4))}, r"got \(0, 2\)"),
        ({"grids": ((2,), (4,))}, r"two sides.*got \(2,\)"),
        ({"level_blocks": -1}, "level_blocks of at least 0, got -1"),
        ({"codebook_size": 0}, "codebook_size"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(**changes)


def test_codes_and_maps_that_do_not_fit_are_refused() -> None:
    prior = build()
    with pytest.raises(UsageError, match=r"codes of shape \[B, 1, 30\]"):
        prior.log_prob(torch.zeros(2, 1, 4, 6, dtype=torch.int64))
    with pytest.raises(UsageError, match="codes 0 to 4, got 5"):
        prior.log_prob(torch.full((2, 1, 30), 5))
    with pytest.raises(UsageError, match="no lengths"):
        prior.log_prob(random_codes(prior, 2), None, torch.tensor([3, 4]))
    bottom = split_levels(random_codes(prior, 2), prior.grids)[1]
    with pytest.raises(UsageError, match="Expected a map beside the codes, got none"):
        prior.level(1).log_prob(bottom)
    with pytest.raises(UsageError, match="Expected no map beside the codes, got one"):
        prior.level(0).log_prob(random_codes(prior, 2)[:, :, :6].view(2, 1, 2, 3), map_BFHW=torch.zeros(2, 8, 2, 3))
