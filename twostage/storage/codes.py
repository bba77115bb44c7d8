"""Codes on disk: what stage one hands to stage two, and the only thing both know.

A code file is one safetensors file with the tensors `codes` [N, G, *grid], of a hierarchy [N, G, P] as
`twostage.grids` says (the smallest of uint8, uint16 and int32 that holds the codebook), and `labels` int32 [N]; for
sequences of unequal length also `lengths` int32 [N], for recordings `samples` int32 [N], and for known speakers
`speakers` int32 [N]. Its header (safetensors' string metadata) carries the alphabet K, the number of codebooks G, the
grid (`8x8`, of a hierarchy `8x8+16x16`), the classes, the speakers and the SHA-256 of the stage-one weights that made
the codes, so that a prior can refuse codes of another codebook; codes of single files also carry their names. The
header also carries the SHA-256 of the file itself, taken with these 64 characters replaced by zeros: safetensors has no
checksum, and a flipped bit in a code is another valid code.

No torch here: the file is numpy's business. Shape suffixes: N items, G codebooks, P positions of all
grids.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import safetensors.numpy

from twostage.errors import RunError
from twostage.grids import Grids, axes_of, named_grids, parsed_grids
from twostage.printable import counted
from twostage.storage.atomic import write_atomic
from twostage.storage.code_bytes import (
    BLANK,
    LARGEST_HEADER_BYTES,
    digest_of,
    digest_position,
    header_end,
    header_of,
    metadata_of,
    sorted_header,
)
from twostage.storage.code_header import (
    DIGEST,
    FILES,
    CodeHeader,
    Refused,
    check_header,
    check_names,
    is_plain_name,
    parse_names,
)
from twostage.storage.regular_file import check_size, open_regular

__all__ = ["FILES", "CodeFile", "CodeHeader", "check_codebook", "is_plain_name", "load_codes", "save_codes"]

FORMAT = "twostage-codes"
VERSION, VERSION_OF_HIERARCHIES = "1", "2"
"""A hierarchy has a version of its own: what reads files of one grid alone can say what it lacks."""
_EXTRACT = "run train-prior again, which extracts them anew"
_MOST_SAMPLES = (1 << 31) - 1
# The codes of some four million images or hours of sound; loaded as int64 they take eight times that.
_LARGEST_BYTES = 1 << 32


@dataclass(frozen=True)
class CodeFile:
    """Codes of one split with their labels."""

    codes: np.ndarray
    """Integer [N, G, *grid], of a hierarchy [N, G, P]; int64 when loaded."""
    labels: np.ndarray
    """Integer [N]; int64 when loaded."""
    header: CodeHeader
    lengths: np.ndarray | None = None
    """Integer [N], positions of every item, 1..T of the grid (T,); int64 when loaded. None: all fill the grid."""
    speakers: np.ndarray | None = None
    """Integer [N]; int64 when loaded. None where the data have no speakers; -1 in codes of single files: not known."""
    samples: np.ndarray | None = None
    """Integer [N], samples of every recording at its model's rate; int64 when loaded. None for what is not sound."""


