"""Sound from the command line to the ear: a small run on the synthetic vowels, and every verb on it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from stage1_vqvae import AudioVQVAE
from twostage.config.audio_schema import RecordingsConfig
from twostage.config.schema import Recipe
from twostage.data.audio import load_synthetic_vowels
from twostage.metrics.flac import flac_sizes
from twostage.storage.checkpoint import load_checkpoint, save_checkpoint
from twostage.storage.codes import load_codes
from twostage_pipelines.bits.round_trip import check_round_trip
from twostage_pipelines.cli.main import main
from twostage_pipelines.evaluate.rows import Evaluation
from twostage_pipelines.evaluate.tables import difference_lines, print_evaluation
from twostage_pipelines.media.wav import write_wav
from twostage_pipelines.modality.audio_files import AudioFiles
from twostage_pipelines.runs.class_numbers import class_number, warn_of_untrained_speakers
from twostage_pipelines.runs.run import Run

TINY = """
[data]
name = "vowels"
[audio]
channels = 16
residual_blocks = 1
residual_channels = 8
head_channels = 8
speaker_channels = 4
segment_samples = 1024
mixtures = 3
likelihood = "{likelihood}"
[quantiser]
codebook_size = 16
embedding_dim = 8
[gaussian]
latent_channels = 2
[codebook_training]
steps = 12
batch_size = 4
learning_rate = 2e-3
validate_every = 12
checkpoint_every = 6
[wavenet_decoder]
blocks = 1
layers_per_block = 3
channels = 8
head_channels = 8
mixtures = 3
segment_samples = 1024
[decoder_training]
steps = 6
batch_size = 2
learning_rate = 2e-3
validate_every = 6
checkpoint_every = 6
[wavenet_prior]
blocks = 1
layers_per_block = 4
channels = 8
[prior_training]
steps = 12
batch_size = 8
learning_rate = 3e-3
validate_every = 12
checkpoint_every = 12
[baseline_training]
steps = 12
batch_size = 4
learning_rate = 2e-3
validate_every = 12
checkpoint_every = 12
[evaluation]
iwae_samples = 2
sampled_items = 2
coded_items = 1000
"""


def twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained, evaluated run; not to be written to."""
    folder = tmp_path_factory.mktemp("sound")
    recipe = folder / "tiny.toml"
    recipe.write_text(
        'name = "tiny"\nthreads = 1\nmodels = ["vq-vae", "vae"]\n' + TINY.format(likelihood="logistic-mixture")
    )
    assert twostage("train", recipe, "--out", folder / "run") == 0
    return folder / "run"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A vowel of the test set as a file of another rate in stereo, which is mixed down and resampled."""
    samples = load_synthetic_vowels().test.recording(0)
    path = tmp_path / "a_low_0.wav"
    write_wav(path, samples, 8000)
    return path


def evaluation(run: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((run / "evaluation.json").read_text())
    return data


def test_train_leaves_models_codes_results_and_a_report(run: Path) -> None:
    for folder in ("vq-vae/stage1", "vq-vae/decoder", "vq-vae/prior", "vae/stage1"):
        assert (run / "models" / folder / "best" / "model.safetensors").is_file(), folder
    codes = load_codes(run / "codes" / "vq-vae" / "test.safetensors")
    test = load_synthetic_vowels().test
    assert codes.lengths is not None
    assert (codes.lengths == -(-test.lengths // 64)).all()
    assert codes.samples is not None
    assert (codes.samples == test.lengths).all()
    report = (run / "report.html").read_text()
    assert report.count("<audio") >= 8
    assert "http" not in report.replace("http-equiv", "")  # nothing is fetched


def test_every_part_of_the_bits_is_in_the_total(run: Path) -> None:
    found = evaluation(run)
    assert found["unit"] == "bits/sample"
    names = {(row["model"], row["decoder"], row["prior"], row["bound"]) for row in found["rows"]}
    assert names == {
        *(
            ("vq-vae", d, p, "two-part")
            for d in ("convolutional", "wavenet")
            for p in ("learned", "unigram", "uniform")
        ),
        ("vae", "convolutional", "gaussian", "elbo"),
        ("vae", "convolutional", "gaussian", "iwae"),
    }
    for row in found["rows"]:
        if row["bound"] == "iwae":
            continue
        parts = ("distortion_bits_per_dim", "rate_bits_per_dim", "length_bits_per_dim", "label_bits_per_dim")
        assert row["bits_per_dim"] == pytest.approx(sum(row[part] for part in parts), abs=1e-9)
        assert row["length_bits_per_dim"] * found["dims"] / found["items"] > 6  # the remainder alone is log2 64
        assert row["labels"] == "paid"
    uniform = next(row for row in found["rows"] if row["prior"] == "uniform")
    lengths = load_synthetic_vowels().test.lengths
    assert uniform["rate_bits_per_dim"] == pytest.approx((-(-lengths // 64)).sum() * 4 / lengths.sum())
    learned = next(row for row in found["rows"] if row["prior"] == "learned")
    assert learned["label_bits_per_dim"] * found["dims"] / found["items"] == pytest.approx(np.log2(15), abs=1e-6)


def test_bytes_prove_the_row_of_the_learned_prior(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All test recordings in one stream: codes, ends, labels with speakers, and samples that the last codes lack."""
    found = Evaluation.read(run / "evaluation.json")
    (trip,) = found.coding
    assert (trip.model, trip.items, trip.labels, trip.identical) == ("vq-vae", found.items, "paid", True)
    learned = next(row for row in found.rows if row.prior == "learned")
    parts = (learned.rate_bits_per_dim, learned.length_bits_per_dim, learned.label_bits_per_dim)
    assert trip.bits_reported == pytest.approx(sum(part or 0.0 for part in parts) * found.dims, rel=1e-6)
    assert abs(trip.bits_written - trip.bits_reported) <= 0.001 * trip.bits_reported + 64
    print_evaluation(found)
    assert f"vq-vae: {found.items} items in one stream, labels paid: " in capsys.readouterr().out
    few = check_round_trip(Run.open(run), "vq-vae", "test", 3, torch.device("cpu"))
    assert (few.items, few.identical, few.within_bound) == (3, True, True)
    assert few.bits_reported < trip.bits_reported


