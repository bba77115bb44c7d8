"""Rows, tables and evaluation.json: what is printed where a number is missing, and what is written and read."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from twostage.errors import RunError
from twostage.metrics.code_labels import CodeMeaning, Meaning
from twostage.metrics.flac import Flac
from twostage_pipelines.evaluate.columns import print_table
from twostage_pipelines.evaluate.reconstruction_table import reconstruction_notes, reconstruction_table
from twostage_pipelines.evaluate.rows import Diagnosis, Evaluation, PairedDifference, Row, SampleScore
from twostage_pipelines.evaluate.tables import (
    difference_lines,
    model_table,
    print_evaluation,
    sample_table,
    score_table,
)
from twostage_pipelines.report.results import results_section, samples_section


def _row(**changes: Any) -> Row:
    fields: dict[str, Any] = {
        "model": "vq-vae-loss",
        "kind": "vq-vae",
        "codebook_update": "loss",
        "bound": "two-part",
        "prior": "learned",
        "likelihood": "hurdle",
        "alphabet": 17,
        "beta": None,
        "samples_k": None,
        "labels": "marginalised",
        "bits_per_dim": 2.25,
        "standard_error": 0.01,
        "distortion_bits_per_dim": 1.5,
        "rate_bits_per_dim": 0.75,
        "psnr_db": 19.5,
        "codebook_perplexity": 11.0,
        "codebook_used": 12,
        "codebook_size": 12,
        "parameters": 1234,
        "steps": 100,
        "train_seconds": 5.0,
        "stage1_sha256": "0" * 64,
    }
    return Row(**{**fields, **changes})


LEARNED = _row()
FIRST, SEARCHED = _row(search_items=1000), _row(search_items=1000, searched=True, bits_per_dim=2.2)
VAE = _row(model="vae", kind="vae", codebook_update=None, prior="gaussian", bound="iwae", samples_k=64, beta=1.0)
NO_BITS = {"bits_per_dim": None, "standard_error": None, "distortion_bits_per_dim": None, "rate_bits_per_dim": None}
SQUARED_ERROR = _row(**NO_BITS, bound=None, prior=None, likelihood="mse", labels="none")


def _evaluation(*rows: Row, **changes: Any) -> Evaluation:
    whole = Evaluation(
        recipe="r",
        dataset="digits",
        split="test",
        items=10_000,
        dims=64,
        unit="bits/dim",
        seed=0,
        rows=rows,
        paired_differences=(),
    )
    return replace(whole, **changes)


SCORES = (
    SampleScore("vq-vae-loss", 500, 7.125, 3.167, 0.783, 0.997, 400, 1.5),
    SampleScore("vae", 500, 108.5, 3.167, None, 0.997, 400, 2.25),
    SampleScore("ae", 0, None, 3.167, None, 0.997, 400, 0.125),
)


def test_every_kind_of_row_has_a_name_of_its_own() -> None:
    rows = (LEARNED, FIRST, SEARCHED, VAE, replace(VAE, bound="elbo"), SQUARED_ERROR, replace(VAE, bound=None))
    assert [row.name for row in rows] == [
        "vq-vae-loss (loss), learned prior",
        "vq-vae-loss (loss), learned prior, 1000 items",
        "vq-vae-loss (loss), learned prior, 1000 items, searched",
        "vae, IWAE-64",
        "vae, ELBO",
        "vq-vae-loss (loss)",
        "vae",
    ]


def test_an_evaluation_reads_back_as_it_was_written(tmp_path: Path) -> None:
    difference = PairedDifference("a", "b", 0.1, None)
    found = Diagnosis("vae", "in use", ("A sentence.",), {"rate": 1.0}, ("blurred", "grid"))
    measured = replace(LEARNED, sharpness=0.5, grid_db=-1.0, nearest_items=(3, 1), farthest_items=(2, 0))
    rows, beside = (measured, SEARCHED, SQUARED_ERROR), {"paired_differences": (difference,), "diagnoses": (found,)}
    evaluation = _evaluation(*rows, sample_scores=SCORES, **beside)
    evaluation.write(tmp_path / "evaluation.json")
    assert Evaluation.read(tmp_path / "evaluation.json") == evaluation
    data = json.loads((tmp_path / "evaluation.json").read_text())
    assert data["rows"][2]["bits_per_dim"] is None
    assert data["sample_scores"][0] == asdict(SCORES[0])
    assert data["sample_scores"][1]["label_agreement"] is None


def test_items_stand_in_the_table_only_where_rows_differ_in_them() -> None:
    headings, cells = score_table(_evaluation(LEARNED, VAE))
    assert "items" not in headings
    assert len(cells[0]) == len(headings) == 7
    headings, cells = score_table(_evaluation(LEARNED, FIRST, SEARCHED))
    assert headings[:3] == ["model, prior or bound", "items", "total"]
    assert [row[1] for row in cells] == ["10,000", "1,000", "1,000"]
    assert [row[2] for row in cells] == ["2.2500", "2.2500", "2.2000"]
    headings, _ = score_table(_evaluation(LEARNED, SEARCHED, items=1000))
    assert "items" not in headings


def test_a_model_without_bits_gets_dashes_and_no_bar() -> None:
    evaluation = _evaluation(SQUARED_ERROR)
    _, cells = score_table(evaluation)
    assert cells[0] == ["vq-vae-loss (loss)", "-", "-", "-", "-", "19.50", "none"]
    assert "no bits/dim" in evaluation.title
    assert "given label" not in score_table(_evaluation(replace(SQUARED_ERROR, labels="given")))[0]
    page = results_section(evaluation)
    assert "data:image/png" not in page
    assert "code length" not in page
    assert "data:image/png" in results_section(_evaluation(SQUARED_ERROR, LEARNED))


def test_model_table_has_one_line_for_ordinary_and_searched_rows() -> None:
    few_used = replace(SEARCHED, codebook_used=3)
    _, cells = model_table(_evaluation(LEARNED, FIRST, few_used, VAE))
    assert [row[0] for row in cells] == ["vq-vae-loss with prior", "vae"]
    assert "12/12" in cells[0]


def test_differences_stand_under_the_row_they_are_paired_with(capsys: pytest.CaptureFixture[str]) -> None:
    differences = (
        PairedDifference(LEARNED.name, VAE.name, -0.01, 0.002),
        PairedDifference(FIRST.name, SEARCHED.name, -0.05, 0.001),
        PairedDifference(LEARNED.name, "unigram", 0.2, None),
    )
    evaluation = _evaluation(LEARNED, VAE, FIRST, SEARCHED, paired_differences=differences)
    assert difference_lines(evaluation) == {
        LEARNED.name: ["vae, IWAE-64: -0.0100 ± 0.0020", "unigram: +0.2000 ± -"],
        FIRST.name: ["vq-vae-loss (loss), learned prior, 1000 items, searched: -0.0500 ± 0.0010"],
    }
    print_evaluation(evaluation)
    out = capsys.readouterr().out
    page = results_section(evaluation)
    for text in (out, page):
        for heading, line in difference_lines(evaluation).items():
            assert text.index(f"more than {heading}") < text.index(line[0])


def test_a_difference_names_sizes_and_times_that_are_more_than_a_tenth_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    vae = replace(VAE, parameters=780_000, train_seconds=2011.0)
    learned = replace(LEARNED, parameters=1_810_000, train_seconds=2111.0)
    difference = PairedDifference(learned.name, vae.name, 0.0108, 0.0003)
    evaluation = _evaluation(learned, vae, paired_differences=(difference,))
    line = "vae, IWAE-64: +0.0108 ± 0.0003 (780,000 parameters against 1,810,000)"
    assert difference_lines(evaluation) == {learned.name: [line]}
    slow = _evaluation(
        learned, replace(vae, parameters=1_700_000, train_seconds=900.0), paired_differences=(difference,)
    )
    assert difference_lines(slow)[learned.name][0].endswith("± 0.0003 (900 s of training against 2,111)")
    print_evaluation(evaluation)
    out, page = " ".join(capsys.readouterr().out.split()), results_section(evaluation)
    for text in (out, page):
        assert line in text
        assert "is over items, of one training each" in text
        assert "beside whatever else it did" in text
    print_evaluation(_evaluation(learned))
    assert "one training each" not in " ".join(capsys.readouterr().out.split())


def test_a_rate_over_all_labels_says_that_it_is_given_none(capsys: pytest.CaptureFixture[str]) -> None:
    for labels, said in (("marginalised", True), ("none", False)):
        evaluation = _evaluation(replace(LEARNED, labels=labels))
        print_evaluation(evaluation)
        for text in (" ".join(capsys.readouterr().out.split()), results_section(evaluation)):
            assert ("is summed over all" in text) == said


def test_scores_of_samples_stand_in_a_table_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = _evaluation(LEARNED, VAE, sample_scores=SCORES)
    headings, cells = sample_table(evaluation)
    assert cells == [
        ["vq-vae-loss", "500", "10,000", "7.125", "3.167", "78.3%", "400", "1.500"],
        ["vae", "500", "10,000", "108.500", "3.167", "-", "400", "2.250"],
        ["ae", "0", "10,000", "-", "3.167", "-", "400", "0.125"],
    ]
    title = "Fréchet distance in the features of a classifier trained on digits (accuracy 99.7%)"
    print_evaluation(evaluation)
    out, page = " ".join(capsys.readouterr().out.split()), samples_section(evaluation)
    for text in (out, page):
        assert title in text
        assert all(cell in text for row in cells for cell in row)
        assert "biased upwards, the more the fewer they are: here 500 samples and 10,000 test images" in text
    assert all(heading in page for heading in headings)
    assert samples_section(_evaluation(LEARNED)) == ""
    print_evaluation(_evaluation(LEARNED))
    assert "Fréchet" not in capsys.readouterr().out


def test_reconstructions_have_a_line_a_model_and_a_meaning_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    measured: dict[str, Any] = {"ssim": 0.8125, "explained_share": 0.95, "sharpness": 0.5, "grid_db": 1.25}
    colour: dict[str, Any] = {"colour_error": 8.25, "colourfulness": 0.75, "colour_spread": 0.5}
    first = replace(LEARNED, **measured)
    evaluation = _evaluation(first, replace(first, prior="uniform"), replace(SEARCHED, **measured), VAE)
    headings, cells = reconstruction_table(evaluation)
    assert headings == ["reconstructions", "SSIM", "explained", "sharpness", "grid dB"]
    assert [line[0] for line in cells] == ["vq-vae-loss", "vq-vae-loss, 1000 items, searched"]
    assert cells[0][1:] == ["0.812", "0.950", "0.500", "+1.2"]
    print_evaluation(evaluation)
    for text in (" ".join(capsys.readouterr().out.split()), results_section(evaluation)):
        assert all(cell in text for line in cells for cell in line)
        assert "energy of the gradients" in text
        assert "CIELAB" not in text
        assert "draws" not in text
    drawn = _evaluation(replace(first, **colour, psnr_of="sample"))
    assert reconstruction_table(drawn)[1][0][4:] == ["8.2", "0.75", "0.50", "+1.2"]
    assert len(reconstruction_notes(drawn)) == 8
    assert "draws" in reconstruction_notes(drawn)[-1]
    assert "<th>reconstructions</th>" not in results_section(_evaluation(LEARNED))


def test_no_number_is_cut_however_long_the_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_evaluation(_evaluation(LEARNED, replace(SEARCHED, model="vq-vae-with-a-very-long-name" * 3)))
    out = capsys.readouterr().out
    assert "…" not in out
    assert "1000 items, searched   1,000  2.2000  0.0100      1.5000  0.7500" in out


def test_tables_print_every_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    strange = "[bold]x[/bold] [/] :smile: [link=a]b"
    print_table([strange], [[strange]])
    assert capsys.readouterr().out.split("\n")[:2] == [f" {strange} "] * 2
    print_evaluation(_evaluation(LEARNED, dataset=strange))
    assert capsys.readouterr().out.startswith(f"{strange}, test set")


@pytest.mark.parametrize("of", ["sample", "mean"])
def test_psnr_says_what_it_is_of(of: str) -> None:
    page = results_section(_evaluation(replace(LEARNED, psnr_of=of)))
    assert ("of sampled reconstructions" in page) == (of == "sample")
    assert ("PSNR is of the mean of p(x|z)" in page) == (of == "mean")


RECORDED: dict[str, Any] = {
    "labels": "paid",
    "decoder": "convolutional",
    "alphabet": 256,
    "psnr_db": None,
    "length_bits_per_dim": 0.004,
    "label_bits_per_dim": 0.001,
    "rate_given": "speaker",
    "distortion_given": "nothing",
    "bits_per_code": 3.5,
    "swapped_distortion_bits_per_dim": 1.75,
}
FLAC = Flac(bits_per_sample=11.75, joined_bits_per_sample=11.25, frames_bits_per_sample=11.5)


def test_recordings_have_columns_of_their_own_and_those_of_images_are_left_out() -> None:
    evaluation = _evaluation(_row(**RECORDED), unit="bits/sample", sample_rate_hz=8000, log_mel="x", flac=FLAC)
    headings, cells = score_table(evaluation)
    assert headings == [
        "model, prior or bound", "total, 16 bit", "total, mu-law", "± s.e.", "distortion", "decoder given", "rate",
        "prior given", "length", "labels",
    ]  # fmt: skip
    assert cells[0][1:] == ["-", "2.2500", "0.0100", "1.5000", "nothing", "0.7500", "speaker", "0.0040", "0.0010"]
    assert [line[:3] for line in cells[1:]] == [
        ["FLAC, frames of a file each", "11.5000", "-"],
        ["FLAC, a file each", "11.7500", "-"],
        ["FLAC, one stream", "11.2500", "-"],
    ]
    assert "10,000 recordings, 64 samples, 0.0 s at 8000 Hz, bits/sample" in evaluation.title


def test_bits_of_other_levels_stand_in_other_columns_and_every_prior_has_a_line() -> None:
    wavenet = _row(**{**RECORDED, "alphabet": 65536, "decoder": "wavenet", "bits_per_code": 2.0})
    evaluation = _evaluation(_row(**RECORDED), wavenet, unit="bits/sample", flac=FLAC)
    headings, cells = score_table(evaluation)
    assert headings[1:6] == ["total, 16 bit", "total, mu-law", "± s.e.", "distortion, 16 bit", "distortion, mu-law"]
    assert [line[1:6] for line in cells[:2]] == [
        ["-", "2.2500", "0.0100", "-", "1.5000"],
        ["2.2500", "-", "0.0100", "1.5000", "-"],
    ]
    headings, cells = model_table(evaluation)
    assert [line[0] for line in cells] == [
        "vq-vae-loss (loss), learned prior",
        "vq-vae-loss (loss), WaveNet decoder, learned prior",
    ]
    assert headings[-2:] == ["swapped codes, 16 bit", "swapped codes, mu-law"]
    assert [line[4] for line in cells] == ["3.500", "2.000"]
    assert [line[-2:] for line in cells] == [["-", "1.7500"], ["1.7500", "-"]]


def test_an_evaluation_of_recordings_reads_back_as_it_was_written(tmp_path: Path) -> None:
    meaning = CodeMeaning(attributes=(Meaning("label", 2, 3, 4, 0, 0.5, 0.5, 1.0, 0.5, 0.1, 0.2, 1.0),))
    evaluation = _evaluation(
        _row(**RECORDED),
        unit="bits/sample",
        sample_rate_hz=8000,
        log_mel="settings",
        wrong_log_mel_l1=2.5,
        flac=FLAC,
        meanings={"vq-vae": meaning},
    )
    path = tmp_path / "evaluation.json"
    evaluation.write(path)
    assert Evaluation.read(path) == evaluation
    written = json.loads(path.read_text())
    assert (written["unit"], written["flac"]["frames_bits_per_sample"]) == ("bits/sample", 11.5)
    path.write_text(json.dumps({**written, "unit": 8}))
    with pytest.raises(RunError, match="run evaluate again"):
        Evaluation.read(path)
