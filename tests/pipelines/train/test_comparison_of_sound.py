"""`compare` on recordings: differences over samples, alphabets that are not mixed, and the verb from end to end."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twostage.metrics.flac import Flac
from twostage.metrics.statistics import ratio_error
from twostage_pipelines.cli.main import main, parse
from twostage_pipelines.commands.compare import Compare
from twostage_pipelines.evaluate.differences import Scored, paired_differences
from twostage_pipelines.evaluate.rows import Row
from twostage_pipelines.train.comparison import ComparedRow, Comparison, compared_row
from twostage_pipelines.train.comparison_table import comparison_table, legend_lines

SIZES = np.array([100, 300, 600])
RECIPE = """
name = "tiny"
threads = 1
models = ["vq-vae"]
[data]
name = "vowels"
[audio]
channels = 8
residual_blocks = 0
head_channels = 4
speaker_channels = 4
segment_samples = 256
mixtures = 2
spectral_weight = 0.0
[quantiser]
codebook_size = 8
embedding_dim = 4
init = "random"
[gaussian]
latent_channels = 2
[codebook_training]
steps = 4
batch_size = 2
validate_every = 2
[wavenet_decoder]
blocks = 1
layers_per_block = 2
channels = 4
head_channels = 4
mixtures = 2
segment_samples = 256
[decoder_training]
steps = 3
batch_size = 2
validate_every = 3
[wavenet_prior]
blocks = 1
layers_per_block = 2
channels = 4
[prior_training]
steps = 4
batch_size = 4
validate_every = 2
[baseline_training]
batch_size = 2
learning_rate = 5e-3
validate_every = 4
[evaluation]
iwae_samples = 1
sampled_items = 0
"""


def _scored(bits: list[float], **changes: Any) -> Scored:
    """A row of three recordings, whose samples cost what is said each, in bits."""
    total_N = np.array(bits) * SIZES
    fields: dict[str, Any] = {
        "model": "vae",
        "kind": "vae",
        "bound": "elbo",
        "prior": "gaussian",
        "decoder": "convolutional",
        "likelihood": "logistic-mixture",
        "alphabet": 65536,
        "beta": 1.0,
        "labels": "paid",
        "bits_per_dim": float(total_N.sum() / SIZES.sum()),
        "distortion_bits_per_dim": 9.0,
        "rate_bits_per_dim": 0.5,
        "length_bits_per_dim": 0.02,
        "label_bits_per_dim": 0.01,
        "log_mel_l1": 1.5,
        "log_mel_ratio": 0.75,
        "parameters": 1000,
        "steps": 100,
        "train_seconds": 5.0,
        "stage1_sha256": "0" * 64,
    }
    return Scored(row=Row(**{**fields, **changes}), bits_N=total_N, sizes_N=SIZES)


LEARNED: dict[str, Any] = {"model": "vq-vae", "kind": "vq-vae", "bound": "two-part", "prior": "learned", "beta": None}
REFERENCE = [_scored([9.0, 9.5, 10.0], **LEARNED), _scored([9.2, 9.4, 10.2], **LEARNED)]
VAE = [_scored([10.0, 9.5, 10.5]), _scored([9.2, 9.8, 10.8])]
MU_LAW = {"decoder": "wavenet", "decoder_sha256": "1" * 64, "alphabet": 256, "likelihood": "mu-law"}
WAVENET = [_scored([5.0, 5.0, 5.0], **LEARNED, **MU_LAW)] * 2


def _comparison(*rows: ComparedRow, **changes: Any) -> Comparison:
    whole = Comparison(
        recipe="r",
        dataset="vowels",
        split="test",
        items=3,
        dims=1000,
        unit="bits/sample",
        subject="vowels",
        likelihood="logistic-mixture",
        alphabet=65536,
        seeds=(0, 1),
        budget_steps=100,
        budget_of="codebook, WaveNet decoder and prior",
        reference="vq-vae, learned prior",
        rows=rows,
    )
    return replace(whole, **changes)


def test_differences_are_over_samples_and_their_error_over_recordings() -> None:
    row = compared_row(VAE, REFERENCE, [0.0])
    delta_SN = np.array([[1.0, 0.0, 0.5], [0.0, 0.4, 0.6]]) * SIZES
    assert row.difference_bits_per_dim is not None
    assert row.difference_bits_per_dim.mean == pytest.approx(delta_SN.sum(1).mean() / 1000)
    assert row.difference_bits_per_dim.deviation == pytest.approx(np.std(delta_SN.sum(1) / 1000, ddof=1))
    assert row.difference_standard_error == pytest.approx(ratio_error(delta_SN.mean(0), SIZES))
    # Of one seed both are what its evaluation says.
    (pair,) = paired_differences([REFERENCE[0], VAE[0]])
    single = compared_row(VAE[:1], REFERENCE[:1], [0.0])
    assert single.difference_bits_per_dim is not None
    assert single.difference_bits_per_dim.mean == pair.bits_per_dim
    assert single.difference_standard_error == pair.standard_error


def test_bits_of_other_levels_stand_apart_and_are_compared_with_nothing() -> None:
    row = compared_row(WAVENET, REFERENCE, [0.0])
    assert (row.difference_bits_per_dim, row.difference_standard_error) == (None, None)
    whole = _comparison(compared_row(REFERENCE, REFERENCE, [0.0]), compared_row(VAE, REFERENCE, [0.0]), row)
    headings, cells = comparison_table(whole)
    table = {line[0]: dict(zip(headings, line, strict=True)) for line in cells}
    assert table["vae, ELBO"]["total, 16 bit"] == "10.2450"
    assert table["vae, ELBO"]["total, mu-law"] == "-"
    other = table["vq-vae, WaveNet decoder, learned prior"]
    assert (other["total, 16 bit"], other["total, mu-law"], other["more"]) == ("-", "5.0000", "-")
    alone = _comparison(*whole.rows[:2]).picture()
    assert alone is not None
    assert whole.picture() == alone


def test_the_columns_are_those_that_recordings_have() -> None:
    rows = [compared_row(seeds, REFERENCE, [0.0]) for seeds in (REFERENCE, VAE)]
    headings, cells = comparison_table(_comparison(*rows))
    assert "PSNR dB" not in headings
    assert "given label" not in headings
    line = dict(zip(headings, cells[1], strict=True))
    assert [line[heading] for heading in ("length", "labels", "log-mel", "of wrong")] == [
        "0.0200",
        "0.0100",
        "1.500",
        "0.75",
    ]
    said = "\n".join(legend_lines(_comparison(*rows)))
    for words in (
        "± seeds: standard deviation over seeds of the total",
        "more: bits/sample more than vq-vae, learned prior",
        "length: number of codes",
        "log-mel: ",
    ):
        assert words in said
    assert "dB" not in said
    assert "a baseline takes as many steps as" not in said
    with_decoder = _comparison(*rows, compared_row(WAVENET, REFERENCE, [0.0]))
    assert "as many steps as codebook, WaveNet decoder and prior together" in "\n".join(legend_lines(with_decoder))


def test_flac_stands_below_the_rows_with_its_totals_alone() -> None:
    rows = [compared_row(seeds, REFERENCE, [0.0]) for seeds in (REFERENCE, VAE)]
    flac = Flac(bits_per_sample=11.9, joined_bits_per_sample=11.7, frames_bits_per_sample=11.6)
    headings, cells = comparison_table(_comparison(*rows, flac=flac))
    below = [dict(zip(headings, line, strict=True)) for line in cells[len(rows) :]]
    assert [line["total, 16 bit"] for line in below] == ["11.6000", "11.9000", "11.7000"]
    assert {line["rate"] for line in below} == {"-"}
    assert "without the metadata of the files" in "\n".join(legend_lines(_comparison(*rows, flac=flac)))


def _recipe(*arguments: str) -> Any:
    command = parse("compare", list(arguments))
    assert isinstance(command, Compare)
    return command.recipe


def test_flags_name_models_of_sound_and_count_the_wavenet_decoder() -> None:
    usual = _recipe("vowels")
    assert usual.models[:1] == ("vq-vae",)
    assert {"ae", "vae", "beta-vae-0.1", "beta-vae-3", "cvae"} < set(usual.models)
    assert "vimco" not in usual.models
    assert "cvae" not in _recipe("fsdd").models  # a folder may have no labels
    assert usual.baseline_training.steps == 900  # 300 each of codebook, decoder and prior
    assert _recipe("vowels", "--wavenet-decoder.blocks", "0").baseline_training.steps == 600
    assert _recipe("vowels", "--models", "vae", "--betas", "0.5").models == ("vae", "beta-vae-0.5")


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that `compare` leaves of a sweep of beta on the vowels."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "tiny.toml").write_text(RECIPE)
    command = [
        "compare",
        folder / "tiny.toml",
        "--models",
        "vq-vae,ae,cvae",
        "--betas",
        "0.5,1",
        "--out",
        folder / "out",
    ]
    assert main([str(argument) for argument in command]) == 0
    return folder / "out"


def test_compare_on_vowels_trains_equal_budgets_into_one_table(
    compared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    comparison = json.loads((compared / "comparison.json").read_text())
    assert (comparison["unit"], comparison["dims"], comparison["items"]) == ("bits/sample", 198927, 60)
    assert (comparison["budget_steps"], comparison["alphabet"]) == (11, 65536)
    rows = {row["name"]: row for row in comparison["rows"]}
    decoders = ("vq-vae (ema), ", "vq-vae (ema), WaveNet decoder, ")
    learned = [f"{decoder}learned prior" for decoder in decoders]
    assert {*learned, "vae, ELBO", "vae, IWAE-1", "beta-vae-0.5, ELBO", "beta-vae-0.5, IWAE-1"} < set(rows)
    assert {"ae", "cvae, ELBO"} < set(rows)
    assert (rows["cvae, ELBO"]["labels"], rows["cvae, ELBO"]["difference_bits_per_dim"]) == ("given", None)
    assert rows["ae"]["bits_per_dim"] is None
    assert comparison["reference"] == learned[0]
    assert [rows[name]["steps"] for name in (*learned, "vae, ELBO", "beta-vae-0.5, ELBO")] == [8, 11, 11, 11]
    for row in rows.values():
        if row["distortion_bits_per_dim"] is not None:
            parts = ("distortion", "rate", "length", "label")
            total = sum(row[f"{part}_bits_per_dim"]["mean"] for part in parts)
            assert row["bits_per_dim"]["mean"] == pytest.approx(total)
    assert comparison["flac"] == json.loads((compared / "seed-0" / "evaluation.json").read_text())["flac"]
    evaluation = json.loads((compared / "seed-0" / "evaluation.json").read_text())
    pairs = {(d["reference"], d["other"]): d for d in evaluation["paired_differences"]}
    for name in (learned[1], "vae, ELBO"):
        pair = pairs[learned[0], name]
        assert rows[name]["difference_bits_per_dim"]["mean"] == pytest.approx(pair["bits_per_dim"])
        assert rows[name]["difference_standard_error"] == pytest.approx(pair["standard_error"])
    assert (compared / "rate-distortion.png").read_bytes().startswith(b"\x89PNG")


def test_every_model_of_sound_is_diagnosed(compared: Path) -> None:
    evaluation = json.loads((compared / "seed-0" / "evaluation.json").read_text())
    found = {each["model"]: each for each in evaluation["diagnoses"]}
    assert set(found) == {"vq-vae", "ae", "cvae", "beta-vae-0.5", "vae"}
    assert found["ae"]["verdict"] == "no prior"
    assert found["cvae"]["numbers"]["items"] == found["vae"]["numbers"]["items"]
    rows = {(row["model"], row["decoder"], row["prior"], row["bound"]): row for row in evaluation["rows"]}
    codes, costs = found["vq-vae"]["sentences"], found["vq-vae"]["numbers"]
    assert " ".join(codes).count("codes are used") == 1
    assert "under the learned prior given label and speaker" in codes[-1]
    assert codes[-1].endswith("(60 recordings).")
    for prior, key in (("learned", "held_out"), ("unigram", "unigram"), ("uniform", "uniform")):
        row = rows["vq-vae", "wavenet", prior, "two-part"]
        assert costs[f"{key}_bits_per_code"] == pytest.approx(row["bits_per_code"], rel=1e-5)
    assert costs["train_bits_per_code"] > 0
    positions, elbo = found["vae"]["numbers"], rows["vae", "convolutional", "gaussian", "elbo"]
    assert positions["items"] == 3137  # of 60 recordings, 64 samples each
    assert positions["latent_shape"] == [2]
    bits = positions["rate_nats"] * positions["items"] / np.log(2)
    assert bits / evaluation["dims"] == pytest.approx(elbo["rate_bits_per_dim"], rel=1e-4)
    assert "of all recordings" in found["vae"]["sentences"][0]
