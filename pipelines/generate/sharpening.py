"""How far a distribution is sharpened before new items are drawn from it, and what was chosen for a trained model.

`evaluate` chooses on validation items (`pipelines.evaluate.sharpening_choice`) and keeps what it chose, and all that it
tried, in RUN/models/NAME/sampling.json, with the digests of the weights that it holds for. New items are drawn so
unless something else is asked for; bits are always those of the distribution itself.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twostage.errors import RunError
from twostage.storage.atomic import write_atomic
from twostage.storage.regular_file import read_regular

SCHEMA_VERSION = 1
_LARGEST_BYTES = 1 << 20
_DAMAGED = "is damaged or of another version: remove it, or run evaluate, which chooses again"


@dataclass(frozen=True, kw_only=True)
class Sharpening:
    """Arguments of `stage2_prior.sample` of these names; of a VAE the temperature alone. By default nothing changes."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance: float = 1.0

    @property
    def words(self) -> str:
        """Such as `temperature 0.8, top-p 0.9`; what changes nothing is left out."""
        parts = [f"temperature {self.temperature:g}"]
        parts += [f"top-k {self.top_k}"] if self.top_k else []
        parts += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        parts += [f"guidance {self.guidance:g}"] if self.guidance != 1 else []
        return ", ".join(parts)


PLAIN = Sharpening()
"""The distribution that the model has learned."""


@dataclass(frozen=True)
class Tried:
    """A setting, and the Fréchet distance of the items drawn so."""

    setting: Sharpening
    distances: tuple[float, ...]
    """Of every draw: of the first, by which all settings were ranked, and of two finalists those of further seeds."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen for a model, and why."""

    chosen: Sharpening
    distance: float
    """Mean Fréchet distance to the validation items under it, over the further seeds."""
    plain_distance: float
    """The same of `PLAIN`."""
    noise: float
    """Range, over the further seeds, of the difference between the two finalists: it had to be more on average."""
    item: str
    """What a validation item is called."""
    items: int
    """Of validation."""
    samples: int
    """Drawn for every distance."""
    features: str
    """What the network whose features were compared has learned: `labels` or `turns`."""
    ruler_sha256: str
    """Its weights."""
    stage1_sha256: str
    """Weights that this holds for."""
    prior_sha256: str | None
    """The same of the prior; None of a model without one."""
    tried: tuple[Tried, ...]

    @property
    def words(self) -> str:
        """The setting and why."""
        if self.chosen == PLAIN:
            return f"{PLAIN.words}, which no other setting surpassed on validation {self.item}s"
        return (
            f"{self.chosen.words} (chosen on validation {self.item}s: Fréchet distance {self.distance:.3g} against "
            f"{self.plain_distance:.3g} with nothing sharpened)"
        )

    def write(self, path: Path) -> None:
        """Write the file."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self)}
        write_atomic(path, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> "Choice":
        """The choice kept at `path`.

        Raises:
            RunError: it is damaged or of another version.
        """
        try:
            data: dict[str, Any] = json.loads(read_regular(path, most=_LARGEST_BYTES))
            if data.pop("schema_version") != SCHEMA_VERSION:
                raise ValueError("version")
            data["tried"] = tuple(
                Tried(Sharpening(**each["setting"]), tuple(map(float, each["distances"]))) for each in data["tried"]
            )
            return cls(**{**data, "chosen": Sharpening(**data["chosen"])})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise RunError(f"{path} {_DAMAGED}") from error
