"""The compressed data of an image file are told from what stands around them."""

import io
import struct

import image_codecs
import numpy as np
import pytest
from PIL import Image

PIXELS = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def _file(kind: str, **settings: object) -> bytes:
    buffer = io.BytesIO()
    PIXELS.save(buffer, format=kind, **settings)
    return buffer.getvalue()


def test_a_png_is_its_data_in_a_signature_and_three_chunks() -> None:
    file = _file("PNG")
    assert image_codecs.data_bytes(file) == len(file) - 8 - (12 + 13) - 12 - 12
    text = b"tEXt" + b"Comment\0" + b"x" * 500
    tagged = file[:33] + struct.pack(">I", len(text) - 4) + text + b"\0\0\0\0" + file[33:]
    assert image_codecs.data_bytes(tagged) == image_codecs.data_bytes(file)


def test_a_webp_is_its_data_in_one_chunk_and_a_bare_stream_all_of_itself() -> None:
    file = _file("WEBP", lossless=True)
    data = image_codecs.data_bytes(file)
    assert data == int.from_bytes(file[16:20], "little")
    assert len(file) == 20 + data + data % 2
    assert image_codecs.data_bytes(b"\xff\x0a" + bytes(98)) == 100


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(RuntimeError, match="expected a PNG, a WebP or a bare JPEG XL stream"):
        image_codecs.data_bytes(_file("GIF"))
