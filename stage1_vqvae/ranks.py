"""What the codebook of several training processes needs from torch.distributed: sums and random rows over all ranks.

With one process every function is the plain one and sends nothing. Under torch.distributed every rank must call it.

Shape letters: N rows of this rank, D channels.
"""

import torch
from torch import Tensor


def world_size() -> int:
    """Processes that train together; 1 without torch.distributed."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def sum_over_ranks(*tensors: Tensor) -> list[Tensor]:
    """Sums over all ranks, in one message; the arguments stay as they are."""
    if world_size() == 1:
        return list(tensors)
    packed = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(packed)
    parts = packed.split([tensor.numel() for tensor in tensors])
    return [part.reshape(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def draw_rows(rows_ND: Tensor, count: int) -> Tensor:
    """At most `count` rows, without replacement, of all ranks' rows laid end to end; the same rows on every rank."""
    rank, world = (torch.distributed.get_rank() if world_size() > 1 else 0), world_size()
    lengths = torch.zeros(world, dtype=torch.int64, device=rows_ND.device)
    lengths[rank] = len(rows_ND)
    (lengths,) = sum_over_ranks(lengths)
    # drawn on the CPU from torch's global generator, which training seeds at every step
    drawn = torch.randperm(int(lengths.sum()))[:count].to(rows_ND.device)
    if world > 1:
        torch.distributed.broadcast(drawn, src=0)
    local = drawn - lengths[:rank].sum()
    mine = (local >= 0) & (local < len(rows_ND))
    chosen_MD = torch.zeros(len(drawn), rows_ND.shape[1], dtype=rows_ND.dtype, device=rows_ND.device)
    chosen_MD[mine] = rows_ND[local[mine]]
    return sum_over_ranks(chosen_MD)[0]
