"""The codebook's training task: what it says while it trains."""

import pytest
import torch

from stage1_vqvae.images.tasks import CodebookTask
from stage1_vqvae.images.training_images import TrainingImages
from stage1_vqvae.images.vqvae import VQVAE


def test_a_collapsed_codebook_is_said_once_while_training(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    small = {"downsampling": 2, "channels": 8, "residual_channels": 4, "head_channels": 4}
    model = VQVAE(image_shape=(1, 4, 4), levels=5, codebook_size=16, embedding_dim=4, **small).eval()
    with torch.no_grad():
        model.quantiser.codebook[..., 1:, :] += 100.0  # out of reach: every vector is nearest to code 0
    images = torch.randint(0, 5, (20, 1, 4, 4))
    task = CodebookTask(
        model, train=TrainingImages(images), validation=images, kmeans=False, evaluation_batch_size=8, seed=0
    )
    said = []
    for _ in range(5):
        task.validate()
        said.append(capsys.readouterr().err)
    assert said[:2] == ["", ""]
    assert "warning: the codebook has collapsed: 1 of 16 codes are used" in said[2]
    assert said[3:] == ["", ""]
