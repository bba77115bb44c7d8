"""The gated PixelCNN: order of dependence, normalisation, cached step, condition, and sources of known entropy."""

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from stage2_prior import PixelCNN
from twostage.errors import UsageError


def build(**changes: Any) -> PixelCNN:
    """A small prior far from uniform, so that no dependence drowns in rounding."""
    arguments: dict[str, Any] = {"codebook_size": 5, "grid": (4, 5), "channels": 8, "layers": 2, "first_kernel": 3}
    torch.manual_seed(0)
    prior = PixelCNN(**(arguments | changes))
    torch.nn.init.normal_(prior.head.output_weight_GSK, std=1.0)
    return prior.eval()


def random_codes(prior: PixelCNN, items: int) -> Tensor:
    return torch.randint(prior.codebook_size, (items, *prior.code_shape), generator=torch.Generator().manual_seed(1))


def test_attention_sees_all_that_came_before_and_nothing_else() -> None:
    prior = build(layers=3, grid=(7, 7), attention_every=2).double()
    seen: list[Tensor] = []
    prior.embedding.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    logits_BGHWK = prior(random_codes(prior, 1))
    for h, w in [(0, 0), (0, 6), (4, 3), (6, 6)]:
        (gradient,) = torch.autograd.grad(logits_BGHWK[0, 0, h, w].square().sum(), seen, retain_graph=True)
        assert torch.equal(gradient[0, 0].abs().sum(-1).flatten() > 0, torch.arange(49) < h * 7 + w)


def test_a_walk_with_attention_is_the_same_whatever_is_beside_it() -> None:
    prior = build(layers=3, classes=(3,), attention_every=1).double()
    codes_BN, condition_BA = by_symbol(random_codes(prior, 4)), torch.tensor([[0], [1], [2], [1]])

    def walk(items: list[int]) -> Tensor:
        state = prior.initial_state(len(items), condition_BA[items])
        return torch.stack([prior.step(state, codes_BN[items, n - 1] if n else None)[0] for n in range(20)])

    together = walk([0, 1, 2, 3])
    for items in ([0], [2], [3, 1], [1, 0, 3]):
        torch.testing.assert_close(walk(items), together[:, items], rtol=0, atol=1e-12)


def by_symbol(values_BGHWX: Tensor) -> Tensor:
    """[B, G, H, W, ...] in the order of the symbols, [B, N, ...]."""
    return values_BGHWX.movedim(1, 3).flatten(1, 3)


@pytest.mark.parametrize("codebooks", [1, 3])
@pytest.mark.parametrize("position", [(0, 0), (0, 3), (2, 0), (2, 4), (3, 2)])
def test_a_code_sees_every_earlier_symbol_in_reach_and_no_other(codebooks: int, position: tuple[int, int]) -> None:
    # All of a 4x5 grid is inside this field of view, so the order alone decides.
    prior = build(codebooks=codebooks, first_kernel=7).double()
    seen_by_trunk: list[Tensor] = []
    seen_by_head: list[Tensor] = []
    prior.embedding.register_forward_hook(lambda _module, _inputs, output: seen_by_trunk.append(output))
    if codebooks > 1:
        prior.head.embedding.register_forward_hook(lambda _module, _inputs, output: seen_by_head.append(output))
    logits_BGHWK = prior(random_codes(prior, 1))
    h, w = position
    for g in range(codebooks):
        inputs = seen_by_trunk + seen_by_head
        gradients = torch.autograd.grad(logits_BGHWK[0, g, h, w].square().sum(), inputs, retain_graph=True)
        depends_GHW = gradients[0][0].abs().sum(dim=-1) > 0
        if codebooks > 1:
            depends_XJ = gradients[1].abs().sum(dim=-1) > 0
            depends_GHW[:-1] |= depends_XJ.view(4, 5, codebooks - 1).permute(2, 0, 1)
        symbol = (h * 5 + w) * codebooks + g
        expected_N = torch.arange(20 * codebooks) < symbol
        assert torch.equal(by_symbol(depends_GHW[None])[0], expected_N), f"codebook {g}"


