"""What a command that trains lets look on: pictures in the training's folder, and events for TensorBoard."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from twostage.distributed import is_first
from twostage.errors import TwoStageError
from twostage.progress import say, silent
from twostage.training.observer import Observer

from ..media.png import grid, to_bytes
from ..media.tensorboard import EventFile
from ..modality.choose import modality_of
from ..modality.pictures import Heard, Items, Pictures, to_levels
from ..runs.jobs import Job
from ..runs.session import TrainingSession
from .folder import PictureFolder, fitted
from .looks import Codes, Look, Reconstructions, Samples, Stand


def observer_of(session: TrainingSession, job: Job, model: Any, codebook: Any = None) -> Observer | None:
    """What looks on at a job; None where nothing was asked for, and in all processes but the first.

    Args:
        session: the command.
        job: its training.
        model: what is trained.
        codebook: whose codes it follows; None of stage one.
    """
    recipe, logged = session.recipe, session.log == "tensorboard"
    if not is_first() or not (logged or job.training.pictures):
        return None
    modality, stand = modality_of(recipe), Stand(recipe, session.dataset, session.device)

    def look() -> Look:
        if job.stage == "prior":
            return Samples(stand, model, codebook)
        return Reconstructions(stand, model if codebook is None else modality.with_decoder(codebook, model))

    counted = logged and codebook is None and model.latents == "codes"
    return Watcher(
        job,
        modality.pictures(recipe, session.dataset),
        look=look if job.training.pictures else None,
        codes=(lambda: Codes(stand, model)) if counted else None,
        logged=logged,
    )


@dataclass(frozen=True)
class _Seen:
    """Items as they are shown."""

    pictures_NCHW: np.ndarray
    """uint8, as `fitted` gives them."""
    heard: Heard | None


class Watcher:
    """See `Observer`. Whatever fails is said once, and the training goes on without it.

    Args:
        job: the training.
        pictures: how items are shown.
        look: makes what is looked at, once the training begins; None: no pictures.
        codes: makes what counts codes; None: they are not counted.
        logged: whether events are written for TensorBoard.
    """

    def __init__(
        self,
        job: Job,
        pictures: Pictures,
        *,
        look: Callable[[], Look] | None,
        codes: Callable[[], Codes] | None,
        logged: bool,
    ) -> None:
        self._job, self._pictures, self._logged = job, pictures, logged
        self._make_look, self._make_codes = look, codes
        self._folder = PictureFolder(job.folder, every=job.training.validate_every)
        self._look: Look | None = None
        self._codes: Codes | None = None
        self._events: EventFile | None = None
        self._originals: _Seen | None = None
        self._failed = False

    def begin(self, step: int) -> None:
        with self._trying("pictures"):
            self._folder.begin(step)  # also of a training that goes on without any
            if self._make_look is not None:
                self._look = self._make_look()
                self._originals = None if self._look.originals is None else self._seen(self._look.originals)
        with self._trying("events"):
            if self._logged:
                self._events = EventFile(self._job.folder, step=step)
                self._codes = None if self._make_codes is None else self._make_codes()

    def trained(self, step: int, numbers: Mapping[str, float]) -> None:
        with self._trying("events"):
            if self._events is not None:
                self._events.scalars(step, numbers, of="training")

    def validated(self, step: int, numbers: Mapping[str, float]) -> None:
        made = None
        with self._trying("pictures"):
            if self._look is not None:
                made = self._seen(self._look.items())
                self._keep(step, made)
        with self._trying("events"):
            if self._events is not None:
                self._events.scalars(step, numbers, of="validation")
                self._log(step, made, self._events)

    def close(self) -> None:
        with self._trying("events"):
            if self._events is not None:
                self._events.close()

    def _seen(self, items: Items) -> _Seen:
        levels = self._pictures.levels
        pictures_NCHW = fitted(to_bytes(to_levels(np.asarray(self._pictures.of(items)), levels), levels))
        return _Seen(pictures_NCHW, self._pictures.in_a_row(items))

    def _keep(self, step: int, made: _Seen) -> None:
        own = self._originals
        self._folder.keep(
            step,
            originals_NCHW=None if own is None else own.pictures_NCHW,
            made_NCHW=made.pictures_NCHW,
            originals=None if own is None else own.heard,
            made=made.heard,
        )

    def _log(self, step: int, made: _Seen | None, events: EventFile) -> None:
        if made is not None:
            own = self._originals
            rows = [made.pictures_NCHW] if own is None else [own.pictures_NCHW, made.pictures_NCHW]
            what = "samples" if own is None else "reconstructions"
            events.picture(step, what, grid(np.concatenate(rows), columns=len(made.pictures_NCHW)))
            if made.heard is not None:
                events.sound(step, what, made.heard.samples, made.heard.rate_hz)
        if self._codes is not None:
            events.codes(step, self._codes.by_codebook(), self._codes.codebook_size)
        events.flush()

    @contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        """Whatever is said in there is of no interest; a failure is, once."""
        try:
            with silent():
                yield
        except (TwoStageError, OSError, RuntimeError) as error:  # the last one: out of memory
            if not self._failed:
                say(f"warning: {self._job.label} goes on without some of its {what}: {error}")
            self._failed = True
