"""A flag for fewer steps than the recipe's warm-up, or than its first validation, shortens these with the training.

A recipe's warm-up is meant for its steps. Who asks for a short trial of `--prior-training.steps 40` has said nothing of
a warm-up of 100 steps, and is told what became of it. What is asked for by a flag of its own is left as it is, and
refused where it does not fit (`twostage.config.check`). With `--extend` a training that was shortened goes on with what
it has, or it would be another one. What `--size` will choose is fitted without a word, for it is chosen again. Without
torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from twostage.config.load import CONFIG, load_run_recipe
from twostage.config.schema import Recipe, TrainingConfig
from twostage.progress import say

from .given import flags_of

C = TypeVar("C")


def shortened(command: C, arguments: Sequence[str]) -> C:
    """The command with what its recipe, or its run's, says of trainings fitted to the steps that its flags give.

    Args:
        command: with values that were not checked yet.
        arguments: behind the verb, as they were given.
    """
    given = flags_of(arguments)
    whole: Any = command  # a dataclass of `commands`
    has_recipe = any(item.name == "recipe" for item in fields(whole))
    holder = whole.recipe if has_recipe else whole
    extended = has_recipe and getattr(whole, "extend", False) and (whole.run / CONFIG).exists()
    stored = load_run_recipe(whole.run) if extended else None  # commands on a run start from it anyway
    changed: dict[str, Any] = {}
    for section in (item.name for item in fields(holder)):
        training = getattr(holder, section)
        if not isinstance(training, TrainingConfig):
            continue
        steps = _budget(holder) if section == "baseline_training" and training.steps == 0 else training.steps
        before = getattr(stored, section, None)
        kept = dict(_shortened_before(training, before)) if before is not None else {}
        fitted = {key: steps for key in _too_long(training, steps) if key not in kept}
        for key, value in (kept | fitted).items():
            if f"--{section}.{key}".replace("_", "-") in given or steps < 1:
                continue
            why = f"because {section}.steps is {steps}" if key in fitted else f"as in {whole.run}, which goes on"
            if getattr(whole, "size", None) is None:
                say(
                    f"{section}.{key} is {value} instead of the recipe's {getattr(training, key)}, {why}; give "
                    f"--{section.replace('_', '-')}.{key.replace('_', '-')} to choose it"
                )
            changed[section] = replace(changed.get(section, training), **{key: value})
    if not changed:
        return command
    new: C = replace(whole, **({"recipe": replace(holder, **changed)} if has_recipe else changed))
    return new


def _too_long(training: TrainingConfig, steps: int) -> Iterator[str]:
    """Settings that a training of so many steps has no room for: those that `check_recipe` would refuse."""
    if training.warmup_steps > steps:
        yield "warmup_steps"
    if training.patience and training.validate_every > steps:
        yield "validate_every"


def _shortened_before(training: TrainingConfig, before: TrainingConfig) -> Iterator[tuple[str, int]]:
    """Settings that a run's training of fewer, or as many, steps has shorter than the recipe says."""
    for key in ("warmup_steps", "validate_every"):
        if before.steps <= training.steps and getattr(before, key) < getattr(training, key):
            yield key, getattr(before, key)


def _budget(holder: Any) -> int:
    """Steps of a baseline of `compare` that nobody named, those of a whole discrete model; else 0, as given."""
    return holder.codebook_model_steps if isinstance(holder, Recipe) else 0
