"""The model card of an exported folder: README.md in Markdown behind YAML front matter, as model hubs read it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twostage.config.kinds import kind_of
from twostage.config.model_names import model_spec
from twostage.data.interface import Dataset
from twostage.printable import show

from ..evaluate.reconstruction_table import reconstruction_notes, reconstruction_table
from ..evaluate.rows import Evaluation
from ..evaluate.tables import model_notes, model_table, score_notes, score_table
from ..generate.two_stage import TwoStage
from ..modality.interface import SPLITS
from ..modality.pictures import Stage
from ..runs.loading import Loaded, parameter_count
from .shown import Shown

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!&~$])")
_MOST_NAMES = 20
_STAGES: dict[Stage, str] = {
    "stage1": "stage one",
    "prior": "prior over its codes",
    "decoder": "second decoder of its codes",
}


def escaped(text: str) -> str:
    """Text that Markdown shows as it is: names of labels may be anything that is printable."""
    return _SPECIAL.sub(r"\\\1", text)


def markdown_table(headings: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A table, its first column to the left and the others to the right."""
    rules = ["---", *["---:"] * (len(headings) - 1)]
    shown = [[*map(escaped, headings)], rules, *([*map(escaped, row)] for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in shown)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card says."""

    licence: str
    model: TwoStage
    parts: Mapping[Stage, Loaded[Any]]
    """Networks that are in the folder."""
    evaluation: Evaluation | None
    """Of this model alone."""
    dataset: Dataset | None
    """The data, where they could be read."""
    shown: Sequence[Shown]

    def text(self) -> str:
        """The file README.md."""
        sections = [
            self._front_matter(),
            f"# {self.model.run.recipe.name}: {self.model.name}",
            self._what(),
            *map(_pictures, self.shown),
            self._use(),
            self._data(),
            self._numbers(),
            self._files(),
        ]
        return "\n\n".join(section for section in sections if section) + "\n"

    def _front_matter(self) -> str:
        """Flow values of YAML are those of JSON, so that every text is quoted."""
        recipe = self.model.run.recipe
        spec = model_spec(self.model.name, recipe)
        tags = ["twostage", spec.kind, kind_of(recipe), recipe.data.name]
        values = {"license": self.licence, "library_name": "twostage", "tags": list(dict.fromkeys(tags))}
        return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in values.items()), "---"])

    def _what(self) -> str:
        network = self.model.model
        kind = {
            "codes": "A vector-quantised autoencoder",
            "gaussian": "A variational autoencoder",
            "table": "An autoencoder with discrete latents",
            "none": "An autoencoder",
        }[network.latents]
        lines = [f"{kind} of {self.model.files.source}s, trained with [twostage](config.toml)."]
        if network.latents == "codes":
            lines.append(f"Its codes are {network.codebooks} a position, each one of {network.codebook_size}.")
        for stage, loaded in self.parts.items():
            count = f"{parameter_count(loaded.model):,}"
            lines.append(f"- {_STAGES[stage]}: `{type(loaded.model).__name__}`, {count} numbers")
        return "\n".join([" ".join(lines[: -len(self.parts)]), "", *lines[-len(self.parts) :]])

    def _use(self) -> str:
        """How to load it: as one object, as plain networks, and with the command line."""
        verbs = ["twostage reconstruct FOLDER FILE..."]
        if self.model.model.latents != "none":
            verbs.insert(0, "twostage generate FOLDER --out samples")
        if self.model.model.latents == "codes":
            verbs.append("twostage encode FOLDER FILE... --out codes.safetensors")
            if "prior" not in self.parts:
                verbs.pop(0)
        imports = sorted(
            f"from {type(part.model).__module__.split('.')[0]} import {type(part.model).__name__}"
            for part in self.parts.values()
        )
        plain = [f"{stage} = {type(part.model).__name__}.from_folder('FOLDER')" for stage, part in self.parts.items()]
        code = [
            "from twostage_pipelines import load_run",
            "",
            'model = load_run("FOLDER")  # generate, encode, decode, reconstruct',
            "",
            "# or the networks alone, plain torch.nn.Modules",
            *imports,
            "",
            *(line.replace("'", '"') for line in plain),
        ]
        of_table = f"twostage evaluate FOLDER{' --data.path DATA' if self._data_have_a_place else ''}"
        lines = ["## Use", "", "FOLDER is a copy of this folder with real files, not links.", ""]
        lines += ["```python", *code, "```", ""]
        return "\n".join([*lines, "```", *verbs, f"{of_table}  # the table below, from the data", "```"])

    @property
    def _data_have_a_place(self) -> bool:
        return self.model.run.recipe.data.path is not None

    def _data(self) -> str:
        model, record = self.model, self.model.record
        lines = ["## Data", "", f"`{record['dataset']}`, SHA-256 `{record['config'].get('data', {}).get('sha256')}`."]
        if self.dataset is not None:
            counts = ", ".join(f"{len(self.dataset.split(name)):,} {name}" for name in SPLITS)
            lines.append(f"{escaped(model.modality.describe(self.dataset))}; items: {counts}.")
        for what, names in (("Labels", model.classes), ("Speakers", model.speakers)):
            if names:
                lines.append(f"{what} ({len(names)}): {escaped(show(list(names), most=_MOST_NAMES))}.")
        lines.append("They are not part of this folder, and their licence may bind what was learned from them.")
        return "\n".join(lines)

    def _numbers(self) -> str:
        if self.evaluation is None:
            return ""
        parts = ["## Bits", "", f"{escaped(self.evaluation.title)}.", ""]
        tables = ((score_table, score_notes), (reconstruction_table, reconstruction_notes), (model_table, model_notes))
        for table, notes in tables:
            headings, cells = table(self.evaluation)
            if cells:
                said = [f"- {escaped(note)}" for note in notes(self.evaluation)]
                parts += [markdown_table(headings, cells), "", *said, ""]
        return "\n".join(parts).rstrip()

    def _files(self) -> str:
        lines = [
            f"- `models/{self.model.name}/`: weights as safetensors, each with its record and a manifest of digests",
            "- `config.json`: what the folder is, the arguments of its networks, and digests",
            "- `config.toml`: the complete recipe",
        ]
        if self.evaluation is not None:
            lines.append("- `evaluation.json`: the numbers of the table, and more")
        licence = f"Licence of the weights: {self.licence}."
        if self.licence == "unknown":
            licence = "Nobody has stated a licence of the weights."
        return "\n".join(["## Files", "", *lines, "", licence])


def _pictures(shown: Shown) -> str:
    lines = [f"## {shown.title}", "", shown.caption, ""]
    lines += [f"![{shown.title}]({path})" for path in shown.pictures]
    if shown.played:
        lines += ["", "To hear: " + ", ".join(f"[{path.rpartition('/')[2]}]({path})" for path in shown.played)]
    return "\n".join(lines)
