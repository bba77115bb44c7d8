"""Codes as flat sequences of ids, as language models read them, in .npy and .jsonl files.

A code c of codebook g is the id g * K + c: every codebook has K ids of its own, and the g of a hierarchy count on from
the coarsest grid to the finest. Behind the C * K ids of codes, C codebooks in all, follow `bos`, `eos` and `pad`. A
sequence is `bos`, the codes position by position in raster order, those of a position in the order of their codebooks
and coarser grids before finer ones (as priors read them, `stage2_prior.prior`), then `eos`.

    FILE.npy                int32 [N, L], `pad` behind the end of shorter sequences
    FILE.jsonl              a line an item: {"name": ..., "ids": [...]}, of recordings with "samples" and "speaker"
    FILE.vocabulary.json    what the ids mean, and of what the items are
    FILE.vectors.npy        fp32 [C * K, W], a row an id, where it is asked for

No file of these is read back: what `decode` takes is a code file (`twostage.storage.codes`).

Shapes: N items, G codebooks a position, P positions, T the axes of the codes.
"""

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from twostage.errors import RunError
from twostage.grids import named_grids, positions_of, split_levels
from twostage.storage.atomic import write_atomic
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile
from twostage.storage.manifest import Damaged, parse_json
from twostage.storage.regular_file import read_regular

Format = Literal["npy", "jsonl"]
FORMAT = "twostage-ids"
_LARGEST_VOCABULARY = 1 << 30  # a line for each of some million items


@dataclass(frozen=True)
class Vocabulary:
    """What ids mean."""

    codebook_size: int
    """K."""
    codebooks: int
    """C, of all grids together."""

    @classmethod
    def of(cls, header: CodeHeader) -> "Vocabulary":
        return cls(header.codebook_size, header.codebooks * len(header.grids))

    @property
    def bos(self) -> int:
        return self.codebooks * self.codebook_size

    @property
    def eos(self) -> int:
        return self.bos + 1

    @property
    def pad(self) -> int:
        return self.bos + 2

    @property
    def size(self) -> int:
        return self.bos + 3


def flat_ids(file: CodeFile) -> list[np.ndarray]:
    """The sequence of every item, int32, from `bos` to `eos`."""
    header = file.header
    vocabulary, parts = Vocabulary.of(header), list[np.ndarray]()
    for level, codes in enumerate(split_levels(file.codes, header.grids)):
        codes_NPG = codes.reshape(len(codes), header.codebooks, -1).transpose(0, 2, 1)
        offsets_G = (level * header.codebooks + np.arange(header.codebooks)) * header.codebook_size
        parts.append((codes_NPG + offsets_G).reshape(len(codes), -1))
    ids_NX = np.concatenate(parts, 1).astype(np.int32)
    ends_N = np.full(len(ids_NX), sum(positions_of(header.grids))) if file.lengths is None else file.lengths
    ends_N = ends_N * header.codebooks
    return [
        np.concatenate([[vocabulary.bos], ids_X[:end], [vocabulary.eos]]).astype(np.int32)
        for ids_X, end in zip(ids_NX, ends_N, strict=True)
    ]


def save_ids(path: Path, file: CodeFile, *, format: Format, speakers: tuple[str, ...] = ()) -> None:
    """Write the sequences of a code file with its vocabulary beside them, each file whole or not at all.

    Args:
        path: of the sequences.
        file: the codes.
        format: how.
        speakers: names by number; none: lines say the numbers.

    Raises:
        RunError: the disk refused.
    """
    sequences, items = flat_ids(file), _items(file, speakers)
    write_atomic(vocabulary_file(path), _vocabulary(file, items).encode())
    if format == "jsonl":
        lines = [json.dumps({**item, "ids": ids.tolist()}) for item, ids in zip(items, sequences, strict=True)]
        write_atomic(path, "".join(f"{line}\n" for line in lines).encode())
        return
    ids_NL = np.full((len(sequences), max(map(len, sequences))), Vocabulary.of(file.header).pad, np.int32)
    for row_L, ids in zip(ids_NL, sequences, strict=True):
        row_L[: len(ids)] = ids
    write_atomic(path, _npy(ids_NL))


def save_vectors(path: Path, vectors_CKW: np.ndarray) -> None:
    """Write the vector of every id of a code, where `path` is that of the sequences or of the code file.

    Raises:
        RunError: the disk refused.
    """
    write_atomic(vectors_file(path), _npy(vectors_CKW.reshape(-1, vectors_CKW.shape[-1]).astype(np.float32)))


def check_ids(path: Path) -> None:
    """Raise RunError unless `save_ids` wrote the file at `path`: its vocabulary says so."""
    vocabulary = vocabulary_file(path)
    try:
        content = parse_json(read_regular(vocabulary, most=_LARGEST_VOCABULARY), vocabulary.name)
    except (OSError, Damaged) as error:
        raise RunError(f"expected sequences of ids in {path}, but {vocabulary} is not beside it") from error
    if content.get("format") != FORMAT:
        raise RunError(f"expected sequences of ids in {path}, but {vocabulary} is of another program")


def vocabulary_file(path: Path) -> Path:
    return path.with_suffix(".vocabulary.json")


def vectors_file(path: Path) -> Path:
    return path.with_suffix(".vectors.npy")


def _items(file: CodeFile, speakers: tuple[str, ...]) -> list[dict[str, object]]:
    """What is known of every item beside its codes."""
    items: list[dict[str, object]] = []
    for index in range(len(file.codes)):
        item: dict[str, object] = {"name": file.header.names[index] if file.header.names else str(index)}
        if file.samples is not None:
            item["samples"] = int(file.samples[index])
        if file.speakers is not None:
            number = int(file.speakers[index])
            item["speaker"] = None if number < 0 else speakers[number] if speakers else number
        items.append(item)
    return items


def _vocabulary(file: CodeFile, items: list[dict[str, object]]) -> str:
    header, vocabulary = file.header, Vocabulary.of(file.header)
    content = {
        "format": FORMAT,
        **asdict(vocabulary),
        "size": vocabulary.size,
        "bos": vocabulary.bos,
        "eos": vocabulary.eos,
        "pad": vocabulary.pad,
        "grids": named_grids(header.grids),
        "codebooks_per_position": header.codebooks,
        "order": "grids from the coarsest, positions in raster order, codebooks of a position in order",
        "dataset": header.dataset,
        "model": header.model,
        "stage1_sha256": header.stage1_sha256,
        "items": items,
    }
    return json.dumps(content, indent=1) + "\n"


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
