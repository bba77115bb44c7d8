"""An exported folder is a run folder in a smaller form: same bytes out, and nothing of the machine that made it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stage1_vqvae import VAE, VQVAE, AudioAutoencoder, AudioVAE, AudioVQVAE, WaveNetDecoder
from stage2_prior import PixelCNN, WaveNet
from twostage.errors import DataError, RunError, UsageError
from twostage.storage.checkpoint import load_checkpoint, save_checkpoint
from twostage.storage.codes import load_codes
from twostage.storage.exported import is_exported
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main
from twostage_pipelines.export import shown
from twostage_pipelines.export.card import escaped, markdown_table
from twostage_pipelines.media.wav import write_wav


def twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The models of these runs were trained on nothing."""

    def refuse(_: object) -> None:
        raise DataError("the data are gone")

    monkeypatch.setattr(shown, "load_data", refuse)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).integers(-9000, 9000, samples).astype(np.int16)


def same_bytes(one: Path, other: Path, pattern: str) -> bool:
    names = [sorted(path.name for path in folder.glob(pattern)) for folder in (one, other)]
    assert names[0]
    return names[0] == names[1] and all((one / n).read_bytes() == (other / n).read_bytes() for n in names[0])


def test_an_exported_folder_of_images_does_what_the_run_does(
    write_run: Callable[..., Path], pictures: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, folder = write_run(), tmp_path / "exported"
    assert twostage("export", run, "--to", folder, "--licence", "cc0-1.0") == 0
    assert "no reconstructions in the card: the data are gone" in capsys.readouterr().err
    for place in (run, folder):
        out = tmp_path / f"out-{place.name}"
        assert twostage("generate", place, "--count", 3, "--seed", 2, "--out", out) == 0
        assert twostage("reconstruct", place, *pictures, "--out", out) == 0
        assert twostage("encode", place, *pictures, "--out", out / "codes.safetensors") == 0
        assert twostage("decode", place, out / "codes.safetensors", "--out", out / "decoded") == 0
    assert same_bytes(tmp_path / "out-run", tmp_path / "out-exported", "*.png")
    assert same_bytes(tmp_path / "out-run", tmp_path / "out-exported", "*.safetensors")
    assert same_bytes(tmp_path / "out-run/decoded", tmp_path / "out-exported/decoded", "*.png")
    own, exported = load_run(run), load_run(folder)
    assert torch.equal(own.generate(2, seed=4), exported.generate(2, seed=4))
    for cls, network in ((VQVAE, own.vqvae), (PixelCNN, own.pixelcnn)):
        for place in (run, folder):
            found = (
                cls.from_folder(place) if place == folder or cls is PixelCNN else cls.from_folder(place, model="vq-vae")
            )
            assert not found.training
            assert all(
                torch.equal(a, b)
                for a, b in zip(found.state_dict().values(), network.state_dict().values(), strict=True)
            )


def test_it_holds_what_it_says_and_nothing_of_this_machine(write_run: Callable[..., Path], tmp_path: Path) -> None:
    run, folder = write_run(names=("<b>|cat", "dog")), tmp_path / "exported"
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("[data]\n", f'[data]\npath = "{tmp_path / "my data"}"\n'))
    assert twostage("export", run, "--to", folder) == 0
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    weights = [f"models/vq-vae/{stage}/best/{name}" for stage in ("prior", "stage1")
               for name in ("manifest.json", "model.safetensors", "state.json")]  # fmt: skip
    assert sorted(files) == sorted(["README.md", "config.json", "config.toml", "samples/samples.png", *weights])
    assert not any(str(tmp_path).encode() in content or b"my data" in content for content in files.values())
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())  # no temporary is left
    index = json.loads(files["config.json"])
    assert index["parts"]["prior"]["class"] == "stage2_prior.PixelCNN"
    card = files["README.md"].decode()
    front, _, body = card.removeprefix("---\n").partition("---\n")
    said = dict(line.split(": ", 1) for line in front.splitlines())
    assert {key: json.loads(value) for key, value in said.items()} == {
        "license": "unknown", "library_name": "twostage", "tags": ["twostage", "vq-vae", "images", "digits"],
    }  # fmt: skip
    assert "Nobody has stated a licence" in body
    assert r"\<b\>\|cat, dog" in body
    for link in re.findall(r"\]\(([^)]+)\)", body):
        assert (folder / link).is_file(), link
    assert re.search(r"VQVAE\.from_folder\(\"FOLDER\"\)", body)


