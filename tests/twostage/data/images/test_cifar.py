"""CIFAR-10's binary files: in a folder, packed or in their archive, whole or refused."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from twostage.config.schema import DataConfig
from twostage.data import ImageDataset, load_dataset
from twostage.data.images import cifar
from twostage.errors import DataError

RECORDS = 10
FILES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten records in a file instead of 10 000."""
    monkeypatch.setattr(cifar, "RECORDS_PER_FILE", RECORDS)


def contents() -> dict[str, bytes]:
    """Six files of random pixels; record i of all sixty has the label 7 i mod 10."""
    records = np.random.default_rng(0).integers(0, 256, (60, 3073), dtype=np.uint8)
    records[:, 0] = np.arange(60) * 7 % 10
    return {name: records[10 * file : 10 * file + 10].tobytes() for file, name in enumerate(FILES)}


def write(folder: Path, *, packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents().items():
        (folder / (name + ".gz" if packed else name)).write_bytes(gzip.compress(data) if packed else data)


def write_archive(path: Path, members: dict[str, bytes], *, mode: str = "w:gz") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def official(files: dict[str, bytes]) -> dict[str, bytes]:
    """Members as in the official archive."""
    inside = {f"cifar-10-batches-bin/{name}": data for name, data in files.items()}
    return {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n", **inside, "cifar-10-batches-bin/readme.html": b"x"}


def load(path: Path) -> ImageDataset:
    return load_dataset(DataConfig(name="cifar10", path=str(path)))


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        load(path)
    assert str(raised.value).startswith("expected ")
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_planes_rows_columns_and_labels_are_where_they_belong(tmp_path: Path) -> None:
    write(tmp_path)
    dataset = load(tmp_path)
    assert dataset.shape == (3, 32, 32)
    assert dataset.levels == 256
    assert dataset.classes[3] == "cat"
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [45, 5, 10]
    data = b"".join(contents().values())
    images = np.concatenate([dataset.train.images, dataset.validation.images, dataset.test.images])
    labels = np.concatenate([dataset.train.labels, dataset.validation.labels, dataset.test.labels])
    assert labels.tolist() == [7 * item % 10 for item in range(60)]
    for item, channel, row, column in ((0, 0, 0, 0), (17, 1, 5, 30), (44, 2, 31, 0), (45, 0, 1, 2), (59, 2, 31, 31)):
        assert images[item, channel, row, column] == data[3073 * item + 1 + 1024 * channel + 32 * row + column]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("sub_folder", [".", "cifar-10-batches-bin"])
def test_every_place_and_packing_gives_the_same_data(tmp_path: Path, packed: bool, sub_folder: str) -> None:
    write(tmp_path / "plain")
    write(tmp_path / "other" / sub_folder, packed=packed)
    assert load(tmp_path / "other").sha256 == load(tmp_path / "plain").sha256


@pytest.mark.parametrize("mode", ["w:gz", "w"])
@pytest.mark.parametrize("prefix", ["cifar-10-batches-bin/", "./cifar-10-batches-bin/", ""])
def test_the_archive_is_read_where_it_is(tmp_path: Path, mode: str, prefix: str) -> None:
    write(tmp_path / "plain")
    archive = tmp_path / "archive"
    members = {prefix + name: data for name, data in reversed(contents().items())}
    write_archive(archive, {"readme.html": b"x" * 5000, **members}, mode=mode)
    before = sorted(tmp_path.rglob("*"))
    assert load(archive).sha256 == load(tmp_path / "plain").sha256
    assert sorted(tmp_path.rglob("*")) == before


def test_members_elsewhere_or_of_another_kind_do_not_count(tmp_path: Path) -> None:
    members = official(contents())
    members["../data_batch_3.bin"] = members.pop("cifar-10-batches-bin/data_batch_3.bin")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if name.endswith("data_batch_4.bin"):
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            archive.addfile(member, io.BytesIO(data) if member.isreg() else None)
    message = refusal(tmp_path / "a.tar")
    assert "expected data_batch_3.bin, data_batch_4.bin in" in message


def test_a_damaged_archive_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, official(contents()))
    whole = path.read_bytes()
    for length in [*range(0, 60), *range(60, len(whole), len(whole) // 50), len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert path.name in refusal(path)


def test_a_flipped_bit_in_a_packed_archive_is_found(tmp_path: Path) -> None:
    """Random pixels are stored as they are: only gzip's checksum, behind the last member, can tell."""
    path = tmp_path / "a.tar.gz"
    write_archive(path, official(contents()))
    damaged = bytearray(path.read_bytes())
    for position in (len(damaged) // 3, len(damaged) // 2, len(damaged) - 6):
        damaged[position] ^= 4
        path.write_bytes(damaged)
        assert "a.tar.gz" in refusal(path)
        damaged[position] ^= 4


@pytest.mark.parametrize(
    ("change", "came"), [(-1, "only 30729 bytes"), (1, "more"), (3073, "more"), (-30730, "only 0")]
)
def test_a_wrong_length_is_refused_in_folders_and_archives(tmp_path: Path, change: int, came: str) -> None:
    files = contents()
    files["data_batch_2.bin"] = (files["data_batch_2.bin"] + bytes(max(change, 0)))[: 30730 + change]
    write(tmp_path / "folder")
    (tmp_path / "folder" / "data_batch_2.bin").write_bytes(files["data_batch_2.bin"])
    write_archive(tmp_path / "a.tar.gz", official(files))
    for place in ("folder", "a.tar.gz"):
        message = refusal(tmp_path / place)
        assert "data_batch_2.bin" in message
        assert came in message


def test_labels_out_of_range_are_named_with_their_position(tmp_path: Path) -> None:
    write(tmp_path)
    data = bytearray(contents()["test_batch.bin"])
    data[3 * 3073] = 10
    (tmp_path / "test_batch.bin").write_bytes(data)
    assert "test_batch.bin has the label 10 at position 3" in refusal(tmp_path)


def test_missing_files_and_places(tmp_path: Path) -> None:
    write(tmp_path / "folder")
    (tmp_path / "folder" / "data_batch_1.bin").unlink()
    (tmp_path / "folder" / "test_batch.bin").unlink()
    assert "expected data_batch_1.bin, test_batch.bin (plain or .gz)" in refusal(tmp_path / "folder")
    assert "not there" in refusal(tmp_path / "absent")
    (tmp_path / "text").write_bytes(b"no archive at all" * 100)
    assert "no whole archive" in refusal(tmp_path / "text")


def test_the_pickled_version_is_never_opened(tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name.removesuffix(".bin")).write_bytes(b"\x80\x02}q\x01.")
    assert "data_batch_1.bin" in refusal(tmp_path)
