"""Sampling: the distribution it draws from, its noise, and that any prior that keeps the contract can be sampled."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stage2_prior import HierarchicalPrior, PixelCNN, Prior, sample
from twostage.categorical import draw
from twostage.errors import RunError, UsageError
from twostage.noise import uniform_noise


def build(**changes: Any) -> PixelCNN:
    """A small prior far from uniform."""
    arguments: dict[str, Any] = {"codebook_size": 5, "grid": (4, 5), "channels": 8, "layers": 3, "first_kernel": 3}
    torch.manual_seed(0)
    prior = PixelCNN(**(arguments | changes))
    for layer in prior.stack.layers:
        torch.nn.init.normal_(layer.link.weight)  # the rows above count from the start
    torch.nn.init.normal_(prior.head.first_layer.weight, std=1.0)
    torch.nn.init.normal_(prior.head.output_weight_GSK, std=1.0)
    return prior.eval()


def hierarchy(**changes: Any) -> HierarchicalPrior:
    """The same over two levels, 1x2 and 2x4."""
    arguments: dict[str, Any] = {"codebook_size": 5, "grids": ((1, 2), (2, 4)), "channels": 8, "layers": 2}
    torch.manual_seed(0)
    prior = HierarchicalPrior(**(arguments | changes))
    for level in range(2):
        torch.nn.init.normal_(prior.level(level).head.output_weight_GSK, std=1.0)
    return prior.eval()


class GruPrior(nn.Module):
    """The smallest prior over audio codes [B, G, T]: a GRU over the symbols in order."""

    def __init__(self, *, codebook_size: int, codebooks: int, frames: int, classes: tuple[int, ...]) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.code_shape = (codebooks, frames)
        self.grids = ((frames,),)
        self.classes = classes
        self.condition_optional = False
        self.has_end = False
        self.embedding = nn.Embedding(codebook_size + 1, 8)  # the last row stands for "nothing yet"
        self.condition = nn.ModuleList(nn.Embedding(size, 8) for size in classes)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.logits = nn.Linear(8, codebook_size)

    def log_prob(
        self, codes_BGT: Tensor, condition_BA: Tensor | None = None, lengths_B: Tensor | None = None
    ) -> Tensor:
        symbols_BN = codes_BGT.transpose(1, 2).flatten(1)
        start_B1 = torch.full_like(symbols_BN[:, :1], self.codebook_size)
        hidden_BNC, _ = self.gru(
            self.embedding(torch.cat([start_B1, symbols_BN[:, :-1]], 1)), self._start(len(symbols_BN), condition_BA)
        )
        log_prob_BNK = self.logits(hidden_BNC).log_softmax(-1)
        return log_prob_BNK.gather(2, symbols_BN[..., None]).sum(dim=(1, 2))

    def initial_state(self, batch_size: int, condition_BA: Tensor | None = None) -> Tensor:
        return self._start(batch_size, condition_BA)

    def step(self, state: Tensor, symbol_B: Tensor | None, condition_BA: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if symbol_B is None:
            symbol_B = torch.full((state.shape[1],), self.codebook_size)
        hidden_B1C, state = self.gru(self.embedding(symbol_B)[:, None], state)
        return self.logits(hidden_B1C[:, 0]), state

    def _start(self, batch_size: int, condition_BA: Tensor | None) -> Tensor:
        start_BC = torch.zeros(batch_size, 8)
        for attribute, table in enumerate(self.condition):
            assert condition_BA is not None
            start_BC = start_BC + table(condition_BA[:, attribute])
        return start_BC[None]


def slow_sample(
    prior: PixelCNN, noise_BN: Tensor, condition: Tensor | None, *, known: Tensor, **options: Any
) -> Tensor:
    """Reference: one full forward per code, the code read off at its place; the first rows are those known."""
    codebooks, height, width = prior.code_shape
    codes_BGHW = torch.zeros(len(noise_BN), *prior.code_shape, dtype=torch.int64)
    n = 0
    with torch.no_grad():
        for h, w, g in itertools.product(range(height), range(width), range(codebooks)):
            logits_BK = prior(codes_BGHW, condition)[:, g, h, w]
            drawn_B = draw(logits_BK, noise_BN[:, n], **options)
            codes_BGHW[:, g, h, w] = known[:, g, h, w] if h < known.shape[2] else drawn_B
            n += 1
    return codes_BGHW


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_k": 3}, {"temperature": 1.3, "top_p": 0.8}],
    ids=str,
)
@pytest.mark.parametrize(("codebooks", "classes"), [(1, ()), (3, (3, 2))])
@pytest.mark.parametrize("rows", [0, 2])
def test_cached_sampling_equals_a_full_forward_per_code(
    codebooks: int, classes: tuple[int, ...], rows: int, options: dict[str, Any]
) -> None:
    prior = build(codebooks=codebooks, classes=classes)
    known = torch.randint(5, (4, codebooks, rows, 5), generator=torch.Generator().manual_seed(2))
    condition = torch.tensor([[0, 0], [2, 1], [1, 1], [0, 1]]) if classes else None
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | options
    drawn = sample(prior, count=4, condition=condition, known=known, seed=3, **settings)
    fast = drawn.codes
    assert drawn.lengths is None
    noise_BN = uniform_noise(seed=3, first_item=0, count=4, symbols=20 * codebooks)
    assert torch.equal(fast, slow_sample(prior, noise_BN, condition, known=known, **settings))
    assert len(fast.unique()) > 1


def test_codes_depend_on_seed_and_item_number_alone() -> None:
    prior = build(codebooks=2, classes=(4,))
    condition = torch.arange(7)[:, None] % 4
    whole = sample(prior, count=7, condition=condition, seed=11).codes
    assert torch.equal(whole, sample(prior, count=7, condition=condition, seed=11).codes)
    assert torch.equal(whole, sample(prior, count=7, condition=condition, seed=11, batch_size=3).codes)
    tail = sample(prior, count=4, condition=condition[3:], seed=11, first_item=3).codes
    assert torch.equal(whole[3:], tail)
    assert not torch.equal(whole, sample(prior, count=7, condition=condition, seed=12).codes)
    assert len({tuple(item.flatten().tolist()) for item in whole}) == 7
    assert sample(prior, count=0, condition=condition[:0]).codes.shape == (0, 2, 4, 5)


def test_noise_is_a_fixed_stream() -> None:
    noise = uniform_noise(seed=7, first_item=2, count=2, symbols=3)
    # Numbers of Philox-4x64-10 under the keys (7, 2) and (7, 3): changing them changes everybody's samples.
    expected = [[np.random.Philox(key=[7, item]).random_raw() for _ in range(1)] for item in (2, 3)]
    assert noise[:, 0].tolist() == [(word >> 11) / 2**53 for (word,) in expected]
    many = uniform_noise(seed=0, first_item=0, count=1, symbols=20_000)[0]
    assert many.min() >= 0
    assert many.max() < 1
    assert torch.histc(many, 10, 0, 1).sub(2000).abs().max() < 200


def truncated(logits: np.ndarray, *, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """Reference: the distribution of one row of logits after temperature, top-k and top-p, by sorting a list."""
    weights = np.exp((logits - logits.max()) / temperature)
    ranked = sorted(range(len(logits)), key=lambda code: (-weights[code], code))[: top_k or len(logits)]
    total, kept, reached = sum(weights[code] for code in ranked), [], 0.0
    for code in ranked:
        kept.append(code)
        reached += weights[code]
        if reached >= top_p * total:
            break
    result = np.zeros(len(logits))
    result[kept] = weights[kept] / weights[kept].sum()
    return result


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (1, 1.0), (4, 1.0), (0, 0.6), (0, 1e-6), (5, 0.7), (9, 0.999)])
def test_draw_follows_the_truncated_distribution(temperature: float, top_k: int, top_p: float) -> None:
    rng = np.random.default_rng(5)
    logits_BK = rng.normal(size=(4, 9)) * 2
    logits_BK[2] = np.round(logits_BK[2] / 2)  # equal logits
    logits_BK[3, 4] = -np.inf  # a code ruled out
    noise = torch.linspace(0, 1 - 2**-53, 2001, dtype=torch.float64)
    for logits_K in logits_BK:
        expected_K = truncated(logits_K, temperature=temperature, top_k=top_k, top_p=top_p)
        logits = torch.from_numpy(logits_K).expand(len(noise), -1)
        codes = draw(logits, noise, temperature=temperature, top_k=top_k, top_p=top_p).numpy()
        assert (np.diff(codes) >= 0).all()  # the inverse of a cumulative distribution
        shares = np.bincount(codes, minlength=9) / len(noise)
        assert set(codes) <= set(np.flatnonzero(expected_K))
        np.testing.assert_allclose(shares, expected_K, atol=1.5 / len(noise))


def test_tiny_temperatures_become_the_most_probable_code() -> None:
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    noise = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for temperature in (0.0, 1e-320, 1e-9):
        assert torch.equal(draw(logits, noise, temperature=temperature, top_k=0, top_p=1.0), logits.argmax(dim=1))


def test_samples_have_the_frequencies_the_prior_states() -> None:
    prior = build(codebook_size=3, codebooks=2, grid=(1, 2), classes=(2,))
    grids = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 1, 2)
    for label in range(2):
        condition = torch.full((20_000, 1), label)
        with torch.no_grad():
            expected = prior.log_prob(grids, condition[: len(grids)]).exp()
        codes = sample(prior, count=20_000, condition=condition, batch_size=20_000).codes
        index = (codes.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(dim=1)
        shares = torch.bincount(index, minlength=81) / 20_000
        # 81 shares of 20 000 draws: an exact sampler has an expected distance of 0.03 at most.
        assert (shares - expected).abs().sum() / 2 < 0.04
    assert expected.max() > 0.03  # far from 1/81


def test_audio_codes_take_the_same_road() -> None:
    torch.manual_seed(0)
    prior = GruPrior(codebook_size=3, codebooks=2, frames=2, classes=(2, 3))
    contract: Prior = prior
    grids = torch.tensor(list(itertools.product(range(3), repeat=4))).view(-1, 2, 2)
    condition = torch.tensor([[1, 2]])
    with torch.no_grad():
        expected = contract.log_prob(grids, condition.expand(81, -1)).exp()
    assert expected.sum().item() == pytest.approx(1, abs=1e-6)
    codes = sample(contract, count=20_000, condition=condition.expand(20_000, -1), seed=1, batch_size=10_000).codes
    assert codes.shape == (20_000, 2, 2)
    index = (codes.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(dim=1)
    assert (torch.bincount(index, minlength=81) / 20_000 - expected).abs().sum() / 2 < 0.04
    few = sample(contract, count=3, condition=condition.expand(3, -1), seed=1, batch_size=1).codes
    assert torch.equal(few, codes[:3])


@pytest.mark.parametrize("rows", [0, 1, 3, 4])
def test_an_item_completed_from_its_own_rows_is_that_item(rows: int) -> None:
    prior = build(codebooks=2, classes=(4,), label_dropout=0.1)
    for condition in (torch.arange(7)[:, None] % 4, None):
        whole = sample(prior, count=7, condition=condition, seed=5).codes
        again = sample(prior, count=7, condition=condition, known=whole[:, :, :rows], seed=5, batch_size=3).codes
        assert torch.equal(whole, again)
        other = sample(prior, count=7, condition=condition, known=whole[:, :, :rows], seed=6).codes
        assert torch.equal(whole[:, :, :rows], other[:, :, :rows])
        assert torch.equal(whole, other) == (rows == 4)


MASK = [2, 0, 1, 3, 4, 5, 7]
"""Of a hierarchy of 1x2 and 2x4: the coarser level's second position is drawn, and of the finer one some are."""


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 3}], ids=str)
@pytest.mark.parametrize(("codebooks", "classes"), [(1, ()), (3, (3, 2))])
@pytest.mark.parametrize("kept", [[], MASK], ids=["none", "some"])
def test_masked_sampling_equals_a_full_forward_per_code(
    codebooks: int, classes: tuple[int, ...], kept: list[int], options: dict[str, Any]
) -> None:
    prior = hierarchy(codebooks=codebooks, classes=classes)
    condition = torch.tensor([[0, 0], [2, 1], [1, 1], [0, 1]]) if classes else None
    known = torch.randint(5, (4, codebooks, 10), generator=torch.Generator().manual_seed(2))
    mask_N = torch.isin(torch.arange(10), torch.tensor(kept, dtype=torch.int64))
    settings = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} | options
    arguments = {"condition": condition, "seed": 3, "batch_size": 3, **settings}
    codes = sample(prior, count=4, known=known.where(mask_N, -1), known_mask=mask_N, **arguments).codes
    noise_BN = uniform_noise(seed=3, first_item=0, count=4, symbols=10 * codebooks)
    expected = torch.zeros_like(known)
    with torch.no_grad():
        for n in range(10 * codebooks):
            position, g = divmod(n, codebooks)
            drawn_B = draw(prior(expected, condition)[:, g, position], noise_BN[:, n], **settings)
            expected[:, g, position] = known[:, g, position] if mask_N[position] else drawn_B
    assert torch.equal(codes, expected)
    assert torch.equal(codes[:, :, mask_N], known[:, :, mask_N])
    assert not kept or not torch.equal(codes, known)


