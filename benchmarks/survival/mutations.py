"""Ways to change a file: damage to any bytes, and edits of its structure that leave it readable for its parser.

Everything is drawn from a generator that the caller seeds.
"""

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Edit = Callable[[bytes, Random], bytes]

_LONGEST = 64
"""Bytes of a block that is overwritten, removed, inserted or repeated."""
_TOKENS = (
    b"\0",
    b"\xff\xfe",
    b"\n",
    b"\r\n",
    b"[" * 60,
    b"{" * 60,
    b'"',
    b"9" * 40,
    b"../",
    b"1e999",
    b"NaN",
    b"\x1b[2J",
)
HOSTILE_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**64, 10**40, -(10**40), 1.5, 1e308, "", "\0", "\n", "../../x", "\u202eabc",
    "x" * 5000, "0" * 64, [], [[]], {}, {"a": {}}, [0, -1], [2**63, 2**63], "F64", "U8", "BOOL", "__metadata__",
)  # fmt: skip
_TOML_VALUES = (
    "-1", "0", "9" * 30, "9" * 5000, "nan", "-inf", "1e999", '""', '"x"', '"\\u0000"', '"../x"', "[]", "[[]]", "{}",
    "{a = 1}", "true", "1979-05-27", "07:32:00", "[" * 300 + "]" * 300, '"' + "x" * 6000 + '"',
)  # fmt: skip
_TOML_LINES = (
    "seed = 5", "[data]", "[[data]]", "[data.x]", "a" + ".a" * 300 + " = 1", "name = 'x'", "unknown = 1", '"a\\nb" = 1',
    "data = 5", "[stage1]\nchannels = 10", "]", "\x07", "'''", "x = '\u202e'",
)  # fmt: skip


def mutate(data: bytes, edits: Sequence[Edit], random: Random) -> tuple[str, bytes]:
    """One mutation that differs from `data`, and its name; every third one is an edit, where there are any."""
    while True:
        way = random.choice(edits) if edits and random.random() < 1 / 3 else random.choice(DAMAGES)
        mutated = way(data, random)
        if mutated != data:
            return way.__name__.strip("_"), mutated


def _flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def _block(data: bytes, random: Random) -> tuple[int, int]:
    start = random.randrange(len(data))
    return start, min(len(data), start + random.randint(1, _LONGEST))


def _overwrite(data: bytes, random: Random) -> bytes:
    start, end = _block(data, random)
    return data[:start] + random.randbytes(end - start) + data[end:]


def _remove(data: bytes, random: Random) -> bytes:
    start, end = _block(data, random)
    return data[:start] + data[end:]


def _repeat(data: bytes, random: Random) -> bytes:
    start, end = _block(data, random)
    place = random.randint(0, len(data))
    return data[:place] + data[start:end] + data[place:]


def _insert(data: bytes, random: Random) -> bytes:
    place = random.randint(0, len(data))
    inserted = random.choice((random.choice(_TOKENS), random.randbytes(random.randint(1, _LONGEST))))
    return data[:place] + inserted + data[place:]


def _truncate(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))]


def _grow(data: bytes, random: Random) -> bytes:
    return data + random.choice((b"\0", b"\n", b" ")) * random.choice((1, 7, 4096, 1 << 20))


DAMAGES: tuple[Edit, ...] = (_flip, _overwrite, _remove, _repeat, _insert, _truncate, _grow)


def edit_json(value: Any, random: Random) -> Any:
    """A copy with one value, somewhere, replaced by another one's or a hostile one, or renamed, doubled or removed."""
    value = json.loads(json.dumps(value))
    places: list[tuple[Any, Any]] = []

    def visit(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            visit(node[key])

    visit(value)
    if not places:
        return random.choice(HOSTILE_VALUES)
    node, key = random.choice(places)
    way = random.randrange(4)
    if way == 0:
        other, place = random.choice(places)
        node[key] = json.loads(json.dumps(other[place]))
    elif way == 1 and isinstance(node, dict):
        node[random.choice(("../x", "x.pt", "", "\n", key + "x", "x" * 5000))] = node.pop(key)
    elif way == 2 and isinstance(node[key], int):
        node[key] += random.choice((-1, 1, -8, 8, 2**32))
    else:
        node[key] = random.choice(HOSTILE_VALUES)
    return value


def edit_json_file(data: bytes, random: Random) -> bytes:
    """The same with a file of canonical JSON."""
    text = json.dumps(edit_json(json.loads(data), random), sort_keys=True, separators=(",", ":"))
    return text.encode() + b"\n"


def edit_safetensors(data: bytes, random: Random) -> bytes:
    """The same with the header of a safetensors file; or its length is another."""
    length = int.from_bytes(data[:8], "little")
    if random.random() < 0.1:
        stated = random.choice((0, 1, length - 1, length + 8, len(data), 2**31, 2**63, 2**64 - 1))
        return stated.to_bytes(8, "little") + data[8:]
    text = json.dumps(edit_json(json.loads(data[8 : 8 + length]), random), separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def edit_toml(data: bytes, random: Random) -> bytes:
    """A line is removed, doubled, moved or added, or a value is another."""
    lines = data.decode().split("\n")
    place = random.randrange(len(lines))
    way = random.randrange(5)
    if way == 0:
        del lines[place]
    elif way == 1:
        lines.insert(random.randrange(len(lines)), lines[place])
    elif way == 2:
        lines.insert(random.randrange(len(lines)), lines.pop(place))
    elif way == 3:
        lines.insert(place, random.choice(_TOML_LINES))
    else:
        settings = [number for number, line in enumerate(lines) if " = " in line]
        place = random.choice(settings)
        lines[place] = re.sub(r"= .*", lambda _: f"= {random.choice(_TOML_VALUES)}", lines[place])
    return "\n".join(lines).encode()