def save_codes(path: Path | str, file: CodeFile) -> None:
    """Write a code file, whole or not at all.

    Raises:
        RunError: the disk refused, or there are more codes than a file may hold; a previous file is untouched.
        ValueError: codes, labels and header do not fit together.
    """
    try:
        _check(file)
    except Refused as reason:
        raise ValueError(f"expected codes that fit their header, but {reason}") from reason
    header = file.header
    metadata = {
        "format": FORMAT,
        "version": _version(header.grids),
        "dataset": header.dataset,
        "split": header.split,
        "model": header.model,
        "codebook_size": str(header.codebook_size),
        "codebooks": str(header.codebooks),
        "grid": named_grids(header.grids),
        "classes": str(header.classes),
        "stage1_sha256": header.stage1_sha256,
        "sha256": BLANK,
    }
    if header.speakers:
        metadata["speakers"] = str(header.speakers)
    if header.names:
        metadata["names"] = json.dumps(header.names)
    # safetensors writes the memory behind an array as it lies: a transposed view would be saved in the wrong order.
    tensors = {
        "codes": np.ascontiguousarray(file.codes, dtype=_disk_dtype(header.codebook_size)),
        "labels": np.ascontiguousarray(file.labels, dtype=np.int32),
    }
    for name, array in (("lengths", file.lengths), ("speakers", file.speakers), ("samples", file.samples)):
        if array is not None:
            tensors[name] = np.ascontiguousarray(array, dtype=np.int32)
    if sum(array.nbytes for array in tensors.values()) > _LARGEST_BYTES - LARGEST_HEADER_BYTES:
        raise RunError(f"{path} would take more than the {_LARGEST_BYTES} bytes of a code file: write several files")
    try:
        data = sorted_header(safetensors.numpy.save(tensors, metadata=metadata))
    except Refused:
        raise ValueError(
            f"expected names that fit into {LARGEST_HEADER_BYTES} bytes together, but {len(header.names)} longer ones "
            "came: write several files"
        ) from None
    start = digest_position(data, BLANK)
    write_atomic(Path(path), b"".join((data[:start], digest_of(data, start).encode(), data[start + len(BLANK) :])))


def load_codes(path: Path | str, *, expect_stage1_sha256: str | None = None, remedy: str = _EXTRACT) -> CodeFile:
    """Read and validate a code file.

    Args:
        path: the file.
        expect_stage1_sha256: digest of the stage-one weights that the codes must come from.
        remedy: what the user can do about a file that is refused; the end of the sentence.

    Raises:
        RunError: the file is missing, damaged, inconsistent, of another format version or of another codebook.
    """
    path = Path(path)
    try:
        with open_regular(path) as opened:
            data = opened.read(_checked_length(opened, path))
        file = _parse(data)
    except OSError as error:
        raise RunError(f"expected codes in {path}, but it could not be read ({error.strerror}): {remedy}") from error
    except Refused as reason:
        raise RunError(f"expected a whole code file in {path}, but {reason}: {remedy}") from reason
    if expect_stage1_sha256 is not None:
        check_codebook(file.header, path=path, stage1_sha256=expect_stage1_sha256, remedy=remedy)
    return file


def check_codebook(header: CodeHeader, *, path: Path | str, stage1_sha256: str, remedy: str) -> None:
    """Raise RunError unless the codes that were read from `path` come from the stage-one weights of that digest."""
    if header.stage1_sha256 != stage1_sha256:
        raise RunError(
            f"expected codes of the codebook {stage1_sha256[:12]}, but {path} was made by the codebook "
            f"{header.stage1_sha256[:12]}: {remedy}"
        )


def _checked_length(file: BinaryIO, path: Path) -> int:
    """Bytes of a file that is no longer than its header says, nor than any can be; rewinds it.

    Small files are left to the parser, which costs nothing there and knows better what is wrong.
    """
    size, start = check_size(file, path, most=_LARGEST_BYTES), file.read(8)
    end = header_end(start, size=size)
    tensors = header_of(start + file.read(end - len(start)))
    try:
        stated = end + max(int(entry["data_offsets"][1]) for key, entry in tensors.items() if key != "__metadata__")
    except (LookupError, TypeError, ValueError) as error:
        raise Refused("its header does not say where its codes lie") from error
    if size > max(stated, LARGEST_HEADER_BYTES):
        raise Refused(f"it is {size} bytes long where its header states {stated}")
    file.seek(0)
    return size