def test_rows_say_what_their_bits_are_given(run: Path) -> None:
    """A learned prior is conditioned on label and speaker, the others on nothing; every decoder on the speaker."""
    for row in evaluation(run)["rows"]:
        assert row["distortion_given"] == "speaker"
        assert row["rate_given"] == ("label and speaker" if row["prior"] == "learned" else "nothing")
    report = (run / "report.html").read_text()
    assert "label and speaker" in report
    assert "bits of the codes alone, given what the prior is conditioned on" in report


def test_models_are_compared_with_the_frames_of_flac_and_not_with_its_files(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, test = evaluation(run), load_synthetic_vowels().test
    sizes = flac_sizes(test.recordings(), 8000)
    flac = found["flac"]
    assert flac["bits_per_sample"] == pytest.approx(sizes.file_bits.sum() / found["dims"])
    assert flac["frames_bits_per_sample"] == pytest.approx(sizes.frame_bits.sum() / found["dims"])
    beside = [each for each in found["paired_differences"] if each["reference"] == "FLAC, frames of a file each"]
    assert len(beside) == len(found["rows"])
    for difference, row in zip(beside, found["rows"], strict=True):
        expected = row["bits_per_dim"] - flac["frames_bits_per_sample"]
        assert difference["bits_per_dim"] == pytest.approx(expected, abs=1e-9)
        assert difference["standard_error"] > 0
    read = Evaluation.read(run / "evaluation.json")
    print_evaluation(read)
    out, report = capsys.readouterr().out, (run / "report.html").read_text()
    whole, frames = f"{flac['bits_per_sample']:.4f}", f"{flac['frames_bits_per_sample']:.4f}"
    for text in (out, report):
        assert whole in text
        assert frames in text
        assert "bits/sample more than FLAC, frames of a file each" in text
        assert "is over items, of one training each" in text
    # The WaveNet decoder and its training come on top of all that the reference needs.
    name = "vq-vae (ema), learned prior"
    (line,) = [
        line for line in difference_lines(read)[name] if line.startswith("vq-vae (ema), WaveNet decoder, learned")
    ]
    sized = {row.name: row.parameters for row in read.rows}
    reference, other = (f"{sized[each]:,}" for each in (name, line.split(":")[0]))
    assert f"({other} parameters against {reference}" in line


def test_training_again_does_nothing_and_other_settings_are_refused(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe = run / "config.toml"
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert twostage("train", recipe, "--out", copy, "--dry-run") == 0
    assert capsys.readouterr().err.count("done already") == 4
    assert twostage("train-decoder", copy, "--wavenet-decoder.channels", 16) == 2
    assert "wavenet_decoder.channels: 8 -> 16" in capsys.readouterr().err


def test_generate_writes_sounds_with_pictures(run: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        arguments = ("--label", "o", "--speaker", "low", "--count", 2, "--seconds", 0.1, "--out", tmp_path / name)
        assert twostage("generate", run, *arguments) == 0
    written = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert written == [f"sound-000{i}-o-low.{kind}" for i in range(2) for kind in ("png", "wav")]
    for name in written:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    sound, rate = soundfile.read(tmp_path / "first" / "sound-0000-o-low.wav", dtype="int16")
    assert (len(sound), rate) == (13 * 64, 8000)  # whole codes
    assert twostage("generate", run, "--count", 3, "--decoder", "wavenet", "--out", tmp_path / "free") == 0
    assert len(list((tmp_path / "free").glob("*.wav"))) == 3


def test_reconstruct_convert_encode_decode(run: Path, recording: Path, tmp_path: Path) -> None:
    own, _ = soundfile.read(recording, dtype="int16")
    assert twostage("reconstruct", run, recording, "--speaker", "low", "--out", tmp_path / "again") == 0
    again, _ = soundfile.read(tmp_path / "again" / "a_low_0-reconstructed.wav", dtype="int16")
    assert len(again) == len(own)
    out = tmp_path / "converted"
    for speaker in ("high", "middle"):
        assert (
            twostage("convert", run, recording, "--speaker", speaker, "--decoder", "convolutional", "--out", out) == 0
        )
    high, middle = (soundfile.read(out / f"a_low_0-as-{name}.wav", dtype="int16")[0] for name in ("high", "middle"))
    assert len(high) == len(own)
    assert not np.array_equal(high, middle)
    codes = tmp_path / "codes.safetensors"
    assert twostage("encode", run, recording, "--out", codes) == 0
    arguments = ("--speaker", "high", "--decoder", "convolutional", "--out", tmp_path / "decoded")
    assert twostage("decode", run, codes, *arguments) == 0
    decoded, _ = soundfile.read(tmp_path / "decoded" / "a_low_0.wav", dtype="int16")
    assert np.array_equal(decoded, high)  # equal codes in the same voice: equal sound, exactly as long


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("generate", "RUN", "--speaker", "nobody"), 2, "--speaker must be one of high, low, middle"),
        (("generate", "RUN", "--label", "z"), 2, "--label must be one of a, e, i, o, u"),
        (("generate", "RUN", "--seconds", "1000"), 2, "--seconds must be at most"),
        (("generate", "RUN", "--unlabelled"), 2, "label dropout"),
        (("generate", "RUN", "--model", "vae", "--top-k", "3"), 2, "a VAE draws continuous latents"),
        (("generate", "RUN", "--complete", "a.png", "--keep-rows", "1"), 2, "--keep-rows is for runs on images"),
        (("convert", "RUN", "FILE", "--speaker", "nobody"), 2, "--speaker must be one of"),
        (("convert", "RUN", "none.wav", "--speaker", "high"), 1, "none.wav"),
        (("reconstruct", "RUN", "FILE"), 2, "nothing says who speaks"),
        (("decode", "RUN", "TEST-CODES", "--speaker", "x", "--dry-run"), 2, "--speaker must be one of"),
        (("train-decoder", "RUN", "--wavenet-decoder.blocks", "0"), 2, "at least 1"),
        (("train-prior", "RUN", "--prior.layers", "4"), 2, "prior.layers is a setting of images"),
        (
            ("train", "CONFIG", "--wavenet-prior.max-seconds", "0.3", "--out", "NEW", "--dry-run"),
            2,
            "would have no probability",
        ),
    ],
)
def test_wrong_use(
    run: Path, recording: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    places = {
        "RUN": str(run),
        "FILE": str(recording),
        "NEW": str(recording.parent / "new"),
        "CONFIG": str(run / "config.toml"),
        "TEST-CODES": str(run / "codes" / "vq-vae" / "test.safetensors"),
    }
    assert twostage(*(places.get(argument, argument) for argument in arguments)) == code
    message = capsys.readouterr().err
    assert said in message
    assert "Traceback" not in message


def test_a_retrained_codebook_refuses_prior_and_decoder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "models" / "vq-vae" / "stage1")
    assert twostage("train-codebook", copy / "config.toml", "--out", copy, "--seed", 5) == 0
    capsys.readouterr()
    assert twostage("evaluate", copy) == 1
    assert "was fitted to codebook" in capsys.readouterr().err
    assert twostage("train-decoder", copy) == 2
    assert "holds a decoder of codebook" in capsys.readouterr().err