def test_the_python_of_the_card_runs(write_run: Callable[..., Path], tmp_path: Path) -> None:
    assert twostage("export", write_run(), "--to", tmp_path / "exported") == 0
    code = re.search(r"```python\n(.*?)```", (tmp_path / "exported/README.md").read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1].replace("FOLDER", str(tmp_path / "exported")), names)
    assert type(names["stage1"]) is VQVAE
    assert type(names["prior"]) is PixelCNN


@pytest.mark.parametrize("name", ["vae", "cvae"])
def test_a_baseline_is_the_model_of_its_folder(
    write_run: Callable[..., Path], pictures: list[Path], tmp_path: Path, name: str
) -> None:
    run, folder = write_run(), tmp_path / "exported"
    assert twostage("export", run, "--to", folder, "--model", name) == 0
    assert load_run(folder).name == name
    one = VAE.from_folder(folder)
    assert torch.equal(next(one.parameters()), next(VAE.from_folder(run, model=name).parameters()))
    label = () if name == "vae" else ("--label", "class 1")
    assert twostage("reconstruct", folder, *pictures, *label, "--out", tmp_path / "made") == 0
    assert twostage("generate", folder, "--count", 2, "--out", tmp_path / "new") == 0


def test_an_exported_folder_of_sound_has_both_decoders(spoken_run: Path, tmp_path: Path) -> None:
    folder, file, codes = tmp_path / "exported", tmp_path / "no_ann_0.wav", tmp_path / "codes.safetensors"
    assert twostage("export", spoken_run, "--to", folder) == 0
    write_wav(file, noise(640), 8000)
    for decoder in ("convolutional", "wavenet"):
        for place in (spoken_run, folder):
            out = tmp_path / f"{decoder}-{place.name == 'exported'}"
            how = ("--decoder", decoder, "--out", out)
            assert twostage("reconstruct", place, file, *how) == 0
            assert twostage("convert", place, file, "--speaker", "bob", *how) == 0
            assert twostage("generate", place, "--count", 2, "--seconds", 0.05, *how) == 0
        assert same_bytes(tmp_path / f"{decoder}-False", tmp_path / f"{decoder}-True", "*.wav")
    assert twostage("encode", folder, file, "--out", codes) == 0
    assert twostage("decode", folder, codes, "--out", tmp_path / "decoded") == 0
    assert load_codes(codes).header.stage1_sha256 == load_run(spoken_run).stage1.sha256
    for cls in (AudioVQVAE, WaveNetDecoder, WaveNet):
        own, exported = cls.from_folder(spoken_run), cls.from_folder(folder)
        assert torch.equal(next(own.parameters()), next(exported.parameters()))
    card = (folder / "README.md").read_text()
    assert "WaveNetDecoder" in card
    for link in re.findall(r"\]\(([^)]+)\)", card):
        assert (folder / link).is_file(), link
    assert "[sample-00.wav](samples/sample-00.wav)" in card


