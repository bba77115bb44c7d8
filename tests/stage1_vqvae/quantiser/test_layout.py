"""The two layouts of a batch: by-hand order, inverses, gradients, and replacement against the plain formula."""

import pytest
import torch

from stage1_vqvae.quantiser.layout import Join, Split, replace

# Small items are copied together, those of 3600 elements and more one by one; more than 1024 rows come in parts.
SHAPES = ((3, 4, 5), (70, 6, 7, 7), (2, 64, 8, 8), (5, 128, 600), (2, 8), (0, 4, 3), (3, 4, 0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("codebooks", [1, 2])
def test_split_is_the_permutation_and_join_its_inverse(shape: tuple[int, ...], codebooks: int) -> None:
    z_BDS = torch.randn(shape)
    z_GND = Split.apply(z_BDS, codebooks)
    expected_NGW = z_BDS.flatten(2).movedim(1, -1) if z_BDS.ndim > 2 else z_BDS
    expected_NGW = expected_NGW.reshape(z_GND.shape[1], codebooks, shape[1] // codebooks)
    assert torch.equal(z_GND, expected_NGW.transpose(0, 1))
    assert torch.equal(Join.apply(z_GND, z_BDS.shape), z_BDS)


def test_layouts_of_memory_do_not_matter() -> None:
    z_BDS = torch.randn(3, 64, 8, 8)
    expected = Split.apply(z_BDS, 2)
    assert torch.equal(Split.apply(z_BDS.to(memory_format=torch.channels_last), 2), expected)
    joined = Join.apply(expected.mT.contiguous().mT, z_BDS.shape)
    assert joined.is_contiguous()
    assert torch.equal(joined, z_BDS)


def test_gradients_are_the_inverse_permutations() -> None:
    z_BDS = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    e_GND = torch.randn(2, 12, 2, dtype=torch.float64, requires_grad=True)
    for function, inputs in ((Split.apply, (z_BDS, 2)), (Join.apply, (e_GND, z_BDS.shape))):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("codebooks", [1, 2])
def test_replaced_vectors_are_those_of_the_codes_and_the_error_is_their_distance(
    shape: tuple[int, ...], codebooks: int
) -> None:
    z_GND = Split.apply(torch.randn(shape), codebooks)
    codebook_GKD = torch.randn(codebooks, 11, shape[1] // codebooks)
    codes_GN = torch.randint(11, z_GND.shape[:2])
    e_BDS, squared = replace(z_GND, codes_GN, codebook_GKD, torch.Size(shape))
    e_GND = torch.stack([codebook_GKD[g][codes_GN[g]] for g in range(codebooks)])
    assert torch.equal(e_BDS, Join.apply(e_GND, e_BDS.shape))
    torch.testing.assert_close(squared.double(), (e_GND - z_GND).double().square().sum(), rtol=1e-6, atol=0)