def test_mu_law_bits_have_a_column_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "mu.toml"
    recipe.write_text('name = "mu"\nthreads = 1\nmodels = ["vq-vae"]\n' + TINY.format(likelihood="mu-law"))
    assert twostage("train-codebook", recipe, "--out", tmp_path / "run") == 0
    assert twostage("train-decoder", tmp_path / "run") == 0
    capsys.readouterr()
    assert twostage("evaluate", tmp_path / "run", "--split", "validation") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if "uniform prior" in line and "/16" not in line]
    convolutional, wavenet = (row.split("prior")[1].split()[:2] for row in rows[:2])
    assert convolutional[0] == "-"
    assert float(convolutional[1]) > 0
    assert float(wavenet[0]) > 0
    assert wavenet[1] == "-"
    headings = next(line for line in lines if "total, mu-law" in line)
    assert "distortion, 16 bit" in headings
    assert "distortion, mu-law" in headings
    for row, has_16_bit in zip(rows, (False, True), strict=False):
        distortions = row.split("prior")[1].split()[3:5]
        assert [cell != "-" for cell in distortions] == [has_16_bit, not has_16_bit]
    swapped = [line for line in lines if "uniform prior" in line and "/16" in line]
    assert [[cell != "-" for cell in line.split()[-2:]] for line in swapped] == [[False, True], [True, False]]


