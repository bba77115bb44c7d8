"""What `evaluate` measures of recordings: bits/sample beside FLAC's, log-mel distances, and what codes say."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from stage1_vqvae import AudioVQVAE
from twostage.data.audio import AudioDataset
from twostage.likelihoods.audio import SAMPLE_LEVELS
from twostage.metrics.code_labels import CodeMeaning, code_meaning
from twostage.metrics.flac import FLAC_FRAMES, Flac, flac_size, flac_sizes
from twostage.printable import show
from twostage.progress import say

from ..modality.audio import lengths_of, speakers_of
from ..runs.class_numbers import warn_of_untrained_labels
from ..runs.codes import extract_codes
from ..runs.loading import Loaded, LoadedAudio
from ..runs.run import Run
from .diagnosis import Diagnosing
from .differences import Scored, difference
from .rows import Evaluation
from .score_audio import AudioRows
from .scoring import ModelScores


class AudioScoring:
    """`scoring.Scoring` of recordings."""

    unit = "bits/sample"

    def __init__(self, *, run: Run, dataset: AudioDataset, split: str, device: torch.device) -> None:
        self.run, self.dataset, self.split, self.device = run, dataset, split, device
        self.rows = AudioRows(run=run, dataset=dataset, split=split, device=device)
        self.diagnosing = Diagnosing(run=run, dataset=dataset, split=split, device=device)

    @property
    def dims(self) -> int:
        """Samples of all recordings."""
        return len(self.dataset.split(self.split).samples)

    def warn(self) -> None:
        warn_of_untrained_labels(self.dataset, self.split)
        warn_of_untrained_speakers(self.dataset, self.split)

    def left_out(self) -> Sequence[str]:
        return []

    def scores(self, name: str, stage1: LoadedAudio) -> ModelScores:
        rows, meaning = tuple(self.rows.score(name, stage1)), None
        if isinstance(stage1.model, AudioVQVAE) and (self.dataset.classes or self.dataset.speakers):
            meaning = self._meaning(name, Loaded(model=stage1.model, checkpoint=stage1.checkpoint))
        return ModelScores(rows, diagnosis=self.diagnosing.diagnose(name, stage1, rows), meaning=meaning)

    def _meaning(self, name: str, stage1: Loaded[AudioVQVAE]) -> CodeMeaning:
        files = extract_codes(self.run, name, stage1, self.dataset, self.device)
        train, held_out = files["train"], files[self.split]
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
            classes=len(self.dataset.classes),
            voices=len(self.dataset.speakers),
        )

    def extras(self, evaluation: Evaluation, scored: Sequence[Scored]) -> Iterator[Evaluation]:
        """What is known of the recordings themselves, and FLAC beside the rows of its 16 bits."""
        log_mel, (flac, frame_bits_N) = self.rows.log_mel, self._flac()
        beside = (difference(s, FLAC_FRAMES, frame_bits_N) for s in scored if s.row.alphabet == SAMPLE_LEVELS)
        yield replace(
            evaluation,
            sample_rate_hz=self.dataset.sample_rate_hz,
            log_mel=log_mel.settings_line,
            wrong_log_mel_l1=log_mel.wrong_l1,
            flac=flac,
            paired_differences=(*evaluation.paired_differences, *beside),
        )

    def _flac(self) -> tuple[Flac, np.ndarray]:
        """What FLAC makes of the split, and the bits of the frames of every recording, `[N]`."""
        data, rate = self.dataset.split(self.split), self.dataset.sample_rate_hz
        sizes, joined = flac_sizes(data.recordings(), rate), flac_size(data.samples, rate)
        flac = Flac(
            bits_per_sample=float(sizes.file_bits.sum() / len(data.samples)),
            joined_bits_per_sample=joined.file_bits / len(data.samples),
            frames_bits_per_sample=float(sizes.frame_bits.sum() / len(data.samples)),
        )
        return flac, sizes.frame_bits


def warn_of_untrained_speakers(dataset: AudioDataset, split: str) -> None:
    """Say which speakers no training recording has: their distortions are those of a voice that was never trained."""
    unheard = set(dataset.split(split).speakers.tolist()) - set(dataset.train.speakers.tolist())
    if dataset.speakers and unheard:
        say(
            f"warning: {len(unheard)} speakers of the {split} recordings are held out of training "
            f"({show([dataset.speakers[row] for row in sorted(unheard)])}): their voices are embeddings that no "
            "training has moved, so decoders and a prior told the speaker score worse than on voices they know"
        )
