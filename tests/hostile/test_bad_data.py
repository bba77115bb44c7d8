"""Images and recordings that are broken or built to hurt: each has its sentence, the same wherever it is read.

Every kind is read by the decoder that trains, by the one that only looks (`check-data`), and in a folder.
"""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile
from PIL import Image

from twostage.data.audio import decode as audio_decode
from twostage.data.audio.decode import decode_recording
from twostage.data.audio.part import Unreadable as UnreadableAudio
from twostage.data.images import decode as image_decode
from twostage.data.images.decode import Unreadable as UnreadableImage
from twostage.data.images.decode import decode_image, inspect_image

NOISE = np.random.default_rng(0).integers(-9000, 9000, 6000).astype(np.int16)
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8)


def picture(path: Path, kind: str = "PNG") -> bytes:
    Image.fromarray(PIXELS).save(path, format=kind)
    return path.read_bytes()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, data: bytes = b"") -> bytes:
    """A PNG of a size that its header states, with pixels that are packed `data`."""
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def text_bomb(path: Path) -> bytes:
    """A comment of 64 MiB in 64 KiB."""
    return png(8, 8, chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(64 << 20), 9)), data=bytes(72))


def tile_bomb(_: Path) -> bytes:
    """A TIFF of 8 x 8 pixels in one tile of 4 billion."""
    tags = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 322: 1 << 16, 323: 1 << 16, 324: 8, 325: 64}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


IMAGES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "nothing": (lambda _: b"", "is empty"),
    "zero bytes": (lambda _: bytes(4096), "is no PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF image"),
    "text": (lambda _: b"<html>404 Not Found</html>", "is no PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF image"),
    "pickle": (lambda _: b"\x80\x04\x95\x0f\x00\x00\x00.", "is no PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF image"),
    "JPEG 2000 named .png": (lambda path: picture(path, "JPEG2000"), "is of the format JPEG 2000, which is not read"),
    "HEIC named .png": (lambda _: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(900), "is of the format HEIC"),
    "half a PNG": (lambda path: picture(path)[:600], "is damaged"),
    "half a JPEG": (lambda path: picture(path, "JPEG")[:500], "is damaged"),
    "half a WebP": (lambda path: picture(path, "WEBP")[:200], "is damaged"),
    "PNG, header only": (lambda path: picture(path)[:33], "is no PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF image"),
    "PNG with a flipped bit": (lambda path: flipped(picture(path), 300), "is damaged"),
    "bomb of 2^31 x 2^31 pixels": (lambda _: png(2**31 - 1, 2**31 - 1), "has more than 64,000,000 pixels"),
    "bomb of 8001 x 8000 pixels": (lambda _: png(8001, 8000), "has 8001x8000 pixels, more than 64,000,000"),
    "bomb in a tile": (lambda path: tile_bomb(path), "has tiles of 65536x65536 pixels, more than 64,000,000"),
    "no pixels": (lambda _: png(0, 8), "is no PNG, JPEG, WebP, TIFF, GIF, BMP or AVIF image"),
    "16 bits": (lambda _: png(4, 4, depth=16, data=bytes(36)), "has 16 bits per channel"),
    "animated": (lambda path: animation(path), "is animated (2 frames)"),
}


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


def animation(path: Path) -> bytes:
    frames = [Image.new("RGB", (4, 4), (shade, 0, 0)) for shade in (0, 99)]
    frames[0].save(path, format="PNG", save_all=True, append_images=frames[1:])
    return path.read_bytes()


@pytest.mark.parametrize("kind", IMAGES)
def test_bad_images(tmp_path: Path, kind: str) -> None:
    make, said = IMAGES[kind]
    path = tmp_path / "x.png"
    path.write_bytes(make(path))
    messages = set()
    for channels in (1, 3):
        with pytest.raises(UnreadableImage) as raised:
            decode_image(path, np.zeros((channels, 8, 8), np.uint8), fit="resize")
        messages.add(str(raised.value))
    with pytest.raises(UnreadableImage) as raised, image_decode.quiet_pillow():
        inspect_image(path)
    messages.add(str(raised.value))
    assert len(messages) == 1
    assert messages.pop().startswith(said)


