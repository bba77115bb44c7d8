"""Two gloo processes give the codebook of one process on the concatenated batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stage1_vqvae.quantiser.choose import make_quantiser

NAMES = ["vq ema 0", "vq loss 0", "vq ema 0.1", "residual ema 0", "residual loss 0.1", "cosine ema 0"]
"""Kind, update and rate_weight."""

# Runs in each process. Ranks hold batches of different sizes, show k-means different vectors and seed differently:
# rank 0 decides. Threshold and decay are such that most steps revive codes.
WORKER = """
import sys
from datetime import timedelta
import torch

torch.set_num_threads(1)
from stage1_vqvae.quantiser.choose import make_quantiser

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2, timeout=timedelta(seconds=30)
)
result = {}
for name in sys.argv[3:]:
    kind, update, rate_weight = name.split()
    torch.manual_seed(0)
    module = make_quantiser(
        kind, codebook_size=16, embedding_dim=6, codebooks=2, update=update, decay=0.5, revival_threshold=0.6,
        rate_weight=float(rate_weight),
    )
    data = torch.load(f"{folder}/data.pt", weights_only=True)
    module.initialise(data["kmeans"] + 5 * rank, seed=rank)
    revived = []
    for step, batch in enumerate(data["batches"]):
        torch.manual_seed(100 + step + 1000 * rank)
        share = batch[:5] if rank == 0 else batch[5:]
        revived.append(module.update(module(share).statistics).revived)
    result[name] = {**module.state_dict(), "revived": torch.stack(revived)}
torch.save(result, f"{folder}/rank{rank}.pt")
torch.distributed.destroy_process_group()
"""


def one_process(data: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    kind, update, rate_weight = name.split()
    torch.manual_seed(0)
    module = make_quantiser(
        kind,  # type: ignore[arg-type]
        codebook_size=16,
        embedding_dim=6,
        codebooks=2,
        update=update,
        rate_weight=float(rate_weight),
        decay=0.5,
        revival_threshold=0.6,
    )
    module.initialise(data["kmeans"], seed=0)
    revived = []
    for step, batch in enumerate(data["batches"]):
        torch.manual_seed(100 + step)
        quantised = module(batch)
        assert quantised.statistics is not None
        revived.append(module.update(quantised.statistics).revived)
    return {**module.state_dict(), "revived": torch.stack(revived)}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[dict[str, dict[str, Tensor]]]]:
    """The data, and what each of the two ranks ended with."""
    folder: Path = tmp_path_factory.mktemp("two_processes")
    torch.manual_seed(1)
    data = {"kmeans": torch.randn(200, 6), "batches": torch.randn(6, 8, 6, 4)}
    torch.save(data, folder / "data.pt")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(folder), *NAMES], stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    for process in processes:
        try:
            _, errors = process.communicate(timeout=90)
        finally:
            process.kill()
        assert process.returncode == 0, errors
    return data, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", NAMES)
def test_both_ranks_hold_the_identical_codebook(results: tuple, name: str) -> None:
    _, (first, second) = results
    for key, value in first[name].items():
        assert torch.equal(value, second[name][key]), key


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one_on_the_concatenated_batch(results: tuple, name: str) -> None:
    data, (first, _) = results
    expected = one_process(data, name)
    assert expected["revived"].any(dim=(1, 2)).sum() >= 3  # revival is part of what is compared
    assert torch.equal(first[name]["revived"], expected["revived"])
    for key in expected.keys() - {"revived"}:
        # sums of up to 32 terms taken in another order: a few units in the last place of fp32
        torch.testing.assert_close(first[name][key], expected[key], atol=2e-6, rtol=1e-5)
