"""A flag for another likelihood or decoder takes the recipe's `mean_weight` out where it does not fit.

What is asked for by a flag of its own is left as it is, and refused (`twostage.config.check`). Without torch.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from twostage.progress import say

from .given import flags_of

C = TypeVar("C")


def without_mean_weight(command: C, arguments: Sequence[str]) -> C:
    """The command, without a `mean_weight` that its likelihood and decoder, chosen by a flag, have no use for.

    Args:
        command: with values that were not checked yet.
        arguments: behind the verb, as they were given.
    """
    given = flags_of(arguments)
    whole: Any = command  # a dataclass of `commands`
    chosen = given & {"--stage1.likelihood", "--stage1.autoregressive-layers"}
    if not chosen or "--stage1.mean-weight" in given or not any(item.name == "recipe" for item in fields(whole)):
        return command
    stage1 = whole.recipe.stage1
    if not stage1.mean_weight or stage1.has_mean_weight:
        return command
    say(
        f"stage1.mean_weight of the recipe, {stage1.mean_weight}, is left out, because stage1.likelihood is "
        f"{stage1.likelihood} with {stage1.autoregressive_layers} autoregressive layers"
    )
    new: C = replace(whole, recipe=replace(whole.recipe, stage1=replace(stage1, mean_weight=0.0)))
    return new
