"""Pictures turned and mirrored, and a network that tells how."""

import numpy as np
import torch

from twostage_pipelines.evaluate.turns import TurnsTask, all_turned, turned, ways


def test_every_way_is_another_picture_of_the_same_pixels() -> None:
    for shape, number in (((1, 3, 3), 8), ((2, 3, 5), 4)):
        assert ways(shape) == number
        x = torch.arange(int(np.prod(shape))).view(1, *shape)
        shown, ways_B = all_turned(x)
        assert ways_B.tolist() == list(range(number))
        assert torch.equal(shown[0], x[0])
        assert len({tuple(picture.flatten().tolist()) for picture in shown}) == number
        assert all(picture.flatten().sort().values.equal(x.flatten()) for picture in shown)
        for way in range(number):
            assert torch.equal(turned(x, torch.tensor([way]))[0], shown[way])


def test_rows_keep_their_own_way_in_a_batch() -> None:
    x = torch.randint(256, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    ways_B = torch.tensor([0, 3, 5, 7, 1, 0])
    alone = torch.cat([turned(x[row : row + 1], ways_B[row : row + 1]) for row in range(6)])
    assert torch.equal(turned(x, ways_B), alone)


class _Corner(torch.nn.Module):
    """Tells from the brightest pixel of 2x2 in which of four corners it is, as logits of all eight ways."""

    def __init__(self) -> None:
        super().__init__()
        ways_of, _ = all_turned(torch.tensor([[[[0, 1], [2, 3]]]]))
        self.patterns = ways_of.flatten(1).float()

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        return -100 * torch.cdist(x_BCHW.flatten(1).float(), self.patterns)


def test_what_knows_the_picture_tells_every_way() -> None:
    pictures = np.tile(np.array([[[[0, 1], [2, 3]]]], np.uint8), (5, 1, 1, 1))
    task = TurnsTask(
        _Corner(), train=pictures, validation=pictures, device=torch.device("cpu"), evaluation_batch_size=2
    )
    torch.manual_seed(0)
    result = task.loss(np.arange(5))
    assert float(result.loss) < 1e-3
    assert float(result.metrics["accuracy"]) == 1.0
    assert task.validate()["accuracy"] == 1.0
    assert task.items == 5
    ambiguous = TurnsTask(
        _Corner(), train=pictures * 0, validation=pictures * 0, device=torch.device("cpu"), evaluation_batch_size=2
    )
    assert ambiguous.validate()["accuracy"] == 1 / 8
