"""Items of every kind to codes: the same in any batches, in any number of processes, and mirrored."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import VQVAE, AudioVQVAE
from twostage.config.schema import EvaluationConfig, Recipe
from twostage.data import Split
from twostage_pipelines.modality.audio_files import AudioFiles
from twostage_pipelines.modality.encoding import encode_split
from twostage_pipelines.modality.files import Files
from twostage_pipelines.modality.image_files import ImageFiles

CPU = torch.device("cpu")


def _images() -> tuple[Files, Any, Any]:
    torch.manual_seed(0)
    small: dict[str, Any] = {"downsampling": 2, "channels": 8, "residual_blocks": 1, "residual_channels": 4}
    model = VQVAE(image_shape=(1, 4, 6), levels=9, head_channels=4, codebook_size=6, embedding_dim=4, **small).eval()
    images = np.random.default_rng(0).integers(0, 9, (7, 1, 4, 6)).astype(np.uint8)
    model.initialise_codebook(torch.from_numpy(images), seed=0)
    return ImageFiles(), model, Split(images, np.zeros(7, np.int64))


def _recordings() -> tuple[Files, Any, Any]:
    torch.manual_seed(0)
    small: dict[str, Any] = {"channels": 8, "residual_blocks": 1, "residual_channels": 4, "head_channels": 4}
    model = AudioVQVAE(downsampling_layers=4, codebook_size=6, embedding_dim=4, mixtures=2, **small).eval()
    numbers = np.random.default_rng(0)
    items = [numbers.integers(-9000, 9000, length).astype(np.int16) for length in (17, 390, 1, 140, 161, 7, 264)]
    together = torch.from_numpy(np.concatenate(items)[:960])[None]
    model.initialise_codebook(together, torch.ones_like(together, dtype=torch.bool), seed=0)
    return AudioFiles(), model, AudioFiles().split_of(items)


@pytest.fixture(params=[_images, _recordings], ids=["images", "recordings"])
def kind(request: pytest.FixtureRequest) -> tuple[Files, Any, Any]:
    return request.param()


def _encode(kind: tuple[Files, Any, Any], *, most: int = 1000, **options: Any) -> np.ndarray:
    files, model, split = kind
    recipe = replace(Recipe(), evaluation=EvaluationConfig(batch_size=most, batch_samples=most))
    return encode_split(files, model, split, label="x", recipe=recipe, device=CPU, **options)[0]


def test_codes_do_not_depend_on_the_batches(kind: tuple[Files, Any, Any]) -> None:
    codes = _encode(kind)
    assert len(np.unique(codes)) > 3
    for most in (1, 3):
        assert np.array_equal(_encode(kind, most=most), codes)


def test_processes_encode_every_item_once(kind: tuple[Files, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What two processes leave at zero for each other, added, is to the bit what one process encodes."""
    alone = _encode(kind, most=2)
    monkeypatch.setattr("twostage.distributed.world_size", lambda: 2)
    monkeypatch.setattr("twostage_pipelines.modality.encoding.sum_over_ranks", lambda *tensors: list(tensors))
    shares = []
    for number in range(2):
        monkeypatch.setattr("twostage.distributed.rank", lambda number=number: number)
        shares.append(_encode(kind, most=2))
    assert np.array_equal(shares[0] + shares[1], alone)
    assert not np.array_equal(shares[0], alone)
    assert not np.array_equal(shares[1], alone)


def test_lengths_and_what_is_behind_them() -> None:
    files, model, split = _recordings()
    codes, lengths = encode_split(files, model, split, label="x", recipe=Recipe(), device=CPU)
    assert lengths is not None
    assert lengths.tolist() == [2, 25, 1, 9, 11, 1, 17]
    for item, length in enumerate(lengths):
        assert not codes[item, :, length:].any()
    assert encode_split(*_images(), label="x", recipe=Recipe(), device=CPU)[1] is None


def test_mirrored_images_have_the_codes_of_the_mirrored() -> None:
    files, model, split = _images()
    mirrored = (files, model, replace(split, images=np.ascontiguousarray(split.images[..., ::-1])))
    assert np.array_equal(_encode((files, model, split), mirrored=True), _encode(mirrored))
    assert not np.array_equal(_encode(mirrored), _encode((files, model, split)))
