"""Drawn shapes whose factors of variation are known: 64x64 binary images, made anew wherever they are needed.

Five independent factors make an image: shape (square, ellipse, heart), 6 scales, 40 orientations, 32 columns (x) and 32
rows (y), 737 280 images in all. An image is a pure function of its factors, so a metric of disentanglement can ask for
any image it needs; the data set is a fixed sample of 20 000 training, 2 000 validation and 2 000 test images.

In the spirit of dSprites (L. Matthey, I. Higgins, D. Hassabis, A. Lerchner, "dSprites: Disentanglement testing Sprites
dataset", 2017), which has the same factors; no file of it is used. Departures, each so that no factor leaks into
another and every image has one description only:

- Orientations divide the period of the shape's own symmetry (square 90, ellipse 180, heart 360 degrees) into 40 steps.
  In dSprites they divide the full turn, so that one square has four orientations and no code can tell them apart.
- The three shapes have equal areas at equal scale, and their centroid is where the position says.
- Positions are one pixel apart: x and y move exactly the same pixels, and 720 drawings make all images.

Shape suffixes: N items, F = 5 factors, H rows, W columns, P side of a drawing.
"""

import hashlib
import math
from functools import cache

import numpy as np

from twostage.data.images.dataset import ImageDataset, Split
from twostage.errors import UsageError

CLASSES = ("square", "ellipse", "heart")
FACTORS = ("shape", "scale", "orientation", "x", "y")
FACTOR_SIZES = (3, 6, 40, 32, 32)
"""Values of each factor: factor f is one of 0..FACTOR_SIZES[f]-1."""
LEVELS = 2
SIDE = 64
TRAIN, VALIDATION, TEST = 20_000, 2_000, 2_000
SPLIT_SEED = "twostage shapes split 1"

_SMALLEST_SCALE, _LARGEST_SCALE = 0.5, 1.0
_AREA = 400.0  # pixels at scale 1
_PERIODS = (math.pi / 2, math.pi, 2 * math.pi)
_ELLIPSE_RATIO = 1.75  # long by short axis
_DRAWING = 33  # a drawing reaches 16 pixels from its middle one, and 32 positions of 33 pixels fill 64
# The centre lies off the middle of its pixel and off the diagonals: a centre of symmetry would change pixels four at a
# time, and small squares would look the same in neighbouring orientations.
_CENTRE_X, _CENTRE_Y = 0.19, 0.07


def load_shapes() -> ImageDataset:
    """The sample with images uint8 [N, 1, 64, 64], levels 0 and 1, and the shape as label; always the same splits."""

    def part(split: str) -> Split:
        factors_NF = shape_factors(split)
        return Split(images=render_shapes(factors_NF), labels=factors_NF[:, 0].copy())

    return ImageDataset(
        name="shapes",
        levels=LEVELS,
        classes=CLASSES,
        train=part("train"),
        validation=part("validation"),
        test=part("test"),
    )


def shape_factors(split: str) -> np.ndarray:
    """Factors int64 [N, 5] of every item of a split, columns as in `FACTORS`.

    Combinations are drawn without repetition from a stream of SHAKE-256, test first: numpy does not promise that a
    seeded generator keeps its stream, and another number of training images leaves the held-out ones where they are.

    Raises:
        UsageError: the split is not `train`, `validation` or `test`.
    """
    starts = {"test": 0, "validation": TEST, "train": TEST + VALIDATION}
    counts = {"test": TEST, "validation": VALIDATION, "train": TRAIN}
    if split not in starts:
        raise UsageError(f"expected the split train, validation or test, but {split!r} came")
    chosen_N = _sample()[starts[split] :][: counts[split]]
    return np.stack(np.unravel_index(chosen_N, FACTOR_SIZES), axis=1).astype(np.int64)


