"""Streams of the range coder: they read back exactly, are as long as the prior says, and refuse what is not theirs."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stage2_prior import HierarchicalPrior, PixelCNN, sample
from twostage.errors import RunError, UsageError
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile, save_codes
from twostage_pipelines.bits import round_trip as proving
from twostage_pipelines.bits.range_coder import decode_codes, encode_codes
from twostage_pipelines.bits.rate import label_frequencies, learned_rate
from twostage_pipelines.bits.round_trip import check_round_trip, round_trip_line
from twostage_pipelines.bits.stream_content import Content, Known
from twostage_pipelines.bits.stream_header import StreamHeader, overhead_bits, seal
from twostage_pipelines.runs.run import Run

CPU = torch.device("cpu")
FREQUENCIES = np.array([0.7, 0.05, 0.25])


def _prior(*, seed: int = 0, **settings: Any) -> PixelCNN:
    torch.manual_seed(seed)
    prior = PixelCNN(**({"codebook_size": 5, "grid": (2, 3), "channels": 4, "layers": 2, "first_kernel": 3} | settings))
    with torch.no_grad():
        prior.head.output_weight_GSK.normal_(std=4.0)
        prior.head.output_bias_GK.normal_()
        for table in prior.condition:
            table.weight.normal_(std=0.25)
    return prior.eval()


def _codes(prior: PixelCNN, count: int) -> tuple[Tensor, Tensor | None]:
    """Codes as the prior draws them, with the labels that they were drawn under."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.multinomial(torch.from_numpy(FREQUENCIES), count, replacement=True, generator=generator)
    condition = labels[:, None] if prior.classes else None
    return sample(prior, count=count, condition=condition, seed=2).codes, condition


def _bits(nats: Tensor) -> float:
    return -float(nats.detach().double().sum()) / math.log(2)


def _length(data: bytes) -> int:
    return 8 * len(data) - overhead_bits(data)


@pytest.mark.parametrize("codebooks", [1, 2])
def test_unconditional_codes_read_back_and_cost_what_the_prior_says(codebooks: int) -> None:
    prior = _prior(codebooks=codebooks)
    codes, _ = _codes(prior, 300)
    data = encode_codes(prior, Content(codes), batch_size=128)
    assert torch.equal(decode_codes(prior, data, 300).codes, codes)
    reported = _bits(prior.log_prob(codes))
    assert abs(_length(data) - reported) <= 0.001 * reported + 64
    assert reported < 0.9 * codes.numel() * math.log2(5)  # a coder that ignored the prior would not pass
    assert len(data) * 8 <= reported * 1.001 + 64 + 500  # header and checksum included


@pytest.mark.parametrize("codebooks", [1, 2])
def test_labels_are_marginalised(codebooks: int) -> None:
    prior = _prior(codebooks=codebooks, classes=(3,))
    codes, condition = _codes(prior, 300)
    assert condition is not None
    given = prior.log_prob(codes, condition).double()
    every = [
        prior.log_prob(codes, torch.full((300, 1), label)).double() + math.log(FREQUENCIES[label]) for label in range(3)
    ]
    paid = given + torch.from_numpy(FREQUENCIES).log()[condition[:, 0]]
    reported = _bits(torch.stack(every).logsumexp(0))
    # The lengths with labels known for nothing, and written before the codes, are further away than the bound.
    assert _bits(given) + 80 < reported < _bits(paid) - 80
    data = encode_codes(prior, Content(codes), Known(FREQUENCIES), batch_size=150)
    assert abs(_length(data) - reported) <= 0.001 * reported + 64
    assert torch.equal(decode_codes(prior, data, 300, Known(FREQUENCIES)).codes, codes)


def _hierarchy(grids: tuple[tuple[int, int], ...], **settings: Any) -> HierarchicalPrior:
    torch.manual_seed(0)
    prior = HierarchicalPrior(codebook_size=5, grids=grids, channels=4, layers=2, first_kernel=3, **settings)
    with torch.no_grad():
        for index in range(len(grids)):
            prior.level(index).head.output_weight_GSK.normal_(std=4.0)
    return prior.eval()


