"""How sharp pictures are: the energy of the differences between neighbouring pixels.

A blurred picture has less of it than the picture it was made from. Energies are summed over all pictures before the
ratio of two sets is taken (`ratios.ratio`), so that a picture without any edge does not decide it.

Shapes: B pictures, C channels, H x W pixels.
"""

from torch import Tensor


def gradient_energy(x_BCHW: Tensor) -> Tensor:
    """Sum of the squared differences of all horizontal and vertical neighbours, `[B]` float64, in levels squared.

    A picture of a single pixel has none and gets 0.
    """
    x_BCHW = x_BCHW.double()
    across_B, down_B = (x_BCHW.diff(dim=axis).square().flatten(1).sum(1) for axis in (-1, -2))
    return across_B + down_B
