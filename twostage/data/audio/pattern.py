"""Labels, speakers and numbers from names of files, by a pattern such as `{label}_{speaker}_{index}`.

A pattern describes a name below the data set's folder, with forward slashes and without its suffix. Fields are
`{label}`, `{speaker}` and `{index}` (digits); `*` is anything but a slash, `**` anything at all, the rest is literal.
A label or a speaker goes up to the first occurrence of the character that follows it, so that there is one way only to
read a name, and no long search for it. A field that stands twice must be the same twice. Pattern, name and what it
says are in composed form (`twostage.class_names`).

    {label}_{speaker}_{index}                                  7_theo_31.flac
    {label}/{speaker}_nohash_{index}                           right/a69b9b3e_nohash_0.wav
    wav48_silence_trimmed/{speaker}/{speaker}_{index}_mic1     wav48_silence_trimmed/p225/p225_001_mic1.flac
    {speaker}/{label}/**                                       anna/laughing/at home/2.ogg
"""

import re
from dataclasses import dataclass

from twostage.class_names import composed
from twostage.errors import UsageError

FIELDS = ("label", "speaker", "index")
_TOKEN = re.compile(r"\{(?P<field>[^{}]*)\}|(?P<any>\*+)|(?P<literal>[^{}*]+)|(?P<brace>[{}])")


@dataclass(frozen=True)
class Fields:
    """What a name says; None where the pattern has no such field."""

    label: str | None = None
    speaker: str | None = None
    index: int | None = None


@dataclass(frozen=True)
class NamePattern:
    """A pattern, ready for use."""

    text: str
    expression: re.Pattern[str]

    def match(self, name: str) -> Fields | None:
        """What the name (with its suffix) says; None where it does not fit or a field could not be printed."""
        found = self.expression.fullmatch(composed(name.rpartition(".")[0]))
        if found is None:
            return None
        groups = found.groupdict()
        if not all(value.isprintable() for value in groups.values()):
            return None
        index = groups.get("index")
        return Fields(groups.get("label"), groups.get("speaker"), None if index is None else int(index))


def name_pattern(text: str) -> NamePattern:
    """Compile a pattern.

    Raises:
        UsageError: an unknown field or a stray brace, no field at all, or nothing between a field and what follows.
    """
    tokens = list(_TOKEN.finditer(composed(text)))
    pieces: list[str] = []
    seen: set[str] = set()
    for place, token in enumerate(tokens):
        after = tokens[place + 1] if place + 1 < len(tokens) else None
        field, stars = token["field"], token["any"]
        if token["brace"] or (field is not None and field not in FIELDS):
            raise UsageError(
                f"expected {{label}}, {{speaker}} and {{index}} as fields of recordings.pattern, but {text!r} has "
                f"{token.group()!r}: correct it"
            )
        if token["literal"]:
            pieces.append(re.escape(token["literal"]))
        elif stars:
            pieces.append("[^/]*" if stars == "*" else ".*")
        elif field in seen:
            pieces.append(f"(?P={field})")
        elif field == "index":
            pieces.append("(?P<index>[0-9]{1,18})")
        else:
            if after is not None and not after["literal"]:
                raise UsageError(
                    f"expected text behind every label and speaker of recordings.pattern, to tell where they end, but "
                    f"in {text!r} {after.group()!r} follows {{{field}}}: put something between them"
                )
            end = "" if after is None else re.escape(after["literal"][0])
            pieces.append(f"(?P<{field}>[^/{end}]+)")
        if field is not None:
            seen.add(field)
    if not seen:
        raise UsageError(
            f"expected {{label}}, {{speaker}} or {{index}} in recordings.pattern, but {text!r} has none: add one"
        )
    return NamePattern(text=text, expression=re.compile("".join(pieces), re.DOTALL))
