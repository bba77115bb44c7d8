"""Codes as bytes: a range coder driven by the prior's `step`.

The coder is constriction's range coder (Bamler 2022, arXiv 2201.01741). Symbol n of an item is coded under a
categorical from the logits of `step`, turned into probabilities in float64 and rounded by constriction to 24 bits
(`perfect=False`; every code keeps at least 2^-24, which costs about K 2^-24 / log 2 bits per code: 4e-5 at K = 512).
The encoder walks the same steps as the decoder instead of one parallel `log_prob`, because the two round differently
and a decoder that disagrees in the last bit of one probability loses everything that follows. For the same reason a
stream belongs to machine, device, thread count and the number of items walked side by side; the last is in the header,
and a checksum of the codes tells when one of the others has changed.

Order in a stream: batches of items one after another; in a batch the labels, where they are paid, then the symbols in
the prior's order, and for each symbol the items in turn. A prior with an end decides before every position but the
first whether a sequence ends there: a symbol of two values, under `end_logit`; an item that has ended is walked on with
its batch, but nothing of it is written. Last come the samples that the last code of a recording lacks, all equally
likely.

Labels are either paid, as one symbol under training frequencies, or marginalised and not written. A mixture of
autoregressive models is one itself: symbol n is coded under the sum over y of p(y | symbols before n) p(symbol n |
symbols before n, y), whose product over n is exactly p(z) = sum_y p(y) p(z|y), the rate that `evaluate` reports. It
costs one step per label; bits-back coding, which would reach the same length with one, needs other bits to borrow from.

Shapes: N items, B of them in a batch, Y labels, W = B Y, P positions, G codebooks, K codes.
"""

import math
from collections.abc import Callable

import constriction
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stage2_prior.prior import Prior
from twostage.errors import RunError, UsageError

from .stream_content import Content, Known, StoredPrior, checked
from .stream_header import StreamHeader, seal


