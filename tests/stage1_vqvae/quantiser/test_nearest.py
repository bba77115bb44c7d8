"""Nearest code against numpy in float64, near-ties explained."""

import numpy as np
import pytest
import torch
from torch import Tensor

from stage1_vqvae.quantiser.nearest import nearest_codes, sum_by_code


def squared_distances(z_ND: Tensor, codebook_KD: Tensor) -> np.ndarray:
    """The definition, in float64 and with the N x K x D tensor that the product avoids."""
    differences_NKD = z_ND.double().numpy()[:, None] - codebook_KD.double().numpy()[None]
    return np.square(differences_NKD).sum(axis=2)


@pytest.mark.parametrize(("codebook_size", "channels"), [(1, 3), (37, 5), (512, 16)])
def test_agrees_with_float64_brute_force(codebook_size: int, channels: int) -> None:
    torch.manual_seed(0)
    z_ND, codebook_KD = torch.randn(2501, channels), torch.randn(codebook_size, channels)
    distances_NK = squared_distances(z_ND, codebook_KD)
    chosen_N = np.take_along_axis(distances_NK, nearest_codes(z_ND, codebook_KD).numpy()[:, None], axis=1)[:, 0]
    # A score carries about D * 2^-24 relative error, so only codes nearer to one another than that may be exchanged.
    np.testing.assert_allclose(chosen_N, distances_NK.min(axis=1), rtol=0, atol=1e-5)


def test_several_chunks_give_the_codes_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    z_ND, codebook_KD = torch.randn(103, 4), torch.randn(10, 4)
    whole_N = nearest_codes(z_ND, codebook_KD)
    monkeypatch.setattr("stage1_vqvae.quantiser.nearest._CPU_ROWS", 1)
    monkeypatch.setattr("stage1_vqvae.quantiser.nearest._CPU_SCORES", 70)  # chunks of 7 rows, the last of 5
    assert torch.equal(nearest_codes(z_ND, codebook_KD), whole_N)


def test_vectors_far_from_the_origin_keep_their_codes() -> None:
    """Offset 1000, spread 1: without centring, fp32 scores of about 1e6 are rounded to steps of 0.06 and codes flip."""
    torch.manual_seed(0)
    codebook_KD = torch.randn(64, 8) + 1000
    z_ND = codebook_KD.repeat(20, 1) + 0.1 * torch.randn(1280, 8)
    distances_NK = squared_distances(z_ND, codebook_KD)
    chosen_N = np.take_along_axis(distances_NK, nearest_codes(z_ND, codebook_KD).numpy()[:, None], axis=1)[:, 0]
    # what is left is the rounding of 2 z.e' at |z| = 1000 sqrt(8): 2^-24 * 2 * 2800 * 3, several terms
    np.testing.assert_allclose(chosen_N, distances_NK.min(axis=1), rtol=0, atol=5e-3)


def test_an_exact_tie_goes_to_the_lowest_index() -> None:
    codebook_KD = torch.tensor([[5.0, 5.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert nearest_codes(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), codebook_KD).tolist() == [1, 1]


def test_autocast_does_not_reach_the_search() -> None:
    torch.manual_seed(0)
    z_ND, codebook_KD = torch.randn(2000, 16), torch.randn(512, 16)
    expected_N = nearest_codes(z_ND, codebook_KD)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (z_ND @ codebook_KD.t()).dtype == torch.bfloat16  # the region is live
        assert torch.equal(nearest_codes(z_ND, codebook_KD), expected_N)


def test_sums_by_code_equal_a_plain_loop() -> None:
    torch.manual_seed(0)
    vectors_ND, codes_N = torch.randn(50, 3), torch.randint(0, 7, (50,))
    codes_N[codes_N == 4] = 0
    expected_KD = torch.zeros(7, 3)
    for vector_D, code in zip(vectors_ND, codes_N.tolist(), strict=True):
        expected_KD[code] += vector_D
    torch.testing.assert_close(sum_by_code(vectors_ND, codes_N, 7), expected_KD)
    assert sum_by_code(vectors_ND[:0], codes_N[:0], 7).abs().sum() == 0
