"""What the survival tests share: tiny recipes, the real command in a process of its own, a run's fingerprint.

Importing torch costs some seconds of processor time, which a hundred starts would spend on nothing. `start` therefore
forks a process that has imported everything and has run nothing: the child gets its own process group, its own streams
and the default signal handlers, and calls what the console script calls, with the same arguments. With a `launcher`
the command is executed in a new interpreter instead.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import matplotlib.backends.backend_agg  # noqa: F401  this and what follows: imported for the children
import numpy as np
import PIL.Image
import sklearn.datasets
import soundfile
import torch
import torch._dynamo  # an optimiser imports it

import twostage_pipelines.commands
import twostage_pipelines.generate
import twostage_pipelines.sound.generate
import twostage_pipelines.sound.train
import twostage_pipelines.train  # noqa: F401  imported for the children
from twostage.atomic import ASIDE_PREFIX, TEMPORARY_PREFIX
from twostage_pipelines import cli

FRESH = (sys.executable, "-m", "twostage_pipelines")
"""A launcher: the command in an interpreter of its own. That of torchrun would stand here too."""
PATIENCE_SECONDS = 120.0

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
_TRAININGS = "".join(f"[{name}_training]{_TRAINING}" for name in ("codebook", "prior", "baseline"))
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
[sound]
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


@dataclass(frozen=True)
class Case:
    """A scenario made ready in a folder of its own."""

    scenario: Scenario
    folder: Path
    recipe: Path
    base: Path
    """The run before the command; copied for every point."""
    whole: dict[str, str]
    """Fingerprint of the run after the command, uninterrupted."""
    seconds: float
    """What that took."""

    def fresh_run(self, name: str) -> Path:
        """A new copy of the run before the command."""
        run = self.folder / name
        shutil.rmtree(run, ignore_errors=True)
        if self.base.is_dir():
            shutil.copytree(self.base, run)
        return run

    def words(self, run: Path) -> list[str]:
        """The command on that run."""
        return self.scenario.words(self.scenario.command, self.recipe, run)


def prepare(scenario: Scenario, folder: Path) -> Case:
    """Write the recipe, run what the scenario needs, and run it once without disturbance."""
    folder.mkdir(parents=True)
    recipe, base, whole = write_recipe(scenario.kind, folder), folder / "base", folder / "whole"
    for command in scenario.before:
        _done(run(scenario.words(command, recipe, base), log=folder / "log"))
    if base.is_dir():
        shutil.copytree(base, whole)
    ended = _done(run(scenario.words(scenario.command, recipe, whole), log=folder / "log"))
    return Case(scenario, folder, recipe, base, fingerprint(whole), ended.seconds)


def timed(case: Case, launcher: Sequence[str]) -> Case:
    """The case with the time that its command takes under a launcher."""
    ended = _done(run(case.words(case.fresh_run("timed")), log=case.folder / "log", launcher=launcher))
    return replace(case, seconds=ended.seconds)


def _done(ended: "Ended") -> "Ended":
    if ended.code != 0:
        raise RuntimeError(f"exit code {ended.code}: {ended.said}")
    return ended


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    code: int
    """Exit code; minus the number of the signal that killed it."""
    said: str
    """Its standard output and error."""
    seconds: float


@dataclass(frozen=True)
class Started:
    """A running command."""

    pid: int
    log: Path
    begun: float

    def send(self, number: int) -> bool:
        """Send a signal, to the command alone; False where it has ended before."""
        if not self.runs():
            return False
        os.kill(self.pid, number)
        return True

    def runs(self) -> bool:
        """Whether it has not ended yet."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self) -> Ended:
        """Wait for its end; a command that takes longer than `PATIENCE_SECONDS` hangs and is killed."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.002)
        seconds = time.monotonic() - self.begun
        return Ended(os.waitstatus_to_exitcode(found[1]), self.log.read_text(errors="replace"), seconds)


def start(
    arguments: Sequence[str | Path],
    *,
    log: Path,
    launcher: Sequence[str] = (),
    inside: Callable[[], object] = lambda: None,
) -> Started:
    """Start `twostage ARGUMENTS`.

    Args:
        arguments: of the command line, the verb first.
        log: file for its standard output and error.
        launcher: command that the arguments are added to; empty: a fork of this process.
        inside: called in a forked child before the command, to place faults.
    """
    words = [*map(str, arguments)]
    torch.set_num_threads(1)
    begun = time.monotonic()
    if launcher:
        with log.open("wb") as file:
            # Not waited for by the object, which `Started.wait` does by number.
            process = subprocess.Popen([*launcher, *words], stdout=file, stderr=file, start_new_session=True)
        process.returncode = 0
        return Started(process.pid, log, begun)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _child(words, log, inside)
    return Started(pid, log, begun)


def run(arguments: Sequence[str | Path], *, log: Path, launcher: Sequence[str] = ()) -> Ended:
    """Start a command and wait for its end."""
    return start(arguments, log=log, launcher=launcher).wait()


def _child(words: list[str], log: Path, inside: Callable[[], object]) -> NoReturn:
    """The forked process: whatever happens, it ends here and never returns into the parent's code."""
    code: Any = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1) for number in (1, 2))
        inside()
        sys.argv = ["twostage", *words]
        code = cli.main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def fingerprint(folder: Path) -> dict[str, str]:
    """SHA-256 of everything that two runs of the same commands must have in common, by path.

    Left out or blanked is what time of day and interruptions may change: seconds of training, older checkpoints (a
    signal saves one more), locks, and the digests and the page that contain those seconds.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.name in (".lock", "manifest.json", "report.html"):
            continue
        parent = path.parent
        if parent.name.startswith("step-") and parent != max(parent.parent.glob("step-*")):
            continue
        if parent.name == "latest":  # of the control in `killed_runs`
            continue
        data = path.read_bytes()
        if path.name in ("state.json", "evaluation.json"):
            data = json.dumps(_timeless(json.loads(data)), sort_keys=True).encode()
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    if (folder / "report.html").is_file():
        found["report.html"] = "present" if (folder / "report.html").read_bytes().endswith(b"</html>\n") else "cut"
    return found


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in ("seconds", "train_seconds")}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def different(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Paths in which two fingerprints differ."""
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


def leftovers(folder: Path) -> list[str]:
    """Unfinished files and folders moved aside that were left behind."""
    entries = (entry for entry in folder.rglob(".*") if entry.name.startswith((TEMPORARY_PREFIX, ASIDE_PREFIX)))
    return sorted(str(entry.relative_to(folder)) for entry in entries)