def test_an_item_completed_from_codes_of_its_own_is_that_item() -> None:
    for prior in (build(codebooks=2), hierarchy(codebooks=2)):
        whole = sample(prior, count=5, seed=5).codes
        generator = torch.Generator().manual_seed(0)
        for share in (0.0, 0.3, 0.8, 1.0):
            mask = torch.rand(prior.code_shape[1:], generator=generator) < share
            again = sample(prior, count=5, known=whole, known_mask=mask, seed=5, batch_size=2).codes
            assert torch.equal(whole, again)
            other = sample(prior, count=5, known=whole, known_mask=mask, seed=6).codes
            assert torch.equal(whole[..., mask], other[..., mask])
            assert torch.equal(whole, other) == bool(mask.all())


def test_a_mask_of_the_first_rows_is_the_first_rows() -> None:
    prior = build(codebooks=2)
    known = torch.randint(5, (3, 2, 4, 5), generator=torch.Generator().manual_seed(4))
    mask = (torch.arange(4) < 2)[:, None].expand(4, 5)
    masked = sample(prior, count=3, known=known, known_mask=mask, seed=1).codes
    assert torch.equal(masked, sample(prior, count=3, known=known[:, :, :2], seed=1).codes)


def test_nothing_is_sampled_when_all_rows_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = build()
    monkeypatch.setattr(prior, "initial_state", None)  # the prior is not even asked
    known = torch.randint(5, (3, 1, 4, 5))
    codes = sample(prior, count=3, known=known).codes
    assert torch.equal(codes, known)
    codes += 1  # a copy: the caller's codes stay as they are
    assert not torch.equal(codes, known)


