"""The dilated stack against plain loops, its field of view by gradient, and one position at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor

from twostage.errors import UsageError
from twostage.layers.dilated import DilatedLayer, DilatedStack
from twostage.layers.dilated_step import DilatedStackState

# Blocks, layers per block, kernel: one layer, several blocks, a first layer that is also the longest, three taps.
ARRANGEMENTS = [(1, 1, 2), (1, 1, 3), (1, 4, 2), (2, 3, 2), (3, 1, 2), (2, 2, 3), (1, 3, 3), (2, 4, 3)]


def build(blocks: int, layers_per_block: int, kernel: int, **changes: Any) -> DilatedStack:
    torch.manual_seed(0)
    arguments = {"channels": 4, "skip_channels": 3, "blocks": blocks, "layers_per_block": layers_per_block}
    return DilatedStack(**(arguments | changes), kernel=kernel).double()


def inputs(stack: DilatedStack, *, items: int, positions: int) -> dict[str, Tensor]:
    """Input, biases and, where the stack takes one, a condition by position."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    values = {"x_BCT": normal(items, 4, positions), "bias_BLD": normal(items, len(stack.layers), 8)}
    if stack.condition_channels:
        values["condition_BFX"] = normal(items, stack.condition_channels, positions)
    return values


def loop_forward(stack: DilatedStack, x_BCT: Tensor, bias_BLD: Tensor, condition_BFX: Tensor | None = None) -> Tensor:
    """Reference: equation 2 written out for one position, layer and tap at a time."""
    items, channels, positions = x_BCT.shape
    lines = [torch.zeros(items, channels, dtype=x_BCT.dtype), *x_BCT.unbind(2)][:positions]
    features = [torch.zeros(items, 3, dtype=x_BCT.dtype) for _ in range(positions)]
    for index, layer in enumerate(stack.layers):
        assert isinstance(layer, DilatedLayer)
        weight_DkC = layer.taps.weight.view(2 * channels, -1, channels)
        above = []
        for t in range(positions):
            gate_in = layer.taps.bias + bias_BLD[:, index]
            for tap in range(weight_DkC.shape[1]):
                source = t - (weight_DkC.shape[1] - 1 - tap) * layer.dilation
                if source >= 0:
                    gate_in = gate_in + lines[source] @ weight_DkC[:, tap].T
            if condition_BFX is not None:
                gate_in = gate_in + condition_BFX[:, :, t] @ layer.condition.weight.T
            output = layer.output(torch.tanh(gate_in[:, :channels]) * torch.sigmoid(gate_in[:, channels:]))
            features[t] = features[t] + output[:, -3:]
            above.append(lines[t] + output[:, :-3] if index < len(stack.layers) - 1 else lines[t])
        lines = above
    return torch.stack(features, dim=2)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS, ids=str)
@pytest.mark.parametrize("condition_channels", [0, 5])
@pytest.mark.parametrize("positions", [1, 3, 11])  # also shorter than the longest dilation
def test_forward_equals_a_plain_loop(
    arrangement: tuple[int, int, int], condition_channels: int, positions: int
) -> None:
    stack = build(*arrangement, condition_channels=condition_channels)
    values = inputs(stack, items=2, positions=positions)
    torch.testing.assert_close(stack(**values), loop_forward(stack, **values), rtol=1e-10, atol=1e-12)


def condition_ages(blocks: int, layers_per_block: int, kernel: int) -> set[int]:
    """Reference: how far back the condition may lie that a feature sees, through the taps of the layers after it."""
    ages: set[int] = set()
    for dilation in [2**index for index in range(layers_per_block)] * blocks:
        ages = {age + tap * dilation for age in ages for tap in range(kernel)} | {0}
    return ages


