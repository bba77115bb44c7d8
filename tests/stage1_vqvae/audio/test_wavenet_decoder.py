"""The WaveNet decoder: what a sample depends on, padding, masses, cached sampling, speakers, bad arguments."""

from typing import Any

import pytest
import torch
from torch import Tensor

from stage1_vqvae.audio.wavenet_decoder import NEAREST, REACH, WaveNetDecoder
from twostage.errors import RunError, UsageError
from twostage.noise import uniform_noise

LIKELIHOODS = ["mu-law", "logistic-mixture"]
STRIDE, CODES = 8, 12
SAMPLES = STRIDE * CODES


def build(likelihood: str = "logistic-mixture", **changes: Any) -> WaveNetDecoder:
    """A small decoder with random weights, on which everything depends that it may depend on."""
    arguments: dict[str, Any] = {
        "condition_channels": 3,
        "stride": STRIDE,
        "likelihood": likelihood,
        "mixtures": 3,
        "speakers": 3,
        "speaker_channels": 4,
        "channels": 8,
        "blocks": 1,
        "layers_per_block": 5,
        "head_channels": 8,
    }
    torch.manual_seed(0)
    decoder = WaveNetDecoder(**(arguments | changes))
    if decoder.coefficients is not None:
        with torch.no_grad():  # at random, sampled sounds grow without bounds or die away within a few samples
            decoder.coefficients.weight.mul_(3)
            decoder.coefficients.bias.mul_(0.6)
            decoder.likelihood.pixels.project.weight.mul_(0.3)
            decoder.likelihood.pixels.project.bias.view(-1, 3)[:, 2] = -0.2
    return decoder.double().eval()


