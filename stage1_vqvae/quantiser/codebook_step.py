"""What every codebook task does once after an optimiser step."""

import torch
from torch.nn import Parameter

from stage1_vqvae.quantiser.interface import Quantiser, QuantiserStatistics


def codebook_step(quantiser: Quantiser, statistics: object, optimiser: torch.optim.Optimizer) -> dict[str, float]:
    """Update the codebook from the batch's statistics; forget Adam's moments of revived codes.

    Args:
        quantiser: of the model that trains.
        statistics: the quantiser's, of the batch.
        optimiser: of the model; it knows the codebook only where the codebook learns by its loss.

    Returns:
        Numbers for the training's record.
    """
    assert isinstance(statistics, QuantiserStatistics)
    update = quantiser.update(statistics)
    revived = int(update.revived.sum())
    if revived and isinstance(quantiser.codebook, Parameter) and quantiser.codebook in optimiser.state:
        for name in ("exp_avg", "exp_avg_sq"):
            optimiser.state[quantiser.codebook][name][update.revived] = 0.0
    return {"running_perplexity": float(update.perplexity), "revived": revived}
