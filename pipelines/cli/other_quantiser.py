"""A flag for another kind of quantiser than the recipe's takes what only the recipe's kind reads out of the recipe.

Who asks for `--quantiser.kind fsq` has said nothing of the `codebook_size` that the recipe chose for its own kind. What
is asked for by a flag of its own is left as it is, and refused where it does not fit (`twostage.config.check`). Where
the recipe has one codebook, a kind of levels gets two. Without torch.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from twostage.config.quantiser import QUANTISERS, has_update, unread
from twostage.progress import say

from .given import flags_of

C = TypeVar("C")


def fitted(command: C, arguments: Sequence[str]) -> C:
    """The command with its recipe fitted to the kind of quantiser that a flag chose, and a line for every change.

    Args:
        command: with values that were not checked yet.
        arguments: behind the verb, as they were given.
    """
    given = flags_of(arguments)
    whole: Any = command  # a dataclass of `commands`
    if "--quantiser.kind" not in given or not any(item.name == "recipe" for item in fields(whole)):
        return command
    recipe = whole.recipe
    quantiser, because = recipe.quantiser, f"because quantiser.kind is {recipe.quantiser.kind}"
    for name, default in unread(quantiser, recipe.models).items():
        if f"--quantiser.{name}".replace("_", "-") not in given:
            say(f"quantiser.{name} of the recipe, {getattr(quantiser, name)}, is left out, {because}")
            quantiser = replace(quantiser, **{name: default})
    if QUANTISERS[quantiser.kind].levels and quantiser.codebooks == 1 and "--quantiser.codebooks" not in given:
        say(f"quantiser.codebooks of the recipe, 1, becomes 2, {because}, of which a single level is the kind vq")
        quantiser = replace(quantiser, codebooks=2)
    models = recipe.models
    if "--models" not in given:
        models = tuple(name for name in models if has_update(quantiser, name))
        for name in set(recipe.models) - set(models):
            say(f"{name} is left out of the recipe's models, {because}")
    new: C = replace(whole, recipe=replace(recipe, quantiser=quantiser, models=models))
    return new