def test_a_sound_is_named_after_no_label_that_the_prior_was_not_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without = tmp_path / "without"
    shutil.copytree(run, without)
    shutil.rmtree(without / "models" / "vq-vae" / "prior")
    assert twostage("train-prior", without, "--wavenet-prior.no-conditional") == 0
    capsys.readouterr()
    assert twostage("generate", without, "--label", "a") == 2
    assert "is conditioned on none: leave it out" in capsys.readouterr().err
    assert twostage("generate", without, "--count", 2, "--seconds", 0.1, "--out", tmp_path / "unconditional") == 0
    assert sorted(path.stem for path in (tmp_path / "unconditional").glob("*.wav")) == [
        "sound-0000-high",
        "sound-0001-low",
    ]
    assert twostage("evaluate", without) == 0
    assert twostage("report", without) == 0
    samples = (without / "report.html").read_text().split("<h3>Samples</h3>")[1].split("<h2>")[0]
    assert "<figcaption>high</figcaption>" in samples
    assert "asked for" not in samples
    shutil.rmtree(without / "models" / "vq-vae" / "prior")
    dropout = ("--wavenet-prior.conditional", "--wavenet-prior.label-dropout", 0.5)
    assert twostage("train-prior", without, *dropout) == 0
    arguments = ("--unlabelled", "--count", 1, "--seconds", 0.1, "--out", tmp_path / "unlabelled")
    assert twostage("generate", without, *arguments) == 0
    assert [path.stem for path in (tmp_path / "unlabelled").glob("*.wav")] == ["sound-0000-high"]


