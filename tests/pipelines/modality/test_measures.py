"""What is measured of images and of recordings beside what models say: side bits, quality, and FLAC."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae.batch import Batch
from twostage.config.schema import DataConfig, EvaluationConfig, Recipe
from twostage.data import load_dataset
from twostage.data.audio import AudioDataset
from twostage.data.audio.spectral import log_mel_distance, log_mel_settings, waveform
from twostage.metrics.flac import FLAC_FRAMES
from twostage_pipelines.modality.audio_measures import AudioMeasures
from twostage_pipelines.modality.image_measures import ImageMeasures

MEAN: Any = SimpleNamespace(autoregressive=False, levels=17)
DRAWN: Any = SimpleNamespace(autoregressive=True, levels=17)


def _digits() -> ImageMeasures:
    return ImageMeasures(load_dataset(DataConfig(name="digits")), "test", downsampling=2)


def _sounds(dataset: AudioDataset, sampled_items: int = 2) -> AudioMeasures:
    recipe = Recipe(data=DataConfig(name="vowels"), evaluation=EvaluationConfig(sampled_items=sampled_items))
    return AudioMeasures(recipe, dataset, "test")


def test_an_image_costs_nothing_beside_its_latents_and_sub_pixels() -> None:
    measures = _digits()
    assert (measures.dims, measures.sizes_N, measures.seconds, measures.beside(), measures.facts()) == (
        64, None, None, None, {},
    )  # fmt: skip
    assert measures.side(label=True, speaker=True) is None
    assert measures.conditioned_on(label=True, speaker=False) is None
    assert len(measures.decoded_items(DRAWN)) == 300


def test_images_are_measured_all_together_however_they_are_batched() -> None:
    measures, rows = _digits(), np.arange(5)
    x = torch.from_numpy(load_dataset(DataConfig(name="digits")).test.images[rows].astype(np.int64))
    decoded = 16 * torch.rand(5, 1, 8, 8)
    numbers = [measures.compare(Batch(items=torch.arange(len(part)), x=part), made) for part, made in
               ((x[:2], decoded[:2]), (x[2:], decoded[2:]))]  # fmt: skip
    assert len(numbers[0]) == measures.numbers
    found = measures.quality(torch.cat(numbers, 1).numpy(), rows, DRAWN)
    squared = (decoded - x).double().square()
    assert found["psnr_db"] == pytest.approx(10 * math.log10(16**2 / float(squared.mean())))
    assert (found["psnr_of"], found["explained_share"]) == ("sample", None)
    mean = measures.quality(torch.cat(numbers, 1).numpy(), rows, MEAN)
    deviation = (x.double() - x.double().mean(0)).square()
    assert mean["explained_share"] == pytest.approx(1 - float(squared.sum() / deviation.sum()))
    exact = measures.compare(Batch(items=torch.arange(5), x=x), x.float())
    assert measures.quality(exact.numpy(), rows, MEAN) == {
        "psnr_db": None, "psnr_of": "mean", "ssim": None, "explained_share": 1.0, "sharpness": 1.0, "grid_db": 0.0,
    }  # fmt: skip


def test_a_recording_pays_for_its_length_label_and_speaker(spoken_dataset: AudioDataset) -> None:
    measures = _sounds(spoken_dataset)
    plain, whole = measures.side(label=False, speaker=False), measures.side(label=True, speaker=True)
    assert plain is not None
    assert whole is not None
    assert (plain.labels == 0).all()
    # Three pairs that training has seen once, of six: (1 + 1) / (3 + 6) each.
    np.testing.assert_allclose(whole.labels, math.log2(9 / 2))
    # 700, 800 and 900 samples are 11, 13 and 15 codes of at most 1800 / 64; which samples of 64 are the last, 6 bits.
    most = math.ceil(1800 / 64)
    np.testing.assert_allclose(plain.length, math.log2((3 + most) / 2) + 6.0)
    said = measures.side(label=False, speaker=False, ends_N=np.array([1.0, 2.0, 3.0]))
    assert said is not None
    np.testing.assert_allclose(said.length, np.array([7.0, 8.0, 9.0]))


def test_in_words_and_numbers_what_a_prior_is_conditioned_on(spoken_dataset: AudioDataset) -> None:
    split = spoken_dataset.test
    measures, file = _sounds(spoken_dataset), SimpleNamespace(labels=split.labels, speakers=split.speakers)
    assert measures.conditioned_on(label=True, speaker=True) == "label and speaker"
    assert measures.conditioned_on(label=False, speaker=False) == "nothing"
    assert measures.condition(file).tolist() == [[0, 0], [1, 1], [0, 2]]  # type: ignore[arg-type]
    alone = _sounds(replace(spoken_dataset, speakers=()))
    assert alone.conditioned_on(label=True, speaker=True) == "label"
    file.speakers = None
    assert alone.condition(file).tolist() == [[0], [1], [0]]  # type: ignore[arg-type]


def test_reconstructions_are_as_near_as_their_spectrograms(spoken_dataset: AudioDataset) -> None:
    measures, settings = _sounds(spoken_dataset), log_mel_settings(8000)
    own, other = (torch.from_numpy(spoken_dataset.test.recording(item).copy())[None] for item in (0, 1))
    batch = Batch(items=torch.arange(1), x=torch.nn.functional.pad(own, (0, 68)), lengths=torch.tensor([700]))
    made = waveform(other[:, :700])
    expected = log_mel_distance(waveform(own), made, torch.ones_like(own, dtype=torch.bool), settings)
    assert measures.compare(batch, made).tolist() == [[pytest.approx(expected.item())]]
    assert measures.numbers == 1
    assert measures.faults({}) == ()
    assert measures.decoded_items(MEAN).tolist() == [0, 1, 2]
    assert measures.decoded_items(DRAWN).tolist() == [0, 2]  # as many as the recipe says, spread over all
    found = measures.quality(np.array([[3.0, 1.0]]), np.array([0, 2]), DRAWN)
    assert found["log_mel_ratio"] == pytest.approx(2.0 / measures.wrong_N[[0, 2]].mean())
    assert (found["log_mel_l1"], found["log_mel_items"]) == (2.0, 2)
    assert _sounds(spoken_dataset, 0).quality(np.zeros((1, 0)), np.zeros(0, int), DRAWN) == {"log_mel_items": 0}


def test_flac_stands_beside_the_rows_of_its_own_alphabet(spoken_dataset: AudioDataset) -> None:
    measures = _sounds(spoken_dataset)
    beside, facts = measures.beside(), measures.facts()
    assert (beside.name, beside.alphabet) == (FLAC_FRAMES, 65536)
    assert facts["flac"].frames_bits_per_sample == pytest.approx(beside.bits_N.sum() / 2400)
    assert (facts["sample_rate_hz"], measures.seconds, measures.dims) == (8000, 0.3, 2400)
    assert facts["wrong_log_mel_l1"] == pytest.approx(measures.wrong_N.mean())
