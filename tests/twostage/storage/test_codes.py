"""Code files: exact round trip, and a sentence for every way in which a file can be wrong."""

import json
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from safetensors import safe_open

from twostage.errors import RunError
from twostage.grids import axes_of
from twostage.storage import codes as codes_module
from twostage.storage.code_bytes import digest_of
from twostage.storage.code_header import CodeHeader
from twostage.storage.codes import CodeFile, load_codes, save_codes

STAGE1 = "0123456789abcdef" * 4
HEADER = CodeHeader(
    dataset="digits",
    split="train",
    model="vq-vae",
    codebook_size=32,
    codebooks=2,
    grids=((3, 4),),
    classes=10,
    stage1_sha256=STAGE1,
)


def example(*, items: int = 5, header: CodeHeader = HEADER) -> CodeFile:
    generator = np.random.default_rng(0)
    shape = (items, header.codebooks, *axes_of(header.grids))
    codes = generator.integers(0, header.codebook_size, shape)
    codes.flat[0] = header.codebook_size - 1
    return CodeFile(codes=codes, labels=generator.integers(0, header.classes, items), header=header)


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(RunError) as raised:
        load_codes(path, **options)
    message = str(raised.value)
    assert str(path) in message
    assert "train-prior" in message
    assert "\n" not in message
    return message


def forge(path: Path, file: CodeFile) -> None:
    """Write a file that contradicts itself but carries a valid digest, as a hostile or buggy writer would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codes_module, "_check", lambda *_: None)
        save_codes(path, file)


@pytest.mark.parametrize(
    ("codebook_size", "grid", "dtype"),
    [
        (2, (3, 4), "uint8"),
        (256, (3, 4), "uint8"),
        (257, (9,), "uint16"),
        (65536, (9,), "uint16"),
        (65537, (9,), "int32"),
    ],
)
def test_codes_come_back_and_take_the_smallest_type(
    tmp_path: Path, codebook_size: int, grid: tuple[int, ...], dtype: str
) -> None:
    file = example(header=replace(HEADER, codebook_size=codebook_size, grids=(grid,)))
    save_codes(tmp_path / "train.safetensors", file)
    loaded = load_codes(tmp_path / "train.safetensors", expect_stage1_sha256=STAGE1)
    np.testing.assert_array_equal(loaded.codes, file.codes)
    np.testing.assert_array_equal(loaded.labels, file.labels)
    assert loaded.header == file.header
    assert loaded.codes.dtype == loaded.labels.dtype == np.int64
    assert loaded.codes.flags.writeable
    assert str(safetensors.numpy.load_file(tmp_path / "train.safetensors")["codes"].dtype) == dtype


def test_other_tools_can_read_the_header(tmp_path: Path) -> None:
    save_codes(tmp_path / "codes", example())
    with safe_open(tmp_path / "codes", framework="np") as file:
        metadata = file.metadata()
    assert metadata["codebook_size"] == "32"
    assert metadata["grid"] == "3x4"
    assert metadata["stage1_sha256"] == STAGE1


HIERARCHY = replace(HEADER, grids=((2, 3), (4, 6)))


def test_codes_of_a_hierarchy_come_back_with_their_grids(tmp_path: Path) -> None:
    file = example(header=HIERARCHY)
    assert file.codes.shape == (5, 2, 6 + 24)
    save_codes(tmp_path / "codes", file)
    loaded = load_codes(tmp_path / "codes")
    assert loaded.header == HIERARCHY
    np.testing.assert_array_equal(loaded.codes, file.codes)
    with safe_open(tmp_path / "codes", framework="np") as opened:
        assert opened.metadata()["grid"] == "2x3+4x6"


def test_a_version_says_whether_there_is_a_hierarchy(tmp_path: Path) -> None:
    """A program that reads one grid alone says that it lacks the version; files of one grid are what they were."""
    versions = []
    for header in (HEADER, HIERARCHY):
        save_codes(tmp_path / "codes", example(header=header))
        with safe_open(tmp_path / "codes", framework="np") as opened:
            versions.append(opened.metadata()["version"])
    assert versions == ["1", "2"]


@pytest.mark.parametrize(
    "grids", [((4, 6), (2, 3)), ((2, 3), (2, 3)), ((2, 3), (3, 6)), ((2,), (4,)), ((2, 3), (4,)), ((2, 3, 4),), ()]
)
def test_grids_of_no_hierarchy_are_refused(tmp_path: Path, grids: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"grids? of two lengths, each a multiple|one or two lengths of the grid"):
        save_codes(tmp_path / "codes", replace(example(header=HIERARCHY), header=replace(HEADER, grids=grids)))


def test_lengths_of_a_hierarchy_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lengths reach from 1"):
        save_codes(tmp_path / "codes", replace(example(header=HIERARCHY), lengths=np.ones(5, int)))


def test_transposed_views_are_saved_in_their_logical_order(tmp_path: Path) -> None:
    """An array straight from a channels-last model is not contiguous; safetensors would write its memory as it lies."""
    file = example(header=replace(HEADER, codebooks=3, grids=((3, 3),)), items=3)
    turned = file.codes.astype(np.uint8).transpose(0, 3, 1, 2)
    save_codes(tmp_path / "codes", replace(file, codes=turned))
    np.testing.assert_array_equal(load_codes(tmp_path / "codes").codes, turned)


def test_equal_codes_are_equal_bytes_in_every_process(tmp_path: Path) -> None:
    """Safetensors shuffles metadata with a seed that differs from process to process."""
    script = f"""