def encode_codes(prior: StoredPrior, content: Content, known: Known | None = None, *, batch_size: int = 256) -> bytes:
    """One stream of all items.

    Args:
        prior: with its weights on the device of the codes.
        content: at least one item; without lengths all sequences are as long as their codes.
        known: what the decoder will know as well.
        batch_size: labels times items walked side by side; changes memory, speed and the bytes, not their number.

    Raises:
        UsageError: content or tables do not fit the prior.
        RunError: the prior's probabilities are not finite.
    """
    known = known or Known()
    known.check(prior)
    content = checked(content, prior, known)
    count = len(content.codes)
    labels = 1 if known.frequencies is None else len(known.frequencies)
    items = min(count, max(1, batch_size // labels))
    header = StreamHeader(
        known.labels,
        prior.codebook_size,
        tuple(prior.code_shape),
        count,
        items,
        content.crc(),
        known.digest(prior),
    )
    encoder = constriction.stream.queue.RangeEncoder()

    def write(symbols: np.ndarray, probabilities_BK: np.ndarray) -> np.ndarray:
        encoder.encode(symbols, constriction.stream.model.Categorical(perfect=False), probabilities_BK)
        return symbols

    for start in range(0, count, items):
        _code_batch(prior, content.rows(slice(start, start + items)), known, write, device=content.codes.device)
    return seal(header.pack() + encoder.get_compressed().astype("<u4").tobytes())


def decode_codes(
    prior: StoredPrior,
    data: bytes,
    count: int,
    known: Known | None = None,
    *,
    device: torch.device | str = "cpu",
) -> Content:
    """What `encode_codes` wrote of `count` items, the codes on `device`.

    Takes at most the time and memory of `count` items of the greatest length, whatever the bytes are.

    Raises:
        UsageError: the tables do not fit the prior, or labels are dealt with otherwise than where it was written.
        RunError: the stream is damaged, of another prior or count, or was written where arithmetic rounds otherwise.
    """
    known = known or Known()
    known.check(prior)
    header, words = StreamHeader.split(data)
    _check_header(header, prior, count, known)
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(words, "<u4").astype(np.uint32))

    def read(_: np.ndarray, probabilities_BK: np.ndarray) -> np.ndarray:
        try:
            return decoder.decode(constriction.stream.model.Categorical(perfect=False), probabilities_BK)
        except AssertionError as error:  # constriction's word for bits that no encoder writes under these probabilities
            raise _elsewhere() from error

    parts = []
    for start in range(0, count, header.batch_size):
        blank = _blank(prior, known, min(header.batch_size, count - start))
        parts.append(_code_batch(prior, blank, known, read, device=torch.device(device)))
    content = _joined(parts)
    if content.crc() != header.codes_crc:
        raise _elsewhere()
    return content


def _elsewhere() -> RunError:
    return RunError(
        "Expected codes that match the stream's checksum, got others: decode on the machine, device and thread count "
        "that encoded."
    )


Coder = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From symbols int32 `[B]` (those to write) and probabilities `[B, K]` to symbols (the same, or those read)."""


class _Mixture:
    """The labels of a batch, weighed by how probable they make the symbols so far; one label where there is none."""

    def __init__(self, frequencies: np.ndarray | None, items: int) -> None:
        frequency_Y = np.ones(1) if frequencies is None else np.asarray(frequencies, np.float64)
        self.labels = len(frequency_Y)
        self._items = items
        self._log_weight_BY = torch.from_numpy(frequency_Y).log().repeat(items, 1)

    def code(self, symbols_B: np.ndarray, log_prob_WK: Tensor, going_B: np.ndarray, coder: Coder) -> np.ndarray:
        """Symbols int32 `[B]` as the coder returned them, of the items still going; 0 of the others."""
        log_prob_BYK = log_prob_WK.unflatten(0, (self._items, self.labels))
        weight_BY1 = self._log_weight_BY.softmax(1)[:, :, None]
        probabilities_BK = (weight_BY1 * log_prob_BYK.exp()).sum(1).numpy()
        coded_B = np.zeros(self._items, np.int32)
        coded_B[going_B] = _code(symbols_B[going_B], probabilities_BK[going_B], coder)
        self._log_weight_BY = self._log_weight_BY + log_prob_BYK[torch.arange(self._items), :, coded_B.astype(np.int64)]
        return coded_B


def _code_batch(prior: Prior, content: Content, known: Known, coder: Coder, *, device: torch.device) -> Content:
    """One batch as the coder returned it, both sides by the very same steps."""
    items, pairs, lacking = len(content.codes), content.pairs, content.lacking
    mixture, condition_WA = _Mixture(known.frequencies, items), None
    if known.frequencies is not None:
        condition_WA = torch.arange(mixture.labels, device=device).repeat(items)[:, None]
    if pairs is not None and known.pairs is not None:
        pairs = _code_under(known.pairs, pairs, coder)
        if known.conditions is not None:
            condition_WA = torch.from_numpy(known.conditions)[pairs].to(device)
    codes, lengths = _walk(prior, content, mixture, coder, condition_WA=condition_WA, device=device)
    if lacking is not None:
        lacking = _code_under(np.full(known.stride, 1 / known.stride), lacking, coder)
    return Content(codes.to(device), lengths, pairs, lacking)


def _code_under(table_X: np.ndarray, numbers_B: Tensor, coder: Coder) -> Tensor:
    """Numbers int64 `[B]` as the coder returned them, all under one table."""
    probabilities_BX = np.tile(np.asarray(table_X, np.float64), (len(numbers_B), 1))
    return torch.from_numpy(_code(numbers_B.numpy().astype(np.int32), probabilities_BX, coder).astype(np.int64))


def _walk(
    prior: Prior,
    content: Content,
    mixture: _Mixture,
    coder: Coder,
    *,
    condition_WA: Tensor | None,
    device: torch.device,
) -> tuple[Tensor, Tensor | None]:
    """Codes int64 `[B, G, *grid]`, and lengths `[B]` of a prior with an end."""
    items, codebooks = content.codes.shape[:2]
    symbols_PGB = content.codes.flatten(2).permute(2, 1, 0).cpu().numpy().astype(np.int32)
    last, lengths = math.prod(prior.code_shape[1:]), None
    lengths_B, going_B = np.full(items, last), np.ones(items, bool)
    if content.lengths is not None:
        lengths = content.lengths.cpu().numpy()
    state = prior.initial_state(items * mixture.labels, condition_WA)
    coded: list[np.ndarray] = []
    symbol_W: Tensor | None = None
    for n in range(last * codebooks):
        position, codebook = divmod(n, codebooks)
        logits_WK, state = prior.step(state, symbol_W, condition_WA)
        if lengths is not None and n and codebook == 0:
            end_W = prior.end_logit(state).cpu().double()
            decided_W2 = F.logsigmoid(torch.stack([-end_W, end_W], dim=1))
            ends_B = mixture.code((lengths == position).astype(np.int32), decided_W2, going_B, coder) == 1
            lengths_B[ends_B] = position
            going_B &= ~ends_B
            if not going_B.any():
                break
        log_prob_WK = logits_WK.cpu().double().log_softmax(1)
        coded.append(mixture.code(symbols_PGB[position, codebook], log_prob_WK, going_B, coder))
        symbol_W = torch.from_numpy(coded[-1].astype(np.int64)).repeat_interleave(mixture.labels).to(device)
    codes_BGP = torch.from_numpy(np.stack(coded, 1).astype(np.int64)).unflatten(1, (-1, codebooks)).transpose(1, 2)
    if lengths is None:
        return codes_BGP.reshape(items, *prior.code_shape), None
    return codes_BGP, torch.from_numpy(lengths_B)


def _code(symbols_B: np.ndarray, probabilities_BK: np.ndarray, coder: Coder) -> np.ndarray:
    if not np.isfinite(probabilities_BK).all():
        raise RunError("Expected finite probabilities from the prior, got others: its training diverged, train again.")
    # An alphabet of one is no question, and constriction takes none.
    return symbols_B if probabilities_BK.shape[1] == 1 else coder(symbols_B, probabilities_BK)


def _blank(prior: Prior, known: Known, items: int) -> Content:
    """What the decoder hands to the coder in place of symbols: of the right shapes, and zero."""
    zeros = torch.zeros(items, dtype=torch.int64)
    return Content(
        torch.zeros(items, *prior.code_shape, dtype=torch.int64),
        zeros if prior.has_end else None,
        None if known.pairs is None else zeros,
        zeros if known.stride > 1 else None,
    )


def _joined(parts: list[Content]) -> Content:
    """All batches; sequences are padded to the longest."""
    longest = max(part.codes.shape[-1] for part in parts)
    codes = torch.cat([F.pad(part.codes, (0, longest - part.codes.shape[-1])) for part in parts])
    columns = ([part for part in column if part is not None] for column in zip(*(p.beside for p in parts), strict=True))
    return Content(codes, *(torch.cat(column) if column else None for column in columns))


def _check_header(header: StreamHeader, prior: StoredPrior, count: int, known: Known) -> None:
    if known.labels != header.labels:
        raise UsageError(
            f"Expected labels dealt with as this stream was encoded ({header.labels}), got {known.labels}: give what "
            "it was encoded with."
        )
    shapes = (header.codebook_size, header.code_shape), (prior.codebook_size, tuple(prior.code_shape))
    digest = known.digest(prior)
    if shapes[0] != shapes[1] or header.digest != digest:
        raise RunError(
            f"Expected the prior and label frequencies with digest {header.digest.hex()[:12]} that wrote this stream, "
            f"got {digest.hex()[:12]}: decode with the prior it was encoded with."
        )
    if header.items != count:
        raise RunError(f"Expected {count} items in the stream, got {header.items}: ask for as many as it holds.")
