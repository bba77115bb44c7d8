"""The optimiser: Adam with decoupled weight decay (Loshchilov and Hutter 2019), its learning rate, its saved state."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from twostage.config.schema import TrainingConfig
from twostage.training.adversarial import BETAS, Adversarial


def learning_rate_at(budget: TrainingConfig, step: int) -> float:
    """Learning rate of the update that ends step `step` (0-based)."""
    if step < budget.warmup_steps:
        return budget.learning_rate * (step + 1) / budget.warmup_steps
    if budget.schedule == "constant":
        return budget.learning_rate
    share = (step - budget.warmup_steps) / max(1, budget.steps - budget.warmup_steps)
    return budget.learning_rate * 0.5 * (1.0 + math.cos(math.pi * share))


def make_optimiser(model: nn.Module, budget: TrainingConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on the weights of linear and convolutional layers only, `BETAS` for an adversarial pair.

    Biases, embeddings and a codebook are not decayed: pulling them to zero says nothing about smoothness.
    """
    decayed = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd)  # all convolutions, transposed ones too
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if id(p) in decayed], "weight_decay": budget.weight_decay},
        {"params": [p for p in parameters if id(p) not in decayed], "weight_decay": 0.0},
    ]
    betas = BETAS if isinstance(model, Adversarial) else (0.9, 0.999)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=budget.learning_rate, betas=betas)


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of the optimiser's state as `INDEX.NAME`, for a checkpoint."""
    state = optimiser.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what `optimiser_tensors` gave; learning rates are set at every step and not part of it."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
