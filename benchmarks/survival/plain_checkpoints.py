"""The control of `killed_runs`: checkpoints as training scripts usually write them, over the same files every time.

Three plain files in `latest/`, each written with one call, in the order in which a script would: weights, optimiser,
state. There is no temporary name, no flush, no rename, no digest and no second checkpoint.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

import twostage.training.loop
from twostage.storage.checkpoint import Checkpoint


def save_plainly() -> None:
    """Make the training loop of this process save and load its training state this way; `best/` is left as it is."""
    kept = twostage.training.loop.save_checkpoint

    def save(path: Path, *, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        if path.name == "best":
            kept(path, tensors=tensors, state=state)
            return
        folder = path.parent / "latest"
        folder.mkdir(exist_ok=True)
        for stem, named in tensors.items():
            plain = {name: tensor.detach().clone().contiguous() for name, tensor in named.items()}
            (folder / f"{stem}.safetensors").write_bytes(safetensors.torch.save(plain))
        (folder / "state.json").write_text(json.dumps(state))
        if state["finished"]:
            kept(path, tensors=tensors, state=state)

    def load_newest(training: Path, **_: Any) -> Checkpoint | None:
        folder = training / "latest"
        if not (folder / "model.safetensors").exists():
            return None
        tensors = {path.stem: safetensors.torch.load(path.read_bytes()) for path in folder.glob("*.safetensors")}
        return Checkpoint(
            path=folder, tensors=tensors, state=json.loads((folder / "state.json").read_text()), sha256={}
        )

    twostage.training.loop.save_checkpoint = save
    twostage.training.loop.load_newest = load_newest
