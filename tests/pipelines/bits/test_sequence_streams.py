"""Streams of sequences: codes, ends, labels and missing samples read back, and cost what the prior and tables say."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stage2_prior import WaveNet, sample
from twostage.config.schema import Recipe
from twostage.errors import RunError, UsageError
from twostage.metrics.length_tables import LabelTable
from twostage.metrics.statistics import evenly
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile
from twostage_pipelines.bits.range_coder import decode_codes, encode_codes
from twostage_pipelines.bits.rate import learned_rate
from twostage_pipelines.bits.round_trip import check_round_trip
from twostage_pipelines.bits.stream_content import Content, Known
from twostage_pipelines.bits.stream_header import StreamHeader, overhead_bits, seal
from twostage_pipelines.modality.audio import condition_of, speakers_of

CLASSES = (3, 2)
TRAIN = np.random.default_rng(0).integers(0, CLASSES, (40, 2))
TABLE = LabelTable.of(TRAIN[:, 0] * (TRAIN[:, 1] > 0), TRAIN[:, 1], classes=3, speakers=2)
CONDITIONS = np.stack(np.divmod(np.arange(6), 2), 1)
PAID = Known(pairs=np.exp2(-TABLE.bits_YP.ravel()), conditions=CONDITIONS, stride=16)


def _prior(*, end_bias: float = -1.8, **settings: Any) -> WaveNet:
    arguments: dict[str, Any] = {"codebook_size": 5, "max_length": 9, "channels": 6, "blocks": 2, "layers_per_block": 2}
    torch.manual_seed(0)
    prior = WaveNet(**(arguments | settings))
    with torch.no_grad():
        prior.head.output_weight_GSK.normal_(std=2.0)
        prior.end.weight.normal_(std=0.3)
        prior.end.bias.fill_(end_bias)
        for table in prior.condition:
            table.weight.normal_(std=1.0)
    return prior.eval()


def _drawn(prior: WaveNet, count: int, *, stride: int = 16) -> tuple[Content, torch.Tensor | None]:
    """Sequences as the prior draws them, and the condition that they were drawn under."""
    generator = np.random.default_rng(1)
    pairs = torch.from_numpy(generator.integers(0, 6, count)) if prior.classes else None
    condition = None if pairs is None else torch.from_numpy(CONDITIONS)[pairs]
    drawn = sample(prior, count=count, condition=condition, seed=2)
    lacking = torch.from_numpy(generator.integers(0, stride, count)) if stride > 1 else None
    return Content(drawn.codes, drawn.lengths, pairs, lacking), condition


def _reported(prior: WaveNet, content: Content, condition: torch.Tensor | None, known: Known) -> float:
    with torch.no_grad():
        nats_B = prior.log_prob(content.codes, condition, content.lengths).double()
    bits = -float(nats_B.sum()) / math.log(2) + len(content.codes) * math.log2(known.stride)
    return bits if content.pairs is None else bits + float(TABLE.bits_YP.ravel()[content.pairs.numpy()].sum())


def _length(data: bytes) -> int:
    return 8 * len(data) - overhead_bits(data)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"codebook_size": 2, "codebooks": 3},
        {"codebooks": 2, "classes": CLASSES},
        {"max_length": 1},
        {"end_bias": -9.0},
        {"codebook_size": 1, "codebooks": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch_size", [1000, 37])
def test_sequences_read_back_and_cost_what_prior_and_tables_say(settings: dict[str, Any], batch_size: int) -> None:
    prior = _prior(**settings)
    known = PAID if prior.classes else Known(stride=16)
    content, condition = _drawn(prior, 300)
    assert set(content.lengths.tolist()) == set(range(1, prior.max_length + 1)) or "end_bias" in settings
    data = encode_codes(prior, content, known, batch_size=batch_size)
    decoded = decode_codes(prior, data, 300, known)
    for name in ("codes", "lengths", "pairs", "lacking"):
        own, its = getattr(content, name), getattr(decoded, name)
        assert (own is None) == (its is None), name
        assert own is None or torch.equal(own, its), name
    reported = _reported(prior, content, condition, known)
    assert abs(_length(data) - reported) <= 0.001 * reported + 64


@pytest.mark.parametrize("length", range(1, 10))
def test_every_length_alone_is_itself(length: int) -> None:
    prior = _prior(codebook_size=2, codebooks=2)
    codes = torch.randint(0, 2, (1, 2, length), generator=torch.Generator().manual_seed(length))
    data = encode_codes(prior, Content(codes))
    decoded = decode_codes(prior, data, 1)
    assert decoded.lengths.tolist() == [length]
    assert torch.equal(decoded.codes, codes)
    assert abs(_length(data) - _reported(prior, Content(codes), None, Known())) <= 65


def test_a_speaker_of_the_decoder_alone_is_paid_without_a_condition() -> None:
    prior, speakers = _prior(), np.array([0, 1, 1, 1, 1, 1])
    table = LabelTable.of(np.zeros(6, np.int64), speakers, classes=0, speakers=2)
    known = Known(pairs=np.exp2(-table.bits_YP.ravel()), stride=16)
    content, _ = _drawn(prior, 200)
    paid = replace(content, pairs=torch.arange(200) % 8 // 7)
    data = encode_codes(prior, paid, known)
    assert decode_codes(prior, data, 200, known).equals(paid)
    more = _length(data) - _length(encode_codes(prior, content, Known(stride=16)))
    assert abs(more - table.bits_YP.ravel()[paid.pairs.numpy()].sum()) <= 33


def test_what_lies_behind_an_end_is_not_written() -> None:
    prior = _prior()
    codes = torch.randint(0, 5, (3, 1, 9), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([2, 7, 1])
    data = encode_codes(prior, Content(codes, lengths))
    decoded = decode_codes(prior, data, 3)
    assert decoded.codes.shape == (3, 1, 7)
    for item, length in enumerate(lengths.tolist()):
        assert torch.equal(decoded.codes[item, :, :length], codes[item, :, :length])
        assert not decoded.codes[item, :, length:].any()
    assert encode_codes(prior, Content(decoded.codes, lengths)) == data


def test_cut_flipped_and_forged_streams_are_refused() -> None:
    prior = _prior(codebooks=2, classes=CLASSES)
    content, _ = _drawn(prior, 6)
    data = encode_codes(prior, content, PAID)
    damaged = [data[:length] for length in range(0, len(data), 3)]
    damaged += [data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :] for at in range(len(data))]
    for other in damaged:
        with pytest.raises(RunError, match=r"^Expected [^\n]*: encode the codes again\.$"):
            decode_codes(prior, other, 6, PAID)
    header, words = StreamHeader.split(data)
    generator, steps, step = np.random.default_rng(0), [], prior.step
    prior.step = lambda *arguments: steps.append(1) or step(*arguments)  # type: ignore[method-assign]
    forged = [b"", words[:4], b"\xff" * len(words), b"\0" * len(words)]
    forged += [generator.bytes(4 * int(generator.integers(1, 20))) for _ in range(20)]
    forged += [words[:at] + bytes([words[at] ^ 1]) + words[at + 1 :] for at in range(0, len(words) - 4, 2)]
    for other in forged:
        steps.clear()
        with pytest.raises(RunError, match="machine, device and thread count"):
            decode_codes(prior, seal(header.pack() + other), 6, PAID)
        assert len(steps) <= 18  # nothing makes a sequence longer than the prior's longest


def test_tables_belong_to_the_stream() -> None:
    prior = _prior(classes=CLASSES)
    content, _ = _drawn(prior, 6)
    data = encode_codes(prior, content, PAID)
    assert PAID.pairs is not None
    for other in (replace(PAID, pairs=PAID.pairs[::-1].copy()), replace(PAID, stride=32)):
        with pytest.raises(RunError, match="decode with the prior it was encoded with"):
            decode_codes(prior, data, 6, other)
    optional = _prior(classes=CLASSES, label_dropout=0.1)
    with pytest.raises(UsageError, match=r"encoded \(paid\), got none"):
        decode_codes(optional, encode_codes(optional, content, PAID), 6, Known(stride=16))


@pytest.mark.parametrize(
    "changes",
    [
        {"lengths": torch.tensor([0, 1, 1, 1, 1, 1])},
        {"lengths": torch.tensor([10, 1, 1, 1, 1, 1])},
        {"lengths": torch.tensor([1, 1])},
        {"pairs": None},
        {"pairs": torch.tensor([0, 0, 0, 0, 0, 6])},
        {"lacking": None},
        {"lacking": torch.tensor([0, 0, 0, 0, 0, 16])},
        {"codes": torch.zeros(6, 1, 10, dtype=torch.int64)},
    ],
    ids=str,
)
def test_content_that_does_not_fit_is_refused_before_a_byte_is_written(changes: dict[str, Any]) -> None:
    prior = _prior(classes=CLASSES)
    content, _ = _drawn(prior, 6)
    with pytest.raises(UsageError, match=r"^Expected .*: "):
        encode_codes(prior, replace(content, **changes), PAID)
    with pytest.raises(UsageError, match=r"^Expected .*: "):
        encode_codes(prior, content, replace(PAID, conditions=None))
    with pytest.raises(UsageError, match=r"^Expected .*: "):
        encode_codes(prior, content, replace(PAID, pairs=np.full(6, np.nan)))


def test_an_end_that_rounds_otherwise_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = _prior()
    content, _ = _drawn(prior, 50, stride=1)
    data, end_logit = encode_codes(prior, content), prior.end_logit
    monkeypatch.setattr(prior, "end_logit", lambda state: end_logit(state) - 0.5)
    with pytest.raises(RunError, match="machine, device and thread count"):
        decode_codes(prior, data, 50)


def test_a_diverged_end_is_named() -> None:
    prior = _prior(end_bias=math.nan)
    with pytest.raises(RunError, match="diverged"):
        encode_codes(prior, Content(torch.zeros(1, 1, 2, dtype=torch.int64)))


@pytest.mark.parametrize(
    ("classes", "speakers", "conditional", "decoder_speakers", "paid"),
    [
        (3, 2, True, 2, "paid"),
        (3, 2, False, 2, "paid"),
        (3, 0, True, 0, "paid"),
        (3, 2, False, 0, "none"),
        (1, 1, True, 1, "paid"),
    ],
)
def test_a_round_trip_of_recordings_pays_for_what_prior_and_decoder_see(
    tmp_path: Path, classes: int, speakers: int, conditional: bool, decoder_speakers: int, paid: str
) -> None:
    sizes = tuple(size for size in (classes, speakers) if size)
    prior = _prior(codebooks=2, classes=sizes if conditional else ())
    generator = np.random.default_rng(3)
    files = {}
    for split, count in (("train", 30), ("test", 50)):
        labels, voices = (generator.integers(0, max(size, 1), count) for size in (classes, speakers))
        condition = condition_of(labels, voices, (classes, speakers))
        drawn = sample(prior, count=count, condition=torch.from_numpy(condition) if conditional else None, seed=count)
        assert drawn.lengths is not None
        header = CodeHeader(
            "recordings", split, "vq-vae", 5, 2, ((drawn.codes.shape[2],),), classes, "0" * 64, speakers
        )
        lengths = drawn.lengths.numpy()
        files[split] = CodeFile(
            drawn.codes.numpy(),
            labels,
            header,
            lengths=lengths,
            speakers=voices if speakers else None,
            samples=16 * lengths - generator.integers(0, 16, count),
        )
    run: Any = SimpleNamespace(
        path=tmp_path,
        recipe=Recipe(),
        codebook=lambda *_: SimpleNamespace(
            model=SimpleNamespace(stride=16, speakers=decoder_speakers), sha256="0" * 64
        ),
        prior=lambda *_: SimpleNamespace(model=prior),
        codes=lambda _, split, **__: files[split],
    )
    trip = check_round_trip(run, "vq-vae", "test", 40, torch.device("cpu"))
    assert (trip.items, trip.identical, trip.within_bound, trip.labels) == (40, True, True, paid)
    rows, test, train = evenly(50, 40), files["test"], files["train"]
    voices = speakers_of(test)
    table = LabelTable.of(
        train.labels,
        speakers_of(train),
        classes=classes if conditional else 0,
        speakers=speakers if conditional or decoder_speakers else 0,
    )
    condition = condition_of(test.labels, voices, (classes, speakers))[rows]
    rate = learned_rate(
        prior,
        test.codes[rows],
        test.lengths[rows],
        condition=condition if conditional else None,
        device=torch.device("cpu"),
        batch_size=7,
    )
    side = table.bits(test.labels, voices)[rows].sum() + 40 * 4
    assert trip.bits_reported == pytest.approx(rate.bits.sum() + rate.end_bits.sum() + side, rel=1e-6)
    assert trip.bits_paid == trip.bits_reported
