"""The numbers of evaluation.json as table cells and lines, for terminal and report, whatever the data are.

Recordings have different lengths, so bits/sample is all bits over all samples, as for any file format, and its standard
error is that of a ratio of sums over recordings. Bits of 256 mu-law levels and of 65536 levels of 16 bits are lengths
of different messages: they stand in columns of their own.
"""

from collections.abc import Sequence

from twostage.likelihoods.audio import SAMPLE_LEVELS
from twostage.metrics.code_labels import meaning_table
from twostage.metrics.flac import FLAC_FRAMES, Flac

from ..bits.round_trip import round_trip_line
from ..media.console import Output
from .columns import ABSENT, LEVELS, Column, by_alphabet, cells_of, figure, number, print_table, print_wrapped
from .reconstruction_table import reconstruction_notes, reconstruction_table
from .rows import SECOND_DECODERS, Evaluation, Row
from .sizes import COST, ONE_TRAINING, size_remark

SAMPLED_PSNR = "* of sampled reconstructions; the others are of the mean of p(x|z), which is closer by itself"
MARGINALISED = "labels marginalised: the prior is conditioned on a label, but p(z), and so the bits, is summed over all"
GIVEN_LABEL = "given label: bits of an item whose label is known, not to be compared with the totals"
PARTS = (
    "distortion: bits of the samples given the codes and what the decoder is conditioned on; rate: bits of the codes "
    "alone, given what the prior is conditioned on; labels: what that is, at its training frequencies; length: number "
    "of codes and of samples in the last one; total: all of them"
)
"""Of the bits of recordings."""
FLAC_FILES = "FLAC, a file each"
FLAC_KINDS = f"{FLAC_FRAMES}: without the metadata of the files, as models have none; {FLAC_FILES}: with it"
TWO_DECODERS = (
    "two decoders of the same codes: for bits the likelihood decoder, for eyes the picture decoder, which says one "
    "picture and no probability; no row of bits has a part of it"
)
NAME = "model, prior or bound"
TOTAL = "total"


def _psnr(row: Row) -> str:
    return number(row.psnr_db, 2) + ("*" if row.psnr_of == "sample" and row.psnr_db is not None else "")


def _labels(row: Row) -> str:
    """Who pays for labels or, where they are paid in bits of their own, how many."""
    return row.labels if row.label_bits_per_dim is None else number(row.label_bits_per_dim, 4)


def _score_columns(evaluation: Evaluation) -> list[Column[Row]]:
    """Of the table of bits. A total given the label stands in a column of its own, `given label`."""
    rows = evaluation.rows
    items: Column[Row] = Column("items", lambda row: f"{row.search_items or evaluation.items:,}")
    flac = None if evaluation.flac is None else SAMPLE_LEVELS
    return [
        Column(NAME, lambda row: row.name),
        *([items] if len({items.cell(row) for row in rows}) > 1 else []),
        *by_alphabet(rows, TOTAL, lambda row: None if row.labels == "given" else row.bits_per_dim, beside=flac),
        figure("given label", lambda row: row.bits_per_dim if row.labels == "given" else None),
        figure("± s.e.", lambda row: row.standard_error, always=True),
        *by_alphabet(rows, "distortion", lambda row: row.distortion_bits_per_dim),
        Column("decoder given", lambda row: row.distortion_given or ABSENT),
        figure("rate", lambda row: row.rate_bits_per_dim, always=True),
        Column("prior given", lambda row: row.rate_given or ABSENT),
        figure("length", lambda row: row.length_bits_per_dim),
        Column("PSNR dB", _psnr),
        Column("labels", _labels),
        figure("log-mel", lambda row: row.log_mel_l1, 3),
        figure("of wrong", lambda row: row.log_mel_ratio, 2),
    ]


def _used(row: Row) -> str:
    return ABSENT if row.codebook_used is None else f"{row.codebook_used}/{row.codebook_size}"


