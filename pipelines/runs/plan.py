"""What a command is going to train, checked job by job, with sizes and costs, in lines to print."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from twostage.config.model_names import model_spec
from twostage.errors import UsageError
from twostage.printable import counted, duration
from twostage.training.gradients import check_parts
from twostage.training.memory import readable_bytes

from ..modality.choose import modality_of
from ..modality.interface import SPLITS
from .forecast import Forecast, Forecaster
from .jobs import Job
from .loading import parameter_count
from .run import Run, is_finished, steps_done


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One job of the plan."""

    job: Job
    parameters: int | None
    """None of what follows codes, unless it was built to be rehearsed."""
    done: bool
    forecast: Forecast | None


class Plan:
    """The jobs of a command, in order.

    Args:
        run: where and with which recipe.
        dataset: what is learned from.
        device: where to compute.
        forecast: whether to find out what every job will take.
        evaluated: whether an evaluation follows.
    """

    def __init__(
        self, run: Run, dataset: Any, device: torch.device, *, forecast: bool, evaluated: bool = False
    ) -> None:
        self._evaluated = evaluated
        self.run, self.dataset, self._device = run, dataset, device
        self._forecaster = Forecaster(run, dataset, device) if forecast else None
        self._planned = list[Planned]()

    @property
    def measured(self) -> bool:
        """Whether there is a job whose costs were found out."""
        return any(each.forecast is not None for each in self._planned)

    def add(self, job: Job, *, goes_on: bool) -> None:
        """Check the next job; `goes_on`: it is given more steps than it had.

        Raises:
            UsageError: its sizes do not fit the data or the machine.
        """
        training, items = job.training, len(self.dataset.train)
        if training.batch_size > items:
            raise UsageError(
                f"{job.label}: a batch of {training.batch_size} is more than the {items} training items: "
                "choose a smaller batch_size, or add data"
            )
        check_parts(training)
        stage1 = self._stage1(job) if job.stage == "stage1" else None
        parameters = None if stage1 is None else parameter_count(stage1)
        done, forecast = is_finished(job.folder) and not goes_on, None
        if self._forecaster is not None and not done:
            forecast = self._forecaster.of(job, stage1, done=steps_done(job.folder))
            parameters = forecast.parameters if forecast is not None else parameters
        self._planned.append(Planned(job=job, parameters=parameters, done=done, forecast=forecast))

    def _stage1(self, job: Job) -> nn.Module:
        """Its model, freshly built, once its sizes were found to fit."""
        modality, recipe = modality_of(self.run.recipe), self.run.recipe
        model = modality.build(*modality.stage1(model_spec(job.model, recipe), recipe, self.dataset))
        modality.check(model, recipe, self.dataset, job.training, label=job.label)
        return model

    def lines(self) -> list[str]:
        """A line on the data, one for every job, and one for all of them where their costs are known."""
        dataset = self.dataset
        counts = ", ".join(f"{len(dataset.split(split))} {split}" for split in SPLITS)
        described = modality_of(self.run.recipe).describe(dataset)
        lines = [f"{dataset.name}: {counts} {described}; device {self._device}", *map(_line, self._planned)]
        found = [each.forecast for each in self._planned if each.forecast is not None]
        if found:
            seconds, peak = sum(each.time.seconds for each in found), max(each.bytes for each in found)
            evaluation = f", about {duration(self._evaluation_seconds())} of evaluation" if self._evaluated else ""
            lines.append(
                f"  in all about {duration(seconds)} of training{evaluation}, and memory of {readable_bytes(peak)}"
            )
        return lines

    def _evaluation_seconds(self) -> float:
        """Roughly, without the pictures of the report and the sounds that a WaveNet draws sample by sample.

        By how often an item is scored: a codebook's distortion, with codes swapped, its reconstruction; a prior's rate,
        in all and by position, for every label; a VAE's bound as often as it has samples, which encode once together.
        """
        recipe, seconds = self.run.recipe, 0.0
        samples, labels = recipe.evaluation.iwae_samples, max(1, len(self.dataset.classes))
        drawn = 3 + 0.6 * samples
        scored = {"vq-vae": 6.0, "ae": 3.0, "vae": drawn, "cvae": drawn, "vimco": drawn}
        for each in self._planned:
            times = {"stage1": scored[model_spec(each.job.model, recipe).kind], "decoder": 2.0, "prior": 3.0 * labels}
            if each.forecast is not None:
                seconds += times[each.job.stage] * each.forecast.item.seconds * len(self.dataset.test)
        return seconds


def _line(planned: Planned) -> str:
    training, forecast = planned.job.training, planned.forecast
    parts = [] if planned.parameters is None else [f"{planned.parameters:,} parameters"]
    parts.append(
        "done already"
        if planned.done
        else f"{counted(training.steps, 'steps')} of {counted(training.batch_size, 'items')}"
    )
    if forecast is not None:
        parts += [f"about {duration(forecast.time.seconds)}", readable_bytes(forecast.bytes)]
    return f"  {planned.job.label}: {', '.join(parts)}"