CASES = [
    {},
    {"codebooks": 3},
    {"codebooks": 2, "classes": (3, 2)},
    {"layers": 1, "first_kernel": 7},
    {"layers": 4, "first_kernel": 7, "kernel": 5, "classes": (3, 2), "grid": (6, 7)},
    {"grid": (1, 6)},
    {"grid": (6, 1), "codebooks": 2},
    {"codebooks": 2, "classes": (3, 2), "label_dropout": 0.5},
    {"layers": 3, "attention_every": 1, "attention_heads": 2, "codebooks": 2, "classes": (3, 2)},
    {"layers": 4, "attention_every": 2, "grid": (9, 8), "dropout": 0.5},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
@pytest.mark.parametrize("items", [1, 3])
def test_step_equals_forward(changes: dict[str, Any], items: int) -> None:
    prior = build(**changes)
    codes_BGHW = random_codes(prior, items)
    labelled = prior.classes and not prior.condition_optional  # with label dropout: the way without a label
    condition_BA = torch.tensor([[2, 0], [0, 1], [1, 1]])[:items] if labelled else None
    with torch.no_grad():
        expected_BNK = by_symbol(prior(codes_BGHW, condition_BA))
    codes_BN = by_symbol(codes_BGHW)
    state = prior.initial_state(items, condition_BA)
    for n in range(codes_BN.shape[1]):
        logits_BK, state = prior.step(state, codes_BN[:, n - 1] if n else None, condition_BA)
        torch.testing.assert_close(logits_BK, expected_BNK[:, n], rtol=0, atol=1e-4)
    with pytest.raises(UsageError, match=r"Expected at most .* steps"):
        prior.step(state, codes_BN[:, -1], condition_BA)


def test_step_equals_forward_at_the_default_size() -> None:
    torch.manual_seed(0)
    prior = PixelCNN(codebook_size=64, grid=(8, 8)).eval()
    torch.nn.init.normal_(prior.head.output_weight_GSK, std=1.0)
    codes_BGHW = random_codes(prior, 2)
    with torch.no_grad():
        expected_BNK = by_symbol(prior(codes_BGHW))
    assert expected_BNK.std() > 0.5
    codes_BN = by_symbol(codes_BGHW)
    state = prior.initial_state(2)
    for n in range(64):
        logits_BK, state = prior.step(state, codes_BN[:, n - 1] if n else None)
        torch.testing.assert_close(logits_BK, expected_BNK[:, n], rtol=0, atol=1e-4)


def test_step_is_eval_mode_whatever_the_module_is_in() -> None:
    prior = build(dropout=0.5)
    with torch.no_grad():
        expected_BK = prior(random_codes(prior, 2))[:, 0, 0, 0]
        prior.train()
        assert not torch.allclose(prior(random_codes(prior, 2))[:, 0, 0, 0], expected_BK, atol=1e-2)
    logits_BK, _ = prior.step(prior.initial_state(2), None)
    torch.testing.assert_close(logits_BK, expected_BK, rtol=0, atol=1e-4)
    assert not logits_BK.requires_grad


@pytest.mark.parametrize("codebooks", [1, 2])
def test_a_state_keeps_the_weights_it_was_made_with(codebooks: int) -> None:
    prior = build(codebooks=codebooks, classes=(3,))
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


@pytest.mark.parametrize(("codebooks", "classes", "label_dropout"), [(2, (2, 2), 0.0), (1, (), 0.0), (2, (2, 2), 0.1)])
def test_probabilities_of_all_grids_sum_to_one(codebooks: int, classes: tuple[int, ...], label_dropout: float) -> None:
    changes: dict[str, Any] = {"codebooks": codebooks, "classes": classes, "label_dropout": label_dropout}
    prior = build(codebook_size=3, grid=(2, 2), **changes).double()
    grids = torch.tensor(list(itertools.product(range(3), repeat=4 * codebooks))).view(-1, codebooks, 2, 2)
    assert len(grids) == 3 ** (4 * codebooks)
    hidden = [()] if label_dropout else []
    for condition in [*itertools.product(*(range(size) for size in classes)), *hidden]:
        condition_BA = torch.tensor([condition] * len(grids)) if condition else None
        with torch.no_grad():
            log_prob_B = prior(grids, condition_BA).log_softmax(-1).gather(-1, grids[..., None]).sum(dim=(1, 2, 3, 4))
            torch.testing.assert_close(prior.log_prob(grids, condition_BA), log_prob_B, rtol=0, atol=1e-10)
        assert log_prob_B.exp().sum().item() == pytest.approx(1, abs=1e-9)
        assert log_prob_B.std() > 0.1  # not the uniform distribution, which sums to one whatever is wrong
        with torch.no_grad():
            single = prior.float().log_prob(grids, condition_BA).double().exp().sum().item()
            prior.double()
        assert single == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("codebooks", [1, 4])
def test_an_untrained_prior_costs_log_k(codebooks: int) -> None:
    torch.manual_seed(0)
    prior = PixelCNN(codebook_size=512, grid=(8, 8), codebooks=codebooks, classes=(10,))
    with torch.no_grad():
        log_prob_B = prior.log_prob(random_codes(prior, 4), torch.tensor([[0], [3], [5], [9]]))
    nats_per_code = -log_prob_B / (64 * codebooks)
    assert nats_per_code.min() >= math.log(512) - 0.05
    assert nats_per_code.max() <= math.log(512) + 0.05


def test_every_weight_is_used_and_one_codebook_needs_no_more() -> None:
    prior = build(codebooks=2, classes=(3, 2), layers=3)
    condition_BA = torch.tensor([[0, 0], [1, 1], [2, 0]] * 10)
    prior.log_prob(random_codes(prior, 30), condition_BA).sum().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).float().mean() > 0.9, name  # all but a ReLU that is dead from the start
    head = build(codebooks=1).head
    assert sum(p.numel() for p in head.parameters()) == 16 * 16 + 16 + 16 * 5 + 5


