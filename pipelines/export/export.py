"""`twostage export`: a trained model of a run as a folder of its own, which every verb reads as it reads a run.

Everything is written under a temporary name beside the folder and appears at once. How an exported folder differs from
a run, and how it is checked, says `twostage.storage.exported`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import twostage
from twostage.config.load import CONFIG, dump_run_recipe
from twostage.errors import RunError, UsageError
from twostage.progress import say
from twostage.storage import atomic
from twostage.storage.checkpoint import copy_checkpoint, read_state
from twostage.storage.exported import FORMAT, INDEX, MARK, VERSION, check_exported, file_digests
from twostage.storage.manifest import MANIFEST
from twostage.storage.training_state import is_finished, recorded_state

from ..commands.export import Export
from ..evaluate.rows import Evaluation
from ..generate.two_stage import TwoStage, open_model
from ..modality.pictures import Stage
from ..runs.device import pick_device, use_threads
from ..runs.loading import Loaded, parameter_count
from ..runs.run import Run, check_folder, steps_done
from .card import Card
from .shown import data_of, reconstructed, sampled

EVALUATION = "evaluation.json"
_FOLLOWERS: tuple[Stage, ...] = ("prior", "decoder")


@dataclass(frozen=True)
class Part:
    """A finished training of the model."""

    stage: Stage
    loaded: Loaded[Any]

    def index(self, model: str) -> dict[str, Any]:
        """What `config.json` says of it."""
        network = self.loaded.model
        return {
            "class": f"{type(network).__module__.split('.')[0]}.{type(network).__name__}",
            "kind": self.loaded.record["kind"],
            "arguments": self.loaded.record["architecture"],
            "weights": f"models/{model}/{self.stage}/best/model.safetensors",
            "sha256": self.loaded.sha256,
            "parameters": parameter_count(network),
        }


def _parts(model: TwoStage) -> list[Part]:
    """Everything that is finished of a model.

    Raises:
        RunError: a prior or a decoder was begun and is not finished, is damaged, or belongs to another codebook.
    """
    run, found = model.run, [Part("stage1", model.stage1)]
    if model.model.latents != "codes":
        return found
    load: dict[Stage, Callable[..., Loaded[Any]]] = {"prior": run.prior, "decoder": run.decoder}
    for stage in _FOLLOWERS:
        folder = run.path / "models" / model.name / stage
        if stage not in model.modality.sections:
            continue
        if is_finished(folder):
            found.append(Part(stage, load[stage](model.name, model.stage1, model.device)))
        elif steps := steps_done(folder):
            raise RunError(
                f"the {stage} of {model.name} in {run.path} is not finished (step {steps}): run train-{stage} "
                f"{run.path} --model {model.name} to its end, or remove {folder} to export without it"
            )
        else:
            say(f"{model.name} has no {stage}, and the exported folder will have none")
    return found


def _check_new(folder: Path, run: Path) -> None:
    """Raise UsageError or RunError where no new folder can be written."""
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise UsageError(f"--to {folder} is there already, but a new folder is written: name another, or remove it")
    if folder.resolve().is_relative_to(run.resolve()):
        raise UsageError(f"--to {folder} lies in the run folder {run}, whose files belong to the run: name another")
    check_folder(folder.absolute().parent)


def _own_evaluation(run: Run, name: str, parts: list[Part]) -> Evaluation | None:
    """The evaluation of the run, of this model alone; None where it was not evaluated as it is now."""
    if not (run.path / EVALUATION).is_file():
        say(f"{run.path} has no {EVALUATION}, so the card has no table: run evaluate {run.path} first for one")
        return None
    evaluation = Evaluation.read(run.path / EVALUATION)
    sha256: dict[str, str | None] = {part.stage: part.loaded.sha256 for part in parts}
    rows = tuple(row for row in evaluation.rows if row.model == name)
    scored = {(row.stage1_sha256, row.prior_sha256 or sha256.get("prior")) for row in rows}
    decoders = {row.decoder_sha256 for row in rows} - {None}
    if scored != {(sha256["stage1"], sha256.get("prior"))} or not decoders <= {sha256.get("decoder")}:
        say(f"{name} was trained since {run.path} was evaluated, so the card has no table: run evaluate again for one")
        return None
    names = {row.name for row in rows}
    return replace(
        evaluation,
        rows=rows,
        paired_differences=tuple(d for d in evaluation.paired_differences if d.other in names and d.reference in names),
        sample_scores=tuple(score for score in evaluation.sample_scores if score.model == name),
        coding=tuple(trip for trip in evaluation.coding if trip.model == name),
        diagnoses=tuple(found for found in evaluation.diagnoses if found.model == name),
        meanings={of: meaning for of, meaning in evaluation.meanings.items() if of == name},
    )


def _copy_weights(run: Run, name: str, part: Part, to: Path) -> None:
    """The best weights of a training, with a state that says no more than what it was."""
    source = run.path / "models" / name / part.stage
    last, best = recorded_state(source, "finished", "seconds", warn=say), read_state(source / "best")
    assert last is not None  # it is finished
    state = {key: last[key] for key in ("step", "seconds", "finished")}
    state |= {key: best[key] for key in ("best_step", "best_value", "record", "validation") if key in best}
    copy_checkpoint(source / "best", to / "models" / name / part.stage / "best", state={**state, MARK: True})


def _index(model: TwoStage, parts: list[Part], card: Card, files: dict[str, str]) -> dict[str, Any]:
    """The content of `config.json`."""
    record = model.record
    return {
        "format": FORMAT,
        "version": VERSION,
        "library_name": "twostage",
        "twostage_version": twostage.__version__,
        "model": model.name,
        "recipe": model.run.recipe.name,
        "license": card.licence,
        "data": {"name": record["dataset"], "sha256": record["config"].get("data", {}).get("sha256")},
        "labels": record["classes"],
        "speakers": record.get("speakers", []),
        "parts": {part.stage: part.index(model.name) for part in parts},
        "files": files,
    }


def _write(command: Export, model: TwoStage, parts: list[Part], to: Path) -> None:
    """Everything, into the new folder `to`."""
    run = model.run
    recipe = replace(run.recipe, data=replace(run.recipe.data, path=None))
    atomic.write_atomic(to / CONFIG, dump_run_recipe(recipe).encode())
    for part in parts:
        _copy_weights(run, model.name, part, to)
    evaluation = _own_evaluation(run, model.name, parts)
    if evaluation is not None:
        evaluation.write(to / EVALUATION)
    dataset = data_of(model)
    shown = [sampled(model, to, command.seed), None if dataset is None else reconstructed(model, dataset, to)]
    card = Card(
        licence=command.licence,
        model=model,
        parts={part.stage: part.loaded for part in parts},
        evaluation=evaluation,
        dataset=dataset,
        shown=[each for each in shown if each is not None],
    )
    atomic.write_atomic(to / "README.md", card.text().encode())
    listed = [CONFIG, *(f"models/{model.name}/{part.stage}/best/{MANIFEST}" for part in parts)]
    index = json.dumps(_index(model, parts, card, file_digests(to, listed)), indent=2, allow_nan=False)
    atomic.write_atomic(to / INDEX, index.encode() + b"\n")
    check_exported(to)


def run_export(command: Export) -> None:
    """`twostage export`."""
    run, folder = Run.open(command.run), command.to
    _check_new(folder, run.path)
    use_threads(run.recipe.threads)
    model = open_model(run, run.model_or_main(command.model), pick_device(command.device))
    parts = _parts(model)
    what = " and ".join(part.stage.replace("stage1", "stage one") for part in parts)
    if command.dry_run:
        say(f"would export {what} of {model.name} to {folder}; nothing was done")
        return
    temporary = atomic.temporary_sibling(folder.absolute())
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        try:
            _write(command, model, parts, temporary)
            atomic.sync_directory(temporary)
            atomic.publish_directory(temporary, folder.absolute())
        except BaseException:
            if temporary.is_dir():
                atomic.remove_entry(temporary)
            raise
    except OSError as error:
        raise atomic.disk_refusal(folder, error) from error
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    said = f"{what} of {model.name}, {size / 2**20:.1f} MiB in {folder}"
    say(f"exported: {said}; {folder / 'README.md'} says how to use it")