@pytest.mark.parametrize("codebooks", [1, 2])
def test_codes_of_a_hierarchy_read_back_with_their_labels_marginalised(codebooks: int) -> None:
    prior = _hierarchy(((1, 2), (2, 4)), codebooks=codebooks, classes=(3,))
    condition = torch.arange(120)[:, None] % 3
    codes = sample(prior, count=120, condition=condition, seed=2).codes
    assert codes.shape == (120, codebooks, 10)
    every = [
        prior.log_prob(codes, torch.full((120, 1), label)).double() + math.log(FREQUENCIES[label]) for label in range(3)
    ]
    reported = _bits(torch.stack(every).logsumexp(0))
    data = encode_codes(prior, Content(codes), Known(FREQUENCIES), batch_size=100)
    assert torch.equal(decode_codes(prior, data, 120, Known(FREQUENCIES)).codes, codes)
    assert abs(_length(data) - reported) <= 0.001 * reported + 64
    assert reported < 0.9 * codes.numel() * math.log2(5)


def test_a_stream_of_a_hierarchy_belongs_to_its_grids() -> None:
    prior = _hierarchy(((1, 2), (2, 4)))
    codes = sample(prior, count=4).codes
    data, other = encode_codes(prior, Content(codes)), _hierarchy(((2, 1), (4, 2)))
    other.load_state_dict(prior.state_dict())  # as many positions, the same weights
    with pytest.raises(RunError, match="decode with the prior it was encoded with"):
        decode_codes(other, data, 4)


def test_damaged_streams_of_a_hierarchy_are_refused_in_one_sentence() -> None:
    prior = _hierarchy(((1, 1), (2, 2)))
    codes = sample(prior, count=3).codes
    data = encode_codes(prior, Content(codes))
    header, words = StreamHeader.split(data)
    damaged = [data[:length] for length in range(0, len(data), 3)]
    damaged += [data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :] for place in range(len(data))]
    generator = np.random.default_rng(0)
    forged = [b"", b"\xff" * len(words), *(generator.bytes(4 * int(generator.integers(1, 20))) for _ in range(10))]
    changes = ({"batch_size": 0}, {"code_shape": (1, 2**32 - 1)}, {"items": 2**32 - 1}, {"code_shape": (1, 5, 1)})
    damaged += [seal(header.pack() + other) for other in forged]
    damaged += [seal(replace(header, **change).pack() + words) for change in changes]
    for other in damaged:
        with pytest.raises(RunError, match=r"^Expected [^\n]*$"):
            decode_codes(prior, other, 3)


def test_no_label_after_label_dropout_is_one_more_way() -> None:
    prior = _prior(classes=(3,), label_dropout=0.1)
    codes, _ = _codes(prior, 40)
    data = encode_codes(prior, Content(codes))
    assert torch.equal(decode_codes(prior, data, 40).codes, codes)
    assert abs(_length(data) - _bits(prior.log_prob(codes, None))) <= 65


def test_a_label_that_never_occurred_and_alphabets_of_one() -> None:
    prior = _prior(classes=(3,))
    codes, _ = _codes(prior, 40)
    frequencies = np.array([0.7, 0.0, 0.3])
    data = encode_codes(prior, Content(codes), Known(frequencies))
    assert torch.equal(decode_codes(prior, data, 40, Known(frequencies)).codes, codes)
    single = _prior(codebook_size=1, classes=(1,))
    nothing = torch.zeros(4, 1, 2, 3, dtype=torch.int64)
    data = encode_codes(single, Content(nothing), Known(np.ones(1)))
    assert _length(data) == 0
    assert torch.equal(decode_codes(single, data, 4, Known(np.ones(1))).codes, nothing)


