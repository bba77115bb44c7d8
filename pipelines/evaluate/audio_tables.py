"""What `evaluate` found of a run on recordings: evaluation.json, and the same numbers as table cells.

Recordings have different lengths, so bits/sample is all bits over all samples, as for any file format, and its standard
error is that of a ratio of sums over recordings. Bits of 256 mu-law levels and of 65536 levels of 16 bits are lengths
of different messages: they stand in columns of their own.
"""

from twostage.metrics.code_labels import meaning_table

from ..media.console import Output
from .audio_rows import SoundEvaluation
from .sizes import COST, ONE_TRAINING, size_remark
from .tables import number, print_table

FLAC_FRAMES = "FLAC, frames of a file each"
"""The row of the table that models are compared with."""
FLAC_FILES = "FLAC, a file each"


_ALPHABETS = {65536: "16 bit", 256: "mu-law"}


def _by_alphabet(evaluation: SoundEvaluation, heading: str) -> dict[str, int]:
    """Headings of a column of bits for every alphabet that the rows have, and the alphabets."""
    found = [alphabet for alphabet in _ALPHABETS if any(row.alphabet == alphabet for row in evaluation.rows)]
    return {f"{heading}, {_ALPHABETS[each]}" if len(found) > 1 else heading: each for each in found}


def sound_score_table(evaluation: SoundEvaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the bits of every row, and of FLAC."""
    distortion = _by_alphabet(evaluation, "distortion")
    headings = [
        "model, decoder, prior or bound", "total, 16 bit", "total, mu-law", "± s.e.", *distortion, "decoder told",
        "codes", "prior told", "length", "labels", "log-mel", "of wrong",
    ]  # fmt: skip
    cells = [
        [
            row.name,
            number(row.bits_per_dim if row.alphabet == 65536 else None, 4),
            number(row.bits_per_dim if row.alphabet == 256 else None, 4),
            number(row.standard_error, 4),
            *(number(row.distortion_bits_per_dim if row.alphabet == each else None, 4) for each in distortion.values()),
            row.distortion_given or "-",
            number(row.rate_bits_per_dim, 4),
            row.rate_given or "-",
            number(row.length_bits_per_dim, 4),
            number(row.label_bits_per_dim, 4),
            number(row.log_mel_l1, 3),
            number(row.log_mel_ratio, 2),
        ]
        for row in evaluation.rows
    ]
    nothing = ["-"] * (len(headings) - 2)
    flac = evaluation.flac
    cells.append([FLAC_FRAMES, number(flac.frames_bits_per_sample, 4), *nothing])
    cells.append([FLAC_FILES, number(flac.bits_per_sample, 4), *nothing])
    cells.append(["FLAC, one stream", number(flac.joined_bits_per_sample, 4), *nothing])
    return headings, cells


def sound_model_table(evaluation: SoundEvaluation) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of what every model cost and how it uses its codes."""
    shuffled = _by_alphabet(evaluation, "shuffled codes")
    headings = [
        "model, decoder, prior or bound", "parameters", "steps", "seconds", "bits/code", "bits/s", "codes used",
        "perplexity", *shuffled,
    ]  # fmt: skip
    cells = [
        [
            row.name,
            f"{row.parameters:,}",
            f"{row.steps:,}",
            f"{row.train_seconds:.0f}",
            number(row.bits_per_code, 3),
            number(row.code_bits_per_second, 0),
            "-" if row.codebook_used is None else f"{row.codebook_used}/{row.codebook_size}",
            number(row.codebook_perplexity, 1),
            *(
                number(row.shuffled_distortion_bits_per_dim if row.alphabet == each else None, 4)
                for each in shuffled.values()
            ),
        ]
        for row in evaluation.rows
    ]
    return headings, cells


def notes(evaluation: SoundEvaluation) -> list[str]:
    """What the columns mean, a line each."""
    wrong = evaluation.wrong_log_mel_l1
    over = "there is no other recording" if wrong is None else f"over the {number(wrong, 3)} of another recording"
    return [
        f"log-mel: mean absolute difference ({evaluation.log_mel}) of reconstructions; of wrong: {over}",
        "distortion: bits of the samples given the codes and what the decoder is told; codes: bits of the codes alone, "
        "given what the prior is told; labels: what is told, at its training frequencies; length: number of codes and "
        "of samples in the last one; total: all of them",
        "bits/code: codes, given what the prior is told; bits/s: codes, length and labels",
        COST,
        f"{FLAC_FRAMES}: without the metadata of the files, as models have none; {FLAC_FILES}: with it",
        "shuffled codes: distortion with the codes of another recording",
    ]


def print_sound_evaluation(evaluation: SoundEvaluation) -> None:
    """The tables and the paired differences, on stdout."""
    console = Output(highlight=False)
    console.print(evaluation.title, soft_wrap=True)
    print_table(*sound_score_table(evaluation))
    print_table(*sound_model_table(evaluation))
    console.print("\n".join(notes(evaluation)), soft_wrap=True)
    lines = difference_lines(evaluation)
    if lines:
        console.print("\n".join(lines), soft_wrap=True)
    for name, meaning in evaluation.meanings.items():
        console.print(f"\nwhat a code of {name} says, on its own:", soft_wrap=True)
        print_table(*meaning_table(meaning))


def difference_lines(evaluation: SoundEvaluation) -> list[str]:
    """A line on every row that was paired with another or with FLAC, and on what their standard errors leave out."""
    rows = {row.name: row for row in evaluation.rows}
    lines = []
    for d in evaluation.paired_differences:
        both = d.other in rows and d.reference in rows
        remark = size_remark(rows[d.other], rows[d.reference]) if both else ""
        lines.append(
            f"{d.other}: {number(d.bits_per_dim, 4, '+')} ± {number(d.standard_error, 4)} bits/sample more than "
            f"{d.reference}" + (f" ({remark})" if remark else "")
        )
    return [*lines, ONE_TRAINING] if lines else []
