"""Bits/dim of PNG, WebP and JPEG XL, all lossless, every image a file of its own: what a learned model is held against.

    pip install pillow-jxl-plugin
    python benchmarks/studies/image_codecs.py FOLDER t10k-images-idx3-ubyte.gz

A source is a folder of images (sub-folders too) or an IDX file, plain or gzip. An image's bits are those of the whole
file, divided by C x H x W sub-pixels; the mean is over images with its standard error. Beside them stand those of the
compressed data alone, without the container (signature, chunks, checksums): on small images that is a good part of a
file, and a model's code lengths are without it, too. Images are rebuilt from their pixels, so that no metadata is
stored, and every file is decoded and compared with them. Settings are the strongest that Pillow offers, except for
JPEG XL: effort 10 comes out longer than 9 on 32x32 images. WebP has no greyscale: it stores three equal channels, which
cost it next to nothing, and its bits are still divided by one.
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

from twostage.data.images.idx import read_idx
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
    data_bits_per_dim: float
    """Of the compressed data alone."""
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


def data_bytes(file: bytes) -> int:
    """Compressed data of a file: IDAT chunks of a PNG, the VP8L chunk of a WebP, all of a bare JPEG XL stream."""
    if file[:2] == b"\xff\x0a":
        return len(file)
    png = file[:8] == b"\x89PNG\r\n\x1a\n"
    if not png and (file[:4], file[8:12]) != (b"RIFF", b"WEBP"):
        raise RuntimeError("expected a PNG, a WebP or a bare JPEG XL stream")
    place, found = 8 if png else 12, 0
    while place < len(file):
        head = file[place : place + 8]
        size, kind = (
            (int.from_bytes(head[:4], "big"), head[4:]) if png else (int.from_bytes(head[4:], "little"), head[:4])
        )
        found += size if kind in (b"IDAT", b"VP8L") else 0
        place += 8 + size + (4 if png else size % 2)
    return found


def measure(encoder: str, settings: dict[str, Any], originals: list[Image.Image]) -> Result:
    """Encode every image by itself and check that nothing was lost."""
    bits_per_dim, data_bits_per_dim, seconds = [], [], 0.0
    for image in originals:
        buffer = io.BytesIO()
        start = time.perf_counter()
        image.save(buffer, format=encoder, **settings)
        seconds += time.perf_counter() - start
        with Image.open(buffer) as decoded:
            if not np.array_equal(np.asarray(decoded.convert(image.mode)), np.asarray(image)):
                raise RuntimeError(f"{encoder} with {settings} is not lossless")
        dims = MODES[image.mode] * image.width * image.height
        bits_per_dim.append(8 * len(buffer.getvalue()) / dims)
        data_bits_per_dim.append(8 * data_bytes(buffer.getvalue()) / dims)
    error = float(np.std(bits_per_dim, ddof=1)) / math.sqrt(len(originals)) if len(originals) > 1 else math.nan
    ms = 1e3 * seconds / len(originals)
    return Result(float(np.mean(bits_per_dim)), error, float(np.mean(data_bits_per_dim)), ms)


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
    print("| source | images | size | encoder | settings | bits/dim | ± s.e. | data alone | ms/image |")
    print("|---|---:|---|---|---|---:|---:|---:|---:|")
    for source, originals in sources.items():
        sizes = sorted({f"{image.width}x{image.height} {image.mode}" for image in originals})
        for encoder in arguments.formats:
            settings = ENCODERS[encoder] | ({"effort": arguments.effort} if encoder == "JXL" else {})
            result = measure(encoder, settings, originals)
            shown = ", ".join(f"{key}={value}" for key, value in settings.items() if key != "num_threads")
            print(
                f"| {'/'.join(source.parts[-2:])} | {len(originals)} | {', '.join(sizes)} | {encoder} "
                f"({codecs[encoder]}) | {shown} | {result.bits_per_dim:.4f} | {result.standard_error:.4f} "
                f"| {result.data_bits_per_dim:.4f} | {result.ms_per_image:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
