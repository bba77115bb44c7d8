"""The VQ-VAE of sound: padding changes nothing, every length comes back, and only real samples and codes count."""

from typing import Any

import pytest
import torch
from torch import Tensor

from stage1_vqvae import AudioVQVAE
from stage1_vqvae.audio.vqvae import AudioOutput
from twostage.errors import UsageError

STRIDE = 16


def make_model(make_sounds: Any, **overrides: Any) -> AudioVQVAE:
    """A small model of random weights whose codebook lies where its encoder's outputs lie."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "mixtures": 3,
        "speakers": 2,
        "speaker_channels": 5,
        "downsampling_layers": 4,
        "channels": 24,
        "residual_channels": 12,
        "head_channels": 10,
        "embedding_dim": 8,
        "codebook_size": 24,
        "codebooks": 2,
    }
    model = AudioVQVAE(**{**settings, **overrides})
    model.initialise_codebook(*make_sounds([1280] * 20, padded=1280, first=100), seed=0)
    return model


def alone(sounds: tuple[Tensor, Tensor], row: int) -> tuple[Tensor, Tensor]:
    """One item of a batch, padded no further than to a whole code."""
    samples, mask = sounds
    padded = -(-int(mask[row].sum()) // STRIDE) * STRIDE
    return samples[row : row + 1, :padded], mask[row : row + 1, :padded]


def gradients(model: AudioVQVAE, total: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    total.backward()
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def whole_loss(output: AudioOutput) -> Tensor:
    """The parts of the loss as sums over items, samples and codes instead of means."""
    items, positions = len(output.log_likelihood_nats), len(output.quantised.codes)
    quantiser = output.quantised.commitment_loss + output.quantised.codebook_loss
    return -output.log_likelihood_nats.sum() + items * output.spectral_loss + positions * quantiser


class TestLengths:
    def test_every_length_up_to_three_codes(self, make_sounds: Any) -> None:
        """Alone and in one batch: as many codes as begin within the recording, and nothing behind them."""
        model = make_model(make_sounds).eval()
        lengths = list(range(1, 3 * STRIDE + 1))
        together = make_sounds(lengths, padded=5 * STRIDE)
        speaker = torch.arange(len(lengths)) % 2
        codes = model.encode(*together)
        assert len(codes.unique()) > 10
        counts = model.code_lengths(torch.tensor(lengths))
        assert counts.tolist() == [1] * 16 + [2] * 16 + [3] * 16
        bits = model.log_prob(*together, codes, speaker)
        waves = model.decode(codes, counts, speaker)
        assert waves.shape == (48, 5 * STRIDE)
        for row, count in enumerate(counts.tolist()):
            sounds = alone(together, row)
            own = model.encode(*sounds)
            assert own.shape == (1, 2, count)
            assert torch.equal(codes[row, :, :count], own[0])
            assert not codes[row, :, count:].any()
            torch.testing.assert_close(model.log_prob(*sounds, own, speaker[row : row + 1])[0], bits[row])
            wave = model.decode(own, counts[row : row + 1], speaker[row : row + 1])
            assert wave.shape == (1, count * STRIDE)
            assert wave.abs().amax() > 1e-3
            torch.testing.assert_close(waves[row, : count * STRIDE], wave[0], rtol=1e-4, atol=1e-6)
            assert not waves[row, count * STRIDE :].any()

    def test_codes_behind_the_end_do_not_matter(self, make_sounds: Any) -> None:
        model = make_model(make_sounds).eval()
        sounds, speaker = make_sounds([20], padded=80), torch.tensor([1])
        codes = model.encode(*sounds)
        other = codes.clone()
        other[:, :, 2:] = 7
        count = torch.tensor([2])
        assert torch.equal(model.log_prob(*sounds, codes, speaker), model.log_prob(*sounds, other, speaker))
        assert torch.equal(model.decode(codes, count, speaker), model.decode(other, count, speaker))

    def test_all_numbers_of_halvings(self, make_sounds: Any) -> None:
        for layers in (4, 5, 6, 7):
            model = make_model(make_sounds, downsampling_layers=layers)
            sounds = make_sounds([2 * model.stride - 1, 1], padded=2 * model.stride)
            speaker = torch.tensor([0, 1])
            assert model.stride == 2**layers
            assert torch.isfinite(model(*sounds, speaker).loss)
            assert model.decode(model.encode(*sounds), torch.tensor([2, 1]), speaker).shape == (2, 2 * model.stride)


class TestPadding:
    @pytest.mark.parametrize("likelihood", ["logistic-mixture", "mu-law"])
    def test_gradients_of_a_batch_are_those_of_its_items_alone(self, make_sounds: Any, likelihood: str) -> None:
        model = make_model(make_sounds, likelihood=likelihood, update="loss").eval()
        sounds = make_sounds([1, 37, 90], padded=144)
        speaker = torch.tensor([0, 1, 1])
        together = gradients(model, whole_loss(model(*sounds, speaker)))
        apart = [gradients(model, whole_loss(model(*alone(sounds, row), speaker[row : row + 1]))) for row in range(3)]
        for name, gradient in together.items():
            expected = sum(each[name] for each in apart)
            torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max() + 1e-6))
        assert all(gradient.any() for gradient in together.values())

    def test_a_training_step_does_not_see_padding(self, make_sounds: Any) -> None:
        model = make_model(make_sounds)
        results = []
        for padded in (48, 160):
            sounds = make_sounds([40], padded=padded)
            torch.manual_seed(5)  # of the samples whose likelihood is estimated
            output = model(*sounds, torch.tensor([1]))
            results.append((output, gradients(model, output.loss)))
        (near, near_gradients), (far, far_gradients) = results
        torch.testing.assert_close(near.loss, far.loss)
        for name, gradient in near_gradients.items():
            torch.testing.assert_close(gradient, far_gradients[name], rtol=1e-3, atol=1e-5)

    def test_the_quantiser_counts_real_positions_only(self, make_sounds: Any) -> None:
        model = make_model(make_sounds).train()
        statistics = model(*make_sounds([1, 16, 17, 80], padded=112), torch.tensor([0, 1, 0, 1])).quantised.statistics
        assert statistics is not None
        assert statistics.counts_GK.sum(1).tolist() == [1 + 1 + 2 + 5] * 2
        assert statistics.candidates_GND.shape[1] == 9

    def test_k_means_sees_real_positions_only(self, make_sounds: Any) -> None:
        model, same = make_model(make_sounds), make_model(make_sounds)
        model.initialise_codebook(*make_sounds([160] * 12, padded=160), seed=3)
        same.initialise_codebook(*make_sounds([160] * 12, padded=320), seed=3)
        torch.testing.assert_close(model.quantiser.codebook, same.quantiser.codebook)


class TestLikelihood:
    def test_bits_are_summed_over_real_samples_only(self, make_sounds: Any) -> None:
        """A likelihood that reads no features gives every sample of silence the same mass."""
        model = make_model(make_sounds).eval()
        with torch.no_grad():
            model.likelihood.pixels.project.weight.zero_()
        silence = torch.zeros(64, 64, dtype=torch.int16)
        mask = torch.arange(64) < torch.arange(1, 65)[:, None]
        speaker = torch.zeros(64, dtype=torch.int64)
        nats = model.log_prob(silence, mask, model.encode(silence, mask), speaker)
        torch.testing.assert_close(nats, nats[0] * torch.arange(1, 65))
        assert -20 < nats[0] < -3

    def test_the_estimate_in_training_is_unbiased(self, make_sounds: Any) -> None:
        """There are four estimates, one per residue of the sample's number; their mean is exact."""
        model = make_model(make_sounds)
        sounds, speaker = make_sounds([1, 50, 96], padded=96), torch.tensor([0, 1, 0])
        exact = model.eval()(*sounds, speaker).log_likelihood_nats
        torch.testing.assert_close(exact, model.log_prob(*sounds, model.encode(*sounds), speaker))
        model.train()
        estimates: dict[tuple[float, ...], Tensor] = {}
        for seed in range(40):
            torch.manual_seed(seed)
            estimate = model(*sounds, speaker).log_likelihood_nats.detach()
            estimates[tuple(round(value, 1) for value in estimate.tolist())] = estimate
        assert len(estimates) == 4
        torch.testing.assert_close(torch.stack(list(estimates.values())).mean(0), exact.detach())

    def test_each_end_of_the_decoder_is_trained_by_its_own_term(self, make_sounds: Any) -> None:
        model = make_model(make_sounds).train()
        output = model(*make_sounds([60], padded=64), torch.tensor([0]))
        model.zero_grad()
        output.spectral_loss.backward(retain_graph=True)
        assert model.decoder.spectral.project.weight.grad.any()
        assert all(parameter.grad is None for parameter in model.likelihood.parameters())
        model.zero_grad()
        output.log_likelihood_nats.sum().backward()
        assert model.decoder.spectral.project.weight.grad is None
        assert all(parameter.grad.any() for parameter in model.likelihood.parameters())

    def test_a_code_for_every_position_or_a_clear_error(self, make_sounds: Any) -> None:
        model = make_model(make_sounds)
        sounds = make_sounds([60], padded=64)
        with pytest.raises(UsageError, match="expected 4 codes per item for 64 samples"):
            model.log_prob(*sounds, torch.zeros(1, 2, 5, dtype=torch.int64), torch.tensor([0]))


