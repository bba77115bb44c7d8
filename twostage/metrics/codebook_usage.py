"""How much of a codebook a whole data set uses: counts, dead codes, entropy and perplexity.

Everything follows from the counts of all codes of the data set, so no figure depends on a batch size (the mean of batch
perplexities, which training logs often show, is lower the smaller the batch). Entropies are those of the empirical
frequencies (maximum likelihood, no smoothing): they say what is used, and are no code length for other data.

Shape letters: N items, G codebooks, S any grid axes, K codes per codebook.
"""

import math
from dataclasses import dataclass

import numpy as np

from twostage.errors import DataError
from twostage.grids import Grids, named_grids, split_levels


@dataclass(frozen=True)
class SingleCodebookUsage:
    """Usage of one codebook; every entropy is per code, so the number of positions does not enter."""

    name: str
    """`codebook 0`, of a hierarchy `level 1 (8x8)`, with several codebooks `level 1 (8x8), codebook 0`."""
    counts_K: np.ndarray
    """Occurrences of each code, int64."""
    used: int
    """Codes that occur at least once."""
    dead: int
    """Codes that never occur."""
    entropy_bits: float
    """Unigram entropy per code, from 0 to log2 K; 0 for no codes at all."""
    perplexity: float
    """2 ** entropy_bits, from 1 to K: the number of equally used codes with this entropy."""


@dataclass(frozen=True)
class CodebookUsage:
    """Usage of all codebooks of a model, or of one level of a hierarchy, over one data set."""

    codebooks: tuple[SingleCodebookUsage, ...]
    """One entry per codebook, in order; of a hierarchy level by level."""
    codebook_size: int
    """K."""
    entropy_bits_per_item: float
    """Unigram entropy of all codes of an item, each codebook with its own frequencies."""
    levels: tuple["CodebookUsage", ...] = ()
    """Of a hierarchy each level by itself, coarsest first; otherwise none."""

    @property
    def used(self) -> int:
        """Codes that occur at least once, all codebooks together: out of `size`."""
        return sum(single.used for single in self.codebooks)

    @property
    def dead(self) -> int:
        """Codes that never occur, all codebooks together."""
        return sum(single.dead for single in self.codebooks)

    @property
    def size(self) -> int:
        """Codes that could occur: G * K, of a hierarchy as many in each of its levels."""
        return self.codebook_size * len(self.codebooks)

    @property
    def entropy_bits(self) -> float:
        """Unigram entropy per code, the mean over codebooks."""
        return sum(single.entropy_bits for single in self.codebooks) / len(self.codebooks)

    @property
    def perplexity(self) -> float:
        """2 ** entropy_bits, from 1 to K: the geometric mean of the codebooks' perplexities."""
        return float(2.0**self.entropy_bits)


def codebook_usage(
    codes_NGS: np.ndarray, *, codebook_size: int, lengths_N: np.ndarray | None = None, grids: Grids | None = None
) -> CodebookUsage:
    """Count integer codes `[N, G, *S]` of a whole data set; N may be zero.

    Of sequences `[N, G, T]` with lengths only positions inside them count; an item is then a position. Of a hierarchy,
    codes of several `grids` (`twostage.grids`), the codebooks of every level are counted by themselves.

    Raises DataError when the array is not integer, has no codebook axis, or holds codes outside 0..codebook_size - 1.
    """
    if codes_NGS.ndim < 2 or codes_NGS.shape[1] == 0 or not np.issubdtype(codes_NGS.dtype, np.integer):
        raise DataError(
            f"Codebook usage expects integer codes [items, codebooks, ...], got {codes_NGS.dtype} "
            f"{codes_NGS.shape}; pass the codes of a whole data set."
        )
    if lengths_N is not None:
        codes_NGS = codes_NGS.transpose(0, 2, 1)[np.arange(codes_NGS.shape[2]) < lengths_N[:, None]]
    if codes_NGS.size and not 0 <= codes_NGS.min() <= codes_NGS.max() < codebook_size:
        raise DataError(
            f"Codes run from 0 to {codebook_size - 1} in this codebook, got {codes_NGS.min()} to {codes_NGS.max()}; "
            "they belong to another one."
        )
    if grids is None or len(grids) == 1:
        return _usage(codes_NGS, codebook_size)
    levels = tuple(
        _usage(codes, codebook_size, level=f"level {number} ({named_grids((grid,))})")
        for number, (codes, grid) in enumerate(zip(split_levels(codes_NGS, grids), grids, strict=True), start=1)
    )
    return CodebookUsage(
        codebooks=tuple(single for level in levels for single in level.codebooks),
        codebook_size=codebook_size,
        entropy_bits_per_item=sum(level.entropy_bits_per_item for level in levels),
        levels=levels,
    )