def sounds(items: int, samples: int = SAMPLES) -> tuple[Tensor, Tensor, Tensor]:
    """int16 samples [B, S], vectors of codes [B, 3, T] and speakers [B]."""
    generator = torch.Generator().manual_seed(1)
    samples_BS = (torch.randn(items, samples, generator=generator) * 2000).to(torch.int16)
    vectors_BDT = torch.randn(items, 3, samples // STRIDE, dtype=torch.float64, generator=generator)
    return samples_BS, vectors_BDT, torch.arange(items) % 3


def condition_of(decoder: WaveNetDecoder, vectors_BDT: Tensor, speaker_B: Tensor) -> Tensor:
    """The condition of items that are whole."""
    inside_B1T = torch.ones(len(vectors_BDT), 1, vectors_BDT.shape[2], dtype=torch.bool)
    return decoder.condition(vectors_BDT, inside_B1T, speaker_B)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("layers", [2, 5])  # a receptive field of less than the nearest samples, and of more
def test_a_sample_depends_on_the_samples_of_the_receptive_field_and_no_other(likelihood: str, layers: int) -> None:
    decoder = build(likelihood, layers_per_block=layers)
    reach = decoder.receptive_field
    assert reach == {2: NEAREST, 5: 32}[layers]
    samples_BS, vectors_BDT, speaker_B = sounds(1)
    condition_BFX = condition_of(decoder, vectors_BDT, speaker_B)
    with torch.no_grad():
        before_BLS = decoder.likelihood_features(samples_BS, condition_BFX)
        for place in (0, 5, 40, SAMPLES - 2, SAMPLES - 1):
            changed_BS = samples_BS.clone()
            changed_BS[0, place] += 300
            after_BLS = decoder.likelihood_features(changed_BS, condition_BFX)
            differs_S = (after_BLS - before_BLS)[0].abs().amax(0) > 1e-12
            expected = list(range(place + 1, min(place + 1 + reach, SAMPLES)))
            assert differs_S.nonzero().flatten().tolist() == expected, f"sample {place}"


def test_one_step_of_sixteen_bits_is_seen_at_every_loudness() -> None:
    decoder = build()
    _, vectors_BDT, speaker_B = sounds(1)
    condition_BFX = condition_of(decoder, vectors_BDT, speaker_B)
    for value in (-32768, -20000, 0, 5000, 32766):  # wide mu-law levels hold hundreds of samples
        flat_BS = torch.full((1, SAMPLES), value, dtype=torch.int16)
        changed_BS = flat_BS.clone()
        changed_BS[0, 30] += 1
        with torch.no_grad():
            features = [decoder.stack(decoder._embed(x).transpose(1, 2), None, condition_BFX) for x in
                        (flat_BS, changed_BS)]  # fmt: skip
        assert (features[0] - features[1])[0, :, 31].abs().max() > 1e-7, value


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_sample_depends_on_codes_nearby_and_no_other(likelihood: str) -> None:
    decoder = build(likelihood, layers_per_block=3)  # at most 8 samples back
    samples_BS, vectors_BDT, speaker_B = sounds(2)
    mask_BS = torch.arange(SAMPLES) < torch.tensor([[SAMPLES], [5 * STRIDE - 3]])
    inside_B1T = (torch.arange(CODES) < torch.tensor([[CODES], [5]]))[:, None]
    vectors_BDT.requires_grad_()
    condition_BFX = decoder.condition(vectors_BDT, inside_B1T, speaker_B)
    log_prob_BS = decoder.sample_log_prob(samples_BS, condition_BFX)
    for t in (0, 13, 47, 56, SAMPLES - 1):
        (gradient_BDT,) = torch.autograd.grad(log_prob_BS[0, t], vectors_BDT, retain_graph=True)
        seen_T = gradient_BDT[0].abs().sum(0) > 0
        own, place_T = t // STRIDE, torch.arange(CODES)
        assert not seen_T[place_T > own + REACH].any()
        assert not seen_T[place_T < (t - 7) // STRIDE - REACH].any()
        assert seen_T[(place_T >= own - REACH) & (place_T <= own + REACH)].all()
        assert not gradient_BDT[1].any()
    (gradient_BDT,) = torch.autograd.grad((log_prob_BS * mask_BS)[1].sum(), vectors_BDT)
    assert torch.equal(gradient_BDT[1].abs().sum(0) > 0, torch.arange(CODES) < 5)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_padding_changes_nothing(likelihood: str) -> None:
    decoder = build(likelihood)
    samples_BS, vectors_BDT, speaker_B = sounds(3)
    lengths = [SAMPLES, 5 * STRIDE, 2 * STRIDE + 3]
    mask_BS = torch.arange(SAMPLES) < torch.tensor(lengths)[:, None]
    # What lies behind the end is random in samples and codes, and stays as it is.
    together_B = decoder.log_prob(samples_BS, mask_BS, vectors_BDT, speaker_B)
    gradients = torch.autograd.grad(together_B.sum(), list(decoder.parameters()))
    summed = [torch.zeros_like(gradient) for gradient in gradients]
    for item, length in enumerate(lengths):
        row, codes = slice(item, item + 1), -(-length // STRIDE)
        alone_BS = samples_BS[row, : codes * STRIDE].clone()
        alone_BS[:, length:] = 0
        mask = mask_BS[row, : codes * STRIDE]
        alone_B = decoder.log_prob(alone_BS, mask, vectors_BDT[row, :, :codes], speaker_B[row])
        torch.testing.assert_close(alone_B[0], together_B[item], rtol=1e-6, atol=1e-5)  # nats are fp32
        for total, gradient in zip(summed, torch.autograd.grad(alone_B.sum(), list(decoder.parameters())), strict=True):
            total += gradient
    for total, gradient in zip(summed, gradients, strict=True):
        torch.testing.assert_close(total, gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()))


def test_log_prob_is_that_of_a_mass_function() -> None:
    decoder = build("mu-law")
    levels = torch.arange(256)
    samples_KS = torch.zeros(256, STRIDE, dtype=torch.int16)
    _, vectors_BDT, speaker_B = sounds(1, STRIDE)
    vectors_KDT, speaker_K = vectors_BDT.expand(256, -1, -1), speaker_B.expand(256)

    def masses(length: int) -> Tensor:
        mask_KS = (torch.arange(STRIDE) < length).expand(256, -1)
        with torch.no_grad():
            return decoder.log_prob(samples_KS, mask_KS, vectors_KDT, speaker_K).double().exp()

    samples_KS[:, 0] = decoder.likelihood.samples_of(levels)
    first_K = masses(1)
    assert first_K.sum() == pytest.approx(1.0, abs=1e-6)
    samples_KS[:, 0] = samples_KS[100, 0].clone()
    samples_KS[:, 1] = decoder.likelihood.samples_of(levels)
    assert masses(2).sum() == pytest.approx(float(first_K[100]), rel=1e-6)


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_cached_sampling_is_the_parallel_pass_drawn_with_the_same_noise(likelihood: str, temperature: float) -> None:
    decoder = build(likelihood)
    _, vectors_BDT, speaker_B = sounds(3)
    lengths_B = torch.tensor([SAMPLES, 3 * STRIDE + 1, 1])
    seen: list[tuple[int, int]] = []
    sampled_BS = decoder.train().sample(  # eval mode whatever the module is in
        vectors_BDT, lengths_B, speaker_B, seed=4, first_item=7, temperature=temperature,
        progress=lambda *done: seen.append(done),
    )  # fmt: skip
    assert seen == [(t, SAMPLES) for t in range(1, SAMPLES + 1)]
    real_BS = torch.arange(SAMPLES) < lengths_B[:, None]
    assert not sampled_BS[~real_BS].any()
    assert sampled_BS[0].unique().numel() > 40
    inside_B1T = (torch.arange(CODES) < torch.tensor([[CODES], [4], [1]]))[:, None]
    noise_BS = uniform_noise(seed=4, first_item=7, count=3, symbols=SAMPLES, stream=1)
    with torch.no_grad():
        condition_BFX = decoder.eval().condition(vectors_BDT, inside_B1T, speaker_B)
        features_BLS = decoder.likelihood_features(sampled_BS, condition_BFX)
        redrawn_BS = decoder.likelihood.draw(features_BLS, noise_BS, temperature=temperature)
        other_BS = decoder.likelihood.draw(features_BLS, 1 - noise_BS, temperature=temperature)
    assert torch.equal(sampled_BS, redrawn_BS.where(real_BS, 0))
    assert (sampled_BS != other_BS)[real_BS].float().mean() > 0.8


@pytest.mark.parametrize("bias", [-4.0, 3.0])  # leaves the grid soon, and late
def test_cached_sampling_knows_as_the_parallel_pass_whether_all_samples_were_on_the_grid(bias: float) -> None:
    decoder = build(coarse_bits=8)
    assert decoder.coarse is not None
    torch.nn.init.constant_(decoder.coarse.bias, bias)
    _, vectors_BDT, speaker_B = sounds(3)
    sampled_BS = decoder.sample(vectors_BDT, torch.tensor([SAMPLES] * 3), speaker_B, seed=4)
    noise_BS = uniform_noise(seed=4, first_item=0, count=3, symbols=SAMPLES, stream=1)
    with torch.no_grad():
        features_BLS = decoder.likelihood_features(sampled_BS, condition_of(decoder, vectors_BDT, speaker_B))
        redrawn_BS = decoder.likelihood.draw(features_BLS, noise_BS)
    assert torch.equal(sampled_BS, redrawn_BS)
    off_BS = (sampled_BS % 256 != 0).cumsum(1) > 0
    assert not off_BS[:, 0].all() if bias > 0 else off_BS[:, 10].all()
    assert torch.equal(features_BLS[:, -3, 1:] == -torch.inf, off_BS[:, :-1])


def test_samples_on_the_grid_are_cheap_until_one_is_not() -> None:
    decoder = build(coarse_bits=8)
    assert decoder.coarse is not None
    torch.nn.init.constant_(decoder.coarse.bias, 4.0)
    samples_BS, vectors_BDT, speaker_B = sounds(1)
    coarse_BS = samples_BS // 256 * 256
    broken_BS = coarse_BS.clone()
    broken_BS[0, 40] += 1
    with torch.no_grad():
        condition_BFX = condition_of(decoder, vectors_BDT, speaker_B)
        nats, broken_nats, fine_nats = (
            -decoder.sample_log_prob(x, condition_BFX)[0] for x in (coarse_BS, broken_BS, samples_BS)
        )
    assert torch.equal(nats[:40], broken_nats[:40])
    assert fine_nats[:40].mean() > nats[:40].mean() + 4  # 8 bits are 5.5 nats
    assert broken_nats[41:].mean() > nats[41:].mean() + 4


def test_an_item_is_the_same_in_every_batch_and_another_under_another_number() -> None:
    decoder = build()
    _, vectors_BDT, speaker_B = sounds(3)
    lengths_B = torch.tensor([50, SAMPLES, 33])
    together_BS = decoder.sample(vectors_BDT, lengths_B, speaker_B, seed=0)
    for item in range(3):
        row, codes = slice(item, item + 1), -(-int(lengths_B[item]) // STRIDE)
        alone_BS = decoder.sample(vectors_BDT[row, :, :codes], lengths_B[row], speaker_B[row], seed=0, first_item=item)
        assert torch.equal(alone_BS[0], together_BS[item, : lengths_B[item]])
    renumbered_BS = decoder.sample(vectors_BDT, lengths_B, speaker_B, seed=0, first_item=1)
    assert (renumbered_BS != together_BS)[:, :30].float().mean() > 0.8


def test_speakers_change_the_sound_and_must_be_said() -> None:
    decoder = build()
    samples_BS, vectors_BDT, _ = sounds(3)
    mask_BS = torch.ones_like(samples_BS, dtype=torch.bool)
    same = [value[:1].expand(3, *value.shape[1:]) for value in (samples_BS, mask_BS, vectors_BDT)]
    nats_B = -decoder.log_prob(*same, torch.arange(3))
    assert nats_B.diff().abs().min() > 1e-3
    with pytest.raises(UsageError, match="got none: say who speaks"):
        decoder.log_prob(samples_BS, mask_BS, vectors_BDT)
    with pytest.raises(UsageError, match="trained on no other"):
        decoder.sample(vectors_BDT, torch.tensor([8, 8, 8]), torch.tensor([0, 1, 3]), seed=0)
    alone = build(speakers=0)
    assert alone.log_prob(samples_BS, mask_BS, vectors_BDT).isfinite().all()
    with pytest.raises(UsageError, match="without speakers"):
        alone.log_prob(samples_BS, mask_BS, vectors_BDT, torch.arange(3))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="multiple of 4 samples per code, not 6"):
        build(stride=6)
    with pytest.raises(UsageError, match="coarse bits are 1 to 15 of the likelihood logistic-mixture, not 8 of mu-law"):
        build("mu-law", coarse_bits=8)
    decoder = build()
    samples_BS, vectors_BDT, speaker_B = sounds(2)
    mask_BS = torch.ones_like(samples_BS, dtype=torch.bool)
    with pytest.raises(UsageError, match="expected 12 codes per item for 96 samples, got 11"):
        decoder.log_prob(samples_BS, mask_BS, vectors_BDT[:, :, 1:], speaker_B)
    with pytest.raises(UsageError, match="int16 samples"):
        decoder.log_prob(samples_BS[:, 1:], mask_BS[:, 1:], vectors_BDT, speaker_B)
    for lengths in ([5, SAMPLES + 1], [0, 5]):
        with pytest.raises(UsageError, match=f"lengths from 1 to {SAMPLES} samples, int64, got {min(lengths)} to"):
            decoder.sample(vectors_BDT, torch.tensor(lengths), speaker_B, seed=0)
    with pytest.raises(UsageError, match="one length per item"):
        decoder.sample(vectors_BDT, torch.tensor([5]), speaker_B, seed=0)
    with pytest.raises(UsageError, match="temperature must be above 0, but is 0"):
        decoder.sample(vectors_BDT, torch.tensor([5, 5]), speaker_B, seed=0, temperature=0.0)
    torch.nn.init.constant_(decoder.hidden.weight, torch.nan)
    with pytest.raises(RunError, match="diverged"):
        decoder.sample(vectors_BDT, torch.tensor([5, 5]), speaker_B, seed=0)
