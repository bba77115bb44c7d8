"""`twostage check-data`: every image, recording or array of a folder, read once, with all that is wrong
in one list.

Two walks through the folder: the first counts names, the second decodes (`survey`). Names are printed as Python
literals: no line break, escape sequence or change of writing direction out of one reaches the terminal.
"""

from collections import Counter

from twostage.data.arrays.places import is_arrays
from twostage.data.audio.listing import Foreign
from twostage.data.audio.pattern import name_pattern
from twostage.data.passed_over import PassedOver
from twostage.data.survey import SUFFIXES_OF, Kind, Survey, survey_folder
from twostage.data.walk import walk
from twostage.errors import DataError
from twostage.printable import counted, printable

from ..commands.tools import CheckData
from .check_arrays import check_arrays


def run_check_data(command: CheckData) -> None:
    """Print what the folder holds and every unusable file in it.

    Raises:
        DataError: the folder is not there, has none of the files looked for, or something in it is not well.
    """
    root, shown = command.path, printable(str(command.path))
    sound = command.pattern is not None or bool(command.ignore)
    if command.kind == "arrays" or (command.kind == "auto" and not sound and is_arrays(root)):
        check_arrays(root)
        return
    if not root.is_dir():
        what = "a file" if root.exists() else "not there"
        raise DataError(f"expected a folder with images or recordings, but {shown} is {what}: correct the path")
    kind, total = _choose_kind(command, shown)
    survey = survey_folder(
        root,
        kind,
        total=total,
        pattern=None if command.pattern is None else name_pattern(command.pattern),
        ignore=command.ignore,
        bits=command.bits,
        show=(lambda line: print(f"  {line}")) if command.all else None,
    )
    problems = survey.problems()
    _print(shown, survey, problems)
    faults = survey.unusable
    if not faults and not problems:
        return
    wrong = [f"{faults} of {counted(survey.readable + faults, 'files')} cannot be used"] if faults else []
    one, few = faults == 1 and not problems, survey.too_few and not faults and len(problems) == 1
    them = "it" if one else "them"
    advice = "add some" if few else f"repair or remove {them}"
    if faults and not problems:
        advice += f", or leave {them} out with data.skip_unreadable {faults}"
    raise DataError(f"expected {kind} to train on in {shown}, but {' and '.join(wrong + problems)}; {advice}")


def _choose_kind(command: CheckData, shown: str) -> tuple[Kind, int]:
    """The kind to look for and how many files of it there are.

    Raises:
        DataError: there are none.
    """
    counts: Counter[str] = Counter()
    foreign = Foreign(command.ignore)
    others = PassedOver()
    for found in walk(command.path, tuple(suffix for each in SUFFIXES_OF.values() for suffix in each)):
        if found.kind in ("file", "unusable"):
            name = found.name.lower()
            counts.update(kind for kind, suffixes in SUFFIXES_OF.items() if name.endswith(suffixes))
        elif found.kind == "other":
            foreign.add(found.name)
            others.add(found.name)
    sound = command.pattern is not None or bool(command.ignore) or counts["recordings"] > counts["images"]
    kind: Kind = "recordings" if sound else "images"
    if command.kind in SUFFIXES_OF:
        kind = command.kind
    if not counts[kind]:
        suffixes = ", ".join(s for each in SUFFIXES_OF if command.kind in ("auto", each) for s in SUFFIXES_OF[each])
        beside = f" (besides {foreign})" if foreign.counts else f" (but {others})" if len(others) else ""
        raise DataError(
            f"expected {'images or recordings' if command.kind == 'auto' else kind} in {shown}, but no name in it ends "
            f"in {suffixes}{beside}: correct the path{others.advice}"
        )
    other: Kind = "images" if kind == "recordings" else "recordings"
    if command.kind == "auto" and counts[other]:
        print(f"{counts[other]} {other} beside them are not looked at: give --kind {other} for those")
    return kind, counts[kind]


def _print(shown: str, survey: Survey, problems: list[str]) -> None:
    print(f"{shown}: {counted(survey.readable, survey.kind)} can be used, {survey.unusable} cannot")
    lines = survey.fault_lines()
    for line in lines:
        print(f"  {line}")
    if lines and survey.unusable > len(lines):
        print(f"  and {survey.unusable - len(lines)} more: --all names every one")
    for problem in problems:
        print(f"  {problem}")
    if len(survey.classes.counts) > 1:
        print(f"classes: {survey.classes}")
    for key, tally in survey.properties.items():
        print(f"{key}: {tally}")
    for line in survey.remarks.lines(survey.readable):
        print(line)
    if survey.foreign.counts:
        print(f"passed over: {survey.foreign}")
    if len(survey.passed_over):
        print(f"passed over, not being images that are read: {survey.passed_over}{survey.passed_over.advice}")
    if survey.links:
        print(f"symbolic links, which are not followed: {survey.links}, {survey.links_out} of them out of the folder")
