"""A run on recordings from Python: what goes in and comes out, and that the command line does the same."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from twostage.data.audio import AudioDataset
from twostage.errors import RunError, TwoStageError, UsageError
from twostage.storage.codes import load_codes, save_codes
from twostage_pipelines import load_run
from twostage_pipelines.cli.main import main
from twostage_pipelines.coding import audio as encode_verbs
from twostage_pipelines.generate.audio_two_stage import TwoStageAudio
from twostage_pipelines.generate.two_stage import TwoStageModel
from twostage_pipelines.media.wav import wav_bytes, write_wav
from twostage_pipelines.runs.codes import extract_codes
from twostage_pipelines.runs.loading import load_model

LENGTHS = {"no_ann_0": 640, "yes_bob_1": 1001, "no_ann_2": 63}


@pytest.fixture(scope="module")
def model(spoken_run: Path) -> TwoStageAudio:
    return loaded(spoken_run)


def loaded(run: Path) -> TwoStageAudio:
    model = load_run(run)
    assert isinstance(model, TwoStageAudio)
    return model


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


def test_a_run_on_images_is_still_one(write_run: Callable[..., Path]) -> None:
    assert isinstance(load_run(write_run()), TwoStageModel)


@pytest.mark.parametrize("decoder", ["convolutional", "wavenet"])
def test_the_methods_make_what_the_verbs_write(
    model: TwoStageAudio, files: list[Path], tmp_path: Path, decoder: Any
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


def test_codes_come_back_each_in_its_own_voice_and_at_its_own_length(model: TwoStageAudio, tmp_path: Path) -> None:
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
    model: TwoStageAudio, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    model: TwoStageAudio, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    model: TwoStageAudio, write_audio_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
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
    other = loaded(write_audio_run(classes=("no", "yes", "perhaps"), speakers=()))
    with pytest.raises(RunError, match="expected codes of the codebook"):
        other.decode(codes)


def test_codes_of_a_data_set_can_be_decoded(write_audio_run: Callable[..., Path], spoken_dataset: AudioDataset) -> None:
    model, dataset = loaded(write_audio_run()), spoken_dataset
    extract_codes(model.run, "vq-vae", model.stage1, dataset, model.device)
    path = model.run.codes_file("vq-vae", "test")
    with pytest.raises(UsageError, match=r"recording 2 is spoken by eve, who is held out.*: give speakers, one of ann"):
        model.decode(load_codes(path))
    assert [len(sound.samples) for sound in model.decode(load_codes(path), speakers="bob")] == [700, 800, 900]


def test_runs_without_speakers_or_labels(write_audio_run: Callable[..., Path]) -> None:
    model = loaded(write_audio_run(classes=(), speakers=()))
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


def test_what_an_array_may_be(model: TwoStageAudio) -> None:
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
def test_what_generate_refuses(model: TwoStageAudio, arguments: dict[str, Any], said: str) -> None:
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
def test_what_encode_refuses(model: TwoStageAudio, recordings: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        model.encode(recordings, **options)
    assert said in str(raised.value)


def test_labels_and_speakers_take_turns_and_have_names(
    model: TwoStageAudio, write_audio_run: Callable[..., Path]
) -> None:
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
    free = loaded(write_audio_run(label_dropout=0.5)).generate(2, labels=None, seconds=0.01)
    assert [(sound.label, sound.speaker) for sound in free] == [(None, "ann"), (None, "bob")]
    untold = loaded(write_audio_run(conditional=False))
    assert [sound.label for sound in untold.generate(2, seconds=0.01)] == [None, None]
    with pytest.raises(UsageError, match="is told no label"):
        untold.generate(2, labels="no")


def test_classes_named_by_numbers_are_found_by_name_as_text_and_by_number_as_numbers(
    write_audio_run: Callable[..., Path],
) -> None:
    model = loaded(write_audio_run(classes=("1", "10", "2")))
    assert [sound.label for sound in model.generate(2, labels=["2", 2], seconds=0.01)] == ["2", "2"]
    assert [sound.label for sound in model.generate(2, labels=["1", 1], seconds=0.01)] == ["1", "10"]


def test_each_part_is_loaded_once_and_only_when_needed(spoken_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []

    def counted(folder: Path, *arguments: Any) -> Any:
        loads.append(folder.name)
        return load_model(folder, *arguments)

    monkeypatch.setattr("twostage_pipelines.runs.run.load_model", counted)
    model, wave = loaded(spoken_run), noise(70)
    assert loads == ["stage1"]
    for _ in range(2):
        model.convert(wave, "bob", decoder="wavenet")
    assert loads == ["stage1", "decoder"]
    for _ in range(2):
        model.generate(1, seconds=0.01, decoder="wavenet")
    assert loads == ["stage1", "decoder", "prior"]


def test_a_continuous_model_is_refused(spoken_run: Path) -> None:
    with pytest.raises(TwoStageError, match="has no codes that a prior or a decoder could follow"):
        load_run(spoken_run, model="vae")


def test_many_files_have_pictures_for_the_first_and_a_line_that_says_so(
    model: TwoStageAudio, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_verbs, "picture_of_pair", lambda *_, **__: b"a picture")
    files = [tmp_path / f"no_ann_{item}.wav" for item in range(33)]
    for item, file in enumerate(files):
        write_wav(file, noise(70 + item), 8000)
    for verb, more in (("reconstruct", ()), ("convert", ("--speaker", "bob"))):
        for count, said in ((32, "32 sounds, each with a picture, in"), (33, "33 sounds, pictures for the first 32, ")):
            out = tmp_path / f"{verb}{count}"
            assert twostage(verb, model.run.path, *files[:count], *more, "--out", out) == 0
            assert len(list(out.glob("*.wav"))) == count
            assert len(list(out.glob("*.png"))) == 32
            assert said in capsys.readouterr().err
