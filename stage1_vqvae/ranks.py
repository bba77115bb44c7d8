"""Random rows over all ranks, for the revival of dead codes. Under torch.distributed every rank must call it.

Shape letters: N rows of this rank, D channels.
"""

import torch
from torch import Tensor

from twostage.distributed import copy_from_first, rank, sum_over_ranks, world_size
from twostage.noise import batch_generator


def draw_rows(rows_ND: Tensor, count: int) -> Tensor:
    """At most `count` rows, without replacement, of all ranks' rows laid end to end; the same rows on every rank."""
    own, world = rank(), world_size()
    lengths = torch.zeros(world, dtype=torch.int64, device=rows_ND.device)
    lengths[own] = len(rows_ND)
    (lengths,) = sum_over_ranks(lengths)
    # drawn on the CPU from a generator that training seeds at every step
    generator = batch_generator(torch.device("cpu"))
    drawn = torch.randperm(int(lengths.sum()), generator=generator)[:count].to(rows_ND.device)
    copy_from_first(drawn)
    local = drawn - lengths[:own].sum()
    mine = (local >= 0) & (local < len(rows_ND))
    chosen_MD = torch.zeros(len(drawn), rows_ND.shape[1], dtype=rows_ND.dtype, device=rows_ND.device)
    chosen_MD[mine] = rows_ND[local[mine]]
    return sum_over_ranks(chosen_MD)[0]
