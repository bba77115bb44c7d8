"""The WaveNet prior: order of dependence, length, normalisation, padding, cached step, condition, known entropy."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from stage2_prior import Prior, WaveNet
from twostage.errors import UsageError


def build(**changes: Any) -> WaveNet:
    """A small prior far from uniform in codes and end, so that no dependence drowns in rounding."""
    arguments: dict[str, Any] = {"codebook_size": 5, "max_length": 9, "channels": 8, "blocks": 2, "layers_per_block": 2}
    torch.manual_seed(0)
    prior = WaveNet(**(arguments | changes))
    torch.nn.init.normal_(prior.head.output_weight_GSK, std=1.0)
    torch.nn.init.normal_(prior.end.weight, std=1.0)
    torch.nn.init.constant_(prior.end.bias, -1.0)
    return prior.eval()


def random_codes(prior: WaveNet, items: int, positions: int | None = None) -> Tensor:
    shape = (items, prior.code_shape[0], positions or prior.max_length)
    return torch.randint(prior.codebook_size, shape, generator=torch.Generator().manual_seed(1))


def by_symbol(values_BGTX: Tensor) -> Tensor:
    """[B, G, T, ...] in the order of the symbols, [B, N, ...]."""
    return values_BGTX.transpose(1, 2).flatten(1, 2)


@pytest.mark.parametrize("codebooks", [1, 3])
def test_codes_and_ends_see_every_earlier_code_and_no_other(codebooks: int) -> None:
    # 1 + 2 (1 + 2 + 4) = 15 positions are seen: more than the sequence has.
    prior = build(codebooks=codebooks, layers_per_block=3).double()
    seen_by_trunk: list[Tensor] = []
    seen_by_head: list[Tensor] = []
    prior.embedding.register_forward_hook(lambda _module, _inputs, output: seen_by_trunk.append(output))
    if codebooks > 1:
        prior.head.embedding.register_forward_hook(lambda _module, _inputs, output: seen_by_head.append(output))
    logits_BGTK, end_BT = prior(random_codes(prior, 1))
    for t in range(9):
        (gradient,) = torch.autograd.grad(end_BT[0, t], seen_by_trunk, retain_graph=True)
        depends_GT = gradient[0].abs().sum(dim=-1) > 0
        assert torch.equal(depends_GT, (torch.arange(9) <= t).expand(codebooks, -1)), f"end after {t}"
        for g in range(codebooks):
            output = logits_BGTK[0, g, t].square().sum()
            gradients = torch.autograd.grad(output, seen_by_trunk + seen_by_head, retain_graph=True)
            depends_GT = gradients[0][0].abs().sum(dim=-1) > 0
            if codebooks > 1:
                depends_GT[:-1] |= (gradients[1].abs().sum(dim=-1) > 0).T
            expected_N = torch.arange(9 * codebooks) < t * codebooks + g
            assert torch.equal(by_symbol(depends_GT[None])[0], expected_N), f"position {t}, codebook {g}"


def test_nothing_outside_the_receptive_field_is_seen() -> None:
    prior = build(max_length=30, blocks=1, layers_per_block=3).double()  # 8 positions
    assert prior.stack.receptive_field == 8
    codes = random_codes(prior, 1)
    changed = codes.clone()
    changed[:, :, 11] = (codes[:, :, 11] + 1) % 5
    with torch.no_grad():
        differs_T = (prior(codes)[0] - prior(changed)[0]).abs().amax(dim=(0, 1, 3)) > 0
        end_differs_T = (prior(codes)[1] - prior(changed)[1])[0].abs() > 0
    assert differs_T.nonzero().flatten().tolist() == list(range(12, 20))
    assert end_differs_T.nonzero().flatten().tolist() == list(range(11, 19))


def test_attention_sees_all_that_came_before_and_nothing_else() -> None:
    prior = build(max_length=30, blocks=1, layers_per_block=3, attention_every=2).double()  # 8 positions without
    seen: list[Tensor] = []
    prior.embedding.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    logits_BGTK, end_BT = prior(random_codes(prior, 1))
    for t in (0, 1, 12, 29):
        for output, reach in ((logits_BGTK[0, 0, t].square().sum(), t), (end_BT[0, t], t + 1)):
            (gradient,) = torch.autograd.grad(output, seen, retain_graph=True)
            assert torch.equal(gradient[0, 0].abs().sum(-1) > 0, torch.arange(30) < reach)


CASES = [
    {},
    {"codebooks": 3},
    {"codebooks": 2, "classes": (3, 2)},
    {"kernel": 3, "max_length": 20},
    {"max_length": 1},
    {"blocks": 1, "layers_per_block": 1},
    {"codebooks": 2, "classes": (3, 2), "label_dropout": 0.5},
    {"attention_every": 1, "attention_heads": 2, "codebooks": 2, "classes": (3, 2), "dropout": 0.5},
    {"attention_every": 3, "kernel": 3, "max_length": 70},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
@pytest.mark.parametrize("items", [1, 3])
@pytest.mark.parametrize("double", [False, True])
def test_step_equals_forward(changes: dict[str, Any], items: int, double: bool) -> None:
    prior = build(**changes)
    prior = prior.double() if double else prior
    tolerance = 1e-10 if double else 1e-4
    codes_BGT = random_codes(prior, items)
    labelled = prior.classes and not prior.condition_optional  # with label dropout: the way without a label
    condition_BA = torch.tensor([[2, 0], [0, 1], [1, 1]])[:items] if labelled else None
    with torch.no_grad():
        logits_BGTK, end_BT = prior(codes_BGT, condition_BA)
    expected_BNK, codes_BN = by_symbol(logits_BGTK), by_symbol(codes_BGT)
    state = prior.train().initial_state(items, condition_BA)  # eval mode whatever the module is in
    with pytest.raises(ValueError, match="a step before"):
        prior.end_logit(state)
    for n in range(codes_BN.shape[1]):
        logits_BK, state = prior.step(state, codes_BN[:, n - 1] if n else None, condition_BA)
        torch.testing.assert_close(logits_BK, expected_BNK[:, n], rtol=0, atol=tolerance)
        position = n // prior.code_shape[0]
        expected_B = end_BT[:, position - 1] if position else torch.full_like(end_BT[:, 0], -math.inf)
        torch.testing.assert_close(prior.end_logit(state), expected_B, rtol=0, atol=tolerance)
    assert not logits_BK.requires_grad
    with pytest.raises(UsageError, match=r"Expected at most .* steps"):
        prior.step(state, codes_BN[:, -1], condition_BA)


def test_a_state_keeps_the_weights_it_was_made_with() -> None:
    prior = build(codebooks=2, classes=(3,))
    condition_BA = torch.tensor([[1]])
    codes_BN = by_symbol(random_codes(prior, 1))

    def walk(state: Any, start: int, end: int) -> list[Tensor]:
        results = []
        for n in range(start, end):
            logits_BK, state = prior.step(state, codes_BN[:, n - 1] if n else None)
            results.append(torch.cat([logits_BK[0], prior.end_logit(state)]))
        return results

    before = walk(prior.initial_state(1, condition_BA), 0, 18)
    state = prior.initial_state(1, condition_BA)
    mixed = walk(state, 0, 7)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.1)
    mixed += walk(state, 7, 18)
    after = walk(prior.initial_state(1, condition_BA), 0, 18)
    assert all(torch.equal(a, b) for a, b in zip(before, mixed, strict=True))
    assert not any(torch.allclose(a, b) for a, b in zip(before, after, strict=True))


def all_sequences(prior: WaveNet) -> tuple[Tensor, Tensor]:
    """Codes int64 [B, G, max_length] of every sequence of every length, -1 beyond it, and the lengths."""
    codebooks, longest = prior.code_shape
    codes, lengths = [], []
    for length in range(1, longest + 1):
        symbols = torch.tensor(list(itertools.product(range(prior.codebook_size), repeat=codebooks * length)))
        codes.append(F.pad(symbols.view(-1, codebooks, length), (0, longest - length), value=-1))
        lengths.append(torch.full((len(symbols),), length))
    return torch.cat(codes), torch.cat(lengths)


@pytest.mark.parametrize("codebooks", [1, 2])
@pytest.mark.parametrize(("classes", "label_dropout"), [((), 0.0), ((2, 2), 0.0), ((2, 2), 0.1)])
def test_probabilities_of_all_sequences_of_all_lengths_sum_to_one(
    codebooks: int, classes: tuple[int, ...], label_dropout: float
) -> None:
    prior = build(codebook_size=2, max_length=3, codebooks=codebooks, classes=classes, label_dropout=label_dropout)
    prior.end.weight.data.mul_(0.25)  # so that no length is next to impossible
    codes, lengths = all_sequences(prior)
    assert len(codes) == sum(2 ** (codebooks * length) for length in (1, 2, 3))
    hidden = [()] if label_dropout else []
    masses = []
    for condition in [*itertools.product(*(range(size) for size in classes)), *hidden]:
        condition_BA = torch.tensor([condition] * len(codes)) if condition else None
        with torch.no_grad():
            single = prior.float().log_prob(codes, condition_BA, lengths).double().exp()
            mass = prior.double().log_prob(codes, condition_BA, lengths).exp()
        assert single.sum().item() == pytest.approx(1, abs=1e-6)
        assert mass.sum().item() == pytest.approx(1, abs=1e-10)
        assert mass.log().std() > 0.5  # not the uniform distribution
        by_length = torch.stack([mass[lengths == length].sum() for length in (1, 2, 3)])
        assert by_length.min() > 0.02
        masses.append(mass)
    for first, second in itertools.combinations(masses, 2):  # the condition is used
        assert (first - second).abs().sum() > 1e-3


@pytest.mark.parametrize("codebooks", [1, 2])
def test_parts_are_those_of_the_steps(codebooks: int) -> None:
    """Reference: walk each sequence and add up what its codes and its decisions cost; the last one is free."""
    prior = build(codebook_size=2, max_length=3, codebooks=codebooks).double()
    codes, lengths = all_sequences(prior)
    with torch.no_grad():
        parts = prior.log_prob_parts(codes, None, lengths)
        torch.testing.assert_close(prior.log_prob(codes, None, lengths), parts.codes + parts.end)
    for index in range(0, len(codes), 5):
        length = int(lengths[index])
        symbols = codes[index, :, :length].T.flatten()
        state, codes_nats, end_nats = prior.initial_state(1), 0.0, 0.0
        for n in range((length + (length < 3)) * codebooks):
            logits_BK, state = prior.step(state, symbols[n - 1 : n] if n else None)
            end = prior.end_logit(state).sigmoid().item()
            if n == length * codebooks:
                end_nats += math.log(end)
                break
            end_nats += math.log1p(-end) if n % codebooks == 0 else 0.0
            codes_nats += logits_BK.log_softmax(1)[0, symbols[n]].item()
        assert parts.codes[index].item() == pytest.approx(codes_nats, abs=1e-10)
        assert parts.end[index].item() == pytest.approx(end_nats, abs=1e-10)


def test_what_lies_beyond_the_length_changes_nothing() -> None:
    prior = build(codebooks=2, classes=(3,))
    codes, condition = random_codes(prior, 4), torch.tensor([[0], [1], [2], [1]])
    lengths = torch.tensor([1, 4, 8, 9])

    def result(codes: Tensor) -> tuple[Tensor, list[Tensor]]:
        prior.zero_grad()
        log_prob_B = prior.log_prob(codes, condition, lengths)
        log_prob_B.sum().backward()
        return log_prob_B.detach(), [weight.grad.clone() for weight in prior.parameters()]

    expected_B, expected_gradients = result(codes)
    beyond = torch.arange(9) >= lengths[:, None, None]
    for padding in (0, 4, -1, 10**6):
        log_prob_B, gradients = result(codes.masked_fill(beyond, padding))
        assert torch.equal(log_prob_B, expected_B)
        assert all(torch.equal(a, b) for a, b in zip(gradients, expected_gradients, strict=True))
    for index, length in enumerate(lengths.tolist()):  # nor does the length of the others
        alone_B = prior.log_prob(codes[index : index + 1, :, :length], condition[index : index + 1])
        torch.testing.assert_close(alone_B.detach(), expected_B[index : index + 1], rtol=0, atol=1e-5)


def test_every_weight_is_used() -> None:
    prior = build(codebooks=2, classes=(3, 2))
    condition = torch.tensor([[0, 0], [1, 1], [2, 0]] * 10)
    prior.log_prob(random_codes(prior, 30), condition, torch.arange(30) % 9 + 1).sum().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).any(), name


@pytest.mark.parametrize("codebooks", [1, 4])
def test_an_untrained_prior_costs_log_k_and_expects_long_sequences(codebooks: int) -> None:
    torch.manual_seed(0)
    prior = WaveNet(codebook_size=512, max_length=100, codebooks=codebooks, classes=(10,), layers_per_block=6)
    with torch.no_grad():
        parts = prior.log_prob_parts(random_codes(prior, 4, 60), torch.tensor([[0], [3], [5], [9]]))
    assert (-parts.codes / (60 * codebooks) - math.log(512)).abs().max() < 0.05
    # 59 times on and once an end of probability 1/100.
    assert (-parts.end - (60 / 100 + math.log(100))).abs().max() < 0.8


def test_codes_of_many_conditions_are_those_of_each_alone() -> None:
    prior = build(codebooks=2, classes=(3,))
    contract: Prior = prior
    codes, lengths = random_codes(prior, 4), torch.tensor([1, 4, 8, 9])
    conditions = [torch.full((4, 1), label) for label in range(3)]
    padded = codes.masked_fill(torch.arange(9) >= lengths[:, None, None], -1)
    with torch.no_grad():
        found = list(contract.log_probs_by_code(padded, conditions, lengths))
        for by_code, condition in zip(found, conditions, strict=True):
            expected_BGT = prior(codes, condition)[0].log_softmax(-1).gather(-1, codes[..., None])[..., 0]
            expected_BGT[torch.arange(9).expand(4, 2, 9) >= lengths[:, None, None]] = 0
            torch.testing.assert_close(by_code.codes, expected_BGT, rtol=0, atol=1e-5)
            parts = prior.log_prob_parts(codes, condition, lengths)
            assert torch.equal(by_code.codes.sum(dim=(1, 2)), parts.codes)
            assert torch.equal(by_code.end.sum(dim=1), parts.end)


NOISE = torch.tensor([0.75, 0.2, 0.05])
END = torch.tensor([0.2, 0.8])
ENTROPIES = tuple(-(chances * chances.log2()).sum().item() for chances in (NOISE, END))


def chain(items: int, *, codebooks: int, seed: int) -> tuple[Tensor, Tensor]:
    """A Markov chain mod 3 with geometric length from 1 to 12: codes and lengths.

    Code 0 of a position is (code 0 before + noise) mod 3, with 0 before the first, and code g is (code g - 1 + noise)
    mod 3. After every position but the 12th the sequence ends with chance 1/5. So a code costs the entropy of the
    noise, and a decision that of the chance.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.multinomial(NOISE, items * codebooks * 12, replacement=True, generator=generator)
    codes = noise.view(items, codebooks, 12).cumsum(dim=1)
    for t in range(1, 12):
        codes[:, :, t] += codes[:, :1, t - 1]
    ends = torch.rand(items, 11, generator=generator) < END[0]
    return codes % 3, torch.where(ends.any(dim=1), ends.int().argmax(dim=1) + 1, 12)