def test_every_attribute_changes_every_position() -> None:
    prior = build(classes=(3, 2))
    codes_BGHW = random_codes(prior, 1)
    with torch.no_grad():
        logits = {pair: prior(codes_BGHW, torch.tensor([pair])) for pair in itertools.product(range(3), range(2))}
    for one, other in itertools.combinations(logits.values(), 2):
        assert ((one - other).abs().amax(dim=-1) > 1e-3).all()


def noise_source(items: int, *, codebooks: int, seed: int) -> tuple[Tensor, float]:
    """Codes mod 3 whose conditional entropy is known, int64 [N, G, 6, 6], and that entropy in bits per code.

    Code 0 of a position is (left + above-right + noise) mod 3, missing neighbours counting 0; code g is (code g - 1 +
    left neighbour's code g + noise) mod 3. The noise is independent, so every code costs exactly its entropy.
    """
    chances = torch.tensor([0.75, 0.2, 0.05])
    generator = torch.Generator().manual_seed(seed)
    noise = torch.multinomial(chances, items * codebooks * 36, replacement=True, generator=generator)
    noise = noise.view(items, codebooks, 6, 6)
    codes = torch.zeros(items, codebooks, 8, 8, dtype=torch.int64)  # one column of zeros either side, one row above
    for h, w in itertools.product(range(1, 7), range(1, 7)):
        codes[:, 0, h, w] = (codes[:, 0, h, w - 1] + codes[:, 0, h - 1, w + 1] + noise[:, 0, h - 1, w - 1]) % 3
        for g in range(1, codebooks):
            codes[:, g, h, w] = (codes[:, g - 1, h, w] + codes[:, g, h, w - 1] + noise[:, g, h - 1, w - 1]) % 3
    return codes[:, :, 1:7, 1:7].contiguous(), -(chances * chances.log2()).sum().item()


