"""Causal attention against a plain loop, by gradient, one position at a time, compiled, and without a square matrix."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from twostage.errors import UsageError
from twostage.layers.attention import AttentionBlocks, CausalAttention, CausalAttentionState, places


def build(*, axes: int = 2, dropout: float = 0.0) -> CausalAttention:
    torch.manual_seed(0)
    block = CausalAttention(6, axes=axes, heads=2, head_channels=3, dropout=dropout).double()
    torch.nn.init.normal_(block.norm.weight)
    torch.nn.init.normal_(block.norm.bias)
    torch.nn.init.normal_(block.output.weight)
    return block


def slow(block: CausalAttention, x_NC: Tensor, width: int) -> Tensor:
    """Reference for one item: a loop over positions and heads, with sinusoids written out."""
    wavelengths = [10_000 ** (wave / 16) for wave in range(16)]
    queries, keys, values = [], [], []
    for n, x_C in enumerate(x_NC):
        normed = (x_C - x_C.mean()) / (x_C.var(correction=0) + 1e-5).sqrt() * block.norm.weight + block.norm.bias
        place: list[float] = []
        for coordinate in divmod(n, width) if width else (n,):
            place += [math.sin(coordinate / length) for length in wavelengths]
            place += [math.cos(coordinate / length) for length in wavelengths]
        query, key, value = (block.inputs.weight @ normed).chunk(3)
        query_place, key_place = (block.place.weight @ torch.tensor(place, dtype=torch.float64)).chunk(2)
        queries.append((query + query_place).chunk(2))
        keys.append((key + key_place).chunk(2))
        values.append(value.chunk(2))
    out = []
    for n in range(len(x_NC)):
        heads = []
        for head in range(2):
            scores = torch.stack([queries[n][head] @ keys[j][head] for j in range(n + 1)]) / math.sqrt(3)
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(weight * values[j][head] for j, weight in enumerate(weights)))
        out.append(block.output.weight @ torch.cat(heads))
    return torch.stack(out)


@pytest.mark.parametrize("width", [0, 4])
def test_block_equals_a_loop_over_positions_and_heads(width: int) -> None:
    block = build(axes=2 if width else 1)
    x_BNC = torch.randn(2, 12, 6, dtype=torch.float64)
    expected = torch.stack([slow(block, x_NC, width) for x_NC in x_BNC])
    assert expected.std() > 0.5
    torch.testing.assert_close(block(x_BNC, width=width), expected, rtol=0, atol=1e-6)  # sinusoids are fp32


def test_a_position_sees_itself_and_those_before_it() -> None:
    block = build()
    x_BNC = torch.randn(1, 12, 6, dtype=torch.float64, requires_grad=True)
    out_BNC = block(x_BNC, width=4)
    for n in range(12):
        (gradient,) = torch.autograd.grad(out_BNC[0, n].square().sum(), x_BNC, retain_graph=True)
        assert torch.equal(gradient[0].abs().sum(-1) > 0, torch.arange(12) <= n)


@pytest.mark.parametrize(("width", "length"), [(0, 150), (11, 77)])
def test_walk_equals_the_whole_pass_beyond_its_first_room(width: int, length: int) -> None:
    block = build(axes=2 if width else 1, dropout=0.5)
    x_BNC = torch.randn(3, length, 6, dtype=torch.float64)
    expected_BNC = x_BNC + block.eval()(x_BNC, width=width)
    state = CausalAttentionState(block.train(), batch_size=3, width=width)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(1.0)  # the state keeps the weights it was made with
    for n in range(length):
        x_BC = x_BNC[:, n].clone()
        state.advance(x_BC, n)
        torch.testing.assert_close(x_BC, expected_BNC[:, n], rtol=0, atol=1e-10)


def test_order_counts() -> None:
    """Without places the last position could not tell the order of those before it."""
    block = build(axes=1)
    x_BNC = torch.randn(1, 5, 6, dtype=torch.float64)
    turned = x_BNC[:, [3, 2, 1, 0, 4]]
    assert (block(x_BNC)[0, -1] - block(turned)[0, -1]).abs().max() > 1e-3
    with torch.no_grad():
        block.place.weight.zero_()
    torch.testing.assert_close(block(x_BNC)[0, -1], block(turned)[0, -1])


def test_every_place_of_a_grid_is_told_apart() -> None:
    places_NP = places(torch.arange(32 * 32), 32)
    assert places_NP.shape == (1024, 64)
    distances = torch.cdist(places_NP, places_NP) + torch.eye(1024) * 100
    assert distances.min() > 0.5


def test_no_matrix_of_all_pairs_is_made() -> None:
    """A grid of 32 x 32 has a million pairs; the fused kernel, forward and backward, keeps none of them."""
    block = CausalAttention(16, axes=2, heads=4, head_channels=8, dropout=0.1)
    x_BNC = torch.randn(2, 1024, 16, requires_grad=True)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # an error where it cannot be used
        block(x_BNC, width=32).sum().backward()
    assert x_BNC.grad is not None


def test_dropout_drops_outputs_in_training_alone() -> None:
    block = build(dropout=0.5)
    x_BNC = torch.randn(1, 12, 6, dtype=torch.float64)
    assert 0.2 < (block(x_BNC, width=4) == 0).double().mean() < 0.8
    assert (block.eval()(x_BNC, width=4) != 0).all()


def test_half_precision_and_autocast_stay_near() -> None:
    block = build().float()
    x_BNC = torch.randn(2, 12, 6)
    with torch.no_grad():
        expected = block(x_BNC, width=4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            autocast = block(x_BNC, width=4)
        half = block(x_BNC.bfloat16(), width=4)
    assert half.dtype == torch.bfloat16
    for found in (autocast, half):
        torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.1)


def test_one_graph_is_compiled() -> None:
    block = build()
    x_BNC = torch.randn(2, 12, 6, dtype=torch.float64)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x_BNC, width=4), block(x_BNC, width=4))


def test_blocks_stand_after_every_so_many_layers_but_not_the_last() -> None:
    def after(every: int, layers: int) -> list[str]:
        blocks = AttentionBlocks(every=every, heads=1, head_channels=2)
        return list(blocks.modules(layers=layers, channels=3, axes=1, dropout=0.0))

    assert [after(0, 1), after(1, 4), after(2, 6), after(3, 4)] == [[], ["0", "1", "2"], ["1", "3"], ["2"]]
    with pytest.raises(UsageError, match="attention_every below the 4 gated layers, got 4"):
        after(4, 4)
    with pytest.raises(UsageError, match=r"attention_every of at least 0.*got 1, 0 and 2"):
        AttentionBlocks(every=1, heads=0, head_channels=2)
