"""How long a training still takes: its steps, validations and saves, each at what it has taken lately."""

from dataclasses import dataclass

from tqdm import tqdm

from twostage.config.schema import TrainingConfig

_RECENT = 30


@dataclass
class _Cost:
    """Seconds of one kind of work: the mean of the first `_RECENT`, then a moving one that forgets a slow start."""

    seconds: float = 0.0
    times: int = 0

    def spent(self, seconds: float) -> None:
        self.times += 1
        self.seconds += (seconds - self.seconds) / min(self.times, _RECENT)


class TimeLeft:
    """Of a training with a budget; told what its parts take, it says what the rest of all of them will.

    A validation takes as long as many steps and comes once in hundreds: a rate of steps alone, however smoothed,
    forgets it before the next.
    """

    def __init__(self, budget: TrainingConfig) -> None:
        self.steps = budget.steps
        self._every = {"step": 1, "validation": budget.validate_every, "save": budget.checkpoint_every}
        self._costs = {what: _Cost() for what in self._every}

    def spent(self, what: str, seconds: float) -> None:
        """A `step`, a `validation` or a `save` took that long."""
        self._costs[what].spent(seconds)

    def seconds(self, step: int) -> float:
        """Seconds from after `step` to the end; what was never measured yet counts nothing."""
        return sum(self._to_come(what, step) * cost.seconds for what, cost in self._costs.items())

    def shown(self, step: int) -> str:
        """The same to read; `>` before it while no validation of those to come was measured, `?` before any step."""
        if not self._costs["step"].times:
            return "?"
        unknown = self._to_come("validation", step) and not self._costs["validation"].times
        return f"{'>' if unknown else ''}{tqdm.format_interval(self.seconds(step))}"

    def _to_come(self, what: str, step: int) -> int:
        """How often that is done after `step`: at multiples of its interval, and at the last step."""
        every = self._every[what]
        return 0 if step >= self.steps else -(-self.steps // every) - step // every
