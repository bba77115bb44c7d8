"""A run from Python: what goes in and comes out, and that the command line does the same."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from twostage.data.audio import AudioDataset
from twostage.errors import RunError, UsageError
from twostage.storage.codes import load_codes, save_codes
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main
from twostage_pipelines.generate.two_stage import TwoStage
from twostage_pipelines.media import spectrograms
from twostage_pipelines.media.png import read_image, to_bytes
from twostage_pipelines.media.wav import wav_bytes, write_wav
from twostage_pipelines.runs.codes import extract_codes
from twostage_pipelines.runs.loading import load_model

LENGTHS = {"no_ann_0": 640, "yes_bob_1": 1001, "no_ann_2": 63}


@pytest.fixture(scope="module")
def model(spoken_run: Path) -> TwoStage:
    return load_run(spoken_run)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(samples).integers(-9000, 9000, samples).astype(np.int16)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Recordings of two speakers, of unequal length."""
    paths = [tmp_path / f"{name}.wav" for name in LENGTHS]
    for path, samples in zip(paths, LENGTHS.values(), strict=True):
        write_wav(path, noise(samples), 8000)
    return paths


def twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def written(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.wav"))]


@pytest.mark.parametrize("decoder", ["convolutional", "wavenet"])
def test_the_methods_make_what_the_verbs_write(
    model: TwoStage, files: list[Path], tmp_path: Path, decoder: Any
) -> None:
    run, waves = model.run.path, [noise(samples) for samples in LENGTHS.values()]
    speakers = ["ann", "bob", "ann"]
    how = ("--decoder", decoder, "--seed", 5)
    options: dict[str, Any] = {"decoder": decoder, "seed": 5}

    assert twostage("encode", run, *files, "--out", tmp_path / "verb.safetensors") == 0
    codes = model.encode(waves, speakers=speakers, names=list(LENGTHS))
    save_codes(tmp_path / "method.safetensors", codes)
    assert (tmp_path / "method.safetensors").read_bytes() == (tmp_path / "verb.safetensors").read_bytes()

    made = {
        "decode": model.decode(codes, **options),
        "convert": model.convert(waves, "bob", **options),
        "reconstruct": model.reconstruct(waves, speakers=speakers, **options),
        "generate": model.generate(3, labels="yes", seconds=0.05, top_k=7, temperature=0.8, **options),
    }
    called: dict[str, tuple[object, ...]] = {
        "decode": (run, tmp_path / "verb.safetensors"),
        "convert": (run, *files, "--speaker", "bob"),
        "reconstruct": (run, *files),
        "generate": (run, "--count", 3, "--label", "yes", "--seconds", 0.05, "--top-k", 7, "--temperature", 0.8),
    }
    for verb, arguments in called.items():
        assert twostage(verb, *arguments, *how, "--out", tmp_path / verb) == 0
        files_of_verb = [wav_bytes(sound.samples, sound.sample_rate_hz) for sound in made[verb]]
        if verb != "generate":  # files are named after the recordings, and listed by name
            order = np.argsort(list(LENGTHS))
            files_of_verb = [files_of_verb[item] for item in order]
        assert written(tmp_path / verb) == files_of_verb, verb
    assert [sound.label for sound in made["generate"]] == ["yes"] * 3
    assert [sound.speaker for sound in made["generate"]] == ["ann", "bob", "ann"]
    assert [len(sound.samples) for sound in made["generate"]] == [7 * 64] * 3  # 400 samples in whole codes


def test_codes_come_back_each_in_its_own_voice_and_at_its_own_length(model: TwoStage, tmp_path: Path) -> None:
    waves = [noise(samples) for samples in LENGTHS.values()]
    save_codes(str(tmp_path / "codes.safetensors"), model.encode(waves, speakers=["ann", "bob", "ann"]))
    codes = load_codes(str(tmp_path / "codes.safetensors"))
    own = model.decode(codes)
    assert [len(sound.samples) for sound in own] == list(LENGTHS.values())
    assert [sound.speaker for sound in own] == ["ann", "bob", "ann"]
    for name, same in (("ann", [True, False, True]), ("bob", [False, True, False])):
        everyone = model.decode(codes, speakers=name)
        assert [sound.speaker for sound in everyone] == [name] * 3
        equal = [np.array_equal(one.samples, other.samples) for one, other in zip(own, everyone, strict=True)]
        assert equal == same
    mixed = model.decode(codes, speakers=["bob", "ann", 0])
    assert [sound.speaker for sound in mixed] == ["bob", "ann", "ann"]


def test_files_whose_speaker_is_not_known(
    model: TwoStage, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, codes = model.run.path, tmp_path / "codes.safetensors"
    mine = tmp_path / "mine.wav"
    write_wav(mine, noise(500), 8000)
    assert twostage("encode", run, files[0], mine, "--out", codes) == 0
    said = capsys.readouterr().err
    assert f"nothing says who speaks in 1 of 2 files (first: {mine})" in said
    assert "give --speaker, one of ann, bob, eve, or name files {label}_{speaker}_{index}" in said
    assert twostage("decode", run, codes, "--out", tmp_path / "out") == 2
    assert "nothing says who speaks in mine: give --speaker, one of ann, bob\n" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert twostage("decode", run, codes, "--speaker", "bob", "--out", tmp_path / "out") == 0
    as_bob = model.convert([noise(640), noise(500)], "bob")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["mine.wav", "no_ann_0.wav"]
    assert written(tmp_path / "out") == [wav_bytes(sound.samples, 8000) for sound in reversed(as_bob)]
    assert twostage("encode", run, mine, "--speaker", "ann", "--out", codes) == 0
    assert "nothing says" not in capsys.readouterr().err
    assert twostage("decode", run, codes, "--out", tmp_path / "ann") == 0
    assert written(tmp_path / "ann") == [wav_bytes(model.convert(noise(500), "ann")[0].samples, 8000)]


def test_a_held_out_speaker_can_be_encoded_and_not_be_imitated(
    model: TwoStage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, codes, eve = model.run.path, tmp_path / "codes.safetensors", tmp_path / "yes_eve_0.wav"
    write_wav(eve, noise(500), 8000)
    assert twostage("encode", run, eve, "--out", codes) == 0
    assert "nothing says" not in capsys.readouterr().err
    for verb, subject, named in (("decode", codes, "yes_eve_0"), ("reconstruct", eve, str(eve))):
        assert twostage(verb, run, subject, "--out", tmp_path / "out") == 2
        said = f"{named} is spoken by eve, who is held out and whose voice the model has never heard: give --speaker"
        err = capsys.readouterr().err
        assert said in err
        assert "or name files" not in err  # another name would make it no other voice
    assert twostage("decode", run, codes, "--speaker", "ann", "--out", tmp_path / "out") == 0


def test_codes_that_do_not_say_who_or_how_long_are_refused(
    model: TwoStage, write_audio_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, path = model.encode(noise(500), speakers="ann"), tmp_path / "codes.safetensors"
    assert codes.samples is not None
    early = replace(codes, samples=None)
    nobody = replace(codes, speakers=None, header=replace(codes.header, speakers=0))
    for file, said in (
        (early, "does not state them"),
        (nobody, "does not state them"),
        (replace(codes, samples=codes.samples + 64), "expected a code for every 64 samples"),
    ):
        with pytest.raises(RunError, match=f"{said}.*: encode the recordings again"):
            model.decode(file)
        save_codes(path, file)
        assert twostage("decode", model.run.path, path, "--speaker", "ann", "--out", tmp_path / "out") == 1
        message = capsys.readouterr().err
        assert said in message
        assert f"{path}" in message
    other = load_run(write_audio_run(classes=("no", "yes", "perhaps"), speakers=()))
    with pytest.raises(RunError, match="expected codes of the codebook"):
        other.decode(codes)
    for act in (model.decode, lambda file, **how: model.reconstruct(noise(70), speakers="ann", **how)):
        with pytest.raises(UsageError, match="expected the decoder convolutional or wavenet, got 'loud'"):
            act(codes, decoder="loud")


def test_codes_of_a_data_set_can_be_decoded(write_audio_run: Callable[..., Path], spoken_dataset: AudioDataset) -> None:
    model, dataset = load_run(write_audio_run()), spoken_dataset
    extract_codes(model.run, "vq-vae", model.stage1, dataset, model.device)
    path = model.run.codes_file("vq-vae", "test")
    with pytest.raises(UsageError, match=r"recording 2 is spoken by eve, who is held out.*: give speakers, one of ann"):
        model.decode(load_codes(path))
    assert [len(sound.samples) for sound in model.decode(load_codes(path), speakers="bob")] == [700, 800, 900]


def test_runs_without_speakers_or_labels(write_audio_run: Callable[..., Path]) -> None:
    model = load_run(write_audio_run(classes=(), speakers=()))
    sounds = model.generate(2, seconds=0.02)
    assert [(sound.label, sound.speaker, len(sound.samples)) for sound in sounds] == [(None, None, 192)] * 2
    wave = noise(300)
    assert len(model.decode(model.encode(wave))[0].samples) == 300
    for wrong in (
        lambda: model.encode(wave, speakers="ann"),
        lambda: model.convert(wave, "ann"),
        lambda: model.generate(1, speakers="ann"),
        lambda: model.generate(1, labels="no"),
        lambda: model.generate(1, labels=0),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_what_an_array_may_be(model: TwoStage) -> None:
    wave = noise(801)
    codes = model.encode(wave)
    for same in (wave / 32768, (wave / 32768).astype(np.float32), torch.from_numpy(wave), [wave], (wave,)):
        assert np.array_equal(model.encode(same).codes, codes.codes)
    doubled = model.encode(np.repeat(wave, 2), sample_rate_hz=16000)
    assert doubled.samples is not None
    assert doubled.samples.tolist() == [801]
    assert model.encode([wave, wave[:100]]).codes.shape == (2, 1, 13)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"count": 0}, "a count of at least 1"),
        ({"labels": "maybe"}, "labels must be one of no, yes"),
        ({"labels": 2}, "labels by name or number, 0 to 1, got 2"),
        ({"labels": 1.5}, "labels by name or number, got 1.5"),
        ({"labels": ["no", "yes"]}, "one for all or 3 labels, got 2"),
        ({"labels": None}, "trained with labels only"),
        ({"speakers": "eve"}, "speakers must be one of the training recordings, ann, bob, but eve is held out"),
        ({"speakers": 2}, "eve is held out"),
        ({"speakers": ["ann"]}, "one for all or 3 speakers, got 1"),
        ({"seconds": 1000.0}, "seconds must be at most"),
        ({"seconds": 0.0}, "seconds must be at most"),
        ({"seconds": float("nan")}, "seconds must be at most"),
        ({"decoder": "loud"}, "expected the decoder convolutional or wavenet, got 'loud'"),
    ],
)
def test_what_generate_refuses(model: TwoStage, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        model.generate(**({"count": 3} | arguments))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("recordings", "options", "said"),
    [
        ([], {}, "an empty list"),
        (np.zeros((100, 2)), {}, "average channels"),
        (noise(0), {}, "expected a mono recording"),
        (noise(100), {"speakers": ["ann", "bob"]}, "one for all or 1 speakers, got 2"),
        (noise(100), {"speakers": "max"}, "speakers must be one of ann, bob, eve"),
        (noise(100), {"names": ["a", "b"]}, "1 different names"),
        ([noise(100)] * 2, {"names": ["a", "a"]}, "2 different names"),
        (noise(100), {"names": ["a/b"]}, "cannot hold the name 'a/b'"),
        (noise(100), {"sample_rate_hz": 100}, "100 came"),
    ],
)
def test_what_encode_refuses(model: TwoStage, recordings: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        model.encode(recordings, **options)
    assert said in str(raised.value)


def test_labels_and_speakers_take_turns_and_have_names(model: TwoStage, write_audio_run: Callable[..., Path]) -> None:
    def said(**asked: Any) -> list[tuple[str | None, str | None]]:
        return [(sound.label, sound.speaker) for sound in model.generate(5, seconds=0.01, **asked)]

    turns = [("no", "ann"), ("yes", "ann"), ("no", "bob"), ("yes", "bob"), ("no", "ann")]
    assert said() == turns
    assert said(speakers="bob") == [(label, "bob") for label in ("no", "yes", "no", "yes", "no")]
    assert said(labels=np.array([1, 1, 0, 0, 1]), speakers=["bob", 0, 0, "1", "ann"]) == [
        ("yes", "bob"),
        ("yes", "ann"),
        ("no", "ann"),
        ("no", "bob"),
        ("yes", "ann"),
    ]
    free = load_run(write_audio_run(label_dropout=0.5)).generate(2, labels=None, seconds=0.01)
    assert [(sound.label, sound.speaker) for sound in free] == [(None, "ann"), (None, "bob")]
    untold = load_run(write_audio_run(conditional=False))
    assert [sound.label for sound in untold.generate(2, seconds=0.01)] == [None, None]
    with pytest.raises(UsageError, match="is conditioned on none"):
        untold.generate(2, labels="no")


def test_classes_named_by_numbers_are_found_by_name_as_text_and_by_number_as_numbers(
    write_audio_run: Callable[..., Path],
) -> None:
    model = load_run(write_audio_run(classes=("1", "10", "2")))
    assert [sound.label for sound in model.generate(2, labels=["2", 2], seconds=0.01)] == ["2", "2"]
    assert [sound.label for sound in model.generate(2, labels=["1", 1], seconds=0.01)] == ["1", "10"]


def test_each_part_is_loaded_once_and_only_when_needed(spoken_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def counted(folder: Path, *arguments: Any) -> Any:
        loads.append(folder.name)
        return load_model(folder, *arguments)

    monkeypatch.setattr("twostage_pipelines.runs.run.load_model", counted)
    model, wave = load_run(spoken_run), noise(70)
    assert loads == ["stage1"]
    for _ in range(2):
        model.convert(wave, "bob", decoder="wavenet")
    assert loads == ["stage1", "decoder"]
    for _ in range(2):
        model.generate(1, seconds=0.01, decoder="wavenet")
    assert loads == ["stage1", "decoder", "prior"]


def test_a_continuous_model_draws_and_reconstructs_and_has_no_codes(spoken_run: Path, tmp_path: Path) -> None:
    vae, wave = load_run(spoken_run, model="vae"), noise(500)
    sounds = vae.generate(3, seconds=0.05, seed=1)
    assert [(sound.label, sound.speaker, len(sound.samples)) for sound in sounds] == [
        (None, speaker, 448) for speaker in ("ann", "bob", "ann")
    ]
    (first,) = vae.generate(1, seconds=0.05, seed=1)
    assert np.abs(first.samples.astype(int) - sounds[0].samples).max() <= 1
    assert not np.array_equal(sounds[0].samples, sounds[2].samples)
    assert [len(sound.samples) for sound in vae.reconstruct([wave, wave[:70]], speakers="ann")] == [500, 70]
    (as_bob,) = vae.convert(wave, "bob")
    assert (as_bob.speaker, len(as_bob.samples)) == ("bob", 500)
    for act in (lambda: vae.encode(wave), lambda: vae.decode(np.zeros((1, 1, 3), np.int64), speakers="ann")):
        with pytest.raises(UsageError, match="has no codebook"):
            act()
    with pytest.raises(UsageError, match="no codes for a wavenet decoder"):
        vae.generate(1, seconds=0.05, decoder="wavenet")
    command = ("generate", spoken_run, "--model", "vae", "--count", 3, "--seconds", 0.05, "--seed", 1)
    assert twostage(*command, "--out", tmp_path) == 0
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == [
        f"vae-sound-000{item}-{speaker}.wav" for item, speaker in enumerate(("ann", "bob", "ann"))
    ]
    assert written(tmp_path) == [wav_bytes(sound.samples, 8000) for sound in sounds]


def test_a_conditional_vae_of_sound_is_given_labels(
    spoken_run: Path, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cvae, wave = load_run(spoken_run, model="cvae"), noise(1001)
    turns = [("no", "ann"), ("yes", "ann"), ("no", "bob"), ("yes", "bob"), ("no", "ann")]
    sounds = cvae.generate(5, seconds=0.05)
    assert [(sound.label, sound.speaker) for sound in sounds] == turns
    (other,) = cvae.generate(1, labels="yes", speakers="ann", seconds=0.05)
    assert not np.array_equal(other.samples, sounds[0].samples)
    with pytest.raises(UsageError, match="a conditional VAE is given one"):
        cvae.generate(1, labels=None, seconds=0.05)
    no, yes = (cvae.reconstruct(wave, labels=label, speakers="bob")[0].samples for label in ("no", "yes"))
    assert not np.array_equal(no, yes)
    command = ("--model", "cvae", "--out", tmp_path / "out")
    for verb in (("reconstruct",), ("convert", "--speaker", "bob")):
        assert twostage(verb[0], spoken_run, files[1], *verb[1:], *command) == 2
        assert "say --label CLASS" in capsys.readouterr().err
        assert twostage(verb[0], spoken_run, files[1], *verb[1:], *command, "--label", "yes") == 0
        said = capsys.readouterr().err
        assert ("in bits/sample given the label, length and speaker apart: " in said) == (verb == ("reconstruct",))
    expected = [wav_bytes(yes, 8000)] * 2  # bob speaks already
    assert written(tmp_path / "out") == expected


def test_an_autoencoder_of_sound_has_nothing_to_draw_from(
    spoken_run: Path, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert twostage("generate", spoken_run, "--model", "ae", "--seconds", 0.05) == 2
    assert "no distribution over latents to draw from" in capsys.readouterr().err
    assert twostage("reconstruct", spoken_run, *files, "--model", "ae", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert said.count("(log-mel L1 ") == 3
    assert "bits" not in said


def test_sounds_of_a_vae_are_as_long_as_training_recordings(
    write_audio_run: Callable[..., Path], spoken_dataset: AudioDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = load_run(write_audio_run(), model="vae")
    vae.record["config"]["data"] = {"name": "recordings", "sha256": spoken_dataset.sha256}
    monkeypatch.setattr("twostage_pipelines.generate.drawing.load_data", lambda recipe: spoken_dataset)
    assert [len(sound.samples) for sound in vae.generate(5)] == [700, 800, 900, 700, 800]
    vae.record["config"]["data"]["sha256"] = "f" * 64
    with pytest.raises(RunError, match="put the old files back"):
        vae.generate(1)


def test_completions_keep_the_beginning_and_the_voice(
    write_audio_run: Callable[..., Path], files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_audio_run(label_dropout=0.5)
    model, own = load_run(run), noise(1001)  # yes_bob_1
    command = ("generate", run, "--complete", files[1], "--keep-seconds", 0.06, "--count", 2, "--seconds", 0.1)
    assert twostage(*command, "--seed", 3, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert f"keeping 8 of 16 codes of {files[1]}: 0.06 of 0.13 s" in said
    assert "2 completions of" in said
    names = [f"yes_bob_1-completed-000{item}-bob" for item in range(2)]
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.wav")) == names
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.png")) == names
    known = torch.from_numpy(model.encode(own).codes)[:, :, :8].expand(2, -1, -1)
    codes = model.sample_codes(2, labels=None, speakers="bob", known=known, seconds=0.1, seed=3)
    assert torch.equal(codes[:, :, :8], known)
    assert not torch.equal(codes[0], codes[1])
    expected = model.decode(codes, speakers="bob")
    assert written(tmp_path / "out") == [wav_bytes(sound.samples, 8000) for sound in expected]
    assert twostage(*command[:5], 0.2, "--dry-run") == 2
    assert "--keep-seconds must be at most the 0.13 seconds of" in capsys.readouterr().err


def test_a_speaker_may_be_asked_for_without_a_label(write_audio_run: Callable[..., Path], tmp_path: Path) -> None:
    run = write_audio_run(label_dropout=0.5)
    command = ("generate", run, "--unlabelled", "--speaker", "bob", "--count", 2, "--seconds", 0.02)
    assert twostage(*command, "--out", tmp_path) == 0
    expected = load_run(run).generate(2, labels=None, speakers="bob", seconds=0.02)
    assert written(tmp_path) == [wav_bytes(sound.samples, 8000) for sound in expected]
    assert sorted(path.name for path in tmp_path.glob("*.wav")) == ["sound-0000-bob.wav", "sound-0001-bob.wav"]


@pytest.mark.parametrize("name", ["vq-vae", "vae", "cvae"])
def test_images_have_the_same_methods(
    write_run: Callable[..., Path], pictures: list[Path], tmp_path: Path, name: str
) -> None:
    run = write_run(autoregressive_layers=1, autoregressive_channels=4)
    model = load_run(run, model=name)
    images = np.stack([read_image(path, image_shape=(1, 8, 8), levels=17) for path in pictures])
    label = ("--label", "1") if name == "cvae" else ()
    command = ("reconstruct", run, *pictures, "--model", name, *label, "--seed", 4, "--out", tmp_path)
    assert twostage(*command) == 0
    given = 1 if name == "cvae" else None
    for same in (images, torch.from_numpy(images), list(images), [images[:1], images[1:]]):
        made = model.reconstruct(same, labels=given, seed=4)
        assert made.shape == images.shape
        for path, picture_CHW in zip(pictures, to_bytes(made.numpy(), 17), strict=True):
            with Image.open(tmp_path / f"{path.stem}-reconstructed.png") as picture:
                assert np.array_equal(np.asarray(picture), picture_CHW[0])
    if name == "vq-vae":
        codes = model.encode(images, names=[path.stem for path in pictures])
        assert torch.equal(model.decode(codes, seed=4), made)
        assert torch.equal(model.decode(codes.codes, seed=4), made)
    for wrong in (images[:, :, :4], images / 16, images + 17, images[:0], []):
        with pytest.raises(UsageError, match="expected images"):
            model.reconstruct(wrong, labels=given)
    with pytest.raises(UsageError, match="was asked for, but the items of this run have no speakers"):
        model.convert(images, "ann")
    with pytest.raises(UsageError, match="seconds is for recordings"):
        model.generate(1, seconds=1.0)
    what = "quantiser.kind vq" if name == "vq-vae" else "no codes"
    with pytest.raises(UsageError, match=f"levels 1 decodes .* but model {name} with {what} has no levels"):
        model.reconstruct(images, labels=given, levels=1)


def test_many_files_have_pictures_for_the_first_and_a_line_that_says_so(
    model: TwoStage, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectrograms, "picture_of_pair", lambda *_, **__: b"a picture")
    files = [tmp_path / f"no_ann_{item}.wav" for item in range(33)]
    for item, file in enumerate(files):
        write_wav(file, noise(70 + item), 8000)
    for verb, more in (("reconstruct", ()), ("convert", ("--speaker", "bob"))):
        for count, said in (
            (1, "1 sound, with a picture, in"),
            (32, "32 sounds, each with a picture, in"),
            (33, "33 sounds, pictures for the first 32, "),
        ):
            out = tmp_path / f"{verb}{count}"
            assert twostage(verb, model.run.path, *files[:count], *more, "--out", out) == 0
            assert len(list(out.glob("*.wav"))) == count
            assert len(list(out.glob("*.png"))) == min(count, 32)
            assert said in capsys.readouterr().err