class TestSpeakers:
    def test_the_speaker_changes_sound_and_bits_but_not_the_codes(self, make_sounds: Any) -> None:
        model = make_model(make_sounds).eval()
        sounds, counts = make_sounds([90], padded=96), torch.tensor([6])
        codes = model.encode(*sounds)
        waves = [model.decode(codes, counts, torch.tensor([speaker])) for speaker in (0, 1)]
        bits = [model.log_prob(*sounds, codes, torch.tensor([speaker])) for speaker in (0, 1)]
        assert (waves[0] - waves[1]).abs().max() > 1e-3
        assert abs(float(bits[0] - bits[1])) > 1e-2

    @pytest.mark.parametrize(
        ("speakers", "speaker", "words"),
        [
            (2, None, "got none"),
            (2, torch.tensor([2]), "got 2 to 2"),
            (2, torch.tensor([0, 1]), "one speaker per item"),
            (0, torch.tensor([0]), "without speakers"),
        ],
    )
    def test_speakers_that_do_not_fit(self, make_sounds: Any, speakers: int, speaker: Any, words: str) -> None:
        model = make_model(make_sounds, speakers=speakers)
        with pytest.raises(UsageError, match=words):
            model(*make_sounds([60], padded=64), speaker)

    def test_without_speakers(self, make_sounds: Any) -> None:
        model = make_model(make_sounds, speakers=0)
        output = model(*make_sounds([60], padded=64))
        assert torch.isfinite(output.loss)


