"""Where tables are printed."""

from typing import Any

from rich.console import Console


class Output(Console):
    """Standard output, where every text is printed as it is: names may hold what rich takes for markup or emoji.

    A reader that has left is the command line's affair, where rich itself would end the process.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError
