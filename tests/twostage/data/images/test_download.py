"""Downloads from a server on this machine: kept, checked, and one sentence when they fail."""

import gzip
import hashlib
import io
import re
import struct
import tarfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from twostage.config.schema import DataConfig
from twostage.data import load_dataset
from twostage.data.images import cifar, download, idx
from twostage.errors import DataError

REQUESTS: list[str] = []


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        REQUESTS.append(self.path)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is served, with a cache of its own; mirrors are set by `publish`."""
    folder = tmp_path / "site"
    folder.mkdir()
    REQUESTS.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(download, "SOURCES", {})
    folder.joinpath("port").write_text(str(server.server_port))
    yield folder
    server.shutdown()
    thread.join()
    server.server_close()


def publish(site: Path, name: str, files: dict[str, bytes]) -> None:
    for file, data in files.items():
        (site / file).write_bytes(data)
    sums = {file: hashlib.md5(data, usedforsecurity=False).hexdigest() for file, data in files.items()}
    port = (site / "port").read_text()
    download.SOURCES[name] = download.Source(url=f"http://127.0.0.1:{port}/", md5=sums)


def idx_files() -> dict[str, bytes]:
    files = {}
    for prefix, items in (("train", 24), ("t10k", 5)):
        images = np.random.default_rng(items).integers(0, 256, (items, 4, 4), dtype=np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", np.arange(items, dtype=np.uint8) % 10)):
            data = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
            files[f"{prefix}-{name}-ubyte.gz"] = gzip.compress(data, mtime=0)
    return files


def refusal(name: str) -> str:
    with pytest.raises(DataError) as raised:
        load_dataset(DataConfig(name=name))  # type: ignore[arg-type]
    assert "\n" not in str(raised.value)
    assert "--data.path FOLDER" in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_files_are_fetched_once_and_kept(site: Path, name: str) -> None:
    publish(site, name, idx_files())
    first = load_dataset(DataConfig(name=name))  # type: ignore[arg-type]
    assert len(REQUESTS) == 4
    for file in site.glob("*.gz"):
        file.unlink()
    second = load_dataset(DataConfig(name=name))  # type: ignore[arg-type]
    assert len(REQUESTS) == 4
    assert first.sha256 == second.sha256
    assert first.name == name
    assert first.classes[9] == {"mnist": "9", "fashion-mnist": "Ankle boot"}[name]
    assert [len(split) for split in (first.train, first.validation, first.test)] == [22, 2, 5]


def test_the_two_sets_of_one_format_are_kept_apart(site: Path) -> None:
    publish(site, "mnist", idx_files())
    mnist = load_dataset(DataConfig(name="mnist"))
    other = {name: gzip.compress(gzip.decompress(data), 1, mtime=9) for name, data in idx_files().items()}
    publish(site, "fashion-mnist", other)
    load_dataset(DataConfig(name="fashion-mnist"))
    asked = len(REQUESTS)
    assert load_dataset(DataConfig(name="mnist")).sha256 == mnist.sha256
    assert len(REQUESTS) == asked == 8


def test_a_wrong_checksum_is_refused_and_not_kept(site: Path, tmp_path: Path) -> None:
    files = idx_files()
    publish(site, "mnist", files)
    changed = "t10k-images-idx3-ubyte.gz"
    (site / changed).write_bytes(files[changed] + b"\0")
    message = refusal("mnist")
    assert download.SOURCES["mnist"].md5[changed] in message
    assert changed in message
    kept = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sorted(kept) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]


def test_a_kept_file_that_was_damaged_is_fetched_again(site: Path, tmp_path: Path) -> None:
    publish(site, "mnist", idx_files())
    first = load_dataset(DataConfig(name="mnist"))
    kept = next((tmp_path / "cache").rglob("t10k-images*"))
    kept.write_bytes(kept.read_bytes()[:-1])
    assert load_dataset(DataConfig(name="mnist")).sha256 == first.sha256
    assert len(REQUESTS) == 5


def test_a_missing_file_and_a_missing_server(site: Path) -> None:
    publish(site, "mnist", idx_files())
    (site / "train-labels-idx1-ubyte.gz").unlink()
    message = refusal("mnist")
    assert "train-labels-idx1-ubyte.gz" in message
    assert "HTTP status 404" in message
    download.SOURCES["cifar10"] = download.Source(url="http://127.0.0.1:9/", md5={"cifar-10-binary.tar.gz": "0" * 32})
    assert "ConnectionError" in refusal("cifar10")


def test_a_cache_that_cannot_be_made(site: Path, tmp_path: Path) -> None:
    publish(site, "mnist", idx_files())
    (tmp_path / "cache").write_bytes(b"")
    assert "into" in refusal("mnist")


def test_the_archive_of_cifar10_is_fetched_and_read(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "RECORDS_PER_FILE", 2)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = 2 * 3073
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    publish(site, "cifar10", {"cifar-10-binary.tar.gz": buffer.getvalue()})
    assert len(load_dataset(DataConfig(name="cifar10")).train) == 9


def test_the_real_mirrors_offer_what_the_readers_look_for() -> None:
    for name in ("mnist", "fashion-mnist"):
        assert list(download.SOURCES[name].md5) == [f"{file}.gz" for file in idx._FILES]
    assert list(download.SOURCES["cifar10"].md5) == [cifar.ARCHIVE]
    sums = [md5 for source in download.SOURCES.values() for md5 in source.md5.values()]
    assert len(set(sums)) == 9
    assert all(re.fullmatch("[0-9a-f]{32}", md5) for md5 in sums)
    assert all(re.fullmatch("https?://.+/", source.url) for source in download.SOURCES.values())
