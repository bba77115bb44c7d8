"""`twostage evaluate` of a run on recordings: one table and one JSON file with the bits/sample of every model."""

import numpy as np
import torch

from stage1_vqvae import SoundVQVAE
from twostage.data.audio import AudioDataset, AudioSplit
from twostage.data.audio.spectral import log_mel_settings
from twostage.distributed import leave
from twostage.errors import RunError
from twostage.likelihoods.audio import SAMPLE_LEVELS
from twostage.metrics.code_labels import CodeMeaning, code_meaning
from twostage.metrics.flac import flac_size, flac_sizes
from twostage.metrics.statistics import ratio_error
from twostage.printable import show
from twostage.progress import say

from ..commands.results import Evaluate
from ..modality.audio import lengths_of, load_sound, speakers_of
from ..runs.class_numbers import warn_of_untrained_labels
from ..runs.codes import extract_codes
from ..runs.device import pick_device, use_threads
from ..runs.loading import Loaded
from ..runs.run import Run
from .audio_rows import Flac, SoundEvaluation
from .audio_tables import FLAC_FRAMES, print_sound_evaluation
from .rows import PairedDifference
from .score_audio import ScoredSound, SoundScoring


def _paired(scored: list[ScoredSound], samples: list[int]) -> tuple[PairedDifference, ...]:
    """Every row of the reference's alphabet against it: the first VQ-VAE with a learned prior."""
    reference = next((each for each in scored if each.row.prior == "learned"), None)
    if reference is None:
        return ()
    lengths = np.asarray(samples)
    differences = []
    for other in scored:
        if other is reference or other.row.alphabet != reference.row.alphabet:
            continue
        delta = other.bits - reference.bits
        differences.append(
            PairedDifference(
                reference=reference.row.name,
                other=other.row.name,
                bits_per_dim=float(delta.sum() / lengths.sum()),
                standard_error=ratio_error(delta, lengths),
            )
        )
    return tuple(differences)


def _flac(data: AudioSplit, sample_rate_hz: int) -> tuple[Flac, np.ndarray]:
    """What FLAC makes of a split, and the bits of the frames of every recording, `[N]`."""
    sizes, joined = flac_sizes(data.recordings(), sample_rate_hz), flac_size(data.samples, sample_rate_hz)
    flac = Flac(
        bits_per_sample=float(sizes.file_bits.sum() / len(data.samples)),
        joined_bits_per_sample=joined.file_bits / len(data.samples),
        frames_bits_per_sample=float(sizes.frame_bits.sum() / len(data.samples)),
    )
    return flac, sizes.frame_bits


def _beside_flac(scored: list[ScoredSound], frame_bits_N: np.ndarray, samples_N: np.ndarray) -> list[PairedDifference]:
    """Every row of 16-bit levels against the FLAC frames of the same recordings."""
    differences = []
    for each in scored:
        if each.row.alphabet == SAMPLE_LEVELS:
            delta_N = each.bits - frame_bits_N
            differences.append(
                PairedDifference(
                    reference=FLAC_FRAMES,
                    other=each.row.name,
                    bits_per_dim=float(delta_N.sum() / samples_N.sum()),
                    standard_error=ratio_error(delta_N, samples_N),
                )
            )
    return differences


def _meaning(run: Run, name: str, stage1: Loaded[SoundVQVAE], dataset: AudioDataset, split: str) -> CodeMeaning:
    files = extract_codes(run, name, stage1, dataset, stage1_device(stage1))
    train, held_out = files["train"], files[split]
    return code_meaning(
        train_codes=train.codes,
        train_lengths=lengths_of(train),
        train_labels=train.labels,
        train_speakers=speakers_of(train),
        codes=held_out.codes,
        lengths=lengths_of(held_out),
        labels=held_out.labels,
        speakers=speakers_of(held_out),
        codebook_size=stage1.model.codebook_size,
        classes=len(dataset.classes),
        voices=len(dataset.speakers),
    )


def stage1_device(stage1: Loaded[SoundVQVAE]) -> torch.device:
    """Where the model lives."""
    return next(stage1.model.parameters()).device


def warn_of_unheard(dataset: AudioDataset, split: str) -> None:
    """Say which speakers no training recording has: their distortions are those of a voice that was never trained."""
    unheard = set(dataset.split(split).speakers.tolist()) - set(dataset.train.speakers.tolist())
    if dataset.speakers and unheard:
        say(
            f"warning: {len(unheard)} speakers of the {split} recordings are held out of training "
            f"({show([dataset.speakers[row] for row in sorted(unheard)])}): their voices are embeddings that no "
            "training has moved, so decoders and a prior told the speaker score worse than on voices they know"
        )


def evaluate_sound_run(run: Run, dataset: AudioDataset, *, device: torch.device, split: str) -> SoundEvaluation | None:
    """Score every finished model of a run, print the table, write evaluation.json.

    Several processes score together; then the first goes on alone, outside their group, and for the others this ends
    with None.

    Raises:
        RunError: no model is finished, one is damaged, was trained on other data, or its prior belongs to another
            codebook.
    """
    names = run.trained_models()
    if not names:
        raise RunError(f"{run.path} holds no finished model; run train-codebook or train first")
    for name in sorted(set(run.begun_models()) - set(names)):
        say(f"{name} is not finished and is left out")
    warn_of_untrained_labels(dataset, split)
    warn_of_unheard(dataset, split)
    scoring = SoundScoring(run=run, dataset=dataset, split=split, device=device)
    scored: list[ScoredSound] = []
    meanings: dict[str, CodeMeaning] = {}
    for name in names:
        stage1 = run.stage1(name, device)
        run.check_data(stage1, dataset)
        scored += scoring.score(name, stage1)
        if isinstance(stage1.model, SoundVQVAE) and (dataset.classes or dataset.speakers):
            with_codes = Loaded(model=stage1.model, checkpoint=stage1.checkpoint)
            meanings[name] = _meaning(run, name, with_codes, dataset, split)
    if not leave():
        return None
    data, mel = dataset.split(split), log_mel_settings(dataset.sample_rate_hz)
    flac, frame_bits_N = _flac(data, dataset.sample_rate_hz)
    evaluation = SoundEvaluation(
        recipe=run.recipe.name,
        dataset=dataset.name,
        split=split,
        items=len(data),
        dims=len(data.samples),
        sample_rate_hz=dataset.sample_rate_hz,
        seed=run.recipe.seed,
        log_mel=f"natural logarithm of power, {mel.mels} mels, {mel.n_fft}-sample windows every {mel.hop}",
        wrong_log_mel_l1=scoring.wrong_log_mel_l1,
        flac=flac,
        rows=tuple(each.row for each in scored),
        paired_differences=(
            *_paired(scored, data.lengths.tolist()),
            *_beside_flac(scored, frame_bits_N, data.lengths),
        ),
        meanings=meanings,
    )
    path = run.path / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")
    evaluation.write(path)
    print_sound_evaluation(evaluation)
    say(f"written: {path}")
    return evaluation


def run_evaluate(command: Evaluate) -> None:
    """`twostage evaluate`."""
    run, dataset = Run(path=command.run, recipe=command.recipe), load_sound(command.recipe)
    device = pick_device(command.device)
    use_threads(run.recipe.threads)
    if command.dry_run:
        names = run.trained_models()
        for name in names:
            run.check_data(run.stage1(name, device), dataset)
        items = len(dataset.split(command.split))
        say(f"would score {', '.join(names) or 'no model'} on {items} {command.split} recordings; nothing was done")
        return
    if evaluate_sound_run(run, dataset, device=device, split=command.split) is not None:
        run.keep_data_place()
