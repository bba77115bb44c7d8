"""A third kind of data, defined here alone, goes through every verb of the command line: sequences of integers.

It is what CONTRIBUTING asks: a modality, its data, a section of the recipe, two entries. No verb knows of it.
Shapes: N items, B items of a batch, L integers of a sequence, V values, D channels, T codes.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stage1_vqvae import VectorQuantiser
from stage1_vqvae.batch import Asked, Batch
from stage1_vqvae.deterministic import Deterministic
from stage1_vqvae.interface import LatentKind
from stage2_prior import PixelCNN
from stage2_prior.training import PriorTask
from twostage.config.dial import Dialled
from twostage.config.kinds import KINDS, DataKind
from twostage.config.schema import DataConfig, Recipe
from twostage.errors import DataError, UsageError
from twostage.storage.codes import CodeFile
from twostage.training.task import StepResult
from twostage_pipelines.cli.main import main
from twostage_pipelines.generate.two_stage import load_run
from twostage_pipelines.modality.choose import MODALITIES
from twostage_pipelines.modality.files import Shown
from twostage_pipelines.modality.measures import Beside, Fault, Side
from twostage_pipelines.modality.pictures import Curve

LENGTH, VALUES, STRIDE = 16, 6, 4
POSITIONS = LENGTH // STRIDE


# --- the section of the recipe, and what is of this kind alone ---
@dataclass(frozen=True, kw_only=True)
class IntegerData(DataConfig):
    """Which sequences."""

    name: Literal["integers"] = "integers"  # type: ignore[assignment]
    """The only data set of this kind."""


@dataclass(frozen=True, kw_only=True)
class IntegersConfig:
    """Networks of sequences."""

    width: int = 8
    """Channels."""


@dataclass(frozen=True, kw_only=True)
class IntegerRecipe(Recipe):
    """A recipe on sequences."""

    data: IntegerData = field(default_factory=IntegerData)
    integers: IntegersConfig = field(default_factory=IntegersConfig)


KIND = DataKind(
    about="integers",
    datasets=("integers",),
    sections=("integers", "prior"),
    settings={},
    lacks=("vq-vae-joint", "ae", "vae", "cvae", "vimco"),
    recipe=IntegerRecipe,
)


# --- data ---
@dataclass(frozen=True)
class IntegerSplit:
    """Sequences that count up (label 0) or down (label 1) with some noise."""

    sequences: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "IntegerSplit":
        return IntegerSplit(self.sequences[rows], self.labels[rows])

    @property
    def speakers(self) -> np.ndarray:
        return np.zeros_like(self.labels)


@dataclass(frozen=True)
class IntegerDataset:
    """Three splits of them."""

    train: IntegerSplit
    validation: IntegerSplit
    test: IntegerSplit
    name: str = "integers"
    classes: tuple[str, ...] = ("up", "down")
    speakers: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(b"".join(self.split(name).sequences.tobytes() for name in ("train", "test"))).hexdigest()

    def split(self, name: str) -> IntegerSplit:
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]


def make_split(count: int, seed: int) -> IntegerSplit:
    generator = np.random.default_rng(seed)
    labels_N = np.arange(count) % 2
    start_N1, step_N1 = generator.integers(0, VALUES, (count, 1)), np.where(labels_N == 0, 1, -1)[:, None]
    noise_NL = generator.random((count, LENGTH)) < 0.05
    sequences_NL = (start_N1 + step_N1 * np.arange(LENGTH) + noise_NL) % VALUES
    return IntegerSplit(sequences_NL.astype(np.uint8), labels_N.astype(np.int64))


# --- stage one ---
class IntegerVQVAE(Deterministic, nn.Module):
    """Codes of four integers each; a `Codec`."""

    latents: LatentKind = "codes"
    levels, likelihood_is_discrete, autoregressive = VALUES, True, False
    classes, speakers, codebooks, update_rule = 0, 0, 1, "ema"

    def __init__(self, *, width: int, codebook_size: int) -> None:
        super().__init__()
        self.codebook_size = codebook_size
        self.encoder = nn.Conv1d(VALUES, width, STRIDE, STRIDE)
        self.quantiser = VectorQuantiser(codebook_size=codebook_size, embedding_dim=width)
        self.decoder = nn.ConvTranspose1d(width, VALUES, STRIDE, STRIDE)

    def vectors(self, x_BL: Tensor) -> Tensor:
        return self.encoder(F.one_hot(x_BL.long(), VALUES).float().transpose(1, 2))[:, :, None]

    def nats(self, vectors_BD1T: Tensor, x_BL: Tensor) -> Tensor:
        return F.cross_entropy(self.decoder(vectors_BD1T[:, :, 0]), x_BL.long(), reduction="none").sum(1)

    def dims_of(self, asked: Asked) -> Tensor:
        return torch.full_like(asked.items, LENGTH)

    def positions_of(self, asked: Asked) -> Tensor:
        return torch.full_like(asked.items, POSITIONS)

    @torch.no_grad()
    def latents_of(self, batch: Batch, *, seed: int) -> Tensor:
        codes_BG1T: Tensor = self.quantiser(self.vectors(batch.x)).codes
        return codes_BG1T

    @torch.no_grad()
    def log_prob_batch(self, batch: Batch, codes: Tensor, /) -> Tensor:
        return -self.nats(self.quantiser.lookup(codes), batch.x)

    @torch.no_grad()
    def decode_batch(self, latents: Tensor, asked: Asked, /, *, seed: int) -> Tensor:
        return self.decoder(self.quantiser.lookup(latents)[:, :, 0]).argmax(1).float()


class IntegerTask:
    """Trains it."""

    objective = "distortion_bits_per_dim"

    def __init__(self, model: IntegerVQVAE, dataset: IntegerDataset) -> None:
        self.model = model
        self.train, self.validation = (torch.from_numpy(s.sequences) for s in (dataset.train, dataset.validation))
        self.items = len(self.train)

    def start(self) -> None:
        vectors_ND1T = self.model.vectors(self.train).detach()
        self.model.quantiser.initialise(vectors_ND1T.movedim(1, -1).flatten(0, -2), seed=0)

    def loss(self, indices: np.ndarray) -> StepResult:
        x_BL = self.train[torch.from_numpy(indices)]
        quantised = self.model.quantiser(self.model.vectors(x_BL))
        nats = self.model.nats(quantised.vectors, x_BL).mean() / LENGTH
        bits = {self.objective: nats.detach() / math.log(2)}
        return StepResult(loss=nats + self.model.quantiser.loss(quantised), metrics=bits, output=quantised.statistics)

    def after_step(self, result: StepResult, optimiser: torch.optim.Optimizer) -> Mapping[str, float]:
        self.model.quantiser.update(result.output)  # type: ignore[arg-type]
        return {}

    def validate(self) -> Mapping[str, float]:
        batch = Batch(items=torch.arange(len(self.validation)), x=self.validation)
        nats_N = self.model.score(batch, samples=1, seed=0).distortion
        return {self.objective: float(nats_N.double().mean()) / (math.log(2) * LENGTH)}


# --- the modality ---
class IntegerFiles:
    """Sequences as text files; see `Files`."""

    item = source = "sequence"
    count, unit, apart = 4, "bits/dim", ""
    one_overview, have_lengths = True, False
    length_of = length_after = kept = None  # asked of items that differ in length, or that are completed

    def suffixes(self, record: Any) -> tuple[str, ...]:
        return (".txt",)

    def prefix_of(self, model: str) -> str:
        return ""

    def batches(
        self, split: IntegerSplit, model: Any, *, recipe: Recipe, device: torch.device, rows: np.ndarray | None = None
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        rows_N = np.arange(len(split)) if rows is None else rows
        for items_B in np.array_split(rows_N, -(-len(rows_N) // recipe.evaluation.batch_size)):
            yield items_B, Batch(items=torch.from_numpy(items_B), x=torch.from_numpy(split.sequences[items_B]))

    def read(self, path: Path, record: Any, recipe: Recipe) -> np.ndarray:
        try:
            sequence_L = np.array(path.read_text(encoding="ascii").split(), np.uint8)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} holds no integers: {error}") from None
        if sequence_L.shape != (LENGTH,) or int(sequence_L.max()) >= VALUES:
            raise DataError(f"expected {LENGTH} integers below {VALUES} in {path}: correct it")
        return sequence_L

    def arrays(self, given: object, record: Any, rate_hz: int | None) -> list[np.ndarray]:
        return list(np.atleast_2d(np.asarray(given, np.uint8)))

    def split_of(self, items: Sequence[np.ndarray], labels: Sequence[int] = (), speakers: Sequence[int] = ()) -> Any:
        return IntegerSplit(np.stack(items), np.array(labels or np.zeros(len(items)), np.int64))

    def speakers_in(self, paths: Sequence[Path], recipe: Recipe, speakers: tuple[str, ...]) -> list[int | None]:
        return [None] * len(paths)

    def together(self, recipe: Recipe) -> int:
        return recipe.evaluation.batch_size

    def lengths_of(self, split: Any) -> None:
        return None

    def grids_of(self, split: Any, model: Any) -> tuple[tuple[int, ...], ...]:
        return ((1, POSITIONS),)

    def check_codes(self, codes: CodeFile, model: Any, record: Any, *, name: str, source: str, remedy: str) -> None:
        assert codes.header.grids == ((1, POSITIONS),)

    def made(self, decoded: Tensor, lengths: Tensor | None) -> list[np.ndarray]:
        return list(decoded.cpu().numpy().astype(np.uint8))

    def handed(self, items: Sequence[np.ndarray], record: Any, labels: Sequence[int], speakers: Sequence[int]) -> Any:
        return np.stack(items)

    def difference(self, own: np.ndarray, made: np.ndarray, record: Any) -> str:
        return f"{int((own != made).sum())} of {LENGTH} integers differ"

    def write(self, folder: Path, shown: Shown, record: Any, *, what: str) -> str:
        folder.mkdir(parents=True, exist_ok=True)
        for stem, item in zip(shown.stems, shown.items, strict=True):
            np.savetxt(folder / f"{stem}.txt", item[None], fmt="%d")
        return f"{what} in {folder}"


class IntegerMeasures:
    """A reconstruction is as good as the share of integers that it has right; see `Measures`."""

    decoder: str | None = None
    dims, numbers = LENGTH, 1
    sizes_N: np.ndarray | None = None
    seconds: float | None = None

    def __init__(self, split: IntegerSplit) -> None:
        self.items = len(split)

    def facts(self) -> dict[str, Any]:
        return {}

    def beside(self) -> Beside | None:
        return None

    def conditioned_on(self, *, label: bool, speaker: bool) -> str | None:
        return None

    def condition(self, file: CodeFile) -> np.ndarray | None:
        return None

    def side(self, *, label: bool, speaker: bool, ends_N: np.ndarray | None = None) -> Side | None:
        return None

    def decoded_items(self, model: Any) -> np.ndarray:
        return np.arange(self.items)

    def compare(self, batch: Batch, decoded: Tensor) -> Tensor:
        return (decoded != batch.x).double().sum(1)[None]

    def faults(self, row: Mapping[str, Any]) -> tuple[Fault, ...]:
        return ()

    def quality(self, numbers_RM: np.ndarray, items_M: np.ndarray, model: Any) -> dict[str, Any]:
        return {}

    def meaning(self, train: CodeFile, codes: CodeFile) -> None:
        return None


class IntegerPictures:
    """A sequence is a strip of grey values; see `Pictures`."""

    item, level, dim, rows, played, levels = "sequence", "levels", "dim", 4, 0, VALUES
    curves = (Curve("stage1", IntegerTask.objective, "Stage one: distortion", "bits/dim"),)

    def __init__(self, dataset: IntegerDataset) -> None:
        self.dataset = dataset

    def items(self, split: IntegerSplit, rows: Iterable[int] | None = None) -> np.ndarray:
        return split.sequences if rows is None else split.sequences[np.fromiter(rows, np.int64)]

    def of(self, items: Any) -> np.ndarray:
        return np.asarray(items)[:, None, None]

    def training(self) -> np.ndarray:
        return self.of(self.dataset.train.sequences)

    def players(self, items: Any, captions: Sequence[str]) -> str:
        return ""

    def watched(self, split: IntegerSplit, *, drawn: bool) -> IntegerSplit:
        return split.take(np.arange(3))

    def figure(self, *_: Any) -> None:
        return None

    in_a_row = figure


class Integers:
    """Sequences of integers as a `Modality`: a small codebook, and a PixelCNN over one row of its codes."""

    sections: ClassVar = {"stage1": "integers", "prior": "prior"}
    decoders: ClassVar = {"convolutional": "decoder"}
    files = IntegerFiles()
    with_decoder = None  # asked where `sections` has a decoder

    def load(self, recipe: Recipe) -> IntegerDataset:
        return IntegerDataset(make_split(256, 0), make_split(40, 1), make_split(40, 2))

    def describe(self, dataset: IntegerDataset) -> str:
        return f"sequences of {LENGTH} integers below {VALUES}"

    def facts(self, dataset: IntegerDataset) -> dict[str, Any]:
        return {}

    def stages(self, spec: Any, recipe: Recipe) -> tuple[str, ...]:
        return ("stage1", "prior")

    def stage1(self, spec: Any, recipe: Any, dataset: IntegerDataset) -> tuple[str, dict[str, Any]]:
        width, size = recipe.integers.width, recipe.quantiser.codebook_size
        return "integers-vq-vae", {"width": width, "codebook_size": size, "likelihood": "categorical"}

    def follower(self, stage: str, recipe: Recipe, codebook: Any, dataset: Any) -> tuple[str, dict[str, Any]]:
        settings = {key: value for key, value in asdict(recipe.prior).items() if key != "conditional"}
        shape = {"codebook_size": codebook.codebook_size, "codebooks": 1, "grid": (1, POSITIONS)}
        return "pixelcnn", {**shape, "classes": (len(dataset.classes),), **settings}

    def build(self, kind: str, arguments: Mapping[str, Any]) -> nn.Module:
        own = {key: tuple(v) if isinstance(v, list) else v for key, v in arguments.items() if key != "likelihood"}
        return PixelCNN(**own) if kind == "pixelcnn" else IntegerVQVAE(**own)

    def dial(self, asked: Any, dataset: IntegerDataset) -> Dialled:
        raise UsageError("there are no sizes for integers: leave --size out")

    def check(self, model: Any, recipe: Recipe, dataset: Any, training: Any, *, label: str) -> None:
        pass

    def stage1_task(self, model: Any, recipe: Any, dataset: Any, device: Any, prior: Any = None) -> IntegerTask:
        return IntegerTask(model, dataset)

    def follower_task(self, model: Any, codebook: Any, codes: Any, recipe: Recipe, dataset: Any) -> PriorTask:
        train, validation = codes["train"], codes["validation"]
        return PriorTask(
            model,
            train=torch.from_numpy(train.codes),
            train_condition=torch.from_numpy(train.labels)[:, None],
            validation=torch.from_numpy(validation.codes),
            validation_condition=torch.from_numpy(validation.labels)[:, None],
            evaluation_batch_size=recipe.evaluation.batch_size,
        )

    def code_splits(self, recipe: Recipe) -> tuple[str, ...]:
        return ("train", "validation", "test")

    def measures(self, recipe: Recipe, dataset: IntegerDataset, split: str) -> IntegerMeasures:
        return IntegerMeasures(dataset.split(split))

    def pictures(self, recipe: Recipe, dataset: IntegerDataset) -> IntegerPictures:
        return IntegerPictures(dataset)


# --- the verbs ---
RECIPE = """
models = ["vq-vae"]
threads = 1
data = {name = "integers"}
integers = {width = 12}
quantiser = {codebook_size = 32}
prior = {layers = 2, channels = 16, first_kernel = 3}
evaluation = {coded_items = 20}
[codebook_training]
steps = 150
batch_size = 32
learning_rate = 1e-2
validate_every = 50
[prior_training]
steps = 150
batch_size = 32
learning_rate = 1e-2
validate_every = 50
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of both stages, trained verb by verb, with the kind of data known to the two tables."""
    folder = tmp_path_factory.mktemp("integers")
    (folder / "integers.toml").write_text(RECIPE, encoding="utf-8")
    KINDS["integers"], MODALITIES["integers"] = KIND, Integers  # type: ignore[assignment]
    path = folder / "run"
    assert twostage("train-codebook", folder / "integers.toml", "--out", path, "--integers.width", 16) == 0
    assert twostage("train-prior", path) == 0
    yield path
    del KINDS["integers"], MODALITIES["integers"]


def twostage(*arguments: object) -> int:
    return main([*map(str, arguments)])


def sequences_in(folder: Path) -> list[np.ndarray]:
    return [np.array(path.read_text().split(), int) for path in sorted(folder.glob("*.txt"))]


def test_evaluate_finds_the_structure_in_the_codes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert twostage("evaluate", run) == 0
    found = json.loads((run / "evaluation.json").read_text())
    bits = {row["prior"]: row["bits_per_dim"] for row in found["rows"]}
    assert bits["learned"] < 0.7 * bits["uniform"] < math.log2(VALUES)
    assert bits["learned"] < bits["unigram"]
    assert found["coding"][0]["identical"]
    assert found["item"] == "sequence"
    assert found["diagnoses"][0]["model"] == "vq-vae"
    assert "learned prior" in capsys.readouterr().out


def test_generated_sequences_count_in_the_direction_asked_for(run: Path, tmp_path: Path) -> None:
    for label, step in (("up", 1), ("down", VALUES - 1)):
        out = tmp_path / label
        assert twostage("generate", run, "--label", label, "--count", 20, "--out", out) == 0
        steps = np.diff(np.stack(sequences_in(out)), axis=1) % VALUES
        assert (steps == step).mean() > 0.6
    made = load_run(run).generate(20, labels="down", seed=0)
    assert np.array_equal(made, np.stack(sequences_in(tmp_path / "down")))


def test_files_go_through_the_codes_and_back(run: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.txt"
    given.write_text(" ".join(str(n % VALUES) for n in range(LENGTH)), encoding="ascii")
    assert twostage("reconstruct", run, given, "--out", tmp_path / "reconstructed") == 0
    assert twostage("encode", run, given, "--out", tmp_path / "codes.safetensors") == 0
    assert twostage("decode", run, tmp_path / "codes.safetensors", "--out", tmp_path / "decoded") == 0
    (once,), (again,) = sequences_in(tmp_path / "reconstructed"), sequences_in(tmp_path / "decoded")
    assert np.array_equal(once, again)
    assert (once == np.arange(LENGTH) % VALUES).mean() > 0.8


def test_the_report_shows_samples_neighbours_and_curves(run: Path) -> None:
    assert twostage("evaluate", run) == 0
    assert twostage("report", run) == 0
    page = (run / "report.html").read_text()
    for part in ("Results", "Diagnosis", "nearest training sequences", "Thin: training batches"):
        assert part in page
    assert (run / "samples" / "vq-vae-samples.png").is_file()


def test_what_there_is_not_of_this_kind_is_refused_in_a_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (("train-baseline", run, "--model", "vae"), "vae is no model of integers"),
        (("train-decoder", run), "is about integers, whose models have no decoder to train"),
        (("generate", run, "--seconds", 1), "--seconds is for runs on recordings, but this one is about integers"),
        (("train", run.parent / "integers.toml", "--size", "small"), "there are no sizes for integers"),
        (("convert", run, run / "x.txt", "--speaker", "ada"), "is about integers"),
    ):
        assert twostage(*arguments) == 2
        assert said in capsys.readouterr().err
