"""Named data sets from their public mirrors: fetched once, checked against published MD5 sums, kept in a cache.

pooch does the work: a file is moved to its place only once its sum is right, and a kept file is checked again whenever
it is used. The cache is the system's own (`~/.cache/twostage` on Linux; XDG_CACHE_HOME moves it). The sums are those
that the publishers or torchvision print; they find damage and mix-ups, which is what they are for.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from twostage.errors import DataError


@dataclass(frozen=True)
class Source:
    """Where the files of a data set lie and what they must be."""

    url: str
    """Folder of the files, with a slash at the end."""
    md5: dict[str, str]
    """MD5 sum of every file, by name."""


SOURCES = {
    "mnist": Source(
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        md5={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
    ),
    "fashion-mnist": Source(
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        md5={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
    ),
    "cifar10": Source(
        url="https://www.cs.toronto.edu/~kriz/",
        md5={"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    ),
}


def fetch(name: str) -> Path:
    """The folder with the files of a data set of `SOURCES`, downloaded where they are not there yet.

    Raises:
        DataError: a download failed, brought something else, or could not be kept.
    """
    import pooch

    source, folder = SOURCES[name], Path(pooch.os_cache("twostage")) / name
    store = pooch.create(
        folder, base_url=source.url, registry={file: f"md5:{sum_}" for file, sum_ in source.md5.items()}
    )
    for file in source.md5:
        url = source.url + file
        way_out = f"name a folder that holds the files of {name} with --data.path FOLDER"
        try:
            store.fetch(file, downloader=pooch.HTTPDownloader(progressbar=sys.stderr.isatty()))
        except OSError as error:  # those of requests among them
            response = getattr(error, "response", None)
            if response is not None:  # pooch leaves its connection open
                response.close()
            raise DataError(
                f"expected to download {url} into {folder}, but that failed ({_reason(error)}): try again, or {way_out}"
            ) from error
        except ValueError as error:
            raise DataError(
                f"expected {url} with the MD5 sum {source.md5[file]}, but what came has another and was thrown away: "
                f"try again, or {way_out}"
            ) from error
    return folder


def _reason(error: OSError) -> str:
    """A few words; the messages of failed connections are nested and long."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    return error.strerror or type(error).__name__
