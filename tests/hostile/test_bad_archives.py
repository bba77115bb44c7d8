"""Archives and gzip files that are built to hurt: refused at once, without the memory that their headers ask for."""

import gzip
import signal
import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from twostage.data.images.cifar import load_cifar10
from twostage.data.images.idx import read_idx
from twostage.errors import DataError


def header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """A tar header; sizes below zero in base 256, as GNU tar writes large ones."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size if size >= 0 else b"\xff" + size.to_bytes(11, "big", signed=True)
    block[136:148] = b"00000000000\0"
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(*records: bytes) -> bytes:
    return header(b"x", 512, b"x") + b"".join(records).ljust(512, b"\0")


ARCHIVES: dict[str, tuple[bytes, str]] = {
    "a member of less than nothing": (header(b"a", -1024) * 3, "more than 100 members"),
    "an extension of less than nothing": (header(b"a", -1024, b"x") * 3, "a header of -1024 bytes"),
    "a long name of less than nothing": (header(b"a", -1024, b"L") * 3, "a header of -1024 bytes"),
    "an extension of 2 GiB": (header(b"a", 1 << 31, b"x") + bytes(4 << 20), "a header of 2147483648 bytes"),
    "a long name of 2 GiB": (header(b"a", 1 << 31, b"L") + bytes(4 << 20), "a header of 2147483648 bytes"),
    "extensions of extensions": (pax(b"20 comment=xxxxxxxxx\n") * 2000, "recursion"),
    "an extension of 10^22 bytes": (pax(b"9999999999999999999999 a=b\n"), "too large"),
    "a sparse map that is none": (
        pax(b"22 GNU.sparse.major=1\n", b"22 GNU.sparse.minor=0\n") + header(b"b", 512) + b"9\n".ljust(512, b"\0"),
        "is no whole archive",
    ),
    "10000 members": (b"".join(header(b"%d" % number, 0) for number in range(10_000)), "more than 100 members"),
    "names that lead out": (header(b"../../test_batch.bin", 0) + header(b"/test_batch.bin", 0), "they are not there"),
    "a link for a file": (header(b"test_batch.bin", 0, b"2"), "they are not there"),
    "a folder for a file": (header(b"test_batch.bin", 0, b"5"), "they are not there"),
    "a device for a file": (header(b"test_batch.bin", 0, b"3"), "they are not there"),
    "a sparse file of nothing": (header(b"test_batch.bin", 512, b"S") + bytes(512), "holds only 0 bytes"),
    "a file of 8 GiB": (header(b"test_batch.bin", (1 << 33) - 1) + bytes(4096), "unexpected end of data"),
    "a pickle": (b"\x80\x04\x95" + bytes(2000), "is no whole archive"),
}


@pytest.fixture
def no_endless_loop() -> Iterator[None]:
    def stop(*_: object) -> NoReturn:
        raise AssertionError("still reading after 20 seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_endless_loop")
@pytest.mark.parametrize("kind", ARCHIVES)
def test_bad_archives(tmp_path: Path, kind: str) -> None:
    content, said = ARCHIVES[kind]
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(gzip.compress(content + bytes(1024), 1))
    tracemalloc.start()
    with pytest.raises(DataError) as raised:
        load_cifar10(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert said in str(raised.value)
    assert str(raised.value).isprintable()
    # The images of the whole set, which are made room for first: untouched pages of it are no memory.
    assert peak < 60_000 * 3072 + 60_000 * 8 + 10_000 * 3073 + (32 << 20)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\0\0\x08\x03" + struct.pack(">III", 2**32 - 1, 2**32 - 1, 2**32 - 1), "cannot hold them"),
        (b"\0\0\x08\x03" + struct.pack(">III", 60_000, 28, 28) + bytes(1000), "cannot hold them"),
        (b"\0\0\x08\x03" + struct.pack(">III", 0, 28, 28), "holds none"),
        (b"\0\0\x0d\x03" + struct.pack(">III", 1, 1, 1) + bytes(4), "magic number"),
        (b"\0\0\x08\x03\0", "ends within it"),
        (gzip.compress(b"\0\0\x08\x03" + struct.pack(">III", 1 << 20, 1 << 10, 1 << 10), mtime=0), "cannot hold them"),
        (gzip.compress(b"\0\0\x08\x03" + struct.pack(">III", 1, 2, 2) + bytes(64 << 20), mtime=0), "holds more"),
        (gzip.compress(b"\0\0\x08\x03" + struct.pack(">III", 1, 2, 2) + bytes(4), mtime=0)[:-6], "damaged"),
    ],
)
def test_bad_idx_files(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(DataError, match=said):
        read_idx(path, axes=3)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_what_is_no_file_to_read() -> None:
    with pytest.raises(DataError, match="it is no regular file"):
        read_idx(Path("/dev/zero"), axes=3)
