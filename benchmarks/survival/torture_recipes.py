"""Tiny recipes of both kinds, and the commands that the survival tests run on them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import sklearn.datasets
import soundfile

STEPS = 12
_TRAINING = f"""
steps = {STEPS}
batch_size = 12
learning_rate = 3e-3
warmup_steps = 4
schedule = "cosine"
weight_ema = 0.9
validate_every = 5
checkpoint_every = 4
"""
_TRAININGS = "".join(f"[{name}_training]{_TRAINING}" for name in ("codebook", "baseline"))
_TRAININGS += f"[prior_training]{_TRAINING}accumulate = 2\n"
IMAGES = f"""
name = "tiny-images"
threads = 1
models = ["vq-vae", "vae"]
[data]
name = "digits"
[stage1]
downsampling = 2
channels = 16
residual_blocks = 1
residual_channels = 8
head_channels = 8
likelihood = "hurdle"
[quantiser]
codebook_size = 12
embedding_dim = 8
revival_threshold = 0.3
[gaussian]
latent_channels = 2
[vimco]
samples = 3
[prior]
layers = 2
channels = 8
first_kernel = 3
dropout = 0.2
label_dropout = 0.2
[evaluation]
iwae_samples = 2
{_TRAININGS}
"""
SOUND = f"""
name = "tiny-sound"
threads = 1
models = ["vq-vae", "vae"]
[data]
name = "recordings"
path = "FOLDER"
[recordings]
sample_rate_hz = 8000
pattern = "{{label}}_{{speaker}}_{{index}}"
test_indices = "0"
validation_indices = "1"
[audio]
likelihood = "mu-law"
channels = 8
residual_blocks = 1
residual_channels = 8
head_channels = 8
speaker_channels = 4
downsampling_layers = 4
segment_samples = 128
[quantiser]
codebook_size = 12
embedding_dim = 8
revival_threshold = 0.3
[gaussian]
latent_channels = 2
[wavenet_decoder]
blocks = 1
layers_per_block = 4
channels = 8
head_channels = 8
segment_samples = 128
dropout = 0.1
likelihood = "mu-law"
[wavenet_prior]
blocks = 1
layers_per_block = 3
channels = 8
dropout = 0.2
label_dropout = 0.2
[evaluation]
iwae_samples = 2
sampled_items = 0
[decoder_training]{_TRAINING}{_TRAININGS}
"""


def write_recipe(kind: str, folder: Path) -> Path:
    """Write a tiny recipe of "images" or "sound" and, for sound, its recordings; returns the recipe's path."""
    path, text = folder / f"{kind}.toml", IMAGES
    if kind == "sound":
        recordings, random = folder / "recordings", np.random.default_rng(0)
        recordings.mkdir(exist_ok=True)
        for index in range(6):
            for label, hertz in enumerate((300, 700)):
                for speaker in ("ada", "bob"):
                    seconds = np.arange(int(random.integers(280, 400))) / 8000
                    wave = 0.3 * np.sin(2 * np.pi * hertz * seconds) + 0.05 * random.standard_normal(len(seconds))
                    soundfile.write(recordings / f"{label}_{speaker}_{index}.wav", wave, 8000)
        text = SOUND.replace("FOLDER", str(recordings))
    else:
        pixels = (sklearn.datasets.load_digits().images[7] * (255 / 16)).round().astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / "item.png")
    path.write_text(text)
    return path


@dataclass(frozen=True)
class Scenario:
    """A command on a tiny run, and the commands whose results it needs."""

    kind: str
    """Of the recipe: images or sound."""
    before: tuple[str, ...]
    """Commands that are run first, in words; RECIPE and RUN are replaced."""
    command: str
    samples: str = ""
    """A command that makes something of its result, into RUN/out; FILE is replaced."""

    def words(self, command: str, recipe: Path, run: Path) -> list[str]:
        """The words of a command on that recipe and run folder."""
        item = recipe.parent / ("recordings/0_ada_0.wav" if self.kind == "sound" else "item.png")
        known = {"RECIPE": str(recipe), "RUN": str(run), "RUN/out": str(run / "out"), "FILE": str(item)}
        return [known.get(word, word) for word in command.split()]


CODEBOOK = "train-codebook RECIPE --out RUN"
_RECONSTRUCT = "reconstruct RUN FILE --out RUN/out"
_GENERATE = "generate RUN --count 3 --out RUN/out"
SCENARIOS = {
    "image codebook (EMA)": Scenario("images", (), CODEBOOK, _RECONSTRUCT),
    "image codebook (loss)": Scenario(
        "images", (), f"{CODEBOOK} --model vq-vae-loss", f"{_RECONSTRUCT} --model vq-vae-loss"
    ),
    "image prior": Scenario("images", (CODEBOOK,), "train-prior RUN", _GENERATE),
    "VAE": Scenario("images", (CODEBOOK,), "train-baseline RUN", f"{_GENERATE} --model vae"),
    "VIMCO": Scenario("images", (CODEBOOK,), "train-baseline RUN --model vimco", f"{_GENERATE} --model vimco"),
    "sound codebook": Scenario("sound", (), CODEBOOK, _RECONSTRUCT),
    "sound decoder": Scenario("sound", (CODEBOOK,), "train-decoder RUN", f"{_RECONSTRUCT} --decoder wavenet"),
    "sound prior": Scenario("sound", (CODEBOOK,), "train-prior RUN", _GENERATE),
    "sound VAE": Scenario("sound", (CODEBOOK,), "train-baseline RUN", f"{_RECONSTRUCT} --model vae"),
    "all of a recipe": Scenario("images", (), "train RECIPE --out RUN"),
}
