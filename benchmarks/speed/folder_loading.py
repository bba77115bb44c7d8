"""What it costs to load a folder of images or recordings: seconds, and memory beyond the data set itself.

    python benchmarks/speed/folder_loading.py --items 20000 --side 64
    python benchmarks/speed/folder_loading.py --kind recordings --items 5000 --seconds 2

The files are made in a temporary folder; a process of its own loads them and takes the digest that ties a model to its
data, as every verb does. Its peak is the largest resident memory of that process, less what it had with everything
imported: the data set's arrays are in it once, whatever comes on top is the loader's. To measure another version, put
its folder into PYTHONPATH.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

import numpy as np

MIB = 2**20


def write_images(folder: Path, items: int, side: int, suffix: str) -> None:
    """Smooth pictures with a little noise: PNG files of about the size of those of photographs."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for index in range(items):
        small = Image.fromarray(generator.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = smooth + generator.integers(-4, 5, smooth.shape, dtype=np.int16)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{index:06d}.{suffix}")


def write_recordings(folder: Path, items: int, seconds: float) -> None:
    """Noise of 16 bits at 16 kHz."""
    generator = np.random.default_rng(0)
    for index in range(items):
        with wave.open(str(folder / f"{index:06d}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", "not compressed"))
            file.writeframes(generator.integers(-9000, 9000, int(16_000 * seconds), dtype=np.int16).tobytes())


def peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def load(kind: str, folder: str, side: int) -> dict[str, float | str]:
    """Load the folder in this process."""
    if kind == "images":
        from twostage.config.schema import DataConfig
        from twostage.data import load_dataset
        from twostage.data.images import folder as _  # noqa: F401 (its imports are not what is measured)

        def read() -> object:
            return load_dataset(DataConfig(name="images", path=folder, image_size=side))
    else:
        from twostage.data.audio.folder import load_recordings
        from twostage.data.audio.libraries import load_soundfile

        load_soundfile()

        def read() -> object:
            return load_recordings(folder, sample_rate_hz=16_000)

    idle, cpu, wall = peak_bytes(), time.process_time(), time.perf_counter()
    dataset = read()
    loaded = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall, "peak": peak_bytes() - idle}
    digest = dataset.sha256  # type: ignore[attr-defined]
    splits = [dataset.split(name) for name in ("train", "validation", "test")]  # type: ignore[attr-defined]
    arrays = sum((split.images if kind == "images" else split.samples).nbytes for split in splits)
    return {**loaded, "arrays": arrays, "peak_with_digest": peak_bytes() - idle, "digest": digest}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("images", "recordings"), default="images")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--suffix", choices=("png", "jpg", "webp"), default="png")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a recording")
    parser.add_argument("--repeat", type=int, default=3, help="times to load; the least of every figure is shown")
    parser.add_argument("--folder", help="load this folder instead of making one")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(load(options.kind, options.folder, options.side)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(options.folder or made)
        if options.folder is None and options.kind == "images":
            write_images(folder, options.items, options.side, options.suffix)
        elif options.folder is None:
            write_recordings(folder, options.items, options.seconds)
        command = [sys.executable, __file__, "--child", "--kind", options.kind, "--side", str(options.side)]
        command += ["--folder", str(folder)]
        runs = []
        for _ in range(options.repeat):
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            runs.append(json.loads(done.stdout))
    least = {key: min(run[key] for run in runs) for key in runs[0]}
    arrays = least["arrays"]
    print(f"arrays {arrays / MIB:.0f} MiB; CPU {least['cpu_s']:.1f} s, wall {least['wall_s']:.1f} s")
    for key, what in (("peak", "loading"), ("peak_with_digest", "loading and digest")):
        print(f"peak of {what}: {least[key] / MIB:.0f} MiB, {least[key] / arrays:.2f} of the arrays")
    print(f"digest {least['digest'][:12]}")


if __name__ == "__main__":
    main()
