"""Codes as bytes: a range coder driven by the prior's `step`.

The coder is constriction's range coder (Bamler 2022, arXiv 2201.01741). Symbol n of an item is coded under a
categorical from the logits of `step`, turned into probabilities in float64 and rounded by constriction to 24 bits
(`perfect=False`; every code keeps at least 2^-24, which costs about K 2^-24 / log 2 bits per code: 4e-5 at K = 512).
The encoder walks the same steps as the decoder instead of one parallel `log_prob`, because the two round differently
and a decoder that disagrees in the last bit of one probability loses everything that follows. For the same reason a
stream belongs to machine, device, thread count and the number of items walked side by side; the last is in the header,
and a checksum of the codes tells when one of the others has changed.

Order in a stream: batches of items one after another; in a batch the symbols in the prior's order, and for each symbol
the items in turn. Labels of a conditional prior are marginalised, not written. A mixture of autoregressive models is
one itself: symbol n is coded under the sum over y of p(y | symbols before n) p(symbol n | symbols before n, y), whose
product over n is exactly p(z) = sum_y p(y) p(z|y), the rate that `evaluate` reports. It costs one step per label;
bits-back coding, which would reach the same length with one, needs other bits to borrow from.

Shapes: N items, B of them in a batch, Y labels, X = B Y, S symbols of one item, K codes, G codebooks.
"""

import hashlib
import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import constriction
import numpy as np
import torch
from torch import Tensor

from stage2_prior.prior import Prior, check_condition
from twostage.errors import RunError, UsageError

from .stream_header import Labels, StreamHeader, seal


class StoredPrior(Prior, Protocol):
    """A prior whose weights can be digested: any `Prior` that is a torch module."""

    def state_dict(self) -> Mapping[str, Any]:
        """All weights by name."""


