"""Noise that belongs to an item: which others are drawn with it changes nothing, and streams share no number."""

import torch

from twostage.noise import uniform_noise


def test_an_item_draws_the_same_numbers_alone_and_among_others() -> None:
    together = uniform_noise(seed=7, first_item=3, count=4, symbols=50)
    alone = torch.cat([uniform_noise(seed=7, first_item=3 + i, count=1, symbols=50) for i in range(4)])
    assert torch.equal(together, alone)
    assert together.unique().numel() == 200
    assert 0 <= together.min() < together.max() < 1


def test_streams_of_one_seed_share_no_number() -> None:
    """Codes and pixels of one item under one seed must be independent."""
    codes, pixels = (uniform_noise(seed=7, first_item=0, count=3, symbols=1000, stream=stream) for stream in (0, 1))
    assert torch.equal(codes, uniform_noise(seed=7, first_item=0, count=3, symbols=1000))
    assert torch.cat([codes, pixels]).unique().numel() == 6000
