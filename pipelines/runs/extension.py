"""`--extend`: a training that has come to its end, or was on its way there, gets more steps.

The newest checkpoint is rewritten as that of an unfinished training of the larger budget, before anything else is done.
From then on it is a training like any other that was interrupted: the same command goes on with it, after a kill, too.

With a constant learning rate the result is that of the larger budget from the start, bit for bit, where the old last
step is one that is validated anyway; otherwise the model of that step is one more candidate for the best. A cosine has
come down to zero at the old end: the learning rate goes back up to where the longer cosine is at that step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from twostage.config.model_names import model_spec
from twostage.errors import RunError, UsageError
from twostage.progress import say
from twostage.storage.checkpoint import load_newest, save_checkpoint, step_name, verify_checkpoint
from twostage.storage.locks import exclusive
from twostage.storage.training_state import recorded_state
from twostage.training.optimiser import learning_rate_at

from .jobs import Job, record_of
from .run import Run


@dataclass(frozen=True)
class Extension:
    """A job whose training in the run folder has fewer steps than the job."""

    job: Job
    step: int
    """Where it stands."""
    steps: int
    """Its budget until now."""

    @property
    def sentence(self) -> str:
        """What will be done, and what a cosine makes of it."""
        training, job = self.job.training, self.job
        line = f"{job.label}: goes on from step {self.step} to {training.steps} instead of {self.steps}"
        if training.schedule == "constant":
            return line
        before = replace(training, steps=self.steps)
        now, then = (learning_rate_at(budget, self.step) for budget in (before, training))
        if then <= now:
            return f"{line}; its cosine learning rate decreases to zero at the new end"
        return (
            f"{line}; its cosine learning rate, {now:.2g} at this step of the shorter training, goes back up to "
            f"{then:.2g} and decreases to zero at the new end, which is not the training of that many steps from "
            "the start"
        )


def extensions(run: Run, jobs: Sequence[Job]) -> list[Extension]:
    """Those of the jobs that `--extend` gives more steps; the others are as they were.

    Raises:
        UsageError: none has begun, one was ended by its patience, or a prior or decoder would lose its codebook.
        RunError: a training is damaged.
    """
    found, begun = [], False
    for job in jobs:
        state = recorded_state(job.folder, warn=say)
        if state is None:
            continue
        begun, steps = True, state["record"]["config"]["training"]["steps"]
        if job.training.steps <= steps:
            continue
        if state.get("finished") and state["step"] < steps:
            raise UsageError(
                f"{job.label} in {run.path} was ended by its patience after step {state['step']} of {steps}, so that "
                "no number of steps makes it longer: train it again elsewhere with another patience"
            )
        if job.stage == "stage1":
            _check_followers(run, job)
        if job.stage != "decoder":
            _check_starts(run, job)
        found.append(Extension(job, state["step"], steps))
    if not begun:
        raise UsageError(f"--extend, but {run.path} holds no such training to go on with: leave it out to start one")
    return found


def _check_followers(run: Run, job: Job) -> None:
    """Raise UsageError where a longer training of the codebook would leave its prior or decoder without it."""
    folders = {"prior": run.prior_folder(job.model), "decoder": run.decoder_folder(job.model)}
    followers = [stage for stage, folder in folders.items() if record_of(folder) is not None]
    if followers:
        raise UsageError(
            f"{job.label} in {run.path} has a {' and a '.join(followers)} on its codes, which a longer training "
            f"changes: remove {' and '.join(str(folders[stage]) for stage in followers)}, extend it, then run "
            f"{' and '.join(f'train-{stage}' for stage in reversed(followers))} again"
        )


def _check_starts(run: Run, job: Job) -> None:
    """Raise UsageError where a longer training would change what another model of the run went on from."""
    for name in run.begun_models():
        if model_spec(name, run.recipe).starts_from == job.model:
            raise UsageError(
                f"{name} in {run.path} went on from {job.label}, which a longer training changes: remove "
                f"{run.stage1_folder(name).parent}, extend it, then train {name} again"
            )


def extend_training(extension: Extension) -> None:
    """Turn the training in the folder into an unfinished one of the job's steps.

    Raises:
        RunError: it is damaged, another process trains there, or the disk refused.
    """
    job = extension.job
    if verify_checkpoint(job.folder / "best") is None and extension.step == extension.steps:
        raise RunError(
            f"{job.label} is trained, but its best model {job.folder / 'best'} is damaged or missing: restore it or "
            f"remove {job.folder}, and train it again"
        )
    with exclusive(job.folder):
        newest = load_newest(job.folder, warn=say)
        assert newest is not None  # its state was read
        record = newest.state["record"]
        config = record["config"]
        training = {**config["training"], "steps": job.training.steps}
        record = {**record, "config": {**config, "training": training}}
        save_checkpoint(
            job.folder / step_name(newest.state["step"]),
            tensors=newest.tensors,
            state={**newest.state, "finished": False, "record": record},
        )
    say(extension.sentence)
