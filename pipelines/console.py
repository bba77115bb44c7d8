"""Where tables are printed."""

from rich.console import Console


class Output(Console):
    """Standard output; a reader that has left is the command line's affair, where rich itself would end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
