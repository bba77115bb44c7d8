"""How a label, a speaker or any other attribute enters a prior: a bias of every gate (equation 3 of van den Oord et al.
2016, arXiv 1606.05328; section 2.5 of WaveNet, arXiv 1609.03499), the sum of one embedding per attribute.

Label dropout (Ho and Salimans 2022, arXiv 2207.12598; their guidance is in `stage2_prior.guidance`): in training each
item's condition is replaced, all attributes at once, by one more embedding per attribute that means "no label". One
prior then models both p(codes | label) and, with the condition None (-1 of a single item), p(codes).

Shape suffixes: B items, A attributes, L layers, D gate inputs of a layer.
"""

import torch
from torch import Tensor, nn

from stage2_prior.prior import NO_LABEL, check_condition
from twostage.errors import UsageError
from twostage.noise import batch_uniform


class ConditionBias(nn.ModuleList):
    """Biases [B, L, D] from a condition int64 [B, A]; one table per attribute.

    Args:
        classes: number of classes of each attribute; empty for an unconditional prior.
        layers, gate_inputs: L and D.
        std: of the biases of one attribute before training.
        label_dropout: probability of hiding an item's condition in training mode; above 0 the condition may be None.

    Raises:
        UsageError: `label_dropout` is outside 0 <= p < 1.
    """

    no_label_A: Tensor

    def __init__(
        self, classes: tuple[int, ...], *, layers: int, gate_inputs: int, std: float, label_dropout: float
    ) -> None:
        if not 0 <= label_dropout < 1:
            raise UsageError(f"Expected label_dropout of at least 0 and below 1, got {label_dropout}: change it.")
        optional = bool(classes) and label_dropout > 0
        # Row `size` of an attribute's table, there only with label dropout, means "no label".
        super().__init__(nn.Embedding(size + optional, layers * gate_inputs) for size in classes)
        for weight in self.parameters():
            nn.init.normal_(weight, std=std)
        self.register_buffer("no_label_A", torch.tensor(classes, dtype=torch.int64), persistent=False)
        self.classes = classes
        self.optional = optional
        self.label_dropout = label_dropout
        self.layers = layers

    def forward(self, condition_BA: Tensor | None, *, batch_size: int) -> Tensor | None:
        """The biases, None without attributes. In training mode labels are hidden by `twostage.noise.batch_uniform`.

        Raises:
            UsageError: the condition does not fit (on the CPU its values are checked as well).
        """
        rows_BA = self._rows(condition_BA, batch_size=batch_size)
        if self.training and self.optional:
            hidden_B1 = batch_uniform(len(rows_BA), 1, device=rows_BA.device) < self.label_dropout
            rows_BA = torch.where(hidden_B1, self.no_label_A, rows_BA)
        return self._sum(rows_BA)

    def shown(self, condition_BA: Tensor | None, *, batch_size: int) -> Tensor | None:
        """The same with no condition hidden, whatever mode the module is in."""
        return self._sum(self._rows(condition_BA, batch_size=batch_size))

    def _rows(self, condition_BA: Tensor | None, *, batch_size: int) -> Tensor:
        """Row of each attribute's table for each item, int64 [B, A]; [B, 0] for an unconditional prior."""
        check_condition(condition_BA, classes=self.classes, optional=self.optional, batch_size=batch_size)
        if condition_BA is None:
            return self.no_label_A.expand(batch_size, -1)
        return torch.where(condition_BA == NO_LABEL, self.no_label_A, condition_BA) if self.optional else condition_BA

    def _sum(self, rows_BA: Tensor) -> Tensor | None:
        if not self.classes:
            return None
        biases = [table(rows_BA[:, attribute]) for attribute, table in enumerate(self)]
        return torch.stack(biases).sum(dim=0).unflatten(1, (self.layers, -1))
