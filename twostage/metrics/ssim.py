"""Structural similarity of pictures (Wang et al. 2004), as scikit-image computes it: the extra `twostage[ssim]`.

Means, variances and covariances under a Gaussian window of 11x11 pixels with a deviation of 1.5, as in the paper; of
colour pictures the mean over channels. 1 is equal, 0 is unrelated.

Shapes: B pictures, C channels, H x W pixels.
"""

from importlib.util import find_spec

import numpy as np

WINDOW = 11
"""Side of the window, in pixels."""


def why_no_ssim(image_shape: tuple[int, int, int]) -> str | None:
    """Why there is no structural similarity of pictures [C, H, W], or None if there is."""
    _, height, width = image_shape
    if min(height, width) < WINDOW:
        return f"its window has {WINDOW}x{WINDOW} pixels, and the images {height}x{width}"
    if find_spec("skimage") is None:
        return "it needs scikit-image, so install 'twostage[ssim]'"
    return None


def ssim(one_BCHW: np.ndarray, other_BCHW: np.ndarray, levels: int) -> np.ndarray:
    """Structural similarity of every pair of pictures in levels 0..levels-1, `[B]`, where there is one."""
    from skimage.metrics import structural_similarity

    pairs = zip(one_BCHW.astype(np.float64), other_BCHW.astype(np.float64), strict=True)
    settings = {"data_range": levels - 1, "channel_axis": 0, "gaussian_weights": True, "use_sample_covariance": False}
    return np.array([structural_similarity(one_CHW, other_CHW, **settings) for one_CHW, other_CHW in pairs])
