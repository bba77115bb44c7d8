"""The report's sections on what `evaluate` found: results, scores of samples, diagnosis. They measure nothing."""

import html

from twostage.metrics.code_labels import meaning_table

from ..evaluate.reconstruction_table import reconstruction_notes, reconstruction_table
from ..evaluate.rows import Evaluation
from ..evaluate.sizes import ONE_TRAINING
from ..evaluate.tables import (
    bias_line,
    difference_lines,
    model_notes,
    model_table,
    sample_table,
    score_notes,
    score_table,
)
from ..media import figures
from ..media.html import image, table
from .diagnosis_figures import code_costs
from .shown import Picture, Shown


def _sentence(line: str) -> str:
    return f"{line[0].upper()}{line[1:]}."


def _list(lines: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def results_section(evaluation: Evaluation) -> str:
    """The tables of evaluation.json, what they mean, the paired differences, and what codes say on their own."""
    return (
        f"<h2>Results</h2><p>{html.escape(f'{evaluation.title}; {_meaning(evaluation)}.')}</p>"
        + table(*score_table(evaluation))
        + _list([_sentence(note) for note in score_notes(evaluation)])
        + _reconstructions(evaluation)
        + table(*model_table(evaluation))
        + _list([_sentence(note) for note in model_notes(evaluation)])
        + _differences(evaluation)
        + _bars(evaluation)
        + "".join(
            f"<h3>What a code of {html.escape(name)} says, on its own</h3>{table(*meaning_table(meaning))}"
            for name, meaning in evaluation.meanings.items()
        )
    )


def _reconstructions(evaluation: Evaluation) -> str:
    """How near reconstructions come, beyond their PSNR; empty where that is not measured."""
    headings, cells = reconstruction_table(evaluation)
    notes = _list([_sentence(note) for note in reconstruction_notes(evaluation)])
    return table(headings, cells) + notes if cells else ""


def _meaning(evaluation: Evaluation) -> str:
    """How to read the table of bits."""
    if not evaluation.has_bits:
        return "there is no mass function over levels to measure"
    kinds = {row.kind for row in evaluation.rows}
    said = ["a VQ-VAE row is an exact two-part code length"] if "vq-vae" in kinds else []
    said += ["those of VAEs and of VIMCO are bounds at beta = 1"] if kinds - {"vq-vae", "ae"} else []
    said += ["an autoencoder has none: nothing says what its latents cost"] if "ae" in kinds else []
    psnr = [] if evaluation.has_sampled_psnr else ["PSNR is of the mean of p(x|z)"]
    known = psnr if any(row.psnr_db is not None for row in evaluation.rows) else []
    bits = ", and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
    return ". ".join(["lower is better", *([bits[0].upper() + bits[1:]] if bits else []), *known])


def _differences(evaluation: Evaluation) -> str:
    parts = [
        f"<p>{evaluation.unit} more than {html.escape(reference)}, ± paired s.e.:</p>{_list(lines)}"
        for reference, lines in difference_lines(evaluation).items()
    ]
    return "".join([*parts, f"<p>{html.escape(_sentence(ONE_TRAINING))}</p>"]) if parts else ""


def _bars(evaluation: Evaluation) -> str:
    """Distortion and rate; of every alphabet a figure of its own, since bits of two are lengths of other messages."""
    figures_of = []
    for alphabet in sorted({row.alphabet for row in evaluation.rows}):
        bars = [
            (row.name, row.distortion_bits_per_dim, row.rate_bits_per_dim)
            for row in evaluation.rows
            if row.alphabet == alphabet
            and row.distortion_bits_per_dim is not None
            and row.rate_bits_per_dim is not None
            and row.labels != "given"
        ]
        if bars:
            data = figures.stacked_bits(bars, unit=evaluation.unit)
            caption = f"Distortion and rate, {alphabet} levels; bounds of several samples do not split."
            figures_of.append(image(data, caption))
    return "".join(figures_of)


def samples_section(evaluation: Evaluation) -> str:
    """The samples' scores and how to read them; empty where there are none."""
    if not evaluation.sample_scores:
        return ""
    text = (
        f"{evaluation.samples_title}. Lower is better; beside it stands what as many training items reach. "
        f"{_sentence(bias_line(evaluation))} "
        "'Read as their label' is the share of class-conditional samples that the classifier reads as the class asked "
        "for. Reconstructions need no prior: their distance is what the decoder alone is to blame for. "
        "The features are those of this data set: the distances compare its models, and are no FID."
    )
    return f"<h2>Samples</h2><p>{html.escape(text)}</p>{table(*sample_table(evaluation))}"


def diagnosis_section(shown: Shown, evaluation: Evaluation) -> str:
    """What is right or wrong with every model, and where codes cost what; empty where nothing was diagnosed."""
    if not evaluation.diagnoses:
        return ""
    parts = ["<h2>Diagnosis</h2>"]
    for found in evaluation.diagnoses:
        parts.append(f"<p><b>{html.escape(found.model)}</b>: {html.escape(' '.join(found.sentences))}</p>")
        if found.numbers.get("bits_by_position"):
            figure = code_costs(found.numbers, title=f"{found.model}: cost of a code")
            caption = "Bits of a code under every prior, and of every position under the learned one."
            parts.append(shown.keep(f"{found.model}-code-costs", Picture("code-costs", figure, caption)))
    return "".join(parts)
