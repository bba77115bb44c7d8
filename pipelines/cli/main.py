"""Command line: `twostage VERB ...`, also `python -m twostage_pipelines VERB ...`.

The list of verbs is plain text here, so that `twostage --help` imports nothing; a verb imports its flags (tyro on the
dataclasses of `commands`) and, only once they are parsed, the module that runs it. A RECIPE or RUN comes first because
its values are the defaults that the flags show and change.

Exit codes: 0 done, 1 the run failed, 2 wrong use, 129 after SIGHUP, 130 after Ctrl-C (SIGINT), 141 when the reader of
the output has left (SIGPIPE, as every tool before `| head`), 143 after SIGTERM. What a user can cause is one sentence
on stderr; anything else is a defect and keeps its traceback.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import fields
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast, get_type_hints

from twostage.errors import TwoStageError, UsageError
from twostage.printable import printable
from twostage.training.interrupts import StopAtOnce, Stopped

from .encodings import any_encoding
from .help_text import HELP, is_help, running_text, show_help
from .processes import check_shared, one_voice, run_command
from .verbs import VERBS, _top_help, _verb

if TYPE_CHECKING:
    from ..commands import Command


T = TypeVar("T")
_OUTPUT = "the output of the command"
_OURS = ("twostage", "stage1_vqvae", "stage2_prior", "twostage_pipelines", "pipelines")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; `argv` without the program name, `sys.argv` unless given."""
    with StopAtOnce(keep=argv is None):
        if sys.stdout is None:  # closed by the caller
            return _run(argv)
        with any_encoding(sys.stdout, sys.stderr), redirect_stdout(cast(TextIO, _Output(sys.stdout))):
            return _run(argv)


