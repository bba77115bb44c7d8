"""A learned map of fixed random vectors against plain loops: codes, losses and gradients, usage, borders."""

from typing import Any

import pytest
import torch
from torch import Tensor

from stage1_vqvae.quantiser.quantiser import VectorQuantiser
from stage1_vqvae.quantiser.simvq import SimVQ
from twostage.errors import UsageError


def quantiser(**settings: Any) -> SimVQ:
    """Two codebooks of 9 vectors in 3 channels each, under a map that is not the identity."""
    torch.manual_seed(0)
    module = SimVQ(**{"embedding_dim": 6, "codebook_size": 9, "codebooks": 2, **settings})
    with torch.no_grad():
        module.map_GWW.add_(0.3 * torch.randn_like(module.map_GWW))
    return module


@torch.no_grad()
def test_codes_vectors_and_losses_equal_those_of_plain_loops() -> None:
    module = quantiser(commitment_beta=0.5)
    z_BDS = torch.randn(4, 6, 5)
    quantised = module(z_BDS)
    squared = 0.0
    for b in range(4):
        for s in range(5):
            for g in range(2):
                z_W = z_BDS[b, 3 * g : 3 * g + 3, s]
                mapped = [
                    torch.stack(
                        [sum(c * w for c, w in zip(c_W, column, strict=True)) for column in module.map_GWW[g].t()]
                    )
                    for c_W in module.codebook[g]
                ]
                distances = [float((z_W - e_W).square().sum()) for e_W in mapped]
                code = distances.index(min(distances))
                assert quantised.codes[b, g, s] == code
                torch.testing.assert_close(quantised.vectors[b, 3 * g : 3 * g + 3, s], mapped[code])
                squared += min(distances)
    assert quantised.commitment_loss.item() == pytest.approx(squared / z_BDS.numel(), rel=1e-5)
    assert module.loss(quantised).item() == pytest.approx(1.5 * squared / z_BDS.numel(), rel=1e-5)


@pytest.mark.parametrize("grid", [(), (5,), (2, 3)])
def test_lookup_gives_the_vectors_of_forward_bit_for_bit(grid: tuple[int, ...]) -> None:
    module = quantiser()
    quantised = module(torch.randn(6, 6, *grid))
    assert quantised.codes.shape == (6, 2, *grid)
    assert torch.equal(module.lookup(quantised.codes), quantised.vectors)


@pytest.mark.parametrize("gradient", ["straight-through", "rotation"])
def test_it_is_the_vector_quantiser_on_the_mapped_codebook(gradient: Any) -> None:
    """And the map's gradient is that of its codebook, led on by the chain rule; C itself has none."""
    module = quantiser(gradient=gradient)
    vq = VectorQuantiser(embedding_dim=6, codebook_size=9, codebooks=2, update="loss", gradient=gradient)
    with torch.no_grad():
        vq.codebook.copy_(module.vectors())
    z_BDS, weights, grads = torch.randn(4, 6, 5), torch.randn(4, 6, 5), []
    for each in (module, vq):
        own_BDS = z_BDS.clone().requires_grad_()
        quantised = each(own_BDS)
        ((quantised.vectors * weights).sum() + each.loss(quantised)).backward()
        grads.append(own_BDS.grad)
    torch.testing.assert_close(grads[0], grads[1])
    assert vq.codebook.grad is not None
    torch.testing.assert_close(module.map_GWW.grad, module.codebook.mT @ vq.codebook.grad)
    assert [name for name, _ in module.named_parameters()] == ["map_GWW"]
    assert sorted(module.state_dict()) == ["codebook", "map_GWW"]


def test_the_reconstruction_gradient_does_not_reach_the_map() -> None:
    module = quantiser()
    module(torch.randn(5, 6, requires_grad=True)).vectors.square().sum().backward()
    assert module.map_GWW.grad is None


def _used_after_training(module: SimVQ | VectorQuantiser, z_ND: Tensor) -> int:
    optimiser = torch.optim.Adam(module.parameters(), 0.03)
    for _ in range(150):
        optimiser.zero_grad()
        module(z_ND).codebook_loss.backward()
        optimiser.step()
    return len(module(z_ND).codes.unique())


def test_the_map_takes_all_codes_to_the_data_where_single_vectors_are_left_behind() -> None:
    """Data in a small part of where the random vectors lie: a codebook that moves only what is nearest uses 2 codes."""
    torch.manual_seed(0)
    z_ND = 0.05 * torch.randn(500, 4)
    simvq = SimVQ(embedding_dim=4, codebook_size=64)
    single = VectorQuantiser(embedding_dim=4, codebook_size=64, update="loss", revival_threshold=0.0)
    with torch.no_grad():
        single.codebook.copy_(simvq.vectors())
    used = _used_after_training(simvq, z_ND)
    assert used > 40
    assert _used_after_training(single, z_ND) < 10


def test_updates_measure_the_batch_and_change_nothing() -> None:
    module = quantiser()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.initialise(torch.randn(50, 6), seed=0)
    first, second = (module(torch.randn(40, 6)).statistics for _ in range(2))
    assert first.counts_GK.sum(1).tolist() == [40, 40]
    update = module.update(first + second)
    shares = (first.counts_GK + second.counts_GK) / 80
    assert update.perplexity.item() == pytest.approx(float(torch.special.entr(shares).sum(1).mean().exp()))
    assert not update.revived.any()
    assert module.eval()(torch.randn(3, 6)).statistics is None
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_low_precision_encoder_gets_the_codes_of_its_exact_values_and_an_empty_batch_works() -> None:
    module = quantiser()
    z_BDS = torch.randn(4, 6, 20).bfloat16()
    expected = module(z_BDS.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantised = module(z_BDS)
    assert torch.equal(quantised.codes, expected.codes)
    empty = module(torch.zeros(0, 6, 3))
    assert (empty.vectors.shape, empty.codes.shape) == ((0, 6, 3), (0, 2, 3))
    assert module.loss(empty).item() == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codebooks": 4}, "codebooks divides"),
        ({"codebook_size": 0}, "codebook_size"),
        ({"gradient": "x"}, "'straight-through' or"),
        ({"commitment_beta": -1.0}, "commitment_beta"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantiser(**settings)


def test_wrong_channels_and_codes_are_refused_with_both_numbers() -> None:
    with pytest.raises(UsageError, match=r"6 channels.*\(2, 5, 3\)"):
        quantiser()(torch.zeros(2, 5, 3))
    with pytest.raises(UsageError, match="0 to 8"):
        quantiser().lookup(torch.full((1, 2), 9))