def wave(path: Path, samples: object = NOISE, *, rate: int = 8000, **settings: str) -> bytes:
    soundfile.write(path, samples, rate, **{"format": "WAV", **settings})
    return path.read_bytes()


def patched(data: bytes, place: int, *values: int) -> bytes:
    """32-bit numbers of a WAV header are others."""
    new = struct.pack(f"<{len(values)}I", *values)
    return data[:place] + new + data[place + len(new) :]


def floats(value: float) -> Callable[[Path], bytes]:
    samples = NOISE / 32768
    samples[1000:1003] = value
    return lambda path: wave(path, samples, subtype="FLOAT")


def flac_of_hours(path: Path) -> bytes:
    """STREAMINFO's 36-bit number of samples at its largest."""
    data = bytearray(wave(path, format="FLAC"))
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    return bytes(data)


def wave_of_channels(path: Path) -> bytes:
    """65535 channels, of which 12000 bytes hold no sample."""
    data = bytearray(wave(path))
    data[22:24] = struct.pack("<H", 65535)
    data[32:34] = struct.pack("<H", 65534)
    return bytes(data)


SOUNDS: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "nothing": (lambda _: b"", "is empty"),
    "zero bytes": (lambda _: bytes(4096), "is no WAV, FLAC, OGG, MP3"),
    "MP3 named .wav": (lambda _: b"ID3\x04" + bytes(2000), "is no WAV, FLAC, OGG, MP3"),
    "half a WAV": (lambda path: wave(path)[:5000], "is truncated (4956 of 12000 bytes of samples)"),
    "half a FLAC": (lambda path: wave(path, format="FLAC")[:5000], "is damaged"),
    "half an OGG": (lambda path: wave(path, format="OGG")[:3000], "is truncated (it ends within a page)"),
    "OGG with a flipped bit": (lambda path: flipped(wave(path, format="OGG"), 3500), "is damaged (a page of OGG has"),
    "WAV, header only": (lambda path: wave(path)[:44], "is truncated (0 of 12000 bytes of samples)"),
    "no data chunk": (lambda path: wave(path)[:36] + b"junk" + bytes(400), "is truncated or damaged"),
    "chunks in a circle": (lambda path: wave(path)[:12] + b"LIST\0\0\0\0" * 5000, "is truncated or damaged"),
    "NaN": (floats(np.nan), "has 3 samples that are NaN or infinite"),
    "infinite": (floats(-np.inf), "has 3 samples that are NaN or infinite"),
    "integers stored as floats": (
        lambda path: wave(path, NOISE.astype(np.float64), subtype="FLOAT"),
        "is far too loud (5998 of 6000 samples beyond full scale, up to 9e+03 times: clipping would",
    ),
    "opposite phase": (
        lambda path: wave(path, np.stack([NOISE, -NOISE], 1)),
        "is silent once its 2 channels are averaged: they are of opposite phase and cancel",
    ),
    "silence": (lambda path: wave(path, np.full(500, 7, np.int16)), "is silent (every sample is 7)"),
    "less than a step of 16 bits": (lambda path: wave(path, NOISE / 2**40, subtype="FLOAT"), "is silent"),
    "no samples": (lambda path: wave(path, NOISE[:0]), "has no samples"),
    "a rate of 4 GHz": (lambda path: patched(wave(path), 24, 4_000_000_000), "is damaged (Internal error"),
    "a rate of 400 kHz": (lambda path: patched(wave(path), 24, 400_000), "has a rate of 400000 Hz"),
    "a rate of 1 Hz": (lambda path: patched(wave(path), 24, 1), "has a rate of 1 Hz"),
    "2^32 - 1 bytes stated": (lambda path: patched(wave(path), 40, 2**32 - 2), "is truncated (12000 of 4294967294"),
    "days in a FLAC header": (flac_of_hours, "states more than 1800 seconds"),
    "65535 channels": (wave_of_channels, "is damaged (Too many channels"),
}