def test_many_files_go_through_in_batches_and_give_what_each_gives_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    test = load_synthetic_vowels().test
    files = [tmp_path / f"{item}_low.wav" for item in range(5)]
    for item, file in enumerate(files):
        write_wav(file, test.recording(item)[: 3000 - 700 * item], 8000)
    small = tmp_path / "run"
    shutil.copytree(run, small)
    config = small / "config.toml"
    lines = config.read_text().splitlines(keepends=True)
    body = "".join(line for line in lines if not line.startswith("#"))
    config.write_text(re.sub(r"batch_samples = \d+", "batch_samples = 3000", body))
    sizes: list[int] = []
    encode = AudioVQVAE.encode
    monkeypatch.setattr(
        AudioVQVAE, "encode", lambda self, samples, mask: sizes.append(samples.numel()) or encode(self, samples, mask)
    )
    assert twostage("encode", small, *files, "--out", tmp_path / "all.safetensors") == 0
    assert max(sizes) <= 3072  # a batch, or one recording, in whole codes
    together = load_codes(tmp_path / "all.safetensors")
    assert together.lengths is not None
    for model in ("vq-vae", "vae"):
        out = tmp_path / model
        arguments = ("--speaker", "low", "--model", model)
        assert twostage("reconstruct", small, *files, *arguments, "--out", out) == 0
        assert twostage("reconstruct", small, files[3], *arguments, "--out", tmp_path / "alone") == 0
        alone, many = (
            soundfile.read(folder / "3_low-reconstructed.wav", dtype="int16")[0] for folder in (tmp_path / "alone", out)
        )
        assert len(alone) == 900
        assert np.abs(alone.astype(int) - many).max() <= 1
    assert together.lengths.tolist() == [47, 36, 25, 15, 4]
    assert twostage("encode", small, files[3], "--out", tmp_path / "one.safetensors") == 0
    assert (load_codes(tmp_path / "one.safetensors").codes[0, :, :15] == together.codes[3, :, :15]).all()