def encode_codes(
    prior: StoredPrior,
    codes: Tensor,
    *,
    label_frequencies: np.ndarray | None = None,
    batch_size: int = 256,
) -> bytes:
    """One stream of all items.

    Args:
        prior: with its weights on the device of the codes.
        codes: int64 `[N, G, *grid]`, N >= 1.
        label_frequencies: `[Y]`, p(y) of a prior with one attribute, whose labels are marginalised. None: the prior
            takes no label, or need not be given one.
        batch_size: labels times items walked side by side; changes memory, speed and the bytes, not their number.

    Raises:
        UsageError: codes or frequencies do not fit the prior.
        RunError: the prior's probabilities are not finite.
    """
    _check_codes(prior, codes)
    labels = _way(prior, label_frequencies, count=len(codes))
    items = min(len(codes), max(1, batch_size // prior.classes[0] if labels == "marginalised" else batch_size))
    digest = _digest(prior, label_frequencies)
    header = StreamHeader(
        labels, prior.codebook_size, tuple(prior.code_shape), len(codes), items, _codes_crc(codes), digest
    )
    encoder = constriction.stream.queue.RangeEncoder()

    def write(symbols: np.ndarray, probabilities_BK: np.ndarray) -> np.ndarray:
        encoder.encode(symbols, constriction.stream.model.Categorical(perfect=False), probabilities_BK)
        return symbols

    for start in range(0, len(codes), items):
        symbols_SB = _to_symbols(codes[start : start + items])
        _walk(prior, symbols_SB, write, frequencies=label_frequencies, device=codes.device)
    return seal(header.pack() + encoder.get_compressed().astype("<u4").tobytes())


def decode_codes(
    prior: StoredPrior,
    data: bytes,
    count: int,
    *,
    label_frequencies: np.ndarray | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Codes int64 `[count, G, *grid]` on `device` of a stream that `encode_codes` wrote.

    Takes the time of `count` items whatever the bytes are.

    Raises:
        UsageError: the frequencies do not fit the prior, or the stream was written with none or without them.
        RunError: the stream is damaged, of another prior or count, or was written where arithmetic rounds otherwise.
    """
    header, words = StreamHeader.split(data)
    _check_header(header, prior, count, label_frequencies)
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(words, "<u4").astype(np.uint32))

    def read(_: np.ndarray, probabilities_BK: np.ndarray) -> np.ndarray:
        try:
            return decoder.decode(constriction.stream.model.Categorical(perfect=False), probabilities_BK)
        except AssertionError as error:  # constriction's word for bits that no encoder writes under these probabilities
            raise _elsewhere() from error

    parts = []
    for start in range(0, count, header.batch_size):
        items = min(header.batch_size, count - start)
        blank_SB = np.zeros((math.prod(prior.code_shape), items), np.int32)
        symbols_SB = _walk(prior, blank_SB, read, frequencies=label_frequencies, device=torch.device(device))
        parts.append(_from_symbols(symbols_SB, prior.code_shape))
    codes = torch.cat(parts)
    if _codes_crc(codes) != header.codes_crc:
        raise _elsewhere()
    return codes.to(device)


def _elsewhere() -> RunError:
    return RunError(
        "Expected codes that match the stream's checksum, got others: decode on the machine, device and thread count "
        "that encoded."
    )


Coder = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From symbols int32 `[B]` (those to write) and probabilities `[B, K]` to symbols (the same, or those read)."""


def _walk(
    prior: Prior,
    symbols_SB: np.ndarray,
    coder: Coder,
    *,
    frequencies: np.ndarray | None,
    device: torch.device,
) -> np.ndarray:
    """Symbols `[S, B]` of one batch as the coder returned them, both sides by the very same steps."""
    symbols, items = symbols_SB.shape
    condition_BA: Tensor | None = None
    log_weight_BY = torch.zeros(items, 1, dtype=torch.float64)
    if frequencies is not None:
        log_weight_BY = torch.from_numpy(np.asarray(frequencies, np.float64)).log().repeat(items, 1)
        condition_BA = torch.arange(log_weight_BY.shape[1], device=device).repeat(items)[:, None]
    labels = log_weight_BY.shape[1]
    state = prior.initial_state(items * labels, condition_BA)
    coded_SB = np.empty_like(symbols_SB)
    symbol_X: Tensor | None = None
    for n in range(symbols):
        logits_XK, state = prior.step(state, symbol_X, condition_BA)
        log_prob_BYK = logits_XK.cpu().double().log_softmax(1).unflatten(0, (items, labels))
        weight_BY1 = log_weight_BY.softmax(1)[:, :, None]
        coded_SB[n] = _code(symbols_SB[n], (weight_BY1 * log_prob_BYK.exp()).sum(1).numpy(), coder)
        symbol_B = torch.from_numpy(coded_SB[n].astype(np.int64))
        log_weight_BY = log_weight_BY + log_prob_BYK[torch.arange(items), :, symbol_B]
        symbol_X = symbol_B.repeat_interleave(labels).to(device)
    return coded_SB


def _code(symbols_B: np.ndarray, probabilities_BK: np.ndarray, coder: Coder) -> np.ndarray:
    if not np.isfinite(probabilities_BK).all():
        raise RunError("Expected finite probabilities from the prior, got others: its training diverged, train again.")
    # An alphabet of one is no question, and constriction takes none.
    return symbols_B if probabilities_BK.shape[1] == 1 else coder(symbols_B, probabilities_BK)


def _to_symbols(codes: Tensor) -> np.ndarray:
    """Codes `[B, G, *grid]` in the order of the prior's symbols, int32 `[S, B]`."""
    return np.ascontiguousarray(codes.flatten(2).permute(2, 1, 0).flatten(0, 1).cpu().numpy().astype(np.int32))


def _from_symbols(symbols_SB: np.ndarray, code_shape: tuple[int, ...]) -> Tensor:
    codes_BPG = torch.from_numpy(symbols_SB.T.astype(np.int64)).reshape(symbols_SB.shape[1], -1, code_shape[0])
    return codes_BPG.transpose(1, 2).reshape(-1, *code_shape)


def _codes_crc(codes: Tensor) -> int:
    return zlib.crc32(codes.cpu().contiguous().numpy().astype("<i4").tobytes())


def _digest(prior: StoredPrior, frequencies: np.ndarray | None) -> bytes:
    """16 bytes of the SHA-256 of the prior's weights and of the label frequencies."""
    sha256 = hashlib.sha256()
    for name, weight in sorted(prior.state_dict().items()):
        sha256.update(f"{name} {weight.dtype} {tuple(weight.shape)};".encode())
        sha256.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    if frequencies is not None:
        sha256.update(np.asarray(frequencies, "<f8").tobytes())
    return sha256.digest()[:16]


def _way(prior: Prior, frequencies: np.ndarray | None, *, count: int) -> Labels:
    """What is done about labels.

    Raises:
        UsageError: the frequencies do not fit the prior.
    """
    if frequencies is None:
        check_condition(None, classes=prior.classes, optional=prior.condition_optional, batch_size=count)
        return "none"
    fits = (len(frequencies),) == prior.classes
    if not fits or not (np.isfinite(frequencies).all() and np.min(frequencies) >= 0 and np.sum(frequencies) > 0):
        raise UsageError(
            f"Expected the label frequencies of a prior with one attribute, one for each of its classes "
            f"{prior.classes}, got {len(frequencies)}: leave them out or count the labels again."
        )
    return "marginalised"


def _check_codes(prior: Prior, codes: Tensor) -> None:
    shape = tuple(prior.code_shape)
    if codes.dtype != torch.int64 or tuple(codes.shape[1:]) != shape or not len(codes):
        raise UsageError(
            f"Expected codes int64 of shape {list(shape)} and at least one item, got {codes.dtype} of shape "
            f"{list(codes.shape)}: use codes of the codebook this prior was built for."
        )
    low, high = (int(value) for value in codes.aminmax())
    if low < 0 or high >= prior.codebook_size:
        raise UsageError(
            f"Expected codes 0 to {prior.codebook_size - 1}, got {low if low < 0 else high}: use codes of the codebook "
            "this prior was built for."
        )


def _check_header(header: StreamHeader, prior: StoredPrior, count: int, frequencies: np.ndarray | None) -> None:
    way, digest = _way(prior, frequencies, count=count), _digest(prior, frequencies)
    if way != header.labels:
        needs, came = ("no", "some") if header.labels == "none" else ("the", "none")
        raise UsageError(
            f"Expected {needs} label frequencies to decode this stream, got {came}: give what it was encoded with."
        )
    shapes = (header.codebook_size, header.code_shape), (prior.codebook_size, tuple(prior.code_shape))
    if shapes[0] != shapes[1] or header.digest != digest:
        raise RunError(
            f"Expected the prior and label frequencies with digest {header.digest.hex()[:12]} that wrote this stream, "
            f"got {digest.hex()[:12]}: decode with the prior it was encoded with."
        )
    if header.items != count:
        raise RunError(f"Expected {count} items in the stream, got {header.items}: ask for as many as it holds.")
