"""`encode`, `decode` and `reconstruct` through the command line, against the library, on runs with random weights."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from stage1_vqvae import VQVAE
from twostage.storage import codes as codes_module
from twostage.storage.codes import CodeFile, load_codes, save_codes
from twostage.storage.flat_ids import flat_ids
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main
from twostage_pipelines.media.png import read_image, to_bytes
from twostage_pipelines.media.wav import write_wav

WriteRun = Callable[..., Path]


def _twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _forge(path: Path, file: CodeFile) -> None:
    """Write a file that `save_codes` would refuse, with a digest that is right."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codes_module, "_check", lambda *_: None)
        save_codes(path, file)


@pytest.mark.parametrize("layers", [0, 1])
def test_files_go_through_codes_and_back_as_the_library_does_it(
    write_run: WriteRun, pictures: list[Path], tmp_path: Path, layers: int
) -> None:
    run, file = write_run(autoregressive_layers=layers, autoregressive_channels=4), tmp_path / "new/codes.safetensors"
    assert _twostage("encode", run, *pictures, "--out", file) == 0
    model = load_run(run)
    images = np.stack([read_image(path, image_shape=(1, 8, 8), levels=17) for path in pictures])
    stored = load_codes(file)
    expected = model.vqvae.encode(torch.from_numpy(images))
    assert len(expected.unique()) > 4
    assert np.array_equal(stored.codes, expected.numpy())
    assert stored.header.names == ("cat", "dog", "grid", "für elise")
    assert (stored.header.split, stored.header.classes, stored.header.model) == ("files", 0, "vq-vae")
    assert _twostage("decode", run, file, "--out", tmp_path / "a", "--seed", 5) == 0
    decoded = to_bytes(model.decode(expected, seed=5).numpy(), 17)
    assert len(np.unique(decoded)) > 4
    for name, picture_CHW in zip(stored.header.names, decoded, strict=True):
        assert np.array_equal(_pixels(tmp_path / "a" / f"{name}.png"), picture_CHW[0])
    # An input called grid keeps its name; the overview moves aside.
    assert _pixels(tmp_path / "a/grid-of-all.png").shape > (16, 16)
    assert len(_contents(tmp_path / "a")) == 5
    for seed, same in ((5, True), (6, layers == 0)):
        assert _twostage("decode", run, file, "--out", tmp_path / f"again{seed}", "--seed", seed) == 0
        assert (_contents(tmp_path / "a") == _contents(tmp_path / f"again{seed}")) == same


def test_images_do_not_depend_on_the_batch(write_run: WriteRun) -> None:
    run = write_run(autoregressive_layers=1, autoregressive_channels=4)
    model = load_run(run)
    whole = model.generate(5, seed=2)
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(re.sub(r"(\[evaluation\][^\[]*batch_size = )\d+", r"\g<1>2", text))
    small = load_run(run)
    assert small.run.recipe.evaluation.batch_size == 2
    assert torch.equal(whole, small.generate(5, seed=2))
    codes = model.sample_codes(5, seed=2)
    assert not torch.equal(model.decode(codes, seed=2)[1], model.decode(codes[[1, 1]], seed=2)[0])  # items differ


