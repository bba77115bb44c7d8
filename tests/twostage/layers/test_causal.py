"""Causal convolutions against plain loops; the gated stack's field of view by gradient; one position at a time."""

import pytest
import torch
from torch import Tensor

from twostage.errors import UsageError
from twostage.layers.causal import GatedStack, HorizontalConv, VerticalConv
from twostage.layers.causal_step import GatedStackState


def loop_conv(x_BCHW: Tensor, weight_OCRk: Tensor, bias_O: Tensor, offsets: list[list[tuple[int, int]]]) -> Tensor:
    """Reference: out[h, w] = bias + sum over taps of weight[:, :, i, j] @ x[h + dh, w + dw], zero outside the grid."""
    _, _, height, width = x_BCHW.shape
    out = torch.zeros(x_BCHW.shape[0], weight_OCRk.shape[0], height, width, dtype=x_BCHW.dtype) + bias_O[:, None, None]
    for h in range(height):
        for w in range(width):
            for i, row in enumerate(offsets):
                for j, (dh, dw) in enumerate(row):
                    if 0 <= h + dh < height and 0 <= w + dw < width:
                        out[:, :, h, w] += x_BCHW[:, :, h + dh, w + dw] @ weight_OCRk[:, :, i, j].T
    return out


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("shifted", [False, True])
def test_convolutions_take_exactly_the_taps_they_promise(kernel: int, shifted: bool) -> None:
    torch.manual_seed(0)
    x_BCHW = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    half, side = (kernel + 1) // 2, kernel // 2
    vertical = VerticalConv(3, 4, kernel=kernel, shifted=shifted).double()
    offsets = [[(i - half + 1 - shifted, j - side) for j in range(kernel)] for i in range(half)]
    expected = loop_conv(x_BCHW, vertical.conv.weight, vertical.conv.bias, offsets)
    torch.testing.assert_close(vertical(x_BCHW), expected, rtol=1e-12, atol=1e-12)

    horizontal = HorizontalConv(3, 4, kernel=kernel, shifted=shifted).double()
    offsets = [[(0, j - half + 1 - shifted) for j in range(half)]]
    expected = loop_conv(x_BCHW, horizontal.conv.weight, horizontal.conv.bias, offsets)
    torch.testing.assert_close(horizontal(x_BCHW), expected, rtol=1e-12, atol=1e-12)


def field_of_view(h: int, w: int, *, grid: tuple[int, int], layers: int, first_kernel: int, kernel: int) -> Tensor:
    """Reference: the positions that the stack's documentation says feature (h, w) sees, bool [H, W]."""
    reach = (first_kernel + 1) // 2 + (layers - 1) * (kernel // 2)
    side = first_kernel // 2 + (layers - 1) * (kernel // 2)
    seen = torch.zeros(grid, dtype=torch.bool)
    for row in range(grid[0]):
        for column in range(grid[1]):
            if row == h:
                seen[row, column] = w - reach <= column < w
            elif row < h:
                seen[row, column] = h - row <= reach and abs(column - w) <= side
    return seen


@pytest.mark.parametrize(("layers", "first_kernel", "kernel"), [(1, 3, 3), (1, 7, 3), (3, 3, 3), (2, 5, 5), (3, 1, 3)])
def test_stack_sees_its_field_of_view_and_nothing_else(layers: int, first_kernel: int, kernel: int) -> None:
    torch.manual_seed(1)
    grid = (9, 10)
    stack = GatedStack(
        channels=4, skip_channels=3, layers=layers, first_kernel=first_kernel, kernel=kernel, dropout=0.0
    ).double()
    x_BCHW = torch.randn(1, 4, *grid, dtype=torch.float64, requires_grad=True)
    features_BSHW = stack(x_BCHW)
    # Corners, edges and the interior; from the interior the field covers the blind spot of stacked masked kernels
    # (to the right, two and more rows above).
    for h, w in [(0, 0), (0, 9), (8, 0), (8, 9), (0, 5), (4, 0), (4, 9), (8, 5), (5, 4), (7, 3)]:
        (gradient,) = torch.autograd.grad(features_BSHW[0, :, h, w].square().sum(), x_BCHW, retain_graph=True)
        expected = field_of_view(h, w, grid=grid, layers=layers, first_kernel=first_kernel, kernel=kernel)
        assert torch.equal(gradient[0].abs().sum(dim=0) > 0, expected), f"position {(h, w)}"