def _run(argv: Sequence[str] | None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    command: Command | None = None
    try:
        if not arguments or arguments[0] in (*HELP, "help"):
            print(_top_help(), file=sys.stdout if arguments else sys.stderr)
            return 0 if arguments else 2
        if arguments[0] == "--version":
            print(f"twostage {import_module('twostage').__version__}")
            return 0
        with one_voice():
            verb = _verb(arguments[0])
            check_shared(arguments[0])
            command = parse(arguments[0], arguments[1:])
            module = _module(arguments[0], command)
        run_command(getattr(import_module(module, __package__), verb.function), command)
        if sys.stdout is not None:  # closed by the caller
            sys.stdout.flush()
        return 0
    except TwoStageError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt as interrupt:
        # Outside a training's steps nothing is half done: what is finished lies in the run, and the rest is made anew.
        again = "to continue" if hasattr(command, "resume") else "to do it all"
        code = 128 + interrupt.number if isinstance(interrupt, Stopped) else 130
        return _fail(f"Interrupted; nothing was left half-written. Run the same command again {again}.", code)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in _OURS:
            raise
        return _fail(f"The package {error.name} is not installed; `twostage doctor` lists what is missing.", 1)
    except BrokenPipeError:
        _drop_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename == _OUTPUT:
            _drop_output()
        return _fail(_explain(error, command), 1)
    except Exception as error:
        out_of_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
        # torch's CPU allocator raises a plain RuntimeError.
        if out_of_memory or "can't allocate memory" in str(error):
            return _fail(f"Out of memory ({_first_line(error)}): a smaller batch size or model needs less.", 1)
        raise


def parse(name: str, arguments: Sequence[str]) -> "Command":
    """The command of verb `name` with checked values; prints help or a usage error and exits where tyro does."""
    import tyro

    from .. import commands
    from ..runs.places import with_homes
    from .given import with_given
    from .other_likelihood import without_mean_weight
    from .other_quantiser import fitted
    from .shortening import shortened

    cls = getattr(commands, VERBS[name].command)
    _refuse_empty(cls, arguments)
    if is_help(arguments):
        show_help(name, cls, arguments)
    default = cls(**_defaults(name, cls, arguments))
    with running_text():
        given: Command = tyro.cli(cls, args=list(arguments), default=default, prog=f"twostage {name}")
    command = fitted(shortened(with_homes(given), arguments), arguments)
    return with_given(without_mean_weight(command, arguments), arguments).resolved()


def _refuse_empty(cls: type["Command"], arguments: Sequence[str]) -> None:
    """Raise UsageError for an empty path: pathlib would take it for the current folder."""
    from ..runs.places import is_path

    hints = get_type_hints(cls)
    flags = {f"--{name.replace('_', '-')}" for name, hint in hints.items() if is_path(hint)}
    for before, argument in pairwise(["", *arguments]):
        flag, given, value = argument.partition("=")
        where = before if not argument else flag if given and not value else None
        if where is None or (where.startswith("-") and where.replace("_", "-") not in flags):
            continue
        what = f"expected a path after {where}" if where.startswith("-") else "expected a name or a path"
        raise UsageError(f"{what}, but an empty text came, which a variable that is not set gives: name it.")


def _defaults(name: str, cls: type["Command"], arguments: Sequence[str]) -> dict[str, Any]:
    """Values that the flags of verb `name` start from, read from the RECIPE or RUN that comes first."""
    from .starting import first_recipe, has_recipe, starting_values

    recipe = first_recipe(cls, arguments) if has_recipe(cls) else None
    if has_recipe(cls) and recipe is None:
        what = "RECIPE" if any(item.name == "source" for item in fields(cls)) else "RUN"
        raise UsageError(f"{what} comes first: twostage {name} {what} [options]; see `twostage {name} --help`.")
    return starting_values(cls, recipe)


def _module(name: str, command: "Command") -> str:
    """The module that runs the command on a run of its kind; refuses flags and places that do not fit it."""
    from twostage.config.kinds import KINDS, kind_of
    from twostage.config.load import load_run_recipe

    from ..runs.places import check_places

    check_places(name, command)
    verb = VERBS[name]
    limited = [item for item in fields(command) if any(item.name in each.flags for each in KINDS.values())]
    if not limited:
        return verb.module
    assert hasattr(command, "run")  # of verbs that ask what a run is about
    recipe = command.recipe if hasattr(command, "recipe") else load_run_recipe(command.run)
    kind = kind_of(recipe)
    for item in limited:
        kinds = [name for name, each in KINDS.items() if item.name in each.flags]
        if kind not in kinds and getattr(command, item.name) != item.default:
            flag = f"--{item.name.replace('_', '-')}"
            raise UsageError(f"{flag} is for runs on {' or '.join(kinds)}, but this one is about {kind}.")
    return verb.module


class _Output:
    """Standard output whose errors name it: those of a write know no path, and a run folder is not to blame."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        return self._named(lambda: self.stream.write(text))

    def flush(self) -> None:
        self._named(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _named(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except OSError as error:
            raise OSError(error.errno, error.strerror, _OUTPUT) from error  # of a pipe: BrokenPipeError


def _drop_output() -> None:
    """What is still to be printed goes nowhere, or Python would try once more at its exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: OSError, command: "Command | None") -> str:
    """One sentence: the path, the system's reason, and what helps. A failed write knows no path, the command does."""
    path = error.filename or getattr(command, "run", None) or getattr(command, "out", None)
    advice = {
        errno.ENOSPC: "free some space or choose another place",
        errno.EDQUOT: "free some of your quota or choose another place",
        errno.EROFS: "choose another place",
        errno.EACCES: "change its permissions or choose another place",
        errno.ENOENT: "check the path",
    }.get(error.errno or 0)
    reason = error.strerror or _first_line(error)
    return (f"{path}: {reason}" if path else reason) + (f"; {advice}." if advice else ".")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _fail(message: str, code: int) -> int:
    if message:  # none where another process has said it
        with suppress(OSError):  # the exit code still says it
            print(f"twostage: {printable(message)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
