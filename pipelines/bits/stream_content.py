"""What a stream of entropy-coded codes holds, and what both of its ends know beside the prior.

Shapes: N items, G codebooks, grid or T positions, Y labels, X pairs of a label and a speaker, A attributes of the
condition.
"""

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from stage2_prior.prior import Prior, check_code_values, check_codes, check_condition, check_lengths
from twostage.errors import UsageError
from twostage.grids import named_grids

from .stream_header import Labels


class StoredPrior(Prior, Protocol):
    """A prior whose weights can be digested: any `Prior` that is a torch module."""

    def state_dict(self) -> Mapping[str, Any]:
        """All weights by name."""


@dataclass(frozen=True)
class Content:
    """Items, and what is written of each beside its codes: int64 [N] on the CPU."""

    codes: Tensor
    """int64 [N, G, *grid], of a hierarchy [N, G, P]; of sequences [N, G, T], T the longest of the lengths, 0 behind
    each."""
    lengths: Tensor | None = None
    """Positions of every sequence; None of grids."""
    pairs: Tensor | None = None
    """Number of the label and speaker, where they are paid (`LabelTable.numbers`)."""
    lacking: Tensor | None = None
    """Samples that the last code of a recording lacks, 0 to stride - 1; None where a code is one sample."""

    @property
    def beside(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Everything but the codes."""
        return self.lengths, self.pairs, self.lacking

    def rows(self, rows: slice) -> "Content":
        """Some of the items."""
        return Content(self.codes[rows], *(None if part is None else part[rows] for part in self.beside))

    def equals(self, other: "Content") -> bool:
        """Whether all numbers of two contents of the same parts are the same."""
        pairs = zip((self.codes, *self.beside), (other.codes, *other.beside), strict=True)
        return all(torch.equal(own, its) for own, its in pairs if own is not None and its is not None)

    def crc(self) -> int:
        """CRC-32 of all numbers."""
        crc = 0
        for part in (self.codes, *self.beside):
            crc = crc if part is None else zlib.crc32(part.cpu().contiguous().numpy().astype("<i4").tobytes(), crc)
        return crc


@dataclass(frozen=True)
class Known:
    """What both ends of a stream know beside the prior: tables of training frequencies, and the samples of a code."""

    frequencies: np.ndarray | None = None
    """[Y], p(y) of a prior with one attribute, whose labels are marginalised and not written."""
    pairs: np.ndarray | None = None
    """[X], probabilities of the pairs of label and speaker, which are paid: written before the codes."""
    conditions: np.ndarray | None = None
    """int64 [X, A], the prior's condition of every pair; None where it takes none, or need not be given one."""
    stride: int = 1
    """Samples of a code of a recording."""

    @property
    def labels(self) -> Labels:
        """What is done about labels."""
        if self.pairs is not None:
            return "paid"
        return "none" if self.frequencies is None else "marginalised"

    def check(self, prior: Prior) -> None:
        """Raise UsageError unless the tables fit the prior."""
        if self.frequencies is not None:
            if (len(self.frequencies),) != prior.classes or not _are_weights(self.frequencies):
                raise UsageError(
                    f"Expected the label frequencies of a prior with one attribute, one for each of its classes "
                    f"{prior.classes}, got {len(self.frequencies)}: leave them out or count the labels again."
                )
            return
        given, count = None, 1
        if self.pairs is not None:
            if not _are_weights(self.pairs):
                raise UsageError("Expected probabilities of labels and speakers, got others: count them again.")
            given, count = None if self.conditions is None else torch.from_numpy(self.conditions), len(self.pairs)
        check_condition(given, classes=prior.classes, optional=prior.condition_optional, batch_size=count)

    def digest(self, prior: StoredPrior) -> bytes:
        """16 bytes of the SHA-256 of the prior's weights, of a hierarchy's grids and of the tables."""
        sha256 = hashlib.sha256()
        for name, weight in sorted(prior.state_dict().items()):
            sha256.update(f"{name} {weight.dtype} {tuple(weight.shape)};".encode())
            sha256.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        # One grid is in the header; other levels of as many positions could have the same weights.
        sha256.update(b"" if len(prior.grids) == 1 else named_grids(prior.grids).encode())
        for table in (self.frequencies, self.pairs, self.conditions):
            sha256.update(b"" if table is None else np.asarray(table, "<f8").tobytes())
        sha256.update(b"" if self.stride == 1 else str(self.stride).encode())
        return sha256.digest()[:16]


def _are_weights(values: np.ndarray) -> bool:
    return bool(len(values) and np.isfinite(values).all() and np.min(values) >= 0 and np.sum(values) > 0)


def checked(content: Content, prior: Prior, known: Known) -> Content:
    """The content with sequences cut behind the longest and 0 behind each.

    Raises:
        UsageError: it does not fit the prior and the tables.
    """
    codes, lengths = content.codes, content.lengths
    if not len(codes):
        raise UsageError("Expected at least one item to write, got none: give some.")
    check_codes(codes, code_shape=tuple(prior.code_shape), codebook_size=prior.codebook_size, ends=prior.has_end)
    if prior.has_end:
        lengths = torch.full((len(codes),), codes.shape[-1]) if lengths is None else lengths.cpu()
    check_lengths(lengths, codes, ends=prior.has_end)
    pairs = 0 if known.pairs is None else len(known.pairs)
    for part, size, what in ((content.pairs, pairs, "pairs"), (content.lacking, known.stride, "missing samples")):
        wanted = (len(codes),) if size > (what != "pairs") else None
        fits = (None if part is None else tuple(part.shape)) == wanted
        if not fits or (part is not None and not bool(((part >= 0) & (part < size)).all())):
            raise UsageError(f"Expected {what} of {len(codes)} items below {size}, got others: give one of each item.")
    if lengths is not None:
        codes = codes[..., : int(lengths.max())]
        inside = torch.arange(codes.shape[-1]) < lengths[:, None, None]
        codes = codes.where(inside.to(codes.device), 0)
    check_code_values(codes, codebook_size=prior.codebook_size)
    return replace(content, codes=codes, lengths=lengths)