def masked_kernel_view(h: int, w: int, *, grid: tuple[int, int], layers: int) -> Tensor:
    """Reference: what feature (h, w) of a stack of masked 3x3 kernels sees, bool [H, W]; it has the blind spot."""
    before = {(-1, -1), (-1, 0), (-1, 1), (0, -1)}
    seen = {(h, w)}
    for layer in range(layers):
        taps = before | ({(0, 0)} if layer else set())
        seen = {(row + dh, column + dw) for row, column in seen for dh, dw in taps}
    view = torch.zeros(grid, dtype=torch.bool)
    for row, column in seen:
        if 0 <= row < grid[0] and 0 <= column < grid[1]:
            view[row, column] = True
    return view


def test_stack_sees_the_blind_spot_of_masked_kernels() -> None:
    torch.manual_seed(4)
    grid, h, w = (9, 12), 6, 4
    stack = GatedStack(channels=4, skip_channels=3, layers=3, first_kernel=3, kernel=3, dropout=0.0).double()
    x_BCHW = torch.randn(1, 4, *grid, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(stack(x_BCHW)[0, :, h, w].square().sum(), x_BCHW)
    seen = gradient[0].abs().sum(dim=0) > 0
    square = torch.zeros(grid, dtype=torch.bool)
    square[h - 3 : h, w : w + 4] = True
    blind = square & ~masked_kernel_view(h, w, grid=grid, layers=3)
    # Each masked kernel on the way goes one row up for every column to the right: more columns than rows are blind.
    assert blind.nonzero().tolist() == [[h - 2, w + 3], [h - 1, w + 2], [h - 1, w + 3]]
    assert seen[blind].all()


@pytest.mark.parametrize("grid", [(4, 5), (1, 6), (6, 1)])
@pytest.mark.parametrize(("biased", "mapped"), [(True, False), (False, True), (True, True)])
def test_walk_equals_forward(grid: tuple[int, int], biased: bool, mapped: bool) -> None:
    torch.manual_seed(2)
    stack = GatedStack(channels=4, skip_channels=3, layers=3, first_kernel=5, kernel=3, dropout=0.0).double()
    x_BCHW = torch.randn(2, 4, *grid, dtype=torch.float64)
    bias_BLD = torch.randn(2, 3, 16, dtype=torch.float64) if biased else None
    map_BDHW = torch.randn(2, 16, *grid, dtype=torch.float64) if mapped else None
    expected_BSX = stack(x_BCHW, bias_BLD, map_BDHW).flatten(2)
    state = GatedStackState(stack, batch_size=2, grid=grid, bias_BLD=bias_BLD, map_BDHW=map_BDHW)
    x_BCX = x_BCHW.flatten(2)
    for position in range(grid[0] * grid[1]):
        features_BS = state.advance(x_BCX[:, :, position - 1] if position else None)
        torch.testing.assert_close(features_BS, expected_BSX[:, :, position], rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="at most"):
        state.advance(x_BCX[:, :, -1])


def test_map_reaches_its_own_position_and_the_ones_that_see_it() -> None:
    """The condition is known beforehand: the feature at a position may depend on the map at that very position."""
    torch.manual_seed(3)
    stack = GatedStack(channels=4, skip_channels=3, layers=2, first_kernel=3, kernel=3, dropout=0.0).double()
    map_BDHW = torch.zeros(1, 16, 5, 6, dtype=torch.float64, requires_grad=True)
    features_BSHW = stack(torch.randn(1, 4, 5, 6, dtype=torch.float64), None, map_BDHW)
    (gradient,) = torch.autograd.grad(features_BSHW[0, :, 3, 2].square().sum(), map_BDHW)
    seen = gradient[0].abs().sum(0) > 0
    assert seen[3, 2]
    assert not seen[4].any()


def test_walk_refuses_a_missing_or_early_input() -> None:
    stack = GatedStack(channels=2, skip_channels=2, layers=1, first_kernel=3, kernel=3, dropout=0.0)
    state = GatedStackState(stack, batch_size=1, grid=(2, 2))
    with pytest.raises(ValueError, match="None before the first"):
        state.advance(torch.zeros(1, 2))
    state.advance(None)
    with pytest.raises(ValueError, match="an input before every other"):
        state.advance(None)


def test_even_kernels_and_empty_stacks_are_refused() -> None:
    with pytest.raises(UsageError, match=r"odd kernel side.*got 4"):
        GatedStack(channels=2, skip_channels=2, layers=2, first_kernel=4, kernel=3, dropout=0.0)
    with pytest.raises(UsageError, match="at least 1 gated layer, got 0"):
        GatedStack(channels=2, skip_channels=2, layers=0, first_kernel=3, kernel=3, dropout=0.0)
