"""Bits/dim of PNG, WebP and JPEG XL, all lossless, every image a file of its own: what a learned model is held against.

    pip install pillow-jxl-plugin
    python benchmarks/image_codecs.py FOLDER t10k-images-idx3-ubyte.gz

A source is a folder of images (sub-folders too) or an IDX file, plain or gzip. An image's bits are those of the whole
file, headers included, divided by C x H x W sub-pixels; the mean is over images with its standard error. Images are
rebuilt from their pixels, so that no metadata is stored, and every file is decoded and compared with them. Settings are
the strongest that Pillow offers, except for JPEG XL: effort 10 comes out longer than 9 on 32x32 images. WebP has no
greyscale: it stores three equal channels, which cost it next to nothing, and its bits are still divided by one.
"""

import argparse
import io
import math
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from twostage.data.idx import read_idx
from twostage.errors import TwoStageError, UsageError

MODES = {"L": 1, "RGB": 3}
ENCODERS: dict[str, dict[str, Any]] = {
    "PNG": {"optimize": True},
    "WEBP": {"lossless": True, "quality": 100, "method": 6},
    "JXL": {"lossless": True, "num_threads": 1},
}


@dataclass(frozen=True)
class Result:
    """One encoder on one source."""

    bits_per_dim: float
    standard_error: float
    ms_per_image: float


def images(source: Path, count: int | None) -> list[Image.Image]:
    """The first `count` images (all unless given) of a folder, in the order of their paths, or of an IDX file."""
    if source.is_dir():
        known = Image.registered_extensions()
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in known)
        found = list(_from_files(files[:count]))
    else:
        found = [Image.fromarray(image_HW) for image_HW in read_idx(source, axes=3)[:count]]
    if not found:
        raise UsageError(f"expected a folder of images or an IDX file, but {source} holds no image: name another")
    return found


def _from_files(files: Iterable[Path]) -> Iterator[Image.Image]:
    for path in files:
        with Image.open(path) as image:
            if image.mode not in MODES:
                raise UsageError(f"expected 8-bit grey or RGB images, but {path} is {image.mode}: convert it first")
            yield Image.fromarray(np.asarray(image))


def measure(encoder: str, settings: dict[str, Any], originals: list[Image.Image]) -> Result:
    """Encode every image by itself and check that nothing was lost."""
    bits_per_dim, seconds = [], 0.0
    for image in originals:
        buffer = io.BytesIO()
        start = time.perf_counter()
        image.save(buffer, format=encoder, **settings)
        seconds += time.perf_counter() - start
        with Image.open(buffer) as decoded:
            if not np.array_equal(np.asarray(decoded.convert(image.mode)), np.asarray(image)):
                raise RuntimeError(f"{encoder} with {settings} is not lossless")
        bits_per_dim.append(8 * len(buffer.getvalue()) / (MODES[image.mode] * image.width * image.height))
    error = float(np.std(bits_per_dim, ddof=1)) / math.sqrt(len(originals)) if len(originals) > 1 else math.nan
    return Result(float(np.mean(bits_per_dim)), error, 1e3 * seconds / len(originals))


def register_jxl() -> None:
    """Teach Pillow JPEG XL, or end with what to install."""
    try:
        import pillow_jxl  # noqa: F401
    except ImportError:
        sys.exit("JPEG XL needs a plugin: pip install pillow-jxl-plugin, or leave it out with --formats PNG WEBP")


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, metavar="SOURCE", help="folder of images, or IDX file")
    parser.add_argument("--formats", nargs="+", choices=list(ENCODERS), default=list(ENCODERS))
    parser.add_argument("--count", type=int, help="first images of each source; all unless given")
    parser.add_argument("--effort", type=int, choices=range(1, 11), default=9, help="of JPEG XL")
    arguments = parser.parse_args()
    if "JXL" in arguments.formats:
        register_jxl()
    try:
        sources = {source: images(source, arguments.count) for source in arguments.sources}
    except TwoStageError as error:
        sys.exit(str(error))
    codecs = {
        "PNG": f"zlib-ng {ng}" if (ng := features.version("zlib_ng")) else f"zlib {features.version('zlib')}",
        "WEBP": f"libwebp {features.version('webp')}",
        "JXL": f"pillow-jxl-plugin {version('pillow-jxl-plugin')}" if "JXL" in arguments.formats else "",
    }
    print(f"Pillow {version('pillow')}, numpy {np.__version__}, Python {platform.python_version()}, one thread\n")
    print("| source | images | size | encoder | settings | bits/dim | ± s.e. | ms/image |")
    print("|---|---:|---|---|---|---:|---:|---:|")
    for source, originals in sources.items():
        sizes = sorted({f"{image.width}x{image.height} {image.mode}" for image in originals})
        for encoder in arguments.formats:
            settings = ENCODERS[encoder] | ({"effort": arguments.effort} if encoder == "JXL" else {})
            result = measure(encoder, settings, originals)
            shown = ", ".join(f"{key}={value}" for key, value in settings.items() if key != "num_threads")
            print(
                f"| {'/'.join(source.parts[-2:])} | {len(originals)} | {', '.join(sizes)} | {encoder} "
                f"({codecs[encoder]}) | {shown} | {result.bits_per_dim:.4f} | {result.standard_error:.4f} "
                f"| {result.ms_per_image:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