def test_bytes_depend_on_the_batch_and_their_number_does_not() -> None:
    prior = _prior(codebooks=2)
    codes, _ = _codes(prior, 30)
    streams = [encode_codes(prior, Content(codes), batch_size=size) for size in (1, 7, 100)]
    assert len(set(streams)) == 3
    assert max(map(_length, streams)) - min(map(_length, streams)) <= 32
    assert all(torch.equal(decode_codes(prior, data, 30).codes, codes) for data in streams)


def test_another_prior_other_frequencies_or_another_count_are_refused() -> None:
    prior = _prior(classes=(3,))
    codes, _ = _codes(prior, 10)
    data = encode_codes(prior, Content(codes), Known(FREQUENCIES))
    nudged = _prior(classes=(3,))
    with torch.no_grad():
        nudged.head.output_bias_GK[0, 0] += 1e-6
    for other in (_prior(seed=1, classes=(3,)), nudged, _prior(classes=(3,), codebook_size=6)):
        with pytest.raises(RunError, match="decode with the prior it was encoded with"):
            decode_codes(other, data, 10, Known(FREQUENCIES))
    with pytest.raises(RunError, match="label frequencies"):
        decode_codes(prior, data, 10, Known(FREQUENCIES[::-1].copy()))
    with pytest.raises(RunError, match="Expected 11 items"):
        decode_codes(prior, data, 11, Known(FREQUENCIES))
    optional = _prior(classes=(3,), label_dropout=0.1)
    with pytest.raises(UsageError, match=r"encoded \(marginalised\), got none"):
        decode_codes(optional, encode_codes(optional, Content(codes), Known(FREQUENCIES)), 10)
    with pytest.raises(UsageError, match=r"encoded \(none\), got marginalised"):
        decode_codes(optional, encode_codes(optional, Content(codes)), 10, Known(FREQUENCIES))


def test_arguments_that_do_not_fit_are_refused_before_a_byte_is_written() -> None:
    prior = _prior(classes=(3,))
    codes, _ = _codes(prior, 4)
    calls: list[tuple[Tensor, np.ndarray | None]] = [
        (codes[:0], FREQUENCIES),
        (codes[:, :, :1], FREQUENCIES),
        (codes.int(), FREQUENCIES),
        (codes + 5, FREQUENCIES),
        (codes, None),
        (codes, FREQUENCIES[:2]),
        (codes, np.array([1.0, np.nan, 1.0])),
    ]
    for unfit, frequencies in calls:
        with pytest.raises(UsageError, match=r"^Expected .*: "):
            encode_codes(prior, Content(unfit), Known(frequencies))