@pytest.mark.parametrize(("name", "cls"), [("vae", AudioVAE), ("ae", AudioAutoencoder)])
def test_baselines_of_sound(
    spoken_run: Path, tmp_path: Path, name: str, cls: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "exported"
    assert twostage("export", spoken_run, "--to", folder, "--model", name) == 0
    assert "no samples in the card: " in capsys.readouterr().err  # lengths are those of training recordings
    assert cls.from_folder(folder).latents == ("gaussian" if name == "vae" else "none")
    with pytest.raises(UsageError, match=f"expected one trained AudioVQVAE in .* hold audio-{name} in {name}"):
        AudioVQVAE.from_folder(folder)


def test_several_of_a_class_are_told_apart_by_name(write_run: Callable[..., Path]) -> None:
    run = write_run()
    with pytest.raises(UsageError, match=r"hold several: choose model='cvae' or model='vae'"):
        VAE.from_folder(run)
    assert VAE.from_folder(run, model="cvae").classes == 3
    with pytest.raises(UsageError, match=r"expected one trained VAE in .* under vq-vae"):
        VAE.from_folder(run, model="vq-vae")


class TestRefusals:
    def test_what_is_not_finished(
        self, write_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = write_run()
        for stage, said in (
            ("prior", "the prior of vq-vae in .* is not finished"),
            ("stage1", "no finished stage one"),
        ):
            path = run / "models/vq-vae" / stage / "step-00000001"
            whole = load_checkpoint(path)
            save_checkpoint(path, tensors=whole.tensors, state={**whole.state, "finished": False})
            assert twostage("export", run, "--to", tmp_path / "exported") == 1
            assert re.search(said, capsys.readouterr().err)
        with pytest.raises(UsageError, match="expected one trained VQVAE"):
            VQVAE.from_folder(run)
        assert not (tmp_path / "exported").exists()

    def test_without_a_prior_there_is_a_codec(
        self, write_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = write_run()
        (run / "models/vq-vae/prior").rename(tmp_path / "away")
        assert twostage("export", run, "--to", tmp_path / "exported") == 0
        assert "vq-vae has no prior, and the exported folder will have none" in capsys.readouterr().err
        assert "generate FOLDER" not in (tmp_path / "exported/README.md").read_text()
        VQVAE.from_folder(tmp_path / "exported")

    @pytest.mark.parametrize("what", ["folder", "file", "link"])
    def test_what_is_there_already(
        self, write_run: Callable[..., Path], tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run, to = write_run(), tmp_path / "to"
        if what == "link":
            to.symlink_to(tmp_path / "elsewhere")
        elif what == "file":
            to.write_text("mine")
        else:
            to.mkdir()
            (to / "mine").write_text("mine")
        assert twostage("export", run, "--to", to) == 2
        assert f"--to {to} is there already" in capsys.readouterr().err
        assert twostage("export", run, "--to", run / "inside") == 2
        assert "lies in the run folder" in capsys.readouterr().err

    def test_a_place_that_may_not_be_written(
        self,
        write_run: Callable[..., Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        run = write_run()
        monkeypatch.setattr("os.access", lambda *_, **__: False)
        assert twostage("export", run, "--to", tmp_path / "to") == 1
        assert "may not be written" in capsys.readouterr().err

    def test_an_interrupted_export_leaves_nothing(
        self, write_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise KeyboardInterrupt

        run = write_run()
        monkeypatch.setattr("twostage_pipelines.export.card.Card.text", fail)
        assert twostage("export", run, "--to", tmp_path / "to") == 130
        assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]

    def test_nothing_is_trained_in_an_exported_folder(
        self, write_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "exported"
        assert twostage("export", write_run(), "--to", folder) == 0
        assert is_exported(folder)
        before = (folder / "config.toml").read_bytes()
        for arguments in (("train-prior", folder), ("train-baseline", folder, "--model", "ae")):
            assert twostage(*arguments) == 2
            assert "was exported and holds no state that a training could go on from" in capsys.readouterr().err
        assert (folder / "config.toml").read_bytes() == before

    @pytest.mark.parametrize("licence", ["", "MIT", "mit\nx: y", "a" * 65])
    def test_a_licence_is_an_identifier(
        self, write_run: Callable[..., Path], tmp_path: Path, licence: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert twostage("export", write_run(), "--to", tmp_path / "to", "--licence", licence) == 2
        assert "--licence must be an identifier" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(write_run: Callable[..., Path], tmp_path: Path) -> None:
    assert twostage("export", write_run(), "--to", tmp_path / "to", "--dry-run") == 0
    assert not (tmp_path / "to").exists()


def test_markdown_shows_text_as_it_is() -> None:
    assert escaped("a|b_c <img>") == r"a\|b\_c \<img\>"
    assert markdown_table(["x", "y|"], [["1", "2"]]) == "| x | y\\| |\n| --- | ---: |\n| 1 | 2 |"


def test_prior_of_other_weights_is_refused(write_run: Callable[..., Path], tmp_path: Path) -> None:
    for seed in (0, 1):
        assert twostage("export", write_run(name=f"run{seed}", seed=seed), "--to", tmp_path / f"exported{seed}") == 0
    prior = "models/vq-vae/prior/best"
    for file in (tmp_path / "exported1" / prior).iterdir():
        (tmp_path / "exported0" / prior / file.name).write_bytes(file.read_bytes())
    with pytest.raises(RunError, match=r"prior/best/manifest\.json does not match its SHA-256 in config\.json"):
        load_run(tmp_path / "exported0")