import numpy, sys, pathlib
from twostage.storage.codes import CodeFile, CodeHeader, save_codes
header = CodeHeader("d", "train", "m", 4, 1, ((2,),), 3, {STAGE1!r})
save_codes(pathlib.Path(sys.argv[1]), CodeFile(numpy.array([[[0, 3]]]), numpy.array([2]), header))
assert "torch" not in sys.modules
"""
    for name in ("a", "b", "c"):
        subprocess.run([sys.executable, "-c", script, str(tmp_path / name)], check=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


@pytest.mark.parametrize("names", [(), ("a", "b.tar", "für elise", ".hidden", "日本")])
def test_codes_of_unlabelled_files_come_back_with_their_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    header = replace(HEADER, classes=0, split="files", names=names)
    file = replace(example(), labels=np.zeros(5, int), header=header)
    save_codes(tmp_path / "codes", file)
    loaded = load_codes(tmp_path / "codes")
    assert loaded.header == header
    assert loaded.labels.tolist() == [0] * 5
    with safe_open(tmp_path / "codes", framework="np") as opened:
        assert ("names" in opened.metadata()) == bool(names)


def test_many_names_fit(tmp_path: Path) -> None:
    names = tuple(f"a rather long name of a photograph {index:06d}" for index in range(5000))
    header = replace(HEADER, names=names, grids=((1,),), codebooks=1)
    save_codes(tmp_path / "codes", CodeFile(np.zeros((5000, 1, 1), int), np.zeros(5000, int), header))
    assert load_codes(tmp_path / "codes").header.names == names


def test_the_remedy_is_the_callers(tmp_path: Path) -> None:
    save_codes(tmp_path / "codes", example())
    for path, digest in ((tmp_path / "codes", "f" * 64), (tmp_path / "absent", STAGE1), (tmp_path, STAGE1)):
        with pytest.raises(RunError, match=r": encode it again$"):
            load_codes(path, expect_stage1_sha256=digest, remedy="encode it again")


def test_an_empty_split_is_a_valid_file(tmp_path: Path) -> None:
    save_codes(tmp_path / "codes", example(items=1))
    empty = CodeFile(codes=np.zeros((0, 2, 3, 4), np.int64), labels=np.zeros(0, np.int64), header=HEADER)
    save_codes(tmp_path / "codes", empty)
    assert load_codes(tmp_path / "codes").codes.shape == (0, 2, 3, 4)


def test_codes_of_another_codebook_are_refused_with_both_digests(tmp_path: Path) -> None:
    save_codes(tmp_path / "codes", example())
    message = refusal(tmp_path / "codes", expect_stage1_sha256="f" * 64)
    assert "f" * 12 in message
    assert STAGE1[:12] in message
    assert "f" * 13 not in message


def test_every_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "codes"
    save_codes(path, example(items=2))
    whole = path.read_bytes()
    # The bit that turns a into A, and one other, of every byte.
    for bit in (8 * byte + shift for byte in range(len(whole)) for shift in {5, byte % 8}):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(RunError):
            load_codes(path)


def test_every_truncation_and_any_surplus_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "codes"
    save_codes(path, example(items=2))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(RunError):
            load_codes(path)
    path.write_bytes(whole + b"\0")
    refusal(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codes": np.full((5, 2, 3, 4), 32)}, "0 to 31"),
        ({"codes": np.zeros((5, 2, 4, 3), int)}, "(5, 2, 3, 4)"),
        ({"codes": np.zeros((4, 2, 3, 4), int)}, "(4, 2, 3, 4)"),
        ({"codes": np.zeros((5, 3, 4), int)}, "(5, 3, 4)"),
        ({"labels": np.array([0, 1, 2, 3, 10])}, "0 to 9"),
        ({"labels": np.array([0, 1, 2, 3, -1])}, "-1"),
        ({"labels": np.zeros((5, 1), int)}, "shape"),
        ({"header": replace(HEADER, classes=0)}, "0 to 0"),
        ({"header": replace(HEADER, classes=-1)}, "classes at least 0"),
        ({"header": replace(HEADER, names=("a", "b"))}, "2 names for 5 items"),
        ({"header": replace(HEADER, names=("a", "b", "c", "d", "a"))}, "a name twice"),
        ({"header": replace(HEADER, names=("a", "b", "c", "d", ""))}, "no plain file name"),
        ({"header": replace(HEADER, names=("a", "b", "c", "d", "."))}, "no plain file name"),
        ({"header": replace(HEADER, names=("a", "b", "c", "d", "../e"))}, "no plain file name"),
        ({"header": replace(HEADER, names=("a", "b", "c", "d", "/e"))}, "no plain file name"),
        ({"header": replace(HEADER, names=("a", "b", "c", "d", "C:e"))}, "no plain file name"),
        ({"header": replace(HEADER, names=("a", "b", "c", "d", "e\\f"))}, "no plain file name"),
        ({"header": replace(HEADER, names=("a", "b", "c", "d", "e\n"))}, "no plain file name"),
        ({"header": replace(HEADER, names=("a", "b", "c", "d", 5))}, "no plain file name"),
        ({"header": replace(HEADER, codebook_size=0)}, "at least 1"),
        ({"header": replace(HEADER, codebook_size=70000), "codes": np.full((5, 2, 3, 4), -1)}, "-1"),
    ],
)
def test_contradictions_are_refused_on_both_sides(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    wrong = replace(example(), **change)
    with pytest.raises(ValueError, match="fit their header") as raised:
        save_codes(tmp_path / "codes", wrong)
    assert said in str(raised.value)
    assert not list(tmp_path.iterdir())
    forge(tmp_path / "codes", wrong)
    assert said in refusal(tmp_path / "codes")


def test_fractions_are_refused_instead_of_rounded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float64 and not integers"):
        save_codes(tmp_path / "codes", replace(example(), codes=example().codes + 0.5))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("version", "2", "its version is 2 but its header states 1 grid of codes"),
        ("version", "3", "version is '3' and this twostage reads 1 and 2"),
        ("format", "something", "other safetensors file"),
        ("codebook_size", "many", "wrong kind"),
        ("grid", "3xx4", "wrong kind"),
        ("model", None, "lacks"),
        ("names", "[", "wrong kind"),
        ("names", "5", "wrong kind"),
        ("names", '["a"]', "1 names for 5 items"),
        ("sha256", "\ud800" * 64, "SHA-256"),
        ("sha256", None, "SHA-256"),
    ],
)
def test_foreign_headers_are_refused(tmp_path: Path, key: str, value: str | None, said: str) -> None:
    path = tmp_path / "codes"
    save_codes(path, example())
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    metadata = header["__metadata__"]
    metadata.pop(key, None)
    if value is not None:
        metadata[key] = value
    if key != "sha256":
        metadata["sha256"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    data = struct.pack("<Q", len(text)) + text + data[8 + length :]
    if key != "sha256":  # with a digest that is right, so that what is tested is the field
        start = data.index(b'"sha256":"' + b"0" * 64) + len(b'"sha256":"')
        digest = digest_of(data, start).encode()
        data = data[:start] + digest + data[start + 64 :]
    path.write_bytes(data)
    assert said in refusal(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04]q\x00.",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 60000) + b"[" * 60000,
        struct.pack("<Q", 2) + b"{}",
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "codes").write_bytes(content)
    refusal(tmp_path / "codes")


def test_missing_files_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent")
    refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    refusal(tmp_path / "pipe")


def sequences(**changes: Any) -> CodeFile:
    header = replace(HEADER, grids=((6,),), speakers=3)
    file = replace(
        example(header=header),
        lengths=np.array([1, 6, 3, 2, 5]),
        speakers=np.array([0, 2, 1, 1, 0]),
        samples=np.array([64, 321, 129, 128, (1 << 31) - 1]),
    )
    return replace(file, **changes)


def test_lengths_speakers_and_samples_come_back(tmp_path: Path) -> None:
    path = tmp_path / "codes.safetensors"
    save_codes(path, sequences())
    loaded = load_codes(path)
    assert loaded.lengths is not None
    assert loaded.speakers is not None
    assert loaded.lengths.tolist() == [1, 6, 3, 2, 5]
    assert loaded.speakers.tolist() == [0, 2, 1, 1, 0]
    assert loaded.samples is not None
    assert loaded.samples.tolist() == [64, 321, 129, 128, (1 << 31) - 1]
    assert loaded.samples.dtype == np.int64
    assert loaded.header.speakers == 3
    without = {"lengths": None, "speakers": None, "samples": None}
    save_codes(path, sequences(**without, header=replace(sequences().header, speakers=0)))
    assert load_codes(path).lengths is None
    assert load_codes(path).samples is None


def test_single_files_may_have_speakers_that_are_not_known_and_data_sets_may_not(tmp_path: Path) -> None:
    path, speakers = tmp_path / "codes.safetensors", np.array([0, -1, 1, -1, 2])
    save_codes(path, sequences(speakers=speakers, header=replace(sequences().header, split="files")))
    loaded = load_codes(path).speakers
    assert loaded is not None
    assert loaded.tolist() == speakers.tolist()
    with pytest.raises(ValueError, match="speakers reach from -1 to 2 where 0 to 2 are allowed"):
        save_codes(path, sequences(speakers=speakers))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lengths": np.array([0, 6, 3, 2, 5])}, "lengths reach from 0"),
        ({"lengths": np.array([1, 7, 3, 2, 5])}, "lengths reach from 1 to 7 where 1 to 6"),
        ({"lengths": np.array([1, 2])}, "no integers, one per item"),
        ({"lengths": np.array([1.0, 6, 3, 2, 5])}, "no integers, one per item"),
        ({"speakers": np.array([0, 3, 1, 1, 0])}, "speakers reach from 0 to 3"),
        ({"speakers": None}, "speakers exactly where"),
        ({"samples": np.array([64, 321, 0, 128, 300])}, "samples reach from 0"),
        ({"samples": np.array([64, 321])}, "no integers, one per item"),
        ({"lengths": None}, "numbers of samples without lengths"),
    ],
)
def test_sequences_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = tmp_path / "codes.safetensors"
    with pytest.raises(ValueError, match="expected codes that fit"):
        save_codes(path, sequences(**changes))
    forge(path, sequences(**changes))
    if "lengths" not in changes or changes["lengths"] is None or changes["lengths"].dtype != float:  # else rounded
        assert said in refusal(path)