@pytest.mark.parametrize("arrangement", ARRANGEMENTS, ids=str)
def test_stack_sees_its_field_of_view_and_nothing_else(arrangement: tuple[int, int, int]) -> None:
    stack = build(*arrangement, condition_channels=2)
    reach = stack.receptive_field
    blocks, layers_per_block, kernel = arrangement
    assert reach == 1 + (kernel - 1) * blocks * (2**layers_per_block - 1)
    positions = reach + 4
    values = inputs(stack, items=2, positions=positions)
    x_BCT, condition_BFX = values["x_BCT"].requires_grad_(), values["condition_BFX"].requires_grad_()
    features_BST = stack(**values)
    for t in sorted({0, 1, reach // 2, reach, reach + 1, positions - 1}):
        gradients = torch.autograd.grad(features_BST[0, :, t].square().sum(), (x_BCT, condition_BFX), retain_graph=True)
        seen_x, seen_condition = (gradient[0].abs().sum(dim=0) > 0 for gradient in gradients)
        at = torch.arange(positions)
        assert torch.equal(seen_x, (at >= t - reach) & (at < t)), f"position {t}"
        expected = {t - age for age in condition_ages(*arrangement) if age <= t}
        assert set(seen_condition.nonzero().flatten().tolist()) == expected, f"position {t}"
        assert all((gradient[1] == 0).all() for gradient in gradients)  # the other item


@pytest.mark.parametrize("arrangement", ARRANGEMENTS, ids=str)
@pytest.mark.parametrize("condition_channels", [0, 5])
@pytest.mark.parametrize("items", [1, 3])
def test_walk_equals_forward(arrangement: tuple[int, int, int], condition_channels: int, items: int) -> None:
    stack = build(*arrangement, condition_channels=condition_channels)
    # Several rounds of every ring and stretch, and no whole number of either.
    values = inputs(stack, items=items, positions=75)
    expected_BST = stack(**values)
    assert (expected_BST[:, :, 1:] - expected_BST[:, :, :-1]).abs().mean() > 0.01
    state = DilatedStackState(
        stack, batch_size=items, bias_BLD=values["bias_BLD"], condition_BFX=values.get("condition_BFX")
    )
    for t in range(75):
        features_BS = state.advance(values["x_BCT"][:, :, t - 1] if t else None)
        torch.testing.assert_close(features_BS, expected_BST[:, :, t], rtol=0, atol=1e-10)
    assert not features_BS.requires_grad
    if condition_channels:
        with pytest.raises(ValueError, match="at most 75 positions"):
            state.advance(values["x_BCT"][:, :, -1])


@pytest.mark.parametrize("hold", [3, 40])  # several vectors of the condition at once, and less than one
@pytest.mark.parametrize("items", [1, 2])
def test_a_held_condition_is_one_that_repeats(hold: int, items: int) -> None:
    positions = 4 * hold * 7
    repeating = build(2, 3, 2, condition_channels=5)
    values = inputs(repeating, items=items, positions=positions)
    condition_BFX = values.pop("condition_BFX")[:, :, ::hold]
    repeated_BFX = condition_BFX.repeat_interleave(hold, dim=2).requires_grad_()
    expected_BST = repeating(**values, condition_BFX=repeated_BFX)
    assert (expected_BST[:, :, 1:] - expected_BST[:, :, :-1]).abs().mean() > 0.01

    held = build(2, 3, 2, condition_channels=5, condition_hold=hold)
    condition_BFX.requires_grad_()
    features_BST = held(**values, condition_BFX=condition_BFX)
    torch.testing.assert_close(features_BST, expected_BST, rtol=0, atol=1e-10)
    gradients = [
        torch.autograd.grad(features.square().sum(), condition)[0]
        for features, condition in ((features_BST, condition_BFX), (expected_BST, repeated_BFX))
    ]
    torch.testing.assert_close(gradients[0], gradients[1].unflatten(2, (-1, hold)).sum(3), rtol=1e-9, atol=1e-10)

    state = DilatedStackState(held, batch_size=items, bias_BLD=values["bias_BLD"], condition_BFX=condition_BFX)
    for t in range(positions):
        features_BS = state.advance(values["x_BCT"][:, :, t - 1] if t else None)
        torch.testing.assert_close(features_BS, expected_BST[:, :, t], rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match=f"at most {positions} positions"):
        state.advance(values["x_BCT"][:, :, -1])


def test_in_mixed_precision_features_are_near_and_gradients_full() -> None:
    stack = build(2, 3, 2, condition_channels=5, condition_hold=4).float()
    values = {name: value.float() for name, value in inputs(stack, items=2, positions=64).items()}
    values["condition_BFX"] = values["condition_BFX"][:, :, ::4]
    expected_BST = stack(**values)
    with torch.autocast("cpu", torch.bfloat16):
        features_BST = stack(**values)
    assert features_BST.dtype == torch.bfloat16
    assert (features_BST - expected_BST).abs().mean() < 0.02 * expected_BST.abs().mean()
    features_BST.float().square().sum().backward()
    gradients = [parameter.grad for parameter in stack.parameters()]
    assert all(gradient is not None and gradient.dtype == torch.float32 and gradient.any() for gradient in gradients)


def test_walk_equals_forward_in_single_precision_at_full_size() -> None:
    torch.manual_seed(0)
    stack = DilatedStack(channels=64, skip_channels=128, blocks=2, layers_per_block=10)
    x_BCT = torch.randn(1, 64, 1100)
    with torch.no_grad():
        expected_BST = stack(x_BCT)
    assert expected_BST.std() > 0.5
    state = DilatedStackState(stack, batch_size=1)
    features = [state.advance(x_BCT[:, :, t - 1] if t else None) for t in range(1100)]
    torch.testing.assert_close(torch.stack(features, dim=2), expected_BST, rtol=0, atol=1e-4)


def test_walk_is_eval_mode_and_keeps_the_weights_it_was_made_with() -> None:
    stack = build(1, 3, 2, condition_channels=2, dropout=0.5)
    values = inputs(stack, items=1, positions=20)
    expected_BST = stack.eval()(**values)
    stack.train()
    assert not torch.allclose(stack(**values), expected_BST, atol=1e-2)
    state = DilatedStackState(stack, batch_size=1, bias_BLD=values["bias_BLD"], condition_BFX=values["condition_BFX"])
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter.add_(0.1)
    for t in range(20):
        features_BS = state.advance(values["x_BCT"][:, :, t - 1] if t else None)
        torch.testing.assert_close(features_BS, expected_BST[:, :, t], rtol=0, atol=1e-10)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1 block of at least 1 dilated layer, got 0 of 3"):
        build(0, 3, 2)
    with pytest.raises(UsageError, match="at least 1 block of at least 1 dilated layer, got 2 of 0"):
        build(2, 0, 2)
    with pytest.raises(UsageError, match="kernel of 2 or 3 taps for dilated layers, got 4"):
        build(1, 1, 4)
    x_BCT = torch.zeros(1, 4, 6, dtype=torch.float64)
    with pytest.raises(ValueError, match="condition of 2 channels, got 0"):
        build(1, 1, 2, condition_channels=2)(x_BCT)
    with pytest.raises(ValueError, match="condition of 0 channels, got 4"):
        DilatedStackState(build(1, 1, 2), batch_size=1, condition_BFX=x_BCT)
    with pytest.raises(ValueError, match="condition of 6 positions, got 5 of 1 each"):
        build(1, 1, 2, condition_channels=4)(x_BCT, None, x_BCT[:, :, 1:])
    with pytest.raises(ValueError, match="condition of 6 positions, got 6 of 2 each"):
        build(1, 1, 2, condition_channels=4, condition_hold=2)(x_BCT, None, x_BCT)
    state = DilatedStackState(build(1, 1, 2), batch_size=1)
    with pytest.raises(ValueError, match="None before the first"):
        state.advance(x_BCT[:, :, 0])
    state.advance(None)
    with pytest.raises(ValueError, match="an input before every other"):
        state.advance(None)
