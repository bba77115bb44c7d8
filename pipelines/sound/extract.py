"""Codes of recordings, written to disk: the only thing stage two sees of stage one."""

import numpy as np
import torch

from stage1_vqvae import SoundVQVAE
from twostage.audio import AudioDataset, AudioSplit, length_batches, whole_batch
from twostage.codes import CodeFile, CodeHeader, load_codes, save_codes
from twostage.errors import RunError
from twostage.progress import Progress

from ..extract import SPLITS
from ..models import Loaded
from ..run import Run


@torch.no_grad()
def encode_split(
    model: SoundVQVAE, split: AudioSplit, *, label: str, batch_samples: int, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Codes `[N, G, T]`, 0 behind the end, and their lengths `[N]`, both int64; `label` names the progress bar."""
    lengths_N = -(-split.lengths // model.stride)
    codes_NGT = np.zeros((len(split), model.codebooks, int(lengths_N.max())), np.int64)
    with Progress(label, total=len(split), unit="recording") as progress:
        for items_B in length_batches(split.lengths, most_samples=batch_samples):
            batch = whole_batch(split, items_B, multiple=model.stride)
            codes_BGT = model.encode(
                torch.from_numpy(batch.samples).to(device), torch.from_numpy(batch.mask).to(device)
            ).cpu()
            codes_NGT[items_B, :, : codes_BGT.shape[2]] = codes_BGT.numpy()
            progress.advance(len(items_B))
    return codes_NGT, lengths_N


def extract_sound_codes(
    run: Run, name: str, stage1: Loaded[SoundVQVAE], dataset: AudioDataset, device: torch.device
) -> dict[str, CodeFile]:
    """Codes, lengths, labels and speakers of every split; files of this very codebook are read back."""
    model, files = stage1.model, dict[str, CodeFile]()
    for split in SPLITS:
        path, source = run.codes_file(name, split), dataset.split(split)
        if path.is_file():
            try:
                existing = load_codes(path, expect_stage1_sha256=stage1.sha256)
            except RunError:
                path.unlink()  # damaged, or of an earlier codebook: made again below
            else:
                if (existing.header.dataset, existing.header.split, len(existing.codes)) == (
                    dataset.name,
                    split,
                    len(source),
                ):
                    files[split] = existing
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
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        save_codes(path, files[split])
    return files


def lengths_of(file: CodeFile) -> np.ndarray:
    """Positions of every item, `[N]`."""
    assert file.lengths is not None
    return file.lengths


def speakers_of(file: CodeFile) -> np.ndarray:
    """Speaker of every item, `[N]`; 0 where none are known."""
    return np.zeros(len(file.labels), np.int64) if file.speakers is None else file.speakers