def _parse(data: bytes) -> CodeFile:
    metadata = metadata_of(data)
    if metadata.get("format") != FORMAT:
        raise Refused("it is some other safetensors file")
    # The version comes before the digest: a later version may compute it differently.
    version, known = metadata.get("version"), (VERSION, VERSION_OF_HIERARCHIES)
    if version not in known:
        raise Refused(f"its version is {version!r:.40} and this twostage reads {' and '.join(known)}")
    claimed = metadata.get("sha256", "")
    if not DIGEST.fullmatch(claimed) or claimed != digest_of(data, digest_position(data, claimed)):
        raise Refused("it does not match its own SHA-256")
    try:
        tensors = safetensors.numpy.load(data)
        header = CodeHeader(
            dataset=metadata["dataset"],
            split=metadata["split"],
            model=metadata["model"],
            codebook_size=int(metadata["codebook_size"]),
            codebooks=int(metadata["codebooks"]),
            grids=parsed_grids(metadata["grid"]),
            classes=int(metadata["classes"]),
            stage1_sha256=metadata["stage1_sha256"],
            speakers=int(metadata.get("speakers", "0")),
            names=parse_names(metadata.get("names", "[]")),
        )
        file = CodeFile(
            codes=tensors["codes"],
            labels=tensors["labels"],
            header=header,
            lengths=tensors.get("lengths"),
            speakers=tensors.get("speakers"),
            samples=tensors.get("samples"),
        )
    except Refused:
        raise
    except Exception as error:  # the parser raises half a dozen types on bytes that carry a valid digest
        raise Refused("it lacks a tensor or a header field, or has one of the wrong kind") from error
    if version != _version(header.grids):
        raise Refused(f"its version is {version} but its header states {counted(len(header.grids), 'grids')} of codes")
    _check(file)
    return CodeFile(
        codes=file.codes.astype(np.int64),
        labels=file.labels.astype(np.int64),
        header=header,
        lengths=None if file.lengths is None else file.lengths.astype(np.int64),
        speakers=None if file.speakers is None else file.speakers.astype(np.int64),
        samples=None if file.samples is None else file.samples.astype(np.int64),
    )


def _check(file: CodeFile) -> None:
    """Shapes and ranges; written and read files pass the same check."""
    codes, labels, header = file.codes, file.labels, file.header
    check_header(header)
    for name, array in (("codes", codes), ("labels", labels)):
        if not np.issubdtype(array.dtype, np.integer):
            raise Refused(f"its {name} are {array.dtype} and not integers")
    expected = (len(labels), header.codebooks, *axes_of(header.grids))
    if labels.ndim != 1 or codes.shape != expected:
        raise Refused(f"its codes have the shape {codes.shape} where labels and header say {expected}")
    for name, array, size in (("codes", codes, header.codebook_size), ("labels", labels, max(header.classes, 1))):
        if array.size and (array.min() < 0 or array.max() >= size):
            raise Refused(f"its {name} reach from {array.min()} to {array.max()} where 0 to {size - 1} are allowed")
    _check_sequences(file)
    check_names(header.names, len(codes))


def _check_sequences(file: CodeFile) -> None:
    """Lengths, speakers and samples."""
    header = file.header
    longest = header.grids[0][0] if len(header.grids[0]) == 1 else 0
    if header.speakers < 0 or (file.speakers is None) != (header.speakers == 0):
        raise Refused("it must hold speakers exactly where its header counts some")
    nobody = -1 if header.split == FILES else 0
    for name, array, low, high in (
        ("lengths", file.lengths, 1, longest),
        ("speakers", file.speakers, nobody, header.speakers - 1),
        ("samples", file.samples, 1, _MOST_SAMPLES),
    ):
        if array is None:
            continue
        if array.shape != file.labels.shape or not np.issubdtype(array.dtype, np.integer):
            raise Refused(f"its {name} are no integers, one per item")
        if array.size and (array.min() < low or array.max() > high):
            raise Refused(f"its {name} reach from {array.min()} to {array.max()} where {low} to {high} are allowed")
    # How many samples a code stands for is the model's business, which compares them with the lengths.
    if file.samples is not None and file.lengths is None:
        raise Refused("it holds numbers of samples without lengths")


def _version(grids: Grids) -> str:
    return VERSION if len(grids) == 1 else VERSION_OF_HIERARCHIES


def _disk_dtype(codebook_size: int) -> type[np.integer]:
    if codebook_size <= 1 << 8:
        return np.uint8
    return np.uint16 if codebook_size <= 1 << 16 else np.int32