def test_reconstructions_of_generated_sounds_outlive_the_next_call(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    assert twostage("generate", copy, "--count", 2, "--seconds", 0.1) == 0
    assert twostage("reconstruct", copy, copy / "samples" / "sound-0001-e-high.wav", "--speaker", "high") == 0
    assert twostage("generate", copy, "--count", 1, "--seconds", 0.1) == 0
    assert sorted(path.name for path in (copy / "samples").glob("*.wav")) == [
        "sound-0000-a-high.wav",
        "sound-0001-e-high-reconstructed.wav",
    ]


def test_a_strange_file_name_does_not_break_the_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a\n\x1b[31m.wav"
    write_wav(file, load_synthetic_vowels().test.recording(0), 8000)
    assert twostage("convert", run, file, "--speaker", "low", "--out", tmp_path / "out") == 0
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert "a\\n\\x1b[31m.wav -> " in said


def test_a_voice_that_no_training_recording_has_is_refused(
    run: Path, recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same run, told that all but one speaker were held out."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    first, *others = load_synthetic_vowels().speakers
    for stage in ("stage1", "decoder", "prior"):
        best = load_checkpoint(copy / "models" / "vq-vae" / stage / "best")
        assert best.state["record"]["trained_speakers"] == [first, *others]
        record = {**best.state["record"], "trained_speakers": [first]}
        save_checkpoint(best.path, tensors=best.tensors, state={**best.state, "record": record})
    said = f"--speaker must be one of the training recordings, {first}, but {others[0]} is held out"
    assert twostage("generate", copy, "--count", "1", "--speaker", others[0]) == 2
    assert said in capsys.readouterr().err
    assert twostage("convert", copy, recording, "--speaker", others[0]) == 2
    assert said in capsys.readouterr().err
    assert twostage("generate", copy, "--count", "3", "--seconds", "0.05", "--out", tmp_path / "out") == 0
    assert all(f"-{first}." in path.name for path in (tmp_path / "out").iterdir())


def test_a_label_that_no_training_recording_has_is_refused_and_left_out_in_turn(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same run, told that two of five labels and two of three speakers were trained on."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    vowels = load_synthetic_vowels()
    for stage in ("stage1", "decoder", "prior"):
        best = load_checkpoint(copy / "models" / "vq-vae" / stage / "best")
        assert best.state["record"]["trained_labels"] == list(vowels.classes)
        kept = {"trained_labels": list(vowels.classes[2:4]), "trained_speakers": list(vowels.speakers[1:])}
        save_checkpoint(best.path, tensors=best.tensors, state={**best.state, "record": best.state["record"] | kept})
    met = ", ".join(vowels.classes[2:4])
    for label in (vowels.classes[0], 0):
        assert twostage("generate", copy, "--count", "1", "--label", label) == 2
        assert f"--label must be one with training items, {met}, but {vowels.classes[0]} has" in capsys.readouterr().err
    assert twostage("generate", copy, "--count", "5", "--seconds", "0.05", "--out", tmp_path / "out") == 0
    pairs = [(label, speaker) for speaker in vowels.speakers[1:] for label in vowels.classes[2:4]]
    assert sorted(path.stem for path in (tmp_path / "out").glob("*.wav")) == [
        f"sound-{item:04d}-{label}-{speaker}" for item, (label, speaker) in enumerate([*pairs, pairs[0]])
    ]
    monkeypatch.setattr("twostage_pipelines.modality.audio_pictures.AudioPictures.played", 3)
    assert twostage("report", copy) == 0
    page = (copy / "report.html").read_text()
    samples = page.split("<h3>Samples</h3>")[1].split("<h3>")[0]
    said = re.findall(r'aria-label="([^"]*)"', samples)
    assert said[:3] == said[3:] == [f"{label} / {speaker}" for label, speaker in pairs[:3]]  # as generate pairs them
    assert "label and speaker asked for" in samples


def test_who_speaks_is_read_from_names_in_either_form_of_their_characters(tmp_path: Path) -> None:
    one, two = "jos\N{LATIN SMALL LETTER E WITH ACUTE}", "jose\N{COMBINING ACUTE ACCENT}"
    recipe = replace(Recipe(), recordings=RecordingsConfig(pattern="{speaker}_{index}"))
    files = [tmp_path / f"{name}_0.wav" for name in (one, two, "ann")]
    assert AudioFiles().speakers_in(files, recipe, ("ann", one)) == [1, 1, 0]
    assert class_number(two, ("ann", one), flag="--speaker") == 1


def test_an_evaluation_on_voices_never_heard_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    dataset = load_synthetic_vowels()
    warn_of_untrained_speakers(dataset, "test")
    assert capsys.readouterr().err == ""
    kept = replace(dataset, train=replace(dataset.train, speakers=np.zeros_like(dataset.train.speakers)))
    warn_of_untrained_speakers(kept, "test")
    count = len(dataset.speakers) - 1
    said = capsys.readouterr().err
    assert f"speakers of the test recordings that are held out of training, {count} ({dataset.speakers[1]}" in said
    assert said.count("\n") == 1
