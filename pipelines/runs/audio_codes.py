"""Codes of recordings that are no part of a data set: from single files or arrays, with speakers and exact lengths."""

from collections.abc import Sequence

import numpy as np
import torch

from stage1_vqvae import AudioVQVAE
from twostage.data.audio import AudioSplit
from twostage.errors import RunError, UsageError
from twostage.printable import shown
from twostage.storage.code_header import FILES, CodeHeader, is_plain_name
from twostage.storage.codes import CodeFile, check_codebook

from ..modality.audio import encode_split
from .loading import Loaded


def check_plain_names(names: Sequence[str]) -> None:
    """Raise UsageError where a file of codes cannot hold one of the names."""
    strange = [each for each in names if not is_plain_name(each)]
    if strange:
        raise UsageError(f"a file of codes cannot hold the name {shown(strange[0])}; rename the recording")


def encode_recordings(
    stage1: Loaded[AudioVQVAE],
    name: str,
    split: AudioSplit,
    *,
    speakers_N: np.ndarray | None,
    names: tuple[str, ...],
    batch_samples: int,
    device: torch.device,
) -> CodeFile:
    """Codes of recordings that are no part of a data set, with their exact lengths.

    Args:
        stage1: the codebook.
        name: of the model.
        split: the recordings; its labels, speakers and names are not looked at.
        speakers_N: who speaks, -1 where that is not known; None exactly where the data have no speakers.
        names: plain names without suffix, all different, one for each; or none.
        batch_samples: most samples that are encoded side by side.
        device: where to compute.

    Raises:
        UsageError: the names cannot be kept in a file of codes.
    """
    check_plain_names(names)
    if names and (len(names) != len(split) or len(set(names)) < len(names)):
        raise UsageError(f"expected {len(split)} different names, one for each recording, got {shown(names)}")
    model = stage1.model
    codes_NGT, lengths_N = encode_split(model, split, label="codes", batch_samples=batch_samples, device=device)
    header = CodeHeader(
        dataset=stage1.record["dataset"],
        split=FILES,
        model=name,
        codebook_size=model.codebook_size,
        codebooks=model.codebooks,
        grid=(codes_NGT.shape[2],),
        classes=0,
        stage1_sha256=stage1.sha256,
        speakers=len(stage1.record["speakers"]),
        names=names,
    )
    return CodeFile(
        codes=codes_NGT,
        labels=np.zeros(len(split), np.int64),
        header=header,
        lengths=lengths_N,
        speakers=speakers_N,
        samples=split.lengths,
    )


def check_audio_codes(
    codes: CodeFile,
    name: str,
    stage1: Loaded[AudioVQVAE],
    *,
    source: str = "what came",
    remedy: str = "encode the recordings again",
) -> None:
    """Whether `stage1` can decode codes, and whether they say whose they are and how long.

    Args:
        codes: what is to be decoded.
        name: of the model.
        stage1: its codebook.
        source: name of the codes in errors.
        remedy: what the user can do; the end of the sentence.

    Raises:
        RunError: they are codes of another codebook, or do not say.
    """
    header, model = codes.header, stage1.model
    check_codebook(header, path=source, stage1_sha256=stage1.sha256, remedy=remedy)
    shape, own = (header.codebook_size, header.codebooks), (model.codebook_size, model.codebooks)
    if shape != own or len(header.grid) != 1 or codes.lengths is None or not len(codes.codes):
        raise RunError(f"expected codes that fit model {name}, but {source} holds others: {remedy}")
    if codes.samples is None or header.speakers != len(stage1.record["speakers"]):
        raise RunError(
            f"expected codes with their speakers and numbers of samples, but {source} does not state them: {remedy}"
        )
    if (-(-codes.samples // model.stride) != codes.lengths).any():
        raise RunError(
            f"expected a code for every {model.stride} samples, but {source} states other numbers of them: {remedy}"
        )
