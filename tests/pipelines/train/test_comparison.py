"""`compare`: which numbers of several seeds become which number of the table, and the verb from end to end."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twostage.training.record import validation_decrease
from twostage_pipelines.cli.main import main, parse
from twostage_pipelines.commands.compare import Compare
from twostage_pipelines.evaluate.differences import Scored, reference_of
from twostage_pipelines.evaluate.rows import Row
from twostage_pipelines.train.comparison import Comparison, Spread, compared_row
from twostage_pipelines.train.comparison_table import comparison_table, legend_lines

RECIPE = """
name = "tiny"
threads = 1
models = ["vq-vae"]
[data]
name = "digits"
[stage1]
downsampling = 2
channels = 8
residual_blocks = 1
residual_channels = 4
head_channels = 8
[quantiser]
codebook_size = 4
embedding_dim = 4
[gaussian]
latent_dim = 2
network = "mlp"
mlp_width = 16
[codebook_training]
steps = 12
batch_size = 16
validate_every = 3
[baseline_training]
batch_size = 16
learning_rate = 5e-3
validate_every = 5
[prior]
layers = 2
channels = 8
first_kernel = 3
[prior_training]
steps = 8
batch_size = 16
validate_every = 8
[evaluation]
iwae_samples = 2
"""


def _twostage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def _scored(total: list[float] | None, **changes: Any) -> Scored:
    bits_N = None if total is None else np.array(total)
    mean = None if bits_N is None else float(bits_N.mean())
    fields: dict[str, Any] = {
        "model": "vae",
        "kind": "vae",
        "codebook_update": None,
        "bound": "elbo",
        "prior": "gaussian",
        "likelihood": "hurdle",
        "alphabet": 17,
        "beta": 1.0,
        "samples_k": 8,
        "labels": "none",
        "bits_per_dim": mean,
        "standard_error": None,
        "distortion_bits_per_dim": None if mean is None else mean - 0.5,
        "rate_bits_per_dim": None if mean is None else 0.5,
        "psnr_db": 20.0,
        "psnr_of": "mean",
        "codebook_perplexity": None,
        "codebook_used": None,
        "codebook_size": None,
        "parameters": 1234,
        "steps": 100,
        "train_seconds": 5.0,
        "stage1_sha256": "0" * 64,
    }
    return Scored(row=Row(**{**fields, **changes}), bits_N=bits_N)


LEARNED: dict[str, Any] = {"model": "vq-vae", "kind": "vq-vae", "codebook_update": "ema", "bound": "two-part"}
REFERENCE = [
    _scored([2.0, 2.5, 3.0], **LEARNED, prior="learned", beta=None),
    _scored([2.2, 2.5, 3.1], **LEARNED, prior="learned", beta=None),
]
VAE = [_scored([2.1, 2.4, 3.3]), _scored([2.5, 2.4, 3.2])]


def _comparison(*rows: Any, **changes: Any) -> Comparison:
    whole = Comparison(
        recipe="r",
        dataset="digits",
        split="test",
        items=3,
        dims=64,
        unit="bits/dim",
        subject="digits",
        likelihood="hurdle",
        alphabet=17,
        seeds=(0, 1),
        budget_steps=100,
        budget_of="codebook and prior",
        reference="vq-vae (ema), learned prior",
        rows=rows,
    )
    return replace(whole, **changes)


def test_spread_is_over_seeds_and_paired_error_over_items() -> None:
    row = compared_row(VAE, REFERENCE, [0.0, 0.01])
    assert row.bits_per_dim == Spread(pytest.approx(2.65), pytest.approx(np.std([2.6, 2.7], ddof=1)))
    assert row.distortion_bits_per_dim is not None
    assert row.distortion_bits_per_dim.mean == pytest.approx(2.15)
    delta_SN = np.array([[0.1, -0.1, 0.3], [0.3, -0.1, 0.1]])
    assert row.difference_bits_per_dim == Spread(
        pytest.approx(delta_SN.mean()), pytest.approx(np.std(delta_SN.mean(1), ddof=1), abs=1e-9)
    )
    assert row.difference_standard_error == pytest.approx(np.std(delta_SN.mean(0), ddof=1) / np.sqrt(3))
    single = compared_row(VAE[:1], REFERENCE[:1], [0.0])
    assert single.bits_per_dim == Spread(pytest.approx(2.6), None)


def test_nothing_is_compared_with_itself_given_the_label_or_without_bits() -> None:
    given = [replace(scored, row=replace(scored.row, labels="given")) for scored in VAE]
    ae = [_scored(None, model="ae", kind="ae", bound=None, prior=None, beta=None)] * 2
    for seeds, references in ((REFERENCE, REFERENCE), (given, REFERENCE), (ae, REFERENCE), (VAE, None)):
        row = compared_row(seeds, references, [0.0])
        assert (row.difference_bits_per_dim, row.difference_standard_error) == (None, None)


def test_reference_is_the_first_codebook_with_a_learned_prior_wherever_it_stands() -> None:
    vimco = _scored([1.0], model="vimco", kind="vimco", prior="learned", bound="multi-sample")
    uniform = _scored([1.0], **LEARNED, prior="uniform", beta=None)
    few = _scored([1.0], **LEARNED, prior="learned", beta=None, search_items=3)
    assert reference_of([vimco, uniform, few, REFERENCE[1], REFERENCE[0]]) is REFERENCE[1]
    assert reference_of([vimco, uniform]) is None


@pytest.mark.parametrize(
    ("values", "fall"),
    [
        ([(25, 4.0), (50, 2.0), (75, 1.0), (100, 0.9)], 0.1),
        ([(25, 4.0), (50, 2.0), (75, 1.0), (100, 1.2)], 0.0),  # rose again: the best model is kept
        ([(25, 1.0), (75, 2.0), (100, 0.98)], 0.02),
        ([(80, 4.0), (100, 2.0)], None),
        ([], None),
    ],
)
def test_validation_fall_is_that_of_the_best_number_over_the_last_quarter(
    values: list[tuple[int, float]], fall: float | None
) -> None:
    rows: list[dict[str, float]] = [{"step": step, "loss": 9.0} for step in (1, 2)]
    rows += [{"step": step, "validation_bits_per_dim": value, "validation_used": 1} for step, value in values]
    assert validation_decrease(rows) == (None if fall is None else pytest.approx(fall))


def test_the_number_that_a_training_goes_by_is_looked_at() -> None:
    rows = [
        {"step": step, "validation_loss_bits_per_dim": loss, "validation_bits_per_dim": 2.0}
        for step, loss in ((50, 2.0), (100, 1.0))
    ]
    assert validation_decrease(rows) == pytest.approx(0.5)


def test_the_legend_names_sizes_and_times_that_are_more_than_a_tenth_apart() -> None:
    """Equal steps are not equal sizes: a reader of a difference learns of what stands on either side."""
    reference = compared_row(REFERENCE, REFERENCE, [0.0])
    small = [replace(s, row=replace(s.row, parameters=1000, train_seconds=5.4)) for s in VAE]
    slow = [replace(s, row=replace(s.row, bound="iwae", parameters=1300, train_seconds=5.6)) for s in VAE]
    alone = _scored(None, model="ae", kind="ae", bound=None, prior=None, parameters=1)  # compared with nothing
    rows = (reference, *(compared_row(each, REFERENCE, [0.0]) for each in (small, slow, [alone, alone])))
    (line,) = [line for line in legend_lines(_comparison(*rows)) if line.startswith("not of the size")]
    assert line == (
        "not of the size or time of vq-vae (ema), learned prior: vae, ELBO: 1,000 parameters against 1,234; "
        "vae, IWAE-8: 5.6 s of training against 5.0"
    )
    both = [replace(s, row=replace(s.row, parameters=2468, train_seconds=50.0)) for s in VAE]
    rows = (reference, compared_row(both, REFERENCE, [0.0]))
    assert "2,468 parameters against 1,234, 50.0 s of training against 5.0" in "\n".join(
        legend_lines(_comparison(*rows))
    )


def test_table_marks_undertrained_rows_and_says_what_it_shows() -> None:
    reference = compared_row(REFERENCE, REFERENCE, [0.02, 0.0])
    given = [replace(scored, row=replace(scored.row, model="cvae", kind="cvae", labels="given")) for scored in VAE]
    rows = (
        reference,
        compared_row(VAE, REFERENCE, [0.021, 0.0], ["in use", "collapsed"]),
        compared_row(given, REFERENCE, [0.0, None]),
        compared_row([_scored(None, model="ae", kind="ae", bound=None, prior=None)] * 2, REFERENCE, [0.0]),
    )
    headings, cells = comparison_table(_comparison(*rows))
    table = {row[0]: dict(zip(headings, row, strict=True)) for row in cells}
    assert [row[-1] for row in cells] == ["", "undertrained, collapsed", "?", ""]
    assert table["vae, ELBO"]["total"] == "2.6500"
    assert table["vae, ELBO"]["± dB"] == "0.00"
    assert table["vae, ELBO"]["± seeds"] == "0.0707"
    assert (table["vae, ELBO"]["more"], table["vq-vae (ema), learned prior"]["more"]) == ("+0.1000", "-")
    assert (table["cvae, ELBO"]["total"], table["cvae, ELBO"]["given label"]) == ("-", "2.6500")
    assert table["ae"] == table["ae"] | {"total": "-", "rate": "-", "PSNR dB": "20.00", "parameters": "1,234"}
    said = "\n".join(legend_lines(_comparison(*rows)))
    for words in (
        "± seeds, ± dB: standard",
        "codes ignored: see",
        "more than vq-vae (ema), learned prior",
        "given label:",
        "more than 2%",
        "?: ",
        "seconds are those of the machine that trained",
    ):
        assert words in said
    assert "published" not in said
    assert "not of the size" not in said
    assert "one seed" not in said
    plain = "\n".join(legend_lines(_comparison(reference, seeds=(0,), reference=None)))
    assert plain.startswith("one seed, so one training of each model")
    assert "more:" not in plain


def test_title_says_what_was_compared_and_for_how_long() -> None:
    both = _comparison(compared_row(VAE, REFERENCE, [0.0]))
    assert both.title == "digits; 2 seeds from 0 on, 100 steps of every model, codebook and prior together"
    assert replace(both, seeds=(3,)).title.startswith("digits; seed 3, ")


def test_published_numbers_stand_beside_cifar10_alone() -> None:
    row = compared_row(VAE, REFERENCE, [0.0])
    cifar = _comparison(row, dataset="cifar10", alphabet=256)
    assert "VAE 4.51, VQ-VAE 4.67, VIMCO 5.14 bits/dim; for orientation" in "\n".join(legend_lines(cifar))
    for other in (_comparison(row), replace(cifar, alphabet=2), replace(cifar, likelihood="mse")):
        assert other.published == {}


def test_picture_shows_what_splits_and_is_not_given_the_label() -> None:
    given = [replace(scored, row=replace(scored.row, labels="given")) for scored in VAE]
    row, beside = compared_row(VAE, REFERENCE, [0.0]), compared_row(given, REFERENCE, [0.0])
    alone = _comparison(row).picture()
    assert alone is not None
    assert alone.startswith(b"\x89PNG")
    assert _comparison(row, beside).picture() == alone
    assert _comparison(row, dataset="cifar10", alphabet=256).picture() != alone
    assert _comparison(beside).picture() is None


def _command(*arguments: str) -> Compare:
    command = parse("compare", list(arguments))
    assert isinstance(command, Compare)
    return command


def test_flags_name_models_and_budgets() -> None:
    usual = _command("digits")
    first, last = ("vq-vae", "vq-vae-loss", "vae", "ae"), ("cvae", "vimco")
    assert usual.recipe.models == (*first, "beta-vae-0.1", "beta-vae-3", *last)
    assert usual.recipe.baseline_training.steps == 1000  # 600 of the codebook and 400 of the prior
    assert (usual.folder, list(usual.seed_numbers)) == (Path("runs/compare-digits"), [0])
    assert "cvae" not in _command("images").recipe.models
    some = _command("digits", "--models", "vq-vae,ae", "vae", "--seed", "5", "--seeds", "2")
    assert some.recipe.models == ("vq-vae", "ae", "vae")
    assert list(some.seed_numbers) == [5, 6]
    betas = _command("digits", "--models", "vae", "--betas", "0.5,1", "2", "--prior-training.steps", "70")
    assert betas.recipe.models == ("vae", "beta-vae-0.5", "beta-vae-2")
    assert betas.recipe.baseline_training.steps == 670
    assert _command("digits", "--betas", "8").recipe.models == (*first, "beta-vae-8", *last)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compared")
    (folder / "tiny.toml").write_text(RECIPE)
    command = ["compare", folder / "tiny.toml", "--models", "vq-vae", "cvae", "ae", "--betas", "1", "--seeds", 2]
    assert _twostage(*command, "--out", folder / "out") == 0
    return folder


def test_compare_trains_every_seed_and_writes_one_table(compared: Path) -> None:
    out = compared / "out"
    comparison = json.loads((out / "comparison.json").read_text())
    assert (comparison["schema_version"], comparison["seeds"], comparison["published"]) == (1, [0, 1], {})
    assert (comparison["unit"], comparison["budget_of"], comparison["alphabet"]) == (
        "bits/dim",
        "codebook and prior",
        17,
    )
    assert comparison["subject"] == "digits, test set: 300 items x 64 dims, 17 levels, categorical likelihood, bits/dim"
    rows = {row["name"]: row for row in comparison["rows"]}
    assert list(rows) == [
        *(f"vq-vae (ema), {prior} prior" for prior in ("uniform", "unigram", "learned")),
        *("cvae, ELBO", "cvae, IWAE-2", "ae", "vae, ELBO", "vae, IWAE-2"),
    ]
    evaluations = [json.loads((out / f"seed-{seed}/evaluation.json").read_text()) for seed in (0, 1)]
    totals = [
        next(row["bits_per_dim"] for row in evaluation["rows"] if (row["model"], row["bound"]) == ("vae", "elbo"))
        for evaluation in evaluations
    ]
    assert totals[0] != totals[1]
    vae, learned = rows["vae, ELBO"], rows["vq-vae (ema), learned prior"]
    assert vae["bits_per_dim"]["mean"] == pytest.approx(np.mean(totals))
    assert vae["bits_per_dim"]["deviation"] == pytest.approx(np.std(totals, ddof=1))
    difference = vae["bits_per_dim"]["mean"] - learned["bits_per_dim"]["mean"]
    assert vae["difference_bits_per_dim"]["mean"] == pytest.approx(difference, rel=1e-6)
    assert vae["difference_standard_error"] > 0
    assert {row["steps"] for name, row in rows.items() if "uniform" not in name and "unigram" not in name} == {20}
    assert vae["undertrained"]  # of twenty steps at that rate
    assert learned["undertrained"] is None  # its prior was validated at the end only
    with Image.open(out / "rate-distortion.png") as picture:
        assert picture.format == "PNG"


def test_the_same_command_trains_nothing_again_and_other_settings_are_refused(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(compared / "out", tmp_path / "out"))
    shutil.rmtree(out / "seed-1")
    before = json.loads((out / "comparison.json").read_text())
    command = ["compare", compared / "tiny.toml", "--models", "vq-vae", "cvae", "ae", "vae", "--seeds", 2, "--out", out]
    assert _twostage(*command, "--resume", "must", "--dry-run") == 0
    said = capsys.readouterr().err
    assert said.count("done already") == said.count("steps of 16 items") == 5
    assert not (out / "seed-1").exists()
    assert _twostage(*command, "--codebook-training.steps", 11) == 2
    assert "vq-vae stage one in" in capsys.readouterr().err
    assert _twostage(*command, "--resume", "never") == 2
    assert not (out / "seed-1").exists()
    assert _twostage(*command) == 0
    shown = capsys.readouterr()
    assert "vae stage one: already trained" in shown.err
    assert shown.out.count("model, prior or bound") == 1
    after = json.loads((out / "comparison.json").read_text())
    for rows in (before["rows"], after["rows"]):
        for row in rows:
            row.pop("train_seconds")
    assert after["rows"] == before["rows"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digits", "--betas", "0"], "--betas must be numbers of more than 0, but is 0."),
        (["digits", "--betas", "1,x"], "--betas must be numbers of more than 0, but is x."),
        (["digits", "--models", "vea"], "Did you mean vae"),
        (["digits", "--seeds", "0"], "--seeds must be at least 1"),
        (["digits", "--seed", "4294967295", "--seeds", "2"], "--seed must be at most 4294967294 with 2 seeds"),
        (["digits", "--baseline-training.steps", "900"], "must be the 1000 steps of codebook and prior together"),
        (["vowels", "--models", "vimco"], "vimco is no model of recordings"),
        (
            ["vowels", "--baseline-training.steps", "600"],
            "the 900 steps of codebook, WaveNet decoder and prior together",
        ),
        (["dgits"], "Did you mean digits"),
    ],
)
def test_wrong_use(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _twostage("compare", *arguments) == 2
    assert said in capsys.readouterr().err