def _model_columns(rows: Sequence[Row]) -> list[Column[Row]]:
    """Of the table of what models cost and how they use their codes, but for the name."""
    return [
        Column("parameters", lambda row: f"{row.parameters:,}"),
        Column("steps", lambda row: f"{row.steps:,}"),
        Column("seconds", lambda row: f"{row.train_seconds:.0f}"),
        figure("bits/code", lambda row: row.bits_per_code, 3),
        figure("bits/s", lambda row: row.code_bits_per_second, 0),
        Column("codes used", _used),
        figure("perplexity", lambda row: row.codebook_perplexity, 1),
        *by_alphabet(rows, "swapped codes", lambda row: row.swapped_distortion_bits_per_dim),
    ]


def score_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the bits of every row and, of recordings, of FLAC."""
    headings, cells = cells_of(_score_columns(evaluation), evaluation.rows)
    return headings, cells + flac_lines(evaluation.flac, headings)


def flac_lines(flac: Flac | None, headings: Sequence[str]) -> list[list[str]]:
    """Cells of what FLAC takes, where there is one: totals alone, as it is one part, and of 16 bits."""
    if flac is None:
        return []
    total = f"{TOTAL}, {LEVELS[SAMPLE_LEVELS]}"
    bits = {
        FLAC_FRAMES: flac.frames_bits_per_sample,
        FLAC_FILES: flac.bits_per_sample,
        "FLAC, one stream": flac.joined_bits_per_sample,
    }
    shown = [heading == total for heading in headings[1:]]
    return [[name, *(number(b, 4) if show else ABSENT for show in shown)] for name, b in bits.items()]


def model_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of what every model cost and how it uses its codebook, one line per size of model.

    Where bits of a code are known, which every prior counts in its own way, every row has a line.
    """
    # A row about a search is of the same model: its usage is that of all items, with the encoder's codes.
    rows = [row for row in evaluation.rows if row.search_items is None]
    if any(row.bits_per_code is not None for row in rows):
        return cells_of([Column(NAME, lambda row: row.name), *_model_columns(rows)], rows)
    sizes = list({(row.model, row.decoder, row.parameters): row for row in rows}.values())
    name: Column[Row] = Column("model", _size_name)
    return cells_of([name, *_model_columns(sizes)], sizes)


def _size_name(row: Row) -> str:
    prior = " with prior" if row.kind == "vq-vae" and row.prior == "learned" else ""
    return row.model + (f", {SECOND_DECODERS[row.decoder]}" if row.decoder in SECOND_DECODERS else "") + prior


def score_notes(evaluation: Evaluation) -> list[str]:
    """What the columns of the bits mean, where a heading does not say it all, a line each."""
    lines = [GIVEN_LABEL] * evaluation.has_given_labels + [MARGINALISED] * evaluation.has_marginalised_labels
    lines += [SAMPLED_PSNR] * evaluation.has_sampled_psnr + [TWO_DECODERS] * evaluation.has_picture_decoder
    if any(row.length_bits_per_dim is not None for row in evaluation.rows):
        lines.append(PARTS)
    if evaluation.log_mel is not None:
        wrong = f"; of wrong: over the {number(evaluation.wrong_log_mel_l1, 3)} of another recording"
        known = any(row.log_mel_ratio is not None for row in evaluation.rows)
        what = f"log-mel: mean absolute difference ({evaluation.log_mel}) of reconstructions"
        lines.append(what + wrong * known)
    if evaluation.flac is not None:
        lines.append(FLAC_KINDS)
    return lines


def model_notes(evaluation: Evaluation) -> list[str]:
    """The same of the columns of the models."""
    lines = []
    if any(row.bits_per_code is not None for row in evaluation.rows):
        lines.append("bits/code: rate, given what the prior is conditioned on; bits/s: rate, length and labels")
    if any(row.swapped_distortion_bits_per_dim is not None for row in evaluation.rows):
        lines.append("swapped codes: distortion with the codes of another item")
    return [*lines, COST]


