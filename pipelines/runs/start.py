"""The finished model that another one of the same run goes on from: both of its parts, and what they cost.

A training's record keeps the digests of both parts, so that it goes on with these alone.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from twostage.config.model_names import model_spec
from twostage.errors import UsageError

from .jobs import Job, record_of
from .loading import Loaded
from .run import Run, TrainingCost, training_cost


@dataclass(frozen=True, kw_only=True)
class Start:
    """A codebook and the prior over its codes."""

    model: str
    stage1: Loaded[Any]
    prior: Loaded[Any]
    cost: TrainingCost
    """Of both together."""

    def part(self, stage: str) -> Loaded[Any]:
        """What the stage of that name goes on from."""
        return self.prior if stage == "prior" else self.stage1

    @property
    def record(self) -> dict[str, Any]:
        """What the record of a training that goes on from it says of it."""
        digests = {"stage1_sha256": self.stage1.sha256, "prior_sha256": self.prior.sha256}
        return {"model": self.model, **digests, **asdict(self.cost)}


def start_of(run: Run, model: str, device: torch.device) -> Start | None:
    """What a model goes on from; None of one that starts from nothing.

    Raises:
        RunError: that model or its prior is missing, unfinished or damaged, or they do not belong together.
    """
    name = model_spec(model, run.recipe).starts_from
    if name is None:
        return None
    stage1 = run.codebook(name, device)
    prior = run.prior(name, stage1, device)
    first, second = training_cost(run.stage1_folder(name)), training_cost(run.prior_folder(name))
    cost = TrainingCost(steps=first.steps + second.steps, seconds=first.seconds + second.seconds)
    return Start(model=name, stage1=stage1, prior=prior, cost=cost)


def check_start(run: Run, job: Job, start: Start) -> None:
    """Raise UsageError where the job, or stage one of its model, went on from something else than `start`."""
    for folder in (run.stage1_folder(job.model), job.folder):
        record = record_of(folder)
        earlier = None if record is None else record.get("start")
        for part in ("stage1", "prior"):
            before, now = ({} if earlier is None else earlier).get(f"{part}_sha256"), start.part(part).sha256
            if before is not None and before != now:
                raise UsageError(
                    f"{folder} went on from the {'prior' if part == 'prior' else 'codebook'} {before[:12]} of "
                    f"{start.model}, which was trained again since ({now[:12]}): remove "
                    f"{run.stage1_folder(job.model).parent} to go on from the new one"
                )