def fit(prior: PixelCNN, codes: Tensor, condition: Tensor | None, *, steps: int, rate: float = 1e-2) -> None:
    optimiser = torch.optim.Adam(prior.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = torch.randint(len(codes), (64,), generator=generator)
        loss = -prior.log_prob(codes[batch], None if condition is None else condition[batch]).mean()
        optimiser.zero_grad()
        (loss / codes[0].numel()).backward()
        optimiser.step()
        schedule.step()


def bits_per_code(prior: PixelCNN, codes: Tensor, condition: Tensor | None = None) -> float:
    with torch.no_grad():
        return -prior.log_prob(codes, condition).mean().item() / math.log(2) / codes[0].numel()


@pytest.mark.parametrize("codebooks", [1, 2])
def test_a_fitted_prior_reaches_the_entropy_of_its_source(codebooks: int) -> None:
    codes, entropy_bits = noise_source(4096, codebooks=codebooks, seed=0)
    held_out, _ = noise_source(2048, codebooks=codebooks, seed=1)
    torch.manual_seed(0)
    prior = PixelCNN(
        codebook_size=3, grid=(6, 6), codebooks=codebooks, channels=16, layers=2, first_kernel=3, dropout=0.0
    )
    fit(prior, codes, None, steps=300)
    assert bits_per_code(prior.eval(), held_out) == pytest.approx(entropy_bits, abs=0.01)


def test_a_fitted_prior_uses_the_condition() -> None:
    # The class rotates the noise: without it a code costs more than the entropy, with it no more.
    codes, entropy_bits = noise_source(4096, codebooks=1, seed=2)
    labels = torch.arange(4096)[:, None] % 3
    rotated = (codes + labels[:, :, None, None]) % 3
    torch.manual_seed(0)
    prior = PixelCNN(codebook_size=3, grid=(6, 6), classes=(3,), channels=16, layers=2, first_kernel=3)
    fit(prior, rotated[:3072], labels[:3072], steps=300)
    held_out, held_labels = rotated[3072:], labels[3072:]
    assert bits_per_code(prior.eval(), held_out, held_labels) == pytest.approx(entropy_bits, abs=0.01)
    assert bits_per_code(prior, held_out, (held_labels + 1) % 3) > entropy_bits + 0.1


def test_one_prior_with_label_dropout_learns_conditional_and_marginal() -> None:
    """Two positions: given label y the first code is 0, 1 or 2 + y with chances .7, .2, .1, and the second repeats y.

    So the label tells the second code for nothing, and without it the first code still tells something about it.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.multinomial(torch.tensor([0.6, 0.4]), 8192, replacement=True, generator=generator)
    noise = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 8192, replacement=True, generator=generator)
    first = torch.where(noise == 2, 2 + labels, noise)
    codes = torch.stack([first, labels], dim=1)[:, None, None]
    torch.manual_seed(0)
    prior = PixelCNN(
        codebook_size=4, grid=(1, 2), classes=(2,), channels=16, layers=2, first_kernel=3, label_dropout=0.3
    )
    fit(prior, codes, labels[:, None], steps=300)
    prior.eval()
    grids = torch.tensor(list(itertools.product(range(4), repeat=2)))[:, None, None]
    given = torch.zeros(2, 4, 4)
    for y in range(2):
        given[y, [0, 1, 2 + y], y] = torch.tensor([0.7, 0.2, 0.1])
    with torch.no_grad():
        for y in range(2):
            learned = prior.log_prob(grids, torch.full((16, 1), y)).exp().view(4, 4)
            assert (learned - given[y]).abs().sum() / 2 < 0.06
        learned = prior.log_prob(grids).exp().view(4, 4)
    assert (learned - (0.6 * given[0] + 0.4 * given[1])).abs().sum() / 2 < 0.06


def test_label_dropout_hides_that_share_of_labels_in_training_and_none_in_use() -> None:
    prior = build(classes=(3, 2), label_dropout=0.25)
    codes = random_codes(prior, 1).expand(2000, -1, -1, -1)
    condition = torch.tensor([[2, 1]]).expand(2000, -1)
    with torch.no_grad():
        shown, hidden = prior.log_prob(codes[:1], condition[:1]), prior.log_prob(codes[:1])
        torch.testing.assert_close(prior.log_prob(codes, condition), shown.expand(2000))
        prior.train()
        torch.manual_seed(3)
        log_prob_B = prior.log_prob(codes, condition)
        torch.manual_seed(3)
        assert torch.equal(log_prob_B, prior.log_prob(codes, condition))  # torch's global generator and nothing else
        torch.testing.assert_close(prior.log_prob(codes), hidden.expand(2000))
        logits_BK, _ = prior.step(prior.initial_state(2000, condition), None)
    assert (shown - hidden).abs().item() > 1.0
    is_hidden_B = (log_prob_B - hidden).abs() < 1e-3
    # The two attributes go together: an item shows both or none.
    assert torch.equal(is_hidden_B, (log_prob_B - shown).abs() > 1e-3)
    assert is_hidden_B.float().mean().item() == pytest.approx(0.25, abs=0.04)
    # Rows of one product may differ in the last bit; a hidden label would differ by more than 0.1.
    torch.testing.assert_close(logits_BK, logits_BK[:1].expand_as(logits_BK), rtol=0, atol=1e-6)


def test_log_prob_is_summed_in_single_precision_whatever_the_layers_use() -> None:
    prior = build()
    codes_BGHW = random_codes(prior, 2)
    with torch.no_grad():
        expected_B = prior.log_prob(codes_BGHW)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast_B = prior.log_prob(codes_BGHW)
        half_B = prior.bfloat16().log_prob(codes_BGHW)
    for log_prob_B in (autocast_B, half_B):
        assert log_prob_B.dtype == torch.float32
        torch.testing.assert_close(log_prob_B, expected_B, rtol=0.02, atol=0)


def test_codes_and_conditions_that_do_not_fit_are_refused() -> None:
    prior = build(codebooks=2, classes=(3,))
    codes = random_codes(prior, 2)
    condition = torch.tensor([[0], [2]])
    with pytest.raises(UsageError, match=r"codes of shape \[B, 2, 4, 5\].*got \[2, 1, 4, 5\]"):
        prior(codes[:, :1], condition)
    with pytest.raises(UsageError, match=r"type int64, got .*torch\.int32"):
        prior(codes.int(), condition)
    with pytest.raises(UsageError, match="Expected codes 0 to 4, got 5"):
        prior(codes - codes.max() + 5, condition)
    with pytest.raises(UsageError, match="Expected codes 0 to 4, got -1"):
        prior(codes - codes.min() - 1, condition)
    with pytest.raises(UsageError, match=r"condition of shape \[2, 1\].*got none"):
        prior(codes)
    with pytest.raises(UsageError, match=r"condition of shape \[2, 1\].*got \[2\]"):
        prior(codes, condition[:, 0])
    with pytest.raises(UsageError, match=r"classes 0 to 2 for attribute 0.*got 3"):
        prior.initial_state(2, torch.tensor([[0], [3]]))
    with pytest.raises(UsageError, match=r"classes 0 to 2 for attribute 0.*got -1"):
        prior.initial_state(2, torch.tensor([[0], [-1]]))
    with pytest.raises(UsageError, match="this prior is unconditional"):
        build()(random_codes(build(), 2), condition)
    with pytest.raises(UsageError, match="label_dropout of at least 0 and below 1, got 1"):
        build(classes=(3,), label_dropout=1.0)
    assert not build(label_dropout=0.5).condition_optional  # nothing to hide
    with pytest.raises(UsageError, match="of at least 1, got 0"):
        PixelCNN(codebook_size=0, grid=(4, 4))


def test_steps_out_of_order_are_refused() -> None:
    prior = build(classes=(3,))
    condition = torch.tensor([[0], [2]])
    state = prior.initial_state(2, condition)
    with pytest.raises(UsageError, match=r"no symbol at the first step.*got one at step 0"):
        prior.step(state, torch.tensor([0, 1]))
    with pytest.raises(UsageError, match="the condition that the state was made with"):
        prior.step(state, None, torch.tensor([[0], [1]]))
    prior.step(state, None, condition.clone())
    with pytest.raises(UsageError, match="got none at step 1"):
        prior.step(state, None)
    with pytest.raises(UsageError, match=r"symbol of shape \[2\].*got \[1\]"):
        prior.step(state, torch.tensor([0]))


def test_many_conditions_share_what_does_not_see_them() -> None:
    """The same numbers to the bit; embedding and first convolutions run once, everything later once a condition."""
    prior = build(codebooks=2, classes=(3,), layers=3)
    codes_BGHW = random_codes(prior, 4)
    conditions = [torch.full((4, 1), label) for label in range(3)]
    with torch.no_grad():
        expected = [prior(codes_BGHW, condition).log_softmax(-1) for condition in conditions]
    calls: Counter[str] = Counter()
    first, second = prior.stack.layers[0], prior.stack.layers[1]
    parts = {
        "embedding": prior.embedding,
        "first vertical": first.vertical,
        "first horizontal": first.horizontal,
        "second vertical": second.vertical,
        "head": prior.head,
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda *_, name=name: calls.update([name]))
    with torch.no_grad():
        found = list(prior.log_probs_by_code(codes_BGHW, conditions))
    for parts, log_prob_BGHWK in zip(found, expected, strict=True):
        assert torch.equal(parts.codes, log_prob_BGHWK.gather(-1, codes_BGHW[..., None])[..., 0])
    assert calls == {"embedding": 1, "first vertical": 1, "first horizontal": 1, "second vertical": 3, "head": 3}


def test_a_grid_has_no_end_and_no_lengths() -> None:
    prior = build(codebooks=2)
    codes_BGHW = random_codes(prior, 3)
    state = prior.initial_state(3)
    _, state = prior.step(state, None)
    assert not prior.has_end
    assert prior.end_logit(state).tolist() == [-math.inf] * 3
    with torch.no_grad():
        parts = prior.log_prob_parts(codes_BGHW)
        assert torch.equal(parts.codes, prior.log_prob(codes_BGHW))
    assert parts.end.tolist() == [0.0] * 3
    lengths = torch.full((3,), 2)
    for ask in (prior.log_prob, prior.log_prob_parts):
        with pytest.raises(UsageError, match="Expected no lengths"):
            ask(codes_BGHW, None, lengths)
    with pytest.raises(UsageError, match="Expected no lengths"):
        next(prior.log_probs_by_code(codes_BGHW, [None], lengths))