def test_completions_have_the_conditional_frequencies() -> None:
    """K = 3, G = 2, 2x1 grid: given the first row, the nine second rows follow p(first, second) / p(first)."""
    prior = build(codebook_size=3, codebooks=2, grid=(2, 1))
    rows = torch.tensor(list(itertools.product(range(3), repeat=2)))
    for first in ([0, 2], [1, 1]):
        known = torch.tensor(first).view(1, 2, 1, 1)
        grids = torch.cat([known.expand(9, -1, -1, -1), rows.view(9, 2, 1, 1)], dim=2)
        with torch.no_grad():
            expected = prior.log_prob(grids).softmax(0)
        codes = sample(prior, count=20_000, known=known.expand(20_000, -1, -1, -1), batch_size=20_000).codes
        shares = torch.bincount(codes[:, 0, 1, 0] * 3 + codes[:, 1, 1, 0], minlength=9) / 20_000
        assert (shares - expected).abs().sum() / 2 < 0.015
        assert expected.max() > 0.2


def test_known_frames_of_audio_are_kept() -> None:
    torch.manual_seed(0)
    prior = GruPrior(codebook_size=3, codebooks=2, frames=4, classes=())
    known = torch.tensor([[[0, 2], [1, 1]], [[2, 2], [0, 1]]])
    codes = sample(prior, count=2, known=known).codes
    assert torch.equal(codes[:, :, :2], known)
    assert codes.shape == (2, 2, 4)