def source_bits(codes: Tensor, lengths: Tensor) -> tuple[float, float]:
    """Bits per code and per decision of these very items under the chain itself."""
    before = torch.cat([F.pad(codes[:, :1, :-1], (1, 0)), codes[:, :-1]], dim=1)
    cost = -NOISE.log2()[(codes - before) % 3]
    inside = torch.arange(codes.shape[2]) < lengths[:, None, None]
    ended = (lengths < 12).float().sum() / lengths.clamp(max=11).sum()
    cost_per_decision = -(ended * END[0].log2() + (1 - ended) * END[1].log2())
    return cost.where(inside, 0).sum().item() / (lengths.sum().item() * codes.shape[1]), cost_per_decision.item()


def fit(prior: WaveNet, codes: Tensor, condition: Tensor | None, lengths: Tensor, *, steps: int) -> None:
    optimiser = torch.optim.Adam(prior.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = torch.randint(len(codes), (64,), generator=generator)
        loss = -prior.log_prob(codes[batch], None if condition is None else condition[batch], lengths[batch]).sum()
        optimiser.zero_grad()
        (loss / lengths[batch].sum()).backward()
        optimiser.step()
        schedule.step()
    prior.eval()


def bits_spent(prior: WaveNet, codes: Tensor, condition: Tensor | None, lengths: Tensor) -> tuple[float, float]:
    """Bits per code and per decision that the prior spends."""
    with torch.no_grad():
        parts = prior.log_prob_parts(codes, condition, lengths)
    decisions = lengths.clamp(max=prior.max_length - 1).sum().item()
    bits = [-part.double().sum().item() / math.log(2) for part in (parts.codes, parts.end)]
    return bits[0] / (lengths.sum().item() * codes.shape[1]), bits[1] / decisions


@pytest.mark.parametrize("codebooks", [1, 2])
def test_a_fitted_prior_reaches_the_entropy_of_codes_and_length(codebooks: int) -> None:
    codes, lengths = chain(8192, codebooks=codebooks, seed=0)
    torch.manual_seed(0)
    prior = WaveNet(codebook_size=3, max_length=12, codebooks=codebooks, channels=8, blocks=1, layers_per_block=3)
    fit(prior, codes, None, lengths, steps=300)
    codes, lengths = chain(8192, codebooks=codebooks, seed=1)
    spent = bits_spent(prior, codes, None, lengths)
    assert spent == pytest.approx(source_bits(codes, lengths), abs=0.01)
    assert spent == pytest.approx(ENTROPIES, abs=0.03)  # these items' luck included


def test_one_prior_with_label_dropout_learns_conditional_and_marginal() -> None:
    """One position or two: label y begins with code 0 or 1 + y with chance 1/2 each, and only label 1 may go on.

    Where it goes on (chance 1/2) the second code repeats the first.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (4096,), generator=generator)
    codes = torch.randint(2, (4096,), generator=generator) * (1 + labels)
    lengths = 1 + labels * torch.randint(2, (4096,), generator=generator)
    torch.manual_seed(0)
    prior = WaveNet(
        codebook_size=3, max_length=2, classes=(2,), channels=8, blocks=1, layers_per_block=1, label_dropout=0.3
    )
    fit(prior, codes[:, None, None].expand(-1, 1, 2), labels[:, None], lengths, steps=250)
    sequences, sequence_lengths = all_sequences(prior)
    names = [tuple(c[0, :n].tolist()) for c, n in zip(sequences, sequence_lengths.tolist(), strict=True)]
    given: list[dict[tuple[int, ...], float]] = [
        {(0,): 0.5, (1,): 0.5},
        {(0,): 0.25, (2,): 0.25, (0, 0): 0.25, (2, 2): 0.25},
    ]
    masses = torch.tensor([[law.get(name, 0.0) for name in names] for law in given])
    with torch.no_grad():
        for expected, label in [(masses[0], 0), (masses[1], 1), (masses.mean(dim=0), None)]:
            condition = None if label is None else torch.full((len(names), 1), label)
            learned = prior.log_prob(sequences, condition, sequence_lengths).exp()
            assert (learned - expected).abs().sum() / 2 < 0.06, label


def test_label_dropout_hides_that_share_of_labels_in_training_and_none_in_use() -> None:
    prior = build(classes=(3, 2), label_dropout=0.25)
    codes = random_codes(prior, 1).expand(2000, -1, -1)
    condition = torch.tensor([[2, 1]]).expand(2000, -1)
    with torch.no_grad():
        shown, hidden = prior.log_prob(codes[:1], condition[:1]), prior.log_prob(codes[:1])
        torch.testing.assert_close(prior.log_prob(codes, condition), shown.expand(2000))
        prior.train()
        torch.manual_seed(3)
        log_prob_B = prior.log_prob(codes, condition)
        torch.testing.assert_close(prior.log_prob(codes), hidden.expand(2000))
        logits_BK, _ = prior.step(prior.initial_state(2000, condition), None)
    assert (logits_BK == logits_BK[0]).all()
    assert (shown - hidden).abs().item() > 0.5
    is_hidden_B = (log_prob_B - hidden).abs() < 1e-3
    # The two attributes go together: an item shows both or none.
    assert torch.equal(is_hidden_B, (log_prob_B - shown).abs() > 1e-3)
    assert is_hidden_B.float().mean().item() == pytest.approx(0.25, abs=0.04)


def test_log_prob_is_summed_in_single_precision_whatever_the_layers_use() -> None:
    prior = build()
    codes_BGT, lengths_B = random_codes(prior, 2), torch.tensor([9, 5])
    with torch.no_grad():
        expected_B = prior.log_prob(codes_BGT, None, lengths_B)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast_B = prior.log_prob(codes_BGT, None, lengths_B)
        half_B = prior.bfloat16().log_prob(codes_BGT, None, lengths_B)
    for log_prob_B in (autocast_B, half_B):
        assert log_prob_B.dtype == torch.float32
        torch.testing.assert_close(log_prob_B, expected_B, rtol=0.03, atol=0)


def test_what_does_not_fit_is_refused() -> None:
    prior = build(codebooks=2, classes=(3,))
    codes, condition = random_codes(prior, 2), torch.tensor([[0], [2]])
    with pytest.raises(UsageError, match=r"codes of shape \[B, 2, 1 to 9\].*got \[2, 1, 9\]"):
        prior.log_prob(codes[:, :1], condition)
    with pytest.raises(UsageError, match=r"codes of shape .*got \[2, 2, 10\]"):
        prior.log_prob(F.pad(codes, (0, 1)), condition)
    with pytest.raises(UsageError, match=r"type int64, got .*torch\.int32"):
        prior.log_prob(codes.int(), condition)
    with pytest.raises(UsageError, match="Expected codes 0 to 4, got 5"):
        prior.log_prob(codes - codes.max() + 5, condition)
    with pytest.raises(UsageError, match=r"Expected lengths 1 to 9, .* got 0"):
        prior.log_prob(codes, condition, torch.tensor([3, 0]))
    with pytest.raises(UsageError, match=r"Expected lengths 1 to 9, .* got 10"):
        prior.log_prob(codes, condition, torch.tensor([10, 3]))
    with pytest.raises(UsageError, match=r"lengths of shape \[2\].*got \[1\]"):
        prior.log_prob(codes, condition, torch.tensor([3]))
    with pytest.raises(UsageError, match=r"condition of shape \[2, 1\].*got none"):
        prior.log_prob(codes)
    with pytest.raises(UsageError, match=r"classes 0 to 2 for attribute 0.*got 3"):
        prior.initial_state(2, torch.tensor([[0], [3]]))
    with pytest.raises(UsageError, match="label_dropout of at least 0 and below 1, got 1"):
        build(classes=(3,), label_dropout=1.0)
    with pytest.raises(UsageError, match="of at least 1, got 0"):
        WaveNet(codebook_size=0, max_length=3)


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