class TestInput:
    @pytest.mark.parametrize(
        ("samples", "mask"),
        [
            (torch.zeros(1, 64), torch.ones(1, 64, dtype=torch.bool)),
            (torch.zeros(1, 63, dtype=torch.int16), torch.ones(1, 63, dtype=torch.bool)),
            (torch.zeros(1, 64, dtype=torch.int16), torch.ones(1, 48, dtype=torch.bool)),
            (torch.zeros(1, 64, dtype=torch.int16), torch.zeros(1, 64, dtype=torch.bool)),
            (torch.zeros(1, 64, dtype=torch.int16), torch.arange(64)[None] != 5),
        ],
        ids=["floats", "no multiple of the stride", "another mask", "nothing", "a hole"],
    )
    def test_samples_that_do_not_fit(self, make_sounds: Any, samples: Tensor, mask: Tensor) -> None:
        with pytest.raises(UsageError, match="expected int16 samples"):
            make_model(make_sounds).encode(samples, mask)

    @pytest.mark.parametrize("layers", [3, 8])
    def test_halvings_that_do_not_fit(self, layers: int) -> None:
        with pytest.raises(UsageError, match="downsampling_layers must be"):
            AudioVQVAE(downsampling_layers=layers)

    def test_waveforms_stay_within_limits(self, make_sounds: Any) -> None:
        model = make_model(make_sounds).eval()
        with torch.no_grad():
            model.decoder.spectral.project.bias.add_(9.0)
        wave = model.decode(model.encode(*make_sounds([90], padded=96)), torch.tensor([6]), torch.tensor([0]))
        assert wave.abs().max() == 1.0