def _usage(codes_NGS: np.ndarray, codebook_size: int, *, level: str = "") -> CodebookUsage:
    """Of all codebooks of one grid; `level` is what its only codebook is called."""
    groups = codes_NGS.shape[1]
    of_level = f"{level}, " if level else ""
    codebooks = tuple(
        _single(
            np.bincount(codes_NGS[:, g].ravel().astype(np.int64), minlength=codebook_size),
            name=level if level and groups == 1 else f"{of_level}codebook {g}",
        )
        for g in range(groups)
    )
    total_bits = sum(single.entropy_bits for single in codebooks)
    return CodebookUsage(codebooks, codebook_size, total_bits * math.prod(codes_NGS.shape[2:]))


def _single(counts_K: np.ndarray, *, name: str) -> SingleCodebookUsage:
    positive = counts_K[counts_K > 0]
    share = positive / positive.sum() if len(positive) else positive.astype(float)
    entropy_bits = max(0.0, float(-(share * np.log2(share)).sum()))  # max: -0.0 for a single code
    return SingleCodebookUsage(
        name=name,
        counts_K=counts_K,
        used=len(positive),
        dead=len(counts_K) - len(positive),
        entropy_bits=entropy_bits,
        perplexity=2.0**entropy_bits,
    )


COLLAPSED_SHARE = 0.5
"""Share of the codes that the tokens could use, below which a codebook has collapsed."""
COLLAPSED_PERPLEXITY = 0.1
"""The same for the perplexity; and it should not be below 1.1, where one code takes nearly all tokens."""


def collapse_of(usage: CodebookUsage) -> str | None:
    """How far the worst codebook has collapsed, in words, or None where none has.

    A data set of fewer tokens than codes cannot use more codes than it has tokens: that is no collapse.
    """
    collapsed = []
    for index, single in enumerate(usage.codebooks):
        usable = min(usage.codebook_size, int(single.counts_K.sum()))
        enough = single.perplexity >= max(COLLAPSED_PERPLEXITY * usable, 1.1)
        if usable and not (single.used >= COLLAPSED_SHARE * usable and enough):
            collapsed.append((single.perplexity, index, usable))
    if not collapsed:
        return None
    perplexity, index, usable = min(collapsed)
    where = f" in {usage.codebooks[index].name}, the worst of {len(collapsed)}" if len(usage.codebooks) > 1 else ""
    return f"{usage.codebooks[index].used} of {usable} codes are used{where}, with a perplexity of {perplexity:.1f}"


class CollapseWatch:
    """Says once in a training that its codebook has collapsed; the first validations, where codes spread, are excused.

    Args:
        excused: validations before the first that is judged.
    """

    def __init__(self, *, excused: int = 2) -> None:
        self._excused, self._said = excused, False

    def look(self, usage: CodebookUsage) -> str | None:
        """The warning after one more validation; None while there is nothing to say, and once it was said."""
        if self._excused > 0:
            self._excused -= 1
            return None
        collapse = collapse_of(usage)
        if collapse is None or self._said:
            return None
        self._said = True
        return (
            f"warning: the codebook has collapsed: {collapse}; use fewer codes, or, where quantiser.kind "
            "reads them, quantiser.init kmeans or a larger quantiser.revival_threshold"
        )
