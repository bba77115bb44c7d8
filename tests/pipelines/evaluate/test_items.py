"""Bits of every item as a file: they add up to the table, and the least probable come first."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twostage.data.audio import AudioDataset
from twostage.data.images.dataset import ImageDataset, Split
from twostage_pipelines.cli.main import main
from twostage_pipelines.evaluate.differences import Scored
from twostage_pipelines.evaluate.items import COLUMNS, anomaly_scores, write_items
from twostage_pipelines.evaluate.rows import Row
from twostage_pipelines.runs.run import Run


def test_scores_are_modified_z_scores() -> None:
    scores = anomaly_scores(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert scores.tolist() == pytest.approx([-1.349, -0.6745, 0.0, 0.6745, 65.4265])
    assert anomaly_scores(np.array([2.0, 2.0, 2.0, 9.0])).tolist() == [0.0] * 4


def read(path: Path) -> dict[str, list[dict[str, str]]]:
    """Lines of the file by row."""
    rows: dict[str, list[dict[str, str]]] = {}
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            assert tuple(line) == COLUMNS
            rows.setdefault(line["row"], []).append(line)
    return rows


def numbers(lines: list[dict[str, str]], column: str) -> np.ndarray:
    return np.array([float(line[column]) for line in lines])


def row_of(**fields: Any) -> Row:
    given = {"model": "vq-vae", "kind": "vq-vae", "likelihood": "hurdle", "alphabet": 9, "labels": "none"}
    cost = {"parameters": 1, "steps": 1, "train_seconds": 1.0, "stage1_sha256": "0" * 64}
    return Row(**{**given, **cost, **fields})


def test_images_add_up_to_the_row_and_bring_their_names(write_run: Any, tmp_path: Path) -> None:
    images_NCHW = np.random.default_rng(0).integers(0, 17, (40, 1, 8, 8)).astype(np.uint8)
    split = Split(images_NCHW, np.arange(40) % 2, names=tuple(f'{i},"x".png' for i in range(40)))
    dataset = ImageDataset("digits", 17, ("cat", "dog"), split, split, split)
    distortion_N, rate_N = np.random.default_rng(1).random(40), np.random.default_rng(2).random(40)
    bits_N = distortion_N + rate_N
    scored = [
        Scored(row_of(prior="uniform"), bits_N + 1, distortion_N=distortion_N, rate_N=rate_N + 1),
        Scored(row_of(prior="learned"), bits_N, distortion_N=distortion_N, rate_N=rate_N),
        Scored(row_of(prior="learned", search_items=3), bits_N[[0, 19, 39]]),
        Scored(row_of(model="ae", kind="ae"), None),
    ]
    write_items(tmp_path / "items.csv", Run.open(write_run()), dataset, "test", scored, dims=64)
    rows = read(tmp_path / "items.csv")
    assert [len(lines) for lines in rows.values()] == [40, 40, 3]
    lines = rows["vq-vae, learned prior"]
    assert numbers(lines, "bits_per_dim").mean() == pytest.approx(bits_N.mean(), abs=1e-6)
    assert np.array_equal(numbers(lines, "bits_per_dim"), np.sort(bits_N)[::-1])
    assert np.allclose(numbers(lines, "distortion_bits") + numbers(lines, "rate_bits"), numbers(lines, "bits"))
    assert np.allclose(numbers(lines, "bits"), 64 * numbers(lines, "bits_per_dim"))
    first = lines[0]
    worst = int(np.argmax(bits_N))
    assert (first["item"], first["name"], first["label"]) == (str(worst), f'{worst},"x".png', ("cat", "dog")[worst % 2])
    assert {line["item"] for line in rows["vq-vae, learned prior, 3 items"]} == {"0", "19", "39"}
    assert [line["distortion_bits"] for line in rows["vq-vae, learned prior, 3 items"]] == [""] * 3
    for what, item in (("least", worst), ("most", int(np.argmin(bits_N)))):
        with Image.open(tmp_path / f"items-{what}-probable.png") as picture:
            scale = picture.width // (1 + 4 * 9)
            assert picture.size == (37 * scale, 37 * scale)
            shown = np.asarray(picture)[scale : 9 * scale : scale, scale : 9 * scale : scale]
        assert np.array_equal(np.rint(shown / 255 * 16), images_NCHW[item, 0]), what


def test_recordings_add_up_by_their_lengths(spoken_run: Path, spoken_dataset: AudioDataset, tmp_path: Path) -> None:
    sizes_N = spoken_dataset.test.lengths
    distortion_N, rate_N = np.array([900.0, 2000.0, 700.0]), np.array([60.0, 10.0, 20.0])
    bits_N = distortion_N + rate_N + 5.0
    scored = [Scored(row_of(prior="learned"), bits_N, sizes_N, distortion_N=distortion_N, rate_N=rate_N)]
    total = int(sizes_N.sum())
    write_items(tmp_path / "items.csv", Run.open(spoken_run), spoken_dataset, "test", scored, dims=total)
    (lines,) = read(tmp_path / "items.csv").values()
    mean = numbers(lines, "bits").sum() / numbers(lines, "dims").sum()
    assert mean == pytest.approx(bits_N.sum() / total, abs=1e-6)
    assert [line["name"] for line in lines] == [("x", "y", "z")[i] for i in np.argsort(-bits_N / sizes_N)]
    assert [line["speaker"] for line in lines] == [("ann", "bob", "eve")[i] for i in np.argsort(-bits_N / sizes_N)]
    assert numbers(lines, "other_bits").tolist() == [5.0] * 3
    assert numbers(lines, "dims").tolist() == [sizes_N[i] for i in np.argsort(-bits_N / sizes_N)]
    for what in ("least", "most"):
        with Image.open(tmp_path / f"items-{what}-probable.png") as picture:
            assert min(picture.size) > 100


def test_the_file_is_one_of_comma_separated_values(
    write_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.csv").mkdir()
    for name in ("items.txt", "x.csv"):
        assert main(["evaluate", str(write_run(name=f"run-{name}")), "--per-item", str(tmp_path / name)]) == 2
        assert "--per-item must be a file name that ends in .csv" in capsys.readouterr().err


def test_without_bits_nothing_is_written(write_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = Split(np.zeros((2, 1, 8, 8), np.uint8), np.zeros(2, np.int64))
    dataset = ImageDataset("digits", 17, (), split, split, split)
    scored = [Scored(row_of(model="ae", kind="ae"), None)]
    write_items(tmp_path / "items.csv", Run.open(write_run()), dataset, "test", scored, dims=64)
    assert "has bits, so" in capsys.readouterr().err
    assert not (tmp_path / "items.csv").exists()
