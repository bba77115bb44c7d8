"""The average against a plain loop, what it leaves alone, and weights that come back bit for bit."""

import copy

import pytest
import torch
from torch import Tensor, nn

from twostage.training.weight_average import WeightAverage, decay_at


def _model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Linear(2, 2))
    model[2].bias.requires_grad_(False)
    return model


def _state(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


def _same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@torch.no_grad()
def _wander(model: nn.Module) -> None:
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.add_(torch.randn_like(tensor))


def test_average_is_that_of_a_plain_loop_through_warm_up_and_after() -> None:
    model = _model()
    average = WeightAverage(model, decay=0.8)
    expected: dict[str, Tensor] = {}
    for step in range(80):
        _wander(model)
        # 0, 1/10, 2/11, ... and from step 36 on 0.8
        decay = min(0.8, step / (step + 9))
        for name, parameter in model.named_parameters():
            own = parameter.detach().double()
            expected[name] = own if step == 0 else decay * expected[name] + (1 - decay) * own
        average.update(step)
    assert decay_at(0.8, 35) < 0.8 == decay_at(0.8, 36)
    for name, tensor in average.tensors().items():
        torch.testing.assert_close(tensor.double(), expected[name], atol=1e-5, rtol=1e-5)


def test_nothing_of_the_start_is_left() -> None:
    model = _model()
    average = WeightAverage(model, decay=0.999)
    _wander(model)
    for step in range(3):
        average.update(step)
    own = model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in average.tensors().items())


def test_inside_the_block_the_model_has_the_average_and_afterwards_its_own_weights() -> None:
    model = _model()
    average = WeightAverage(model, decay=0.9)
    for step in range(5):
        _wander(model)
        average.update(step)
    before, places = _state(model), [parameter.data_ptr() for parameter in model.parameters()]
    with average.in_place():
        inside = _state(model)
    assert _same(_state(model), before)
    assert [parameter.data_ptr() for parameter in model.parameters()] == places
    # Neither buffers nor what is not trained is averaged.
    assert sorted(average.tensors()) == ["0.bias", "0.weight", "1.bias", "1.weight", "2.weight"]
    for name, tensor in inside.items():
        assert torch.equal(tensor, average.tensors().get(name, before[name]))
        assert torch.equal(tensor, before[name]) == (name not in average.tensors())


def test_own_weights_come_back_from_a_validation_that_fails() -> None:
    model = _model()
    average = WeightAverage(model, decay=0.9)
    for step in range(3):
        _wander(model)
        average.update(step)
    before = _state(model)
    with pytest.raises(MemoryError), average.in_place():
        raise MemoryError
    assert _same(_state(model), before)


def test_saved_average_goes_on_bit_for_bit() -> None:
    model = _model()
    whole = WeightAverage(model, decay=0.9)
    for step in range(4):
        _wander(model)
        whole.update(step)
    parts = WeightAverage(model, decay=0.9)
    parts.load(copy.deepcopy(whole.tensors()))
    for step in range(4, 8):
        _wander(model)
        whole.update(step)
        parts.update(step)
    assert _same(whole.tensors(), parts.tensors())
