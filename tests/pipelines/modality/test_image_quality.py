"""Constructed reconstructions, and whether their measures and faults are those that were constructed."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from twostage_pipelines.modality import image_quality
from twostage_pipelines.modality.image_faults import image_faults
from twostage_pipelines.modality.image_quality import ImageQuality


def _clouds(channels: int = 3, height: int = 32, width: int = 48, levels: int = 256, items: int = 24) -> Tensor:
    """Random pictures with the spectrum of natural ones, whose channels differ."""
    rng = np.random.default_rng(0)
    noise = np.fft.rfft2(rng.normal(0, 1, (items, channels, height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    smooth = np.fft.irfft2(noise / np.maximum(frequency, 1 / height), s=(height, width))
    return torch.from_numpy(np.clip(np.rint((smooth / smooth.std() / 5 + 0.5) * (levels - 1)), 0, levels - 1)).long()


def _measured(x: Tensor, made: Tensor, *, levels: int = 256, period: int = 4, sampled: bool = False) -> dict[str, Any]:
    quality = ImageQuality(tuple(x.shape[1:]), levels, period)  # type: ignore[arg-type]
    numbers = quality.of(x, made.float())
    assert numbers.shape == (quality.numbers, len(x))
    return quality.together(numbers.numpy(), x.double().mean(0).numpy(), sampled=sampled)


def _names(row: dict[str, Any]) -> list[str]:
    return [fault.name for fault in image_faults(row)]


X = _clouds()


def test_untouched_pictures_have_every_measure_at_its_best_and_no_fault() -> None:
    found = _measured(X, X)
    assert found.pop("ssim") == (pytest.approx(1.0) if find_spec("skimage") else None)
    assert found == {
        "psnr_db": None, "explained_share": 1.0, "sharpness": 1.0, "grid_db": pytest.approx(0.0, abs=1e-9),
        "colour_error": 0.0, "colourfulness": 1.0, "colour_spread": 1.0,
    }  # fmt: skip
    assert _names(found) == []


def test_blurred_pictures_are_blurred_and_nothing_else() -> None:
    found = _measured(X, F.avg_pool2d(X.float(), 5, stride=1, padding=2, count_include_pad=False))
    assert _names(found) == ["blurred"]
    assert f"have {found['sharpness']:.0%} of the originals' energy" in image_faults(found)[0].sentence


def test_grey_and_tinted_pictures_are_grey_though_a_tint_has_chroma() -> None:
    grey = X.double().mean(1, keepdim=True).expand(-1, 3, -1, -1)
    found = _measured(X, grey)
    assert [found["colourfulness"], found["colour_spread"]] == pytest.approx([0.0, 0.0], abs=1e-6)
    assert _names(found) == ["grey"]
    tinted = _measured(X, grey * torch.tensor([1.1, 1.0, 0.8])[:, None, None])
    assert tinted["colourfulness"] > 0.3
    assert _names(tinted) == ["grey"]


def test_a_grid_of_four_pixels_is_one_where_codes_have_that_side() -> None:
    pattern = torch.zeros(32, 48)
    pattern[::4, ::4] = 40.0
    found = _measured(X, X + pattern)
    assert _names(found) == ["grid"]
    assert f"{found['grid_db']:.1f} dB" in image_faults(found)[0].sentence
    odd = torch.zeros(32, 48)
    odd[::3, ::3] = 40.0
    assert _names(_measured(X, X + odd)) == []


def test_mean_pictures_are_collapsed_and_not_called_blurred_or_grey_beside() -> None:
    found = _measured(X, X.double().mean(0).expand(24, -1, -1, -1))
    assert found["explained_share"] == pytest.approx(0.0, abs=1e-6)
    assert _names(found) == ["collapsed"]


def test_of_draws_there_is_no_explained_share_and_no_collapse() -> None:
    found = _measured(X, X.roll(1, 0), sampled=True)
    assert found["explained_share"] is None
    assert _names(found) == []
    assert found["sharpness"] == pytest.approx(1.0)


@pytest.mark.parametrize("period", [2, 4, 8, 16, 32])
@pytest.mark.parametrize(("channels", "levels"), [(1, 2), (1, 17), (2, 256), (3, 6), (4, 256)])
def test_any_channels_levels_sides_and_downsampling(channels: int, levels: int, period: int) -> None:
    x = _clouds(channels, 64, 96, levels, items=4)
    found = _measured(x, x.float().flip(0), levels=levels, period=period)
    assert ("colour_error" in found) == (channels == 3)
    assert found["grid_db"] == pytest.approx(0.0, abs=1e-6)  # the same pictures in another order
    assert found["explained_share"] < 1


def test_flat_originals_and_reconstructions_beyond_the_levels_have_what_is_defined() -> None:
    flat = torch.full((3, 3, 8, 8), 7)
    found = _measured(flat, flat + 300.0)
    assert {name for name, value in found.items() if value is None} == {
        "ssim", "explained_share", "sharpness", "grid_db", "colour_spread", "colourfulness",
    }  # fmt: skip
    assert found["colour_error"] == pytest.approx(98, abs=1)  # to white, not beyond


def test_similarity_is_a_mean_over_images_and_absent_where_one_process_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_quality, "why_no_ssim", lambda shape: None)
    monkeypatch.setattr(image_quality, "ssim", lambda x, made, levels: np.arange(len(x)) / levels)
    quality = ImageQuality((3, 32, 48), 256, 4)
    numbers = quality.of(X, X.float()).numpy()
    mean = X.double().mean(0).numpy()
    assert quality.together(numbers, mean, sampled=False)["ssim"] == pytest.approx(11.5 / 256)
    numbers[2, 5] = np.nan
    assert quality.together(numbers, mean, sampled=False)["ssim"] is None
