"""Errors a user can cause, each carried to the command line as one sentence and an exit code.

The sentence says what was expected, what came, and what to do. Anything else that escapes is a defect of ours and keeps
its traceback.
"""


class TwoStageError(Exception):
    """Base of every error that the command line prints without a traceback."""

    exit_code = 1


class UsageError(TwoStageError):
    """The command, the recipe or an argument is wrong; nothing was started."""

    exit_code = 2


class DataError(TwoStageError):
    """A data set is missing, damaged or not what the recipe describes."""


class RunError(TwoStageError):
    """A run folder, a checkpoint or a training is not in the state that was asked for."""


class SaidElsewhere(TwoStageError):
    """Another process of the job failed first and has said why: this one ends without a word."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code