def render_shapes(factors_NF: np.ndarray) -> np.ndarray:
    """Images uint8 [N, 1, 64, 64] of 0 and 1 for factors of integers [N, 5]; x counts columns, y rows from the top.

    Raises:
        UsageError: the factors are not whole numbers [N, 5] within `FACTOR_SIZES`.
    """
    factors_NF = np.asarray(factors_NF)
    if factors_NF.ndim != 2 or factors_NF.shape[1] != len(FACTORS) or factors_NF.dtype.kind not in "iu":
        raise UsageError(
            f"expected whole numbers [N, {len(FACTORS)}] as factors, but {factors_NF.dtype} {factors_NF.shape} came: "
            f"give one column for each of {', '.join(FACTORS)}"
        )
    if factors_NF.size and not ((factors_NF >= 0) & (factors_NF < FACTOR_SIZES)).all():
        raise UsageError(
            f"expected factors below {FACTOR_SIZES}, but they reach from {factors_NF.min(0).tolist()} to "
            f"{factors_NF.max(0).tolist()}: count each factor from 0"
        )
    shape_N, scale_N, orientation_N, x_N, y_N = factors_NF.T
    images_NHW = np.zeros((len(factors_NF), SIDE, SIDE), np.uint8)
    windows_NYXPP = np.lib.stride_tricks.sliding_window_view(
        images_NHW, (_DRAWING, _DRAWING), axis=(1, 2), writeable=True
    )
    windows_NYXPP[np.arange(len(factors_NF)), y_N, x_N] = _drawings()[shape_N, scale_N, orientation_N]
    return images_NHW[:, None]


def draw_shape(shape: int, *, scale: float, angle: float) -> np.ndarray:
    """A shape around the middle of its drawing, bool [33, 33]: the pixels whose middle lies inside.

    Args:
        shape: index into `CLASSES`.
        scale: length by length of the largest, above 0 and at most 1.
        angle: radians, turning the right side of the picture downwards.
    """
    offset_P = np.arange(_DRAWING) - _DRAWING // 2
    right, down = (offset_P - _CENTRE_X)[None, :] / scale, (offset_P - _CENTRE_Y)[:, None] / scale
    u = math.cos(angle) * right + math.sin(angle) * down
    v = math.cos(angle) * down - math.sin(angle) * right
    return (_in_square, _in_ellipse, _in_heart)[shape](u, v)


def _in_square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(abs(u), abs(v)) < math.sqrt(_AREA) / 2


def _in_ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u**2 / _ELLIPSE_RATIO + v**2 * _ELLIPSE_RATIO < _AREA / math.pi


def _in_heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """A square on its tip with a half disc on either upper side, around the centroid of the three."""
    radius = math.sqrt(_AREA / (4 + math.pi))  # of the discs: half the square's side
    centroid = (math.pi / 2 + 2 / 3) / (4 + math.pi)
    # Along the square's upper sides, from its middle, in radii.
    a = (u - v) / math.sqrt(2) / radius + centroid
    b = (-u - v) / math.sqrt(2) / radius + centroid
    square = np.maximum(abs(a), abs(b)) < 1
    return square | ((a - 1) ** 2 + b**2 < 1) | (a**2 + (b - 1) ** 2 < 1)


@cache
def _drawings() -> np.ndarray:
    """uint8 [3, 6, 40, 33, 33]: every drawing that there is, before its position is known."""
    shapes, scales, orientations = FACTOR_SIZES[:3]
    drawings = [
        draw_shape(shape, scale=scale, angle=_PERIODS[shape] * orientation / orientations)
        for shape in range(shapes)
        for scale in np.linspace(_SMALLEST_SCALE, _LARGEST_SCALE, scales)
        for orientation in range(orientations)
    ]
    return np.stack(drawings).astype(np.uint8).reshape(*FACTOR_SIZES[:3], _DRAWING, _DRAWING)


@cache
def _sample() -> np.ndarray:
    """int64 [24 000], distinct numbers of factor combinations in the order drawn."""
    items = TRAIN + VALIDATION + TEST
    draws = items * 5 // 4  # one in fifty is drawn twice
    words = np.frombuffer(hashlib.shake_256(SPLIT_SEED.encode()).digest(8 * draws), ">u8")
    numbers = (words % math.prod(FACTOR_SIZES)).astype(np.int64)
    _, first = np.unique(numbers, return_index=True)
    return numbers[np.sort(first)][:items]
