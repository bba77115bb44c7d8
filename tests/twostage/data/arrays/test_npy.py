"""Files of numpy's formats: read as numpy reads them, or refused before memory is taken for what they say."""

import io
import os
import re
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from twostage.data.arrays import npy
from twostage.data.arrays.npy import Header, Unreadable, read_array, read_file

GENERATOR = np.random.default_rng(0)


def anything(header: Header) -> None:
    """Takes every array."""


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def refusal(path: Path, data: bytes, name: str = "") -> str:
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(Unreadable) as raised:
        read_file(path, {name: anything})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 23  # of headers that state gigabytes
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("dtype", ["u1", "i1", "<u2", ">u2", "<i2", ">i4", "<i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_those_that_numpy_reads(tmp_path: Path, dtype: str, order: str) -> None:
    array = GENERATOR.integers(0, 100, (3, 4, 5)).astype(dtype, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "plain.npz", x=array, y=array[0])
    np.savez_compressed(tmp_path / "packed.npz", x=array, y=array[0])
    for got in (
        read_array(tmp_path / "x.npy", anything),
        *(read_file(tmp_path / f"{name}.npz", {"x": anything})["x"] for name in ("plain", "packed")),
    ):
        assert got.dtype == array.dtype
        assert got.flags.c_contiguous
        assert got.flags.writeable  # torch warns of what is not
        np.testing.assert_array_equal(got, array)


def test_the_content_decides_and_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.arange(3), objects=np.array([object()], dtype=object))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    assert list(read_file(tmp_path / "x.npy", {"x": anything, "z": anything})) == ["x"]
    with pytest.raises(Unreadable, match="is an archive and no single array"):
        read_array(tmp_path / "x.npy", anything)


def test_a_header_is_refused_before_its_numbers_are_read(tmp_path: Path) -> None:
    seen: list[Header] = []

    def never(header: Header) -> None:
        seen.append(header)
        raise Unreadable("is not wanted")

    (tmp_path / "x.npy").write_bytes(saved(np.zeros((2, 3), np.float32))[:-20])
    with pytest.raises(Unreadable, match="is not wanted"):
        read_array(tmp_path / "x.npy", never)
    assert seen == [Header((2, 3), np.dtype(np.float32), fortran=False)]


WHOLE = saved(np.zeros((50, 8, 12), np.uint8))


@pytest.mark.parametrize(
    ("data", "clause"),
    [
        (b"", "is empty"),
        (b"GIF89a", "is no array of numpy"),
        (WHOLE[:7], "is of a version"),
        (WHOLE[:9], "damaged header"),
        (WHOLE[:40], "damaged header"),
        (WHOLE[:-9], "states 50x8x12 of uint8, 4,800 bytes, but holds 4,791"),
        (WHOLE + b"0", "but holds 4,801"),
        (WHOLE.replace(b"(50, 8, 12)", b"(10**9, 8,)"), "damaged header"),
        (WHOLE.replace(b"(50, 8, 12), }  ", b"(5000000, 8, 9),}"), "states 5000000x8x9"),
        (WHOLE.replace(b"(50, 8, 12)", b"(-50, 8,-1)"), "damaged header"),
        (WHOLE.replace(b"(50, 8, 12)", b"(True, 8,1)"), "damaged header"),
        (WHOLE.replace(b"|u1", b"|z1"), "damaged header"),
        (WHOLE[:6] + b"\x03\x00" + WHOLE[8:], "is of a version"),
        (WHOLE[:6] + b"\x02\x00\xff\xff\xff\xff" + b"{" * 100, "damaged header"),
        (WHOLE[:6] + b"\x01\x00\x00\x20" + b"(" * 8192, "damaged header"),
        (b"PK\x03\x04abc", r"is damaged \(File is not a zip file"),
    ],
)
def test_what_is_no_whole_array_is_refused(tmp_path: Path, data: bytes, clause: str) -> None:
    assert re.search(clause, refusal(tmp_path / "x.npy", data))


def test_pipes_folders_and_what_is_not_there_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npy")
    for name in ("pipe.npy", "", "none.npy"):
        with pytest.raises(Unreadable, match="could not be read"):
            read_array(tmp_path / name, anything)


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as written:
        for name, data in members.items():
            written.writestr(name, data)
    return buffer.getvalue()


def test_a_damaged_member_is_named(tmp_path: Path) -> None:
    data = bytearray(archive({"x.npy": saved(GENERATOR.integers(0, 255, 4000).astype(np.uint8))}))
    data[2000] ^= 255
    assert refusal(tmp_path / "x.npz", bytes(data), "x").startswith("is damaged (")
    whole = saved(np.zeros(400, np.uint8))
    assert "has an array 'x' that states 400 of" in refusal(tmp_path / "x.npz", archive({"x.npy": whole[:-1]}), "x")
    flawed = bytearray(archive({"x.npy": whole}))
    flawed[flawed.index(b"PK\x01\x02") + 8] |= 1  # said to be encrypted
    assert "is an archive that cannot be read" in refusal(tmp_path / "x.npz", bytes(flawed), "x")


def test_a_member_cannot_unpack_to_more_than_deflate_can_pack(tmp_path: Path) -> None:
    head = saved(np.zeros(1, np.uint8)).replace(b"(1,), }" + b" " * 10, b"(5000000000,), }" + b" ")
    data = bytearray(archive({"x.npy": head}))
    directory = data.index(b"PK\x01\x02")
    for at in (22, directory + 24):  # the size that is stated, in front of the member and in the directory
        data[at : at + 4] = (4_000_000_000).to_bytes(4, "little")
    assert "cannot unpack to the 4,000,000,000 bytes" in refusal(tmp_path / "x.npz", bytes(data), "x")


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_packed_as_numpy_packs_them(tmp_path: Path, packing: int) -> None:
    """LZMA takes as much memory as its own header says, and its errors are of a kind of their own."""
    said = refusal(tmp_path / "x.npz", archive({"x.npy": saved(np.arange(3))}, packing), "x")
    assert said == "has an array 'x' that is packed neither as np.savez nor as np.savez_compressed does"


def test_a_damaged_name_of_a_member_is_refused(tmp_path: Path) -> None:
    """The name in front of the numbers is said to be UTF-8, and is not."""
    data = bytearray(archive({"x.npy": saved(np.arange(3))}))
    data[6:8] = (1 << 11).to_bytes(2, "little")
    data[30] = 0xC3
    assert "is damaged" in refusal(tmp_path / "x.npz", bytes(data), "x")


def test_archives_of_very_many_members_are_not_looked_through(tmp_path: Path) -> None:
    data = archive({f"{number}.npy": b"" for number in range(1001)}, zipfile.ZIP_STORED)
    assert "1,001 members" in refusal(tmp_path / "x.npz", data, "x")


def test_more_than_the_machine_has_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy, "_memory", lambda: 4799.0)
    assert "more than the memory of this machine" in refusal(tmp_path / "x.npy", WHOLE)
