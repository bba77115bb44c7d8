"""What stage one trains on: images, with whatever is drawn anew for every batch.

The draws are those of the step's batch (`twostage.noise`), which the training loop seeds from (seed, step): a resumed
training sees the images that an uninterrupted one would have seen, and so do several processes together.

Shapes: N items, B items of a batch, C x H x W image.
"""

import numpy as np
import torch
from torch import Tensor

from twostage.errors import UsageError
from twostage.noise import batch_uniform


class TrainingImages:
    """Training images `[N, C, H, W]`, integers.

    Args:
        images: on the device where the model trains.
        horizontal_flips: mirror every image of a batch with probability one half.
        intensities: for dynamic binarisation, the grey levels behind `images`, of the same shape; every batch is then
            drawn anew, a pixel being 1 with probability level / (intensity_levels - 1).
        intensity_levels: size of their alphabet.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        horizontal_flips: bool = False,
        intensities: Tensor | None = None,
        intensity_levels: int | None = None,
    ) -> None:
        if (intensities is None) != (intensity_levels is None):
            raise UsageError("intensities and intensity_levels go together: give both or neither")
        self.images, self.horizontal_flips = images, horizontal_flips
        self.intensities, self.intensity_levels = intensities, intensity_levels

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: np.ndarray) -> Tensor:
        """Images `[B, C, H, W]` of one step."""
        rows = torch.from_numpy(indices).to(self.images.device)
        if self.intensities is not None and self.intensity_levels is not None:
            levels_BCHW = self.intensities[rows]
            noise_BCHW = batch_uniform(*levels_BCHW.shape, device=levels_BCHW.device)
            x_BCHW = (noise_BCHW * (self.intensity_levels - 1) < levels_BCHW).to(self.images.dtype)
        else:
            x_BCHW = self.images[rows]
        if self.horizontal_flips:
            mirrored_B = batch_uniform(len(rows), device=x_BCHW.device) < 0.5
            x_BCHW = torch.where(mirrored_B[:, None, None, None], x_BCHW.flip(-1), x_BCHW)
        return x_BCHW
