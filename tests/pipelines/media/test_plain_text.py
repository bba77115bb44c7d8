"""Every figure with names that matplotlib would read as something else: each stands there as it is, and none fails."""

import inspect
from collections.abc import Callable, Iterator
from types import ModuleType

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from twostage.data.audio.spectral import log_mel_settings
from twostage_pipelines.evaluate.code_diagnosis import PriorDiagnosis
from twostage_pipelines.evaluate.latent_diagnosis import Posteriors, diagnose_posteriors
from twostage_pipelines.media import figures
from twostage_pipelines.media import spectrograms as pictures
from twostage_pipelines.media.figures import RatePoint
from twostage_pipelines.media.plain_text import MOST_CHARACTERS, shortened
from twostage_pipelines.report import diagnosis_figures
from twostage_pipelines.report.diagnosis_figures import LatentCloud

NAMES = (
    "$1 to $5", "Ba$$in", r"a\$b$", r"$\frac{$", "_background_", "__", '<b>"A&B\'s"</b>', "50 % {x}", "日本", "[bold]",
)  # fmt: skip
SOUND = np.arange(2000, dtype=np.int16)


def _curves() -> bytes:
    rows = [{"step": 1, "x": 2.0}, {"step": 2, "validation_x": 1.0}]
    return figures.curves(dict.fromkeys(NAMES, rows), key="x", title=NAMES[0], unit=NAMES[1])


def _parts() -> bytes:
    key = "distortion_bits_per_dim"
    rows = [{"step": 2, f"validation_{key}": 2.5, "validation_rate_bits_per_dim": 0.25}]
    return diagnosis_figures.training_parts(dict.fromkeys(NAMES, rows))


def _scatter() -> bytes:
    labels = np.arange(30) % len(NAMES)
    cloud = LatentCloud(NAMES[0], np.random.default_rng(0).standard_normal((30, 2)), labels, axes=(NAMES[1], NAMES[2]))
    return diagnosis_figures.latent_scatter([cloud, cloud], classes=NAMES)


POSTERIORS = diagnose_posteriors(
    Posteriors(np.random.default_rng(0).standard_normal((50, 3)), np.full((50, 3), -1.0), (3,))
)
PRIOR = PriorDiagnosis(9, 4.0, 3.0, 2.5, 0.1, 2.0, None, np.arange(6.0).reshape(2, 3))
MEL = log_mel_settings(8000)
ROWS = [(name, 1.0, 0.5) for name in NAMES]
POINTS = [RatePoint(name, 1.0, float(row), rate_deviation=0.1) for row, name in enumerate(NAMES)]

DRAWINGS: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "curves": (_curves, NAMES),
    "code_histogram": (lambda: figures.code_histogram(np.arange(4), title=NAMES[0]), NAMES[:1]),
    "stacked_bits": (lambda: figures.stacked_bits(ROWS, unit=NAMES[0]), NAMES),
    "rate_distortion": (
        lambda: figures.rate_distortion(POINTS, unit=NAMES[0], totals=dict.fromkeys(NAMES[:3], 3.0), title=NAMES[1]),
        tuple(f"{name} ({row + 1:.3f})" for row, name in enumerate(NAMES)) + tuple(f"{name} (3)" for name in NAMES[:3]),
    ),
    "latent_scatter": (_scatter, NAMES),
    "training_parts": (_parts, NAMES),
    "latent_rates": (lambda: diagnosis_figures.latent_rates(POSTERIORS, title=NAMES[0]), NAMES[:1]),
    "correlations": (lambda: diagnosis_figures.correlations(POSTERIORS, title=NAMES[0]), NAMES[:1]),
    "code_costs": (lambda: diagnosis_figures.code_costs(PRIOR.record(), title=NAMES[0]), NAMES[:1]),
    "picture_of": (lambda: pictures.picture_of(SOUND, settings=MEL, title=NAMES[0]), NAMES[:1]),
    "picture_of_pair": (
        lambda: pictures.picture_of_pair(SOUND, SOUND, settings=MEL, titles=(NAMES[0], NAMES[3])),
        (NAMES[0], NAMES[3]),
    ),
    "sheet": (lambda: pictures.sheet([[SOUND] * len(NAMES)], settings=MEL, titles=[NAMES]), NAMES),
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """Figures that were written, under settings that make the worst of what they show."""
    written: list[Figure] = []
    save = Figure.savefig

    def note(self: Figure, *arguments: object, **settings: object) -> None:
        written.append(self)
        save(self, *arguments, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", note)
    with matplotlib.rc_context({"text.usetex": True, "axes.formatter.use_mathtext": True}):
        yield written


def _that_draw(module: ModuleType) -> set[str]:
    own = inspect.getmembers(module, lambda each: inspect.isfunction(each) and each.__module__ == module.__name__)
    return {name for name, each in own if inspect.signature(each).return_annotation is bytes and name[0] != "_"}


def test_no_figure_is_left_out() -> None:
    found = {name for module in (figures, diagnosis_figures, pictures) for name in _that_draw(module)}
    assert found - {"figure_png"} == set(DRAWINGS)


@pytest.mark.parametrize("name", DRAWINGS)
def test_names_stand_in_figures_as_they_are(drawn: list[Figure], name: str) -> None:
    draw, names = DRAWINGS[name]
    assert draw().startswith(b"\x89PNG")
    (figure,) = drawn
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text()]
    assert {text.get_text() for text in texts} >= set(names)
    assert not any(text.get_parse_math() or text.get_usetex() for text in texts)
    assert not any("mathdefault" in text.get_text() for text in texts)


def test_a_legend_has_every_class(drawn: list[Figure]) -> None:
    _scatter()
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == list(NAMES)
    colours = [handle.get_facecolor()[0].tolist() for handle in legend.legend_handles]  # type: ignore[union-attr]
    points = drawn[0].axes[0].collections
    assert colours == [part.get_facecolor()[0].tolist() for part in points]  # type: ignore[index]


def test_long_names_and_line_breaks_keep_a_figure_in_shape(drawn: list[Figure]) -> None:
    figures.stacked_bits([("x" * 5000, 1.0, 0.5), ("a\nb", 1.0, 0.5)], unit="bits")
    assert drawn[0].get_tightbbox().width < 15
    assert shortened("x" * 5000) == "x" * (MOST_CHARACTERS - 1) + "\N{HORIZONTAL ELLIPSIS}"
    assert shortened("a\nb\x1b[31m") == r"a\nb\x1b[31m"


def test_a_drawing_leaves_the_settings_of_others_alone(drawn: list[Figure]) -> None:
    _curves()
    assert matplotlib.rcParams["text.usetex"] is True
    assert matplotlib.rcParams["text.parse_math"] is True


@pytest.mark.parametrize(
    "ends", [("uniform prior", "unigram prior"), ("learned prior", "learned prior, 4 items, searched")]
)
def test_bars_of_rows_that_differ_in_their_end_have_names_that_differ(ends: tuple[str, str]) -> None:
    first, second = (
        figures.stacked_bits([(f"vq-vae-joint (ema), WaveNet decoder, {end}", 2.0, 1.0)], unit="bits") for end in ends
    )
    assert first != second