def test_cut_and_flipped_bytes_are_refused_in_one_sentence() -> None:
    prior = _prior()
    codes, _ = _codes(prior, 6)
    data = encode_codes(prior, Content(codes))
    damaged = [data[:length] for length in range(len(data))] + [data + b"\0\0\0\0"]
    for place in range(len(data)):
        damaged.append(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
    for other in damaged:
        with pytest.raises(RunError, match=r"^Expected [^\n]*: encode the codes again\.$"):
            decode_codes(prior, other, 6)


def test_wrong_words_under_a_right_checksum_end_in_a_sentence_too() -> None:
    prior = _prior()
    codes, _ = _codes(prior, 6)
    header, words = StreamHeader.split(encode_codes(prior, Content(codes)))
    generator = np.random.default_rng(0)
    forged = [b"", words[:4], b"\xff" * len(words), b"\0" * len(words)]
    forged += [generator.bytes(4 * int(generator.integers(1, 20))) for _ in range(30)]
    for other in forged:
        with pytest.raises(RunError, match="machine, device and thread count"):
            decode_codes(prior, seal(header.pack() + other), 6)
    for change in ({"batch_size": 0}, {"batch_size": 7}, {"code_shape": (2**32 - 1,) * 200}, {"items": 2**32 - 1}):
        with pytest.raises(RunError, match=r"^Expected"):
            decode_codes(prior, seal(replace(header, **change).pack() + words), 6)
    with pytest.raises(RunError, match="sound header"):
        decode_codes(prior, seal(header.pack()[:-8]), 6)


def test_a_decoder_that_rounds_otherwise_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = _prior()
    codes, _ = _codes(prior, 50)
    data, step = encode_codes(prior, Content(codes)), prior.step
    monkeypatch.setattr(prior, "step", lambda *args: (step(*args)[0] * 1.001, args[0]))
    with pytest.raises(RunError, match="machine, device and thread count"):
        decode_codes(prior, data, 50)


def test_a_diverged_prior_is_named() -> None:
    prior = _prior()
    codes, _ = _codes(prior, 2)
    with torch.no_grad():
        prior.head.output_bias_GK[0, 0] = math.nan
    with pytest.raises(RunError, match="diverged"):
        encode_codes(prior, Content(codes))


def _run_with_codes(write_run: Callable[..., Path], **settings: Any) -> tuple[Run, PixelCNN, np.ndarray, np.ndarray]:
    """A run, its prior, 40 test codes drawn from it and training labels."""
    run = Run.open(write_run(**settings))
    stage1 = run.stage1("vq-vae", CPU)
    prior = run.prior("vq-vae", stage1, CPU).model
    codes = sample(
        prior, count=40, condition=torch.arange(40)[:, None] % 3 if prior.classes else None, seed=3
    ).codes.numpy()
    train_labels = np.arange(40) ** 2 % 3
    for split, labels in (("train", train_labels), ("test", np.arange(40) % 3)):
        header = CodeHeader("digits", split, "vq-vae", 16, 2, ((4, 4),), 3, stage1.sha256)
        path = run.codes_file("vq-vae", split)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_codes(path, CodeFile(codes, labels, header))
    return run, prior, codes, train_labels


@pytest.mark.parametrize("conditional", [True, False])
def test_a_proof_writes_the_rate_that_evaluate_reports(write_run: Callable[..., Path], conditional: bool) -> None:
    run, prior, codes, labels = _run_with_codes(write_run, conditional=conditional)
    rate = learned_rate(prior, codes, frequencies=label_frequencies(prior, labels), device=CPU, batch_size=64).bits
    whole = check_round_trip(run, "vq-vae", "test", 1000, CPU)
    assert (whole.items, whole.labels) == (40, "marginalised" if conditional else "none")
    assert whole.bits_reported == pytest.approx(rate.sum(), rel=1e-6)
    assert whole.identical
    assert whole.within_bound
    assert abs(whole.bits_written - rate.sum()) <= 0.001 * rate.sum() + 64
    pair = check_round_trip(run, "vq-vae", "test", 2, CPU)
    assert pair.bits_reported == pytest.approx(rate[[0, 39]].sum(), rel=1e-6)
    assert pair.identical
    assert pair.within_bound
    assert pair.header_bits == whole.header_bits
    assert not replace(pair, bits_written=int(pair.bits_reported * 1.002) + 65).within_bound
    assert not replace(pair, bits_written=int(pair.bits_reported * 0.998) - 65).within_bound
    assert whole.bits_paid > whole.bits_reported if conditional else whole.bits_paid == whole.bits_reported


def test_a_proof_that_fails_says_so(write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run, *_ = _run_with_codes(write_run)
    assert "codes identical" in round_trip_line(check_round_trip(run, "vq-vae", "test", 3, CPU))

    def other(*_: Any, **__: Any) -> Content:
        raise RunError("Expected codes that match.")

    for decode in (other, lambda *args, **keywords: Content(1 - decode_codes(*args, **keywords).codes)):
        monkeypatch.setattr(proving, "decode_codes", decode)
        trip = check_round_trip(run, "vq-vae", "test", 3, CPU)
        assert not trip.identical
        assert "DIFFER" in round_trip_line(trip)


def test_a_proof_needs_codes(write_run: Callable[..., Path]) -> None:
    run, *_ = _run_with_codes(write_run)
    with pytest.raises(UsageError, match="choose a vq-vae"):
        check_round_trip(run, "vae", "test", 3, CPU)
    with pytest.raises(RunError, match="run evaluate"):
        check_round_trip(run, "vq-vae", "validation", 3, CPU)
