"""Codes as flat ids: what each id stands for, against plain loops."""

import json
from pathlib import Path

import numpy as np
import pytest

from twostage.errors import RunError
from twostage.grids import Grids
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile
from twostage.storage.flat_ids import Vocabulary, check_ids, flat_ids, save_ids, save_vectors, vocabulary_file


def code_file(grids: Grids, *, codebooks: int, lengths: tuple[int, ...] | None = None) -> CodeFile:
    header = CodeHeader(
        dataset="x", split="files", model="vq-vae", codebook_size=7, codebooks=codebooks, grids=grids, classes=0,
        stage1_sha256="0" * 64, speakers=0 if lengths is None else 2, names=("one", "two", "drei"),
    )  # fmt: skip
    axes = grids[0] if len(grids) == 1 else (sum(int(np.prod(grid)) for grid in grids),)
    codes = np.random.default_rng(0).integers(0, 7, (3, codebooks, *axes))
    if lengths is None:
        return CodeFile(codes=codes, labels=np.zeros(3, np.int64), header=header)
    ends = np.array(lengths)
    return CodeFile(codes, np.zeros(3, np.int64), header, lengths=ends, speakers=np.array([1, -1, 0]), samples=ends * 4)


def test_a_grid_is_read_by_rows_and_a_position_by_codebooks() -> None:
    file = code_file(((2, 3),), codebooks=2)
    assert Vocabulary.of(file.header) == Vocabulary(7, 2)
    for codes_Ghw, ids in zip(file.codes, flat_ids(file), strict=True):
        wanted = [14]
        for row in range(2):
            for column in range(3):
                wanted += [codes_Ghw[0, row, column], 7 + codes_Ghw[1, row, column]]
        assert ids.tolist() == [*wanted, 15]
        assert ids.dtype == np.int32


def test_finer_grids_follow_with_codebooks_of_their_own() -> None:
    file = code_file(((1, 2), (2, 4)), codebooks=2)
    for codes_GP, ids in zip(file.codes, flat_ids(file), strict=True):
        wanted = [28]
        for place in range(2):
            wanted += [codes_GP[0, place], 7 + codes_GP[1, place]]
        for place in range(2, 10):
            wanted += [14 + codes_GP[0, place], 21 + codes_GP[1, place]]
        assert ids.tolist() == [*wanted, 29]


def test_sequences_end_where_their_items_do(tmp_path: Path) -> None:
    file = code_file(((5,),), codebooks=1, lengths=(5, 1, 3))
    assert [len(ids) for ids in flat_ids(file)] == [7, 3, 5]
    save_ids(tmp_path / "codes.npy", file, format="npy")
    ids_NL = np.load(tmp_path / "codes.npy", allow_pickle=False)
    assert ids_NL.shape == (3, 7)
    assert ids_NL[1].tolist() == [7, file.codes[1, 0, 0], 8, 9, 9, 9, 9]
    save_ids(tmp_path / "codes.jsonl", file, format="jsonl", speakers=("ann", "bob"))
    lines = [json.loads(line) for line in (tmp_path / "codes.jsonl").read_text().splitlines()]
    for line, ids in zip(lines, flat_ids(file), strict=True):
        assert line.pop("ids") == ids.tolist()
    assert lines == [
        {"name": "one", "samples": 20, "speaker": "bob"},
        {"name": "two", "samples": 4, "speaker": None},
        {"name": "drei", "samples": 12, "speaker": "ann"},
    ]
    said = json.loads((tmp_path / "codes.vocabulary.json").read_text())
    assert [said[key] for key in ("codebook_size", "codebooks", "bos", "eos", "pad", "size")] == [7, 1, 7, 8, 9, 10]
    assert said["items"] == lines


def test_a_row_of_the_vectors_is_an_id(tmp_path: Path) -> None:
    vectors_CKW = np.random.default_rng(0).normal(size=(2, 7, 3))
    save_vectors(tmp_path / "codes.jsonl", vectors_CKW)
    rows = np.load(tmp_path / "codes.vectors.npy", allow_pickle=False)
    assert rows.dtype == np.float32
    assert np.array_equal(rows[7 + 4], vectors_CKW[1, 4].astype(np.float32))


def test_only_what_was_written_here_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "codes.npy"
    save_ids(path, code_file(((2, 3),), codebooks=1), format="npy")
    check_ids(path)
    for content in ('{"format": "other"}', "[", None):
        vocabulary_file(path).unlink()
        if content is not None:
            vocabulary_file(path).write_text(content)
        with pytest.raises(RunError, match="expected sequences of ids in"):
            check_ids(path)
