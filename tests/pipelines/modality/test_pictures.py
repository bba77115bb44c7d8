"""Items as pictures of one size: what is where in them, and that distances between them mean something."""

from dataclasses import replace

import numpy as np
import pytest

from twostage.config.load import load_recipe
from twostage.data.audio import AudioDataset, AudioSplit
from twostage.data.images.load import load_dataset
from twostage.errors import RunError
from twostage.metrics.memorisation import memorisation, nearest_images
from twostage_pipelines.modality.audio import Audio
from twostage_pipelines.modality.images import Images
from twostage_pipelines.modality.pictures import Pictures, to_levels

RATE_HZ = 8000
VOWELS = load_recipe("vowels")


def tone(hertz: float, samples: int, amplitude: float = 10000.0) -> np.ndarray:
    """int16 [samples]."""
    return np.rint(amplitude * np.sin(2 * np.pi * hertz / RATE_HZ * np.arange(samples))).astype(np.int16)


def split_of(*recordings: np.ndarray) -> AudioSplit:
    nothing_N = np.zeros(len(recordings), np.int64)
    offsets = np.cumsum([0, *map(len, recordings)], dtype=np.int64)
    names = tuple(map(str, range(len(recordings))))
    return AudioSplit(np.concatenate(recordings), offsets, nothing_N, nothing_N, names)


@pytest.fixture(scope="module")
def tones() -> AudioDataset:
    train = split_of(tone(500, 8000), *(tone(300 + 100 * row, 4000 + 10 * row) for row in range(20)))
    return AudioDataset("tones", RATE_HZ, (), (), train, train, train, split_rule="none")


@pytest.fixture(scope="module")
def pictures(tones: AudioDataset) -> Pictures:
    return Audio().pictures(VOWELS, tones)


def test_a_recording_is_its_spectrum_over_time_with_low_tones_below(pictures: Pictures) -> None:
    low, high, short = pictures.of([tone(300, 4190), tone(3000, 4190), tone(300, 2095)])[:, 0]
    assert low.shape == (64, 64)
    loudest = [int(picture[:, 32].argmax()) for picture in (low, high)]
    assert loudest[0] > 44 > 20 > loudest[1]
    # The time shown is that of all training recordings but one in twenty: 4190 samples.
    assert low[loudest[0]].min() > 200
    assert short[loudest[0], :30].min() > 200
    assert short[:, 34:].max() == 0


def test_one_grey_scale_for_all(pictures: Pictures) -> None:
    loud, quiet = pictures.of([tone(300, 4190), tone(300, 4190, amplitude=1000.0)])[:, 0, :, 32].astype(int)
    assert loud.max() - quiet.max() == pytest.approx(255 * 20 / 70, abs=1)  # 20 of 70 dB
    assert loud.max() > 235
    assert pictures.of([tone(300, 4190, amplitude=32000.0)]).max() == 255


def test_what_is_longer_is_cut_and_what_is_shorter_than_a_window_has_a_picture(pictures: Pictures) -> None:
    whole, cut, least = pictures.of([tone(300, 9000), tone(300, 4190), tone(300, 1)])
    assert (whole == cut).all()
    assert least.shape == cut.shape


def test_an_item_has_the_same_picture_alone_and_among_others(pictures: Pictures, tones: AudioDataset) -> None:
    among = pictures.training()
    assert among.shape == (21, 1, 64, 64)
    alone = [pictures.of(pictures.items(tones.train, [row]))[0] for row in (3, 20)]
    found = nearest_images(np.stack(alone), among, count=2)
    assert found.indices_Nk[:, 0].tolist() == [3, 20]
    said = memorisation(found, found, item=pictures.item, level=pictures.level).sentence
    assert "nearest training recording: 0.0 grey levels" in said
    assert "2 of the samples are copies" in said


def test_recordings_are_played_and_drawn_with_axes(pictures: Pictures) -> None:
    two = [tone(300, 500), tone(400, 700)]
    assert pictures.players(two, ["one", "two"]).count("<audio") == 2
    figure = pictures.figure([two], [["one", "two"]])
    assert figure is not None
    assert figure.startswith(b"\x89PNG")


def test_images_are_their_own_pictures() -> None:
    recipe = load_recipe("digits")
    digits = load_dataset(recipe.data)
    pictures = Images().pictures(recipe, digits)
    some = pictures.items(digits.test, [5, 2])
    assert (pictures.of(some) == digits.test.images[[5, 2]]).all()
    assert pictures.training() is digits.train.images
    assert pictures.players(some, ["", ""]) == ""
    flipping = replace(recipe, data=replace(recipe.data, horizontal_flips=True))
    both = Images().pictures(flipping, digits).training()
    assert (both[np.array([len(digits.train)])] == digits.train.images[:1, ..., ::-1]).all()


def test_mean_images_are_rounded_into_the_alphabet() -> None:
    assert to_levels(np.array([-0.4, 0.4, 0.6, 15.5, 16.0, 99.0]), 17).tolist() == [0, 0, 1, 16, 16, 16]
    with pytest.raises(RunError, match="not finite"):
        to_levels(np.array([1.0, np.nan]), 17)