def sample_table(evaluation: Evaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the samples' scores, with samples as chosen on validation items where any are."""
    chosen = any(score.chosen is not None for score in evaluation.sample_scores)
    headings = [
        "model",
        "samples",
        f"{evaluation.split} {evaluation.called}",
        "Fréchet distance",
        f"training {evaluation.called}",
        "read as their label",
        *(["drawn as chosen", "Fréchet distance", "read as their label"] if chosen else []),
        "reconstructions",
        "their distance",
    ]
    cells = [
        [
            score.model,
            f"{score.samples:,}",
            f"{evaluation.items:,}",
            number(score.frechet_distance, 3),
            number(score.reference_distance, 3),
            _share(score.label_agreement),
            *([score.chosen or ABSENT, number(score.chosen_distance, 3), _share(score.chosen_agreement)] * chosen),
            f"{score.reconstructions:,}",
            number(score.reconstruction_distance, 3),
        ]
        for score in evaluation.sample_scores
    ]
    return headings, cells


def _share(share: float | None) -> str:
    return ABSENT if share is None else f"{share:.1%}"


def bias_line(evaluation: Evaluation) -> str:
    """Why a Fréchet distance of few samples is too high, and what to read it beside."""
    samples = sorted({score.samples for score in evaluation.sample_scores if score.samples})
    counts, called = " or ".join(f"{count:,}" for count in samples) or "no", evaluation.called
    return (
        f"of finite sets this distance is biased upwards, the more the fewer they are: here {counts} samples and "
        f"{evaluation.items:,} {evaluation.split} {called}; 'training {called}' is the distance of as many training "
        f"{called} to the same {evaluation.split} {called}, so read one beside the other and not beside distances of "
        f"other counts; reconstructions are compared with the very {called} that they are of, exact ones have 0"
        + _chosen_remark(evaluation)
    )


def _chosen_remark(evaluation: Evaluation) -> str:
    if all(score.chosen is None for score in evaluation.sample_scores):
        return ""
    return (
        "; the first distance is of samples of the model as it is, whose bits the other tables have; 'drawn as "
        "chosen': by the setting that came nearest to the validation set, as generate draws unless another is asked for"
    )


def difference_lines(evaluation: Evaluation) -> dict[str, list[str]]:
    """Name of each reference, and a line on every row that was paired with it.

    A line names the sizes and the times of both sides where they are more than a tenth apart.
    """
    rows = {row.name: row for row in evaluation.rows}
    lines: dict[str, list[str]] = {}
    for d in evaluation.paired_differences:
        both = d.other in rows and d.reference in rows
        remark = size_remark(rows[d.other], rows[d.reference]) if both else ""
        line = f"{d.other}: {number(d.bits_per_dim, 4, '+')} ± {number(d.standard_error, 4)}"
        lines.setdefault(d.reference, []).append(line + (f" ({remark})" if remark else ""))
    return lines


def print_evaluation(evaluation: Evaluation) -> None:
    """The tables and the paired differences, on stdout."""
    console = Output(highlight=False)
    print_wrapped(console, evaluation.title)
    tables = ((score_table, score_notes), (reconstruction_table, reconstruction_notes), (model_table, model_notes))
    for table, notes in tables:
        headings, cells = table(evaluation)
        if not cells:
            continue
        print_table(headings, cells)
        for note in notes(evaluation):
            print_wrapped(console, f"{note}\n")
    differences = difference_lines(evaluation)
    for reference, lines in differences.items():
        console.print(f"{evaluation.unit} more than {reference}, ± paired s.e.:", soft_wrap=True)
        for line in lines:
            print_wrapped(console, line, indent="  ")
    if differences:
        print_wrapped(console, f"{ONE_TRAINING}\n")
    for name, meaning in evaluation.meanings.items():
        console.print(f"what a code of {name} says, on its own:", soft_wrap=True)
        print_table(*meaning_table(meaning))
    if evaluation.coding:
        console.print("codes as bytes, labels as said:", soft_wrap=True)
        for trip in evaluation.coding:
            print_wrapped(console, round_trip_line(trip), indent="  ")
        console.print()
    if evaluation.diagnoses:
        console.print("diagnosis:")
        for found in evaluation.diagnoses:
            print_wrapped(console, f"{found.model}: {' '.join(found.sentences)}", indent="  ")
    if evaluation.sample_scores:
        console.print()
        print_wrapped(console, evaluation.samples_title)
        print_table(*sample_table(evaluation))
        print_wrapped(console, bias_line(evaluation))