def test_progress_counts_every_code_once() -> None:
    seen: list[tuple[int, int]] = []
    sample(build(grid=(2, 2)), count=5, batch_size=2, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == [2, 4, 6, 8, 10, 12, 14, 16, 17, 18, 19, 20]
    assert {total for _, total in seen} == {20}


WHOLE = torch.zeros(2, 1, 4, 5, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature 0 .*got -0.1"),
        ({"temperature": float("nan")}, "temperature .*got nan"),
        ({"temperature": float("inf")}, "temperature .*got inf"),
        ({"top_k": -1}, r"top_k 0 \(all codes\) to 5, got -1"),
        ({"top_k": 6}, r"top_k 0 \(all codes\) to 5, got 6"),
        ({"top_p": 0.0}, "top_p above 0 and at most 1.*got 0.0"),
        ({"top_p": 1.1}, "top_p above 0 and at most 1.*got 1.1"),
        ({"count": -1}, "count 0 or more, got -1"),
        ({"batch_size": 0}, "batch_size 1 or more, got 0"),
        ({"seed": -1}, r"seed 0 to 2\^64 - 1, got -1"),
        ({"first_item": -1}, "first_item 0 or more, got -1"),
        ({"condition": None}, r"condition of shape \[2, 1\].*got none"),
        ({"condition": torch.tensor([[0]])}, r"condition of shape \[2, 1\].*got \[1, 1\]"),
        ({"condition": torch.tensor([[0], [3]])}, "classes 0 to 2 for attribute 0.*got 3"),
        ({"condition": torch.tensor([[0.0], [1.0]])}, "type int64, got .*float32"),
        ({"known": torch.zeros(2, 1, 5, 5, dtype=torch.int64)}, r"shape \[2, 1, 0 to 4, 5\].*got \[2, 1, 5, 5\]"),
        ({"known": torch.zeros(1, 1, 2, 5, dtype=torch.int64)}, r"got \[1, 1, 2, 5\]"),
        ({"known": torch.zeros(2, 1, 2, 4, dtype=torch.int64)}, r"got \[2, 1, 2, 4\]"),
        ({"known": torch.zeros(2, 1, dtype=torch.int64)}, r"got \[2, 1\]"),
        ({"known": torch.zeros(2, 1, 2, 5)}, "type int64, got .*float32"),
        ({"known": torch.full((2, 1, 2, 5), 5)}, "known codes 0 to 4, got 5"),
        ({"known": torch.full((2, 1, 2, 5), -1)}, "known codes 0 to 4, got -1"),
        ({"known_mask": torch.ones(4, 5, dtype=torch.bool)}, "known codes for the mask, got none"),
        (
            {"known": WHOLE, "known_mask": torch.ones(4, 4, dtype=torch.bool)},
            r"shape \[4, 5\] and type bool, got \[4, 4\]",
        ),
        ({"known": WHOLE, "known_mask": torch.ones(4, 5)}, r"type bool, got \[4, 5\] and torch.float32"),
        (
            {"known": WHOLE[:, :, :3], "known_mask": torch.ones(4, 5, dtype=torch.bool)},
            r"shape \[2, 1, 4, 5\].*all positions",
        ),
        ({"known": WHOLE + 5, "known_mask": torch.eye(4, 5) > 0}, "known codes 0 to 4, got 5"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    prior = build(classes=(3,))
    with pytest.raises(UsageError, match=message):
        sample(prior, **({"count": 2, "condition": torch.tensor([[0], [1]])} | arguments))


def test_a_diverged_prior_is_named() -> None:
    prior = build()
    with torch.no_grad():
        prior.head.output_bias_GK[0, 2] = float("nan")
    with pytest.raises(RunError, match="finite logits"):
        sample(prior, count=1)
