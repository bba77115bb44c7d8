"""MP3 (ISO/IEC 11172-3): how many bytes belong to a file, from the header that LAME, ffmpeg and others write.

It is named Xing or Info and stands in the first frame, behind the side information. Without it an MP3 file is a row of
frames without a beginning or an end: half of one cannot be told from a short one, and two that were joined are one.
"""

from typing import BinaryIO

from twostage.data.audio.part import Unreadable

_STATES_FRAMES, _STATES_BYTES = 1, 2


def is_mpeg(start: bytes) -> bool:
    """Whether bytes begin with the head of a frame: 11 ones, and none of the values that mean nothing."""
    if len(start) < 4 or start[0] != 0xFF or start[1] & 0xE0 != 0xE0:
        return False
    version, layer = start[1] >> 3 & 3, start[1] >> 1 & 3
    return version != 1 and layer != 0 and start[2] >> 4 != 15 and start[2] >> 2 & 3 != 3


def end_of_mpeg(file: BinaryIO, start: int, end: int) -> int:
    """Where the MP3 file that begins at `start` ends.

    Raises:
        Unreadable: it has fewer bytes than it states.
    """
    file.seek(start)
    head = file.read(4 + 2 + 32 + 16)
    side = (17 if head[3] >> 6 == 3 else 32) if head[1] >> 3 & 3 == 3 else (9 if head[3] >> 6 == 3 else 17)
    place = 4 + side + (0 if head[1] & 1 else 2)  # two bytes of checksum where the lowest bit is 0
    tag = head[place : place + 16]
    flags = int.from_bytes(tag[4:8], "big")
    if tag[:4] not in (b"Xing", b"Info") or not flags & _STATES_BYTES:
        return end
    count = tag[12:16] if flags & _STATES_FRAMES else tag[8:12]
    stated = int.from_bytes(count, "big")
    if stated > end - start:
        raise Unreadable(f"is truncated ({end - start} of {stated} bytes)")
    return start + stated if stated else end
