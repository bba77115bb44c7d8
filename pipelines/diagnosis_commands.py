"""The commands that look into trained models (see `commands`)."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from .arguments import Device, DryRun, RunArgument, check_named, check_seed, require

FEWEST_SAMPLES = 1000
"""Below it a forest of DCI sees a value of a factor a few times only, and the scores are noise."""


@dataclass(frozen=True, kw_only=True)
class Disentangle:
    """Score how well single latents stand for single factors: MIG, SAP, DCI, beta-VAE and FactorVAE scores.

    For runs on data with known factors (`twostage recipes shapes`). Prints a table, writes disentanglement.json and a
    picture of each model's latents moved one at a time.
    """

    run: RunArgument
    model: Annotated[
        str, arg(metavar="NAME", help="Only this model (default: all with continuous latents)", help_behavior_hint="")
    ] = ""
    samples: int = 15_000
    """Codes of MIG, SAP and DCI; the points of the other two scores are in proportion. The default asks each encoder
    for 191 400 codes."""
    seed: int = 0
    """Of the factors that are drawn and of the forests."""
    device: Device = "auto"
    dry_run: DryRun = False

    def resolved(self) -> "Disentangle":
        """The command, checked."""
        check_named(self.model)
        require("--samples", self.samples, self.samples >= FEWEST_SAMPLES, f"at least {FEWEST_SAMPLES}")
        check_seed(self.seed)
        return self