def test_encode_says_what_the_codes_cost(
    write_run: WriteRun, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "codes.safetensors"
    assert _twostage("encode", write_run(), *pictures, "--out", file) == 0
    said = capsys.readouterr().err
    # 4x4 positions of 2 codes at log2 16 bits each, 64 dimensions.
    assert "32 codes per file, 128 bits at log2 16 each (2.000 bits/dim" in said
    assert f"{file.stat().st_size} bytes stored" in said


def test_codes_of_a_data_set_are_decoded_too(write_run: WriteRun, tmp_path: Path) -> None:
    run = write_run()
    model = load_run(run)
    codes = model.sample_codes(3, seed=1)
    header = replace(_one_picture(run, tmp_path).header, split="test", classes=3, names=())
    save_codes(tmp_path / "test.safetensors", CodeFile(codes.numpy(), np.arange(3), header))
    assert _twostage("decode", run, tmp_path / "test.safetensors") == 0
    names = {"0000.png", "0001.png", "0002.png", "grid.png"}
    assert set(_contents(run / "decoded")) == names
    assert np.array_equal(_pixels(run / "decoded/0002.png"), to_bytes(model.decode(codes).numpy(), 17)[2, 0])


def _one_picture(run: Path, tmp_path: Path) -> CodeFile:
    """What `encode` writes of one picture, in one.safetensors."""
    Image.new("L", (8, 8), 99).save(tmp_path / "one.png")
    assert _twostage("encode", run, tmp_path / "one.png", "--out", tmp_path / "one.safetensors") == 0
    return load_codes(tmp_path / "one.safetensors")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": ("../../escaped",)}, "no plain file name"),
        ({"names": ("/tmp/escaped",)}, "no plain file name"),
        ({"names": ("..",)}, "no plain file name"),
        ({"names": ("a\\..\\b",)}, "no plain file name"),
        ({"names": ("a\x1b[2J",)}, "no plain file name"),
        ({"names": ("a", "b")}, "2 names for 1 items"),
        ({"model": "../../elsewhere"}, "expected a model out of"),
        ({"model": "vae"}, "codebook"),
        ({"stage1_sha256": "f" * 64}, "made by the codebook ffffffffffff: encode the images again"),
        ({"codebook_size": 32}, "fit model vq-vae"),
        ({"grids": ((2, 8),)}, "(1, 2, 4, 4)"),
    ],
)
def test_decode_refuses_codes_that_are_not_of_this_run(
    write_run: WriteRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
    said: str,
) -> None:
    run = write_run()
    file = _one_picture(run, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    _forge(tmp_path / "one.safetensors", replace(file, header=replace(file.header, **change)))  # type: ignore[arg-type]
    capsys.readouterr()
    assert _twostage("decode", run, tmp_path / "one.safetensors") in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_decode_refuses_damage_and_another_runs_codes(
    write_run: WriteRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = write_run(), write_run(name="other", seed=1)
    file = tmp_path / "one.safetensors"
    _one_picture(run, tmp_path)
    capsys.readouterr()
    assert _twostage("decode", other, file) == 1
    assert "expected codes of the codebook" in capsys.readouterr().err
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    for path in (file, tmp_path / "absent.safetensors", tmp_path / "one.png"):
        assert _twostage("decode", run, path) == 1
        assert "encode the images again" in capsys.readouterr().err
    assert not (run / "decoded").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["PICTURE", "PICTURE", "--out", "x.safetensors"], 2, "several files are named cat"),
        (["PICTURE", "--out", "FOLDER.safetensors"], 2, "is a folder, but one file of codes"),
        (["PICTURE", "--out", "PICTURE/x.safetensors"], 2, "is a file, but a folder is needed"),
        (["PICTURE", "--model", "vae", "--out", "x.safetensors"], 2, "no codes"),
        (["absent.png", "--out", "x.safetensors"], 1, "absent.png"),
        (["STRANGE", "--out", "x.safetensors"], 2, "cannot hold the name"),
    ],
)
def test_encode_refuses_also_on_a_dry_run(
    write_run: WriteRun,
    pictures: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    run = write_run()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER.safetensors").mkdir()
    strange = tmp_path / "new\nline.png"
    strange.write_bytes(pictures[0].read_bytes())
    words = [word.replace("PICTURE", str(pictures[0])).replace("STRANGE", str(strange)) for word in arguments]
    before = sorted(tmp_path.rglob("*"))
    for dry in ([], ["--dry-run"]):
        assert _twostage("encode", run, *words, *dry) == code
        assert said in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_runs_write_nothing(write_run: WriteRun, pictures: list[Path], tmp_path: Path) -> None:
    run, file = write_run(), tmp_path / "codes.safetensors"
    assert _twostage("encode", run, *pictures, "--out", file, "--dry-run") == 0
    assert not file.exists()
    assert _twostage("encode", run, *pictures, "--out", file) == 0
    before = sorted(tmp_path.rglob("*"))
    assert _twostage("decode", run, file, "--dry-run") == 0
    assert _twostage("reconstruct", run, *pictures, "--dry-run") == 0
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("model", ["vq-vae", "vae"])
@pytest.mark.parametrize("layers", [0, 1])
def test_reconstructions_of_an_autoregressive_decoder_are_samples_of_the_seed(
    write_run: WriteRun,
    pictures: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    model: str,
    layers: int,
) -> None:
    run = write_run(autoregressive_layers=layers, autoregressive_channels=4)
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        command = ["reconstruct", run, *pictures, "--model", model, "--seed", seed, "--out", tmp_path / out]
        assert _twostage(*command) == 0
    said = capsys.readouterr().err
    a, b, c = (_contents(tmp_path / name) for name in "abc")
    assert a == b
    assert len(a) == 5
    assert (a == c) == (layers == 0)
    assert ("drawn under seed 2" in said) == (layers == 1)
    measure = "distortion, bits/dim" if model == "vq-vae" else "negative ELBO in bits/dim"
    assert said.count(measure) == 12


@pytest.mark.parametrize("model", ["vq-vae", "vae"])
def test_squared_error_has_psnr_and_no_bits(
    write_run: WriteRun, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    run = write_run(likelihood="mse")
    assert _twostage("reconstruct", run, pictures[0], "--model", model, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "bits" not in said
    error, psnr = (float(number) for number in re.findall(r"error ([\d.]+) of 17 levels, PSNR (-?[\d.]+) dB", said)[0])
    assert psnr == pytest.approx(10 * math.log10(16**2 / error), abs=0.01)
    original = read_image(pictures[0], image_shape=(1, 8, 8), levels=17)[0].astype(float)
    shown = _pixels(tmp_path / "out/cat-reconstructed.png") / 255 * 16
    assert error == pytest.approx(((shown - original) ** 2).mean(), rel=0.2)


def test_code_files_name_their_images_for_other_tools(
    write_run: WriteRun, pictures: list[Path], tmp_path: Path
) -> None:
    from safetensors import safe_open

    file = tmp_path / "codes.safetensors"
    assert _twostage("encode", write_run(), *pictures, "--out", file) == 0
    with safe_open(file, framework="np") as opened:
        assert json.loads(opened.metadata()["names"]) == ["cat", "dog", "grid", "für elise"]


def test_nothing_that_may_be_an_original_is_replaced(
    write_run: WriteRun, pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, codes = write_run(), tmp_path / "codes.safetensors"
    assert _twostage("encode", run, *pictures, "--out", codes) == 0
    before = _contents(pictures[0].parent)
    assert _twostage("decode", run, codes, "--out", pictures[0].parent) == 2
    assert "which may be what was encoded" in capsys.readouterr().err
    assert _contents(pictures[0].parent) == before
    weights = run / "models" / "vq-vae" / "prior" / "best" / "model.safetensors"
    held = weights.read_bytes()
    assert _twostage("encode", run, pictures[0], "--out", weights) == 2
    assert "lies in the run folder" in capsys.readouterr().err
    other = tmp_path / "other.safetensors"
    other.write_bytes(held)
    assert _twostage("encode", run, pictures[0], "--out", other) == 2
    assert "is no file of codes" in capsys.readouterr().err
    assert weights.read_bytes() == other.read_bytes() == held
    assert _twostage("encode", run, pictures[0], "--out", codes) == 0  # codes may be replaced


@pytest.mark.parametrize("kind", ["vq", "residual", "cosine", "simvq", "fsq"])
def test_the_vector_of_an_id_is_what_its_code_is_looked_up_as(kind: str) -> None:
    settings: dict[str, Any] = {"fsq_levels": (4, 4)} if kind == "fsq" else {"codebook_size": 16, "codebooks": 2}
    settings |= {"code_dim": 4} if kind == "cosine" else {}
    model = VQVAE(
        image_shape=(1, 8, 8), levels=17, likelihood="hurdle", quantiser=kind, embedding_dim=4, channels=4,
        residual_blocks=1, residual_channels=4, head_channels=4, **settings,
    ).eval()  # fmt: skip
    vectors_CKW = model.code_vectors.detach()
    quantiser: Any = model.quantiser
    codes_BGS = torch.randint(0, 16, (5, model.codebooks, 3))
    chosen = torch.stack([vectors_CKW[g][codes_BGS[:, g]] for g in range(model.codebooks)], 1)  # [B, G, S, W]
    joined = chosen.sum(1).transpose(1, 2) if kind == "residual" else chosen.transpose(2, 3).flatten(1, 2)
    if kind == "fsq":
        joined = quantiser._lead_out(joined.transpose(1, 2))
    elif kind == "cosine":
        joined = quantiser._lead_out(joined)
    assert torch.allclose(joined, quantiser.lookup(codes_BGS), atol=1e-6)


@pytest.mark.parametrize("form", ["npy", "jsonl"])
def test_ids_for_language_models_are_the_codes(
    write_run: Callable[..., Path], pictures: list[Path], tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = write_run(), tmp_path / f"codes.{form}"
    files = [str(path) for path in pictures]
    assert main(["encode", str(run), *files, "--format", form, "--out", str(out), "--vectors"]) == 0
    assert "as ids below 35" in capsys.readouterr().err
    assert main(["encode", str(run), *files, "--out", str(tmp_path / "codes.safetensors")]) == 0
    wanted = flat_ids(load_codes(tmp_path / "codes.safetensors"))
    if form == "npy":
        assert np.array_equal(np.load(out), np.stack(wanted))
    else:
        lines = [json.loads(line) for line in out.read_text().splitlines()]
        assert [line["ids"] for line in lines] == [ids.tolist() for ids in wanted]
        assert [line["name"] for line in lines] == [path.stem for path in pictures]
    vectors = np.load(tmp_path / "codes.vectors.npy")
    assert np.array_equal(vectors, load_run(run).vqvae.code_vectors.flatten(0, 1).numpy())
    assert main(["encode", str(run), *files, "--format", form, "--out", str(out)]) == 0  # replaces its own
    (tmp_path / "codes.vocabulary.json").unlink()
    assert main(["encode", str(run), *files, "--format", form, "--out", str(out)]) == 2
    assert "is there and is no file of codes" in capsys.readouterr().err
    assert main(["encode", str(run), *files, "--out", str(out)]) == 2
    assert "a file name that ends in .safetensors" in capsys.readouterr().err
    assert main(["decode", str(run), str(out)]) == 1


def test_ids_of_recordings_end_with_them(spoken_run: Path, tmp_path: Path) -> None:
    for name, samples in (("no_ann_0", 640), ("yes_bob_1", 65)):
        write_wav(tmp_path / f"{name}.wav", np.arange(samples, dtype=np.int16), 8000)
    files, out = sorted(tmp_path.glob("*.wav")), tmp_path / "codes.jsonl"
    assert _twostage("encode", spoken_run, *files, "--format", "jsonl", "--out", out) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["name"], line["samples"], line["speaker"], len(line["ids"])) for line in lines] == [
        ("no_ann_0", 640, "ann", 12),
        ("yes_bob_1", 65, "bob", 4),
    ]
