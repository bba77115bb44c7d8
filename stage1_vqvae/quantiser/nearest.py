"""Exact nearest-vector search, the inner loop of the quantiser and of k-means.

argmin_k |z - e_k|^2 = argmin_k (|e_k|^2 - 2 z.e_k): the vectors' own norm is the same for every k and is left out, so
one `addmm` per chunk of rows gives the scores and no N x K x D tensor ever exists. Two choices that differ from the
textbook form:

- The codebook is moved by its own mean first (with e' = e - mean: scores e'.(e + mean) - 2 z.e'), which changes no
  argmin but shrinks the terms that cancel: encoder outputs often sit far from the origin compared with their spread.
- On CPU the argmin is numpy's, on the same memory: several times faster than torch's (2.6 ms against 8.8 ms for
  16 384 x 512 floats on one core with AVX-512).

Shape letters: N vectors, K codebook entries, D channels.
"""

import numpy as np
import torch
from torch import Tensor

# Scores held at once. On CPU as many as fit a second-level cache, so that the argmin reads what the product has just
# written, but never fewer than 128 rows: every product reads the whole codebook anew (with 8192 codes, 32 rows at a
# time take 1.07 to 1.2 times as long). On an accelerator large enough to hide the launches.
_CPU_SCORES = 2**18
_CPU_ROWS = 128
_ACCELERATOR_SCORES = 2**26


@torch.no_grad()
def nearest_codes(z_ND: Tensor, codebook_KD: Tensor, penalty_K: Tensor | None = None) -> Tensor:
    """Index of the nearest codebook vector (Euclidean, lowest index on a tie) of every row, int64 `[N]`.

    `penalty_K` is added to the squared distances; it costs nothing, for it goes into the bias of the product.

    The products are taken in the codebook's dtype (fp32), also inside an autocast region: in bf16 the scores of
    neighbouring codes are often equal.
    """
    with torch.autocast(device_type=z_ND.device.type, enabled=False):
        z_ND = z_ND.detach().to(codebook_KD.dtype)
        mean_D = codebook_KD.mean(dim=0)
        centred_KD = codebook_KD - mean_D
        bias_K = (centred_KD * (codebook_KD + mean_D)).sum(dim=1)
        if penalty_K is not None:
            bias_K = bias_K + penalty_K
        factor_DK = (-2.0 * centred_KD).t()
        codes_N = torch.empty(len(z_ND), dtype=torch.int64, device=z_ND.device)
        on_cpu = z_ND.device.type == "cpu"
        fewest, scores = (_CPU_ROWS, _CPU_SCORES) if on_cpu else (1, _ACCELERATOR_SCORES)
        rows = max(fewest, scores // len(codebook_KD))
        scores_RK = torch.empty(min(rows, len(z_ND)), len(codebook_KD), dtype=z_ND.dtype, device=z_ND.device)
        for start in range(0, len(z_ND), rows):
            chunk_RD = z_ND[start : start + rows]
            chunk_scores_RK = torch.addmm(bias_K, chunk_RD, factor_DK, out=scores_RK[: len(chunk_RD)])
            if on_cpu:
                np.argmin(chunk_scores_RK.numpy(), axis=1, out=codes_N.numpy()[start : start + rows])
            else:
                torch.argmin(chunk_scores_RK, dim=1, out=codes_N[start : start + rows])
        return codes_N


@torch.no_grad()
def sum_by_code(vectors_ND: Tensor, codes_N: Tensor, codebook_size: int) -> Tensor:
    """Sum of the rows assigned to each code, `[K, D]`, by `index_add`: a one-hot product would cost a second search."""
    sums_KD = torch.zeros(codebook_size, vectors_ND.shape[1], dtype=vectors_ND.dtype, device=vectors_ND.device)
    return sums_KD.index_add_(0, codes_N, vectors_ND)
