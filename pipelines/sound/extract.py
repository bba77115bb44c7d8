"""Codes of recordings, written to disk: the only thing stage two sees of stage one."""

import numpy as np
import torch

from stage1_vqvae import SoundVQVAE
from twostage.audio import AudioDataset, AudioSplit, length_batches, whole_batch
from twostage.codes import CodeFile, CodeHeader
from twostage.distributed import own_share, sum_over_ranks, world_size
from twostage.progress import Progress

from ..extract import SPLITS, keep_codes, stored_codes
from ..models import Loaded
from ..run import Run


@torch.no_grad()
def encode_split(
    model: SoundVQVAE, split: AudioSplit, *, label: str, batch_samples: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Codes `[N, G, T]`, 0 behind the end, and their lengths `[N]`, both int64; `label` names the progress bar.

    Several processes encode a batch each in turn, and all of them get all codes.
    """
    lengths_N = -(-split.lengths // model.stride)
    codes_NGT = torch.zeros(len(split), model.codebooks, int(lengths_N.max()), dtype=torch.int32)
    with Progress(label, total=len(split), unit="recording") as progress:
        for items_B in own_share(length_batches(split.lengths, most_samples=batch_samples)):
            batch = whole_batch(split, items_B, multiple=model.stride)
            codes_BGT = model.encode(
                torch.from_numpy(batch.samples).to(device), torch.from_numpy(batch.mask).to(device)
            )
            codes_NGT[torch.from_numpy(items_B), :, : codes_BGT.shape[2]] = codes_BGT.to("cpu", torch.int32)
            progress.advance_shared(len(items_B), world_size())
    return sum_over_ranks(codes_NGT)[0].numpy().astype(np.int64), lengths_N


def extract_sound_codes(
    run: Run, name: str, stage1: Loaded[SoundVQVAE], dataset: AudioDataset, device: torch.device
) -> dict[str, CodeFile]:
    """Codes, lengths, samples, labels and speakers of every split; files of this very codebook are read back."""
    model, files = stage1.model, dict[str, CodeFile]()
    for split in SPLITS:
        path, source = run.codes_file(name, split), dataset.split(split)
        stored = stored_codes(path, stage1_sha256=stage1.sha256, dataset=dataset.name, split=split, items=len(source))
        if stored is not None and stored.samples is not None:  # early versions did not note the samples
            files[split] = stored
            continue
        codes_NGT, lengths_N = encode_split(
            model,
            source,
            label=f"{name} codes, {split}",
            batch_samples=run.recipe.evaluation.batch_samples,
            device=device,
        )
        header = CodeHeader(
            dataset=dataset.name,
            split=split,
            model=name,
            codebook_size=model.codebook_size,
            codebooks=model.codebooks,
            grid=(codes_NGT.shape[2],),
            classes=len(dataset.classes),
            stage1_sha256=stage1.sha256,
            speakers=len(dataset.speakers),
        )
        files[split] = CodeFile(
            codes=codes_NGT,
            labels=source.labels,
            header=header,
            lengths=lengths_N,
            speakers=source.speakers if dataset.speakers else None,
            samples=source.lengths,
        )
        keep_codes(path, files[split])
    return files


def lengths_of(file: CodeFile) -> np.ndarray:
    """Positions of every item, `[N]`."""
    assert file.lengths is not None
    return file.lengths


def speakers_of(file: CodeFile) -> np.ndarray:
    """Speaker of every item, `[N]`; 0 where none are known."""
    return np.zeros(len(file.labels), np.int64) if file.speakers is None else file.speakers