@pytest.mark.parametrize("kind", SOUNDS)
def test_bad_recordings(tmp_path: Path, kind: str) -> None:
    make, said = SOUNDS[kind]
    path = tmp_path / "x.wav"
    path.write_bytes(make(path))
    with pytest.raises(UnreadableAudio) as decoded:
        decode_recording(path, sample_rate_hz=11_025)
    with pytest.raises(UnreadableAudio) as inspected:
        decode_recording(path)
    assert str(decoded.value) == str(inspected.value)
    assert str(decoded.value).startswith(said)


@pytest.mark.parametrize("place", ["folder", "pipe", "device", "absent", "no permission"])
def test_what_is_no_file_to_read(tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.wav"
    if place == "folder":
        path.mkdir()
    elif place == "pipe":
        os.mkfifo(path)
    elif place == "device":
        path = Path("/dev/zero")
    elif place == "no permission":
        path.write_bytes(b"x")

        def refuse(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refuse)  # the superuser may read anything
    said = {
        "folder": "Is a directory",
        "pipe": "it is no regular file",
        "device": "it is no regular file",
        "absent": "No such file or directory",
        "no permission": "Permission denied",
    }[place]
    with pytest.raises(UnreadableImage) as image:
        decode_image(path, np.zeros((3, 8, 8), np.uint8), fit="resize")
    with pytest.raises(UnreadableAudio) as sound:
        decode_recording(path, sample_rate_hz=8000)
    assert str(image.value) == str(sound.value) == f"could not be read ({said})"


def test_a_recording_is_read_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted over blocks is what one read counts, wherever the blocks end."""
    path = tmp_path / "x.wav"
    for block in (1, 7, 4096):
        monkeypatch.setattr(audio_decode, "_BLOCK_NUMBERS", block)
        wave(path, np.stack([NOISE, NOISE[::-1]], 1)[:50])
        found = decode_recording(path)
        assert (found.source.channels, found.source.sample_rate_hz, found.source.kind) == (2, 8000, "WAV PCM_16")
        mean_S = np.stack([NOISE, NOISE[::-1]], 1)[:50].mean(axis=1)
        np.testing.assert_array_equal(found.samples, np.rint(mean_S))
        floats(np.nan)(path)
        with pytest.raises(UnreadableAudio, match="has 3 samples that are NaN"):
            decode_recording(path)
        wave(path, np.stack([NOISE, -NOISE], 1)[:50])  # silent once the channels are averaged
        with pytest.raises(UnreadableAudio, match="is silent"):
            decode_recording(path)


def test_fewer_samples_than_the_header_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where libsndfile reads to the end and says nothing."""
    path = tmp_path / "x.wav"
    wave(path)
    monkeypatch.setattr(soundfile.SoundFile, "frames", property(lambda _: 7000))
    for read in readers(path, sound=True):
        with pytest.raises(UnreadableAudio, match=r"is truncated or damaged \(6000 of 7000 samples\)"):
            read()


AUDIO_KINDS = ("WAV", "FLAC", "OGG", "AIFF", "CAF")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", *AUDIO_KINDS])
def test_flipped_bits_are_judged_alike(tmp_path: Path, kind: str) -> None:
    """What is damaged beyond reading for `check-data` is so for the training, and the other way round."""
    path, random = tmp_path / "x", Random(kind)
    whole = wave(path, format=kind) if kind in AUDIO_KINDS else picture(path, kind)
    refused = 0
    for _ in range(20):
        place = random.randrange(min(len(whole), random.choice((64, len(whole)))))
        path.write_bytes(flipped(whole, place))
        faults = []
        for read in readers(path, sound=kind in AUDIO_KINDS):
            try:
                read()
                faults.append("")
            except (UnreadableImage, UnreadableAudio) as error:
                faults.append(str(error))
        assert faults[0] == faults[1]
        refused += bool(faults[0])
    assert refused > 0


def readers(path: Path, *, sound: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    if sound:
        return lambda: decode_recording(path, sample_rate_hz=11_127), lambda: decode_recording(path)
    return lambda: decode_image(path, np.zeros((3, 32, 32), np.uint8), fit="resize"), lambda: inspect_image(path)
