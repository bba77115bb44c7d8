"""Diagnosis of codes and prior: prices of a code against plain computation, overfitting provoked, and every rule."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stage2_prior import PixelCNN
from twostage.metrics.codebook_usage import codebook_usage
from twostage_pipelines.bits.rate import label_frequencies, learned_rate
from twostage_pipelines.evaluate.code_diagnosis import (
    PriorDiagnosis,
    StageFacts,
    diagnose_prior,
    limiting_stage,
    position_bits,
)

CPU = torch.device("cpu")


def build(**changes: Any) -> PixelCNN:
    """A small prior far from uniform."""
    arguments: dict[str, Any] = {"codebook_size": 5, "grid": (2, 3), "channels": 8, "layers": 2, "first_kernel": 3}
    torch.manual_seed(0)
    prior = PixelCNN(**(arguments | changes))
    torch.nn.init.normal_(prior.head.output_weight_GSK, std=1.0)
    return prior.eval()


def random_codes(count: int, prior: PixelCNN, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, prior.codebook_size, (count, *prior.code_shape))


class TestPositions:
    @pytest.mark.parametrize("codebooks", [1, 3])
    def test_a_prior_splits_its_log_probability_by_position(self, codebooks: int) -> None:
        prior = build(codebooks=codebooks)
        codes = torch.from_numpy(random_codes(4, prior))
        with torch.no_grad():
            parts, whole = next(prior.log_probs_by_code(codes, [None])).codes.sum(1), prior.log_prob(codes)
            log_table = prior(codes).log_softmax(-1)
        assert parts.shape == (4, 2, 3)
        torch.testing.assert_close(parts.flatten(1).sum(1), whole)
        expected = sum(log_table[1, g, 1, 2, codes[1, g, 1, 2]] for g in range(codebooks))
        assert parts[1, 1, 2].item() == pytest.approx(float(expected), abs=1e-5)

    @pytest.mark.parametrize("classes", [(), (3,)])
    def test_the_map_adds_up_to_the_marginalised_rate(self, classes: tuple[int, ...]) -> None:
        prior = build(classes=classes, codebooks=2)
        codes, labels = random_codes(5, prior), np.array([0, 0, 1, 2, 2, 2])
        frequency = label_frequencies(prior, labels)
        bits = position_bits(prior, codes, frequency, device=CPU, batch_size=2)
        rate = learned_rate(prior, codes, frequencies=frequency, device=CPU, batch_size=5)
        np.testing.assert_allclose(bits.sum((1, 2)), rate.bits, rtol=1e-5)

    def test_labels_are_weighed_by_what_was_seen_before_a_position(self) -> None:
        """Bayes by hand: the second position's label frequencies are those after the first."""
        prior, frequency = build(classes=(2,), grid=(1, 2)), np.array([0.3, 0.7])
        codes = random_codes(6, prior)
        bits = position_bits(prior, codes, frequency, device=CPU, batch_size=4)
        with torch.no_grad():
            per_label = np.stack(
                [
                    found.codes.sum(1).exp().numpy()
                    for found in prior.log_probs_by_code(
                        torch.from_numpy(codes), [torch.full((6, 1), label) for label in (0, 1)]
                    )
                ]
            )[:, :, 0]
        first = (frequency[:, None] * per_label[:, :, 0]).sum(0)
        after = frequency[:, None] * per_label[:, :, 0] / first
        second = (after * per_label[:, :, 1]).sum(0)
        np.testing.assert_allclose(bits[:, 0], -np.log2(np.stack([first, second], 1)), rtol=1e-5)


class TestPrior:
    def test_prices_of_a_code_by_hand(self) -> None:
        prior = build()
        held_out, train = random_codes(7, prior, seed=1), random_codes(30, prior, seed=2)
        found = diagnose_prior(prior, held_out, train, np.zeros(30, np.int64), device=CPU, batch_size=4)
        assert found.uniform_bits_per_code == pytest.approx(math.log2(5))
        counts = np.bincount(train.ravel(), minlength=5) + 1
        assert found.unigram_bits_per_code == pytest.approx(-np.log2(counts / counts.sum())[held_out].mean())
        per_code_N = learned_rate(prior, held_out, device=CPU, batch_size=4).bits / 6
        assert found.held_out_bits_per_code == pytest.approx(per_code_N.mean(), rel=1e-5)
        assert found.held_out_standard_error == pytest.approx(per_code_N.std(ddof=1) / math.sqrt(7), rel=1e-4)
        assert found.bits_hw.shape == (2, 3)
        assert found.bits_hw.sum() == pytest.approx(6 * found.held_out_bits_per_code)
        assert np.asarray(found.record()["bits_by_position"]).sum() == pytest.approx(found.bits_hw.sum())

    def test_known_bits_by_position_are_not_computed_again(self) -> None:
        """One pass per label over the training codes is left, and the result is the same to the bit."""
        prior, labels = build(classes=(3,)), np.arange(30) % 3
        held_out, train = random_codes(7, prior), random_codes(30, prior)
        weighed: dict[str, Any] = {"frequencies": label_frequencies(prior, labels), "device": CPU, "batch_size": 10}
        rate = learned_rate(prior, held_out, by_position=True, **weighed)
        np.testing.assert_allclose(rate.by_position.sum((1, 2)), rate.bits, rtol=1e-6)
        np.testing.assert_array_equal(rate.bits, learned_rate(prior, held_out, **weighed).bits)
        passes: list[int] = []
        prior.head.register_forward_hook(lambda _, arguments, __: passes.append(len(arguments[0])))
        known: dict[str, Any] = {"bits_by_position": rate.by_position}
        reused, anew = (
            diagnose_prior(prior, held_out, train, labels, device=CPU, batch_size=10, **given) for given in (known, {})
        )
        assert passes == [7] * 9
        assert reused.record() == anew.record()

    def test_learning_by_heart_is_caught(self) -> None:
        """Codes without any structure: what is learned of twenty items is of no use to others."""
        prior = build(codebook_size=4, channels=16, grid=(3, 3))
        train, held_out = random_codes(20, prior, seed=0), random_codes(40, prior, seed=1)
        optimiser, codes = torch.optim.Adam(prior.parameters(), 1e-2), torch.from_numpy(train)
        before = diagnose_prior(prior, held_out, train, np.zeros(20, np.int64), device=CPU, batch_size=40)
        for _ in range(60):
            optimiser.zero_grad()
            prior.log_prob(codes).mean().neg().backward()
            optimiser.step()
        after = diagnose_prior(prior, held_out, train, np.zeros(20, np.int64), device=CPU, batch_size=40)
        assert not before.overfitted
        assert after.train_bits_per_code < 1.0
        assert after.held_out_bits_per_code > 2.0
        assert after.overfitted


def facts(**changes: Any) -> StageFacts:
    """A sound model, most of whose bits are distortion."""
    prior = {key: changes.pop(key) for key in list(changes) if key in PriorDiagnosis.__dataclass_fields__}
    counts = changes.pop("counts", [10] * 16)
    codes = np.repeat(np.arange(len(counts)), counts)[None, None]
    sound = StageFacts(
        distortion_bits_per_dim=1.0,
        rate_bits_per_dim=0.4,
        autoregressive=True,
        swapped_distortion_bits_per_dim=2.0,
        usage=codebook_usage(codes, codebook_size=16),
        prior=PriorDiagnosis(
            items=100,
            uniform_bits_per_code=4.0,
            unigram_bits_per_code=3.8,
            held_out_bits_per_code=3.0,
            held_out_standard_error=0.02,
            train_bits_per_code=2.95,
            train_standard_error=0.02,
            bits_hw=np.ones((2, 2)),
        ),
        stage1_decrease=0.0,
        prior_decrease=0.0,
    )
    return replace(sound, prior=replace(sound.prior, **prior), **changes)


class TestVerdict:
    @pytest.mark.parametrize(
        ("changes", "stage", "cause"),
        [
            ({}, "stage one", "distortion share"),
            ({"distortion_bits_per_dim": 0.3}, "stage two", "rate share"),
            ({"swapped_distortion_bits_per_dim": 1.39}, "stage one", "codes ignored"),
            ({"swapped_distortion_bits_per_dim": 1.39, "stage1_decrease": 0.1}, "stage one", "codes ignored"),
            ({"swapped_distortion_bits_per_dim": 1.39, "autoregressive": False}, "stage one", "codes say little"),
            (
                {"swapped_distortion_bits_per_dim": 1.39, "autoregressive": False, "stage1_decrease": 0.1},
                "stage one",
                "undertrained",
            ),
            ({"swapped_distortion_bits_per_dim": None}, "stage one", "distortion share"),
            ({"counts": [80] * 7}, "stage one", "codebook collapsed"),
            ({"stage1_decrease": 0.03}, "stage one", "undertrained"),
            ({"stage1_decrease": 0.015}, "stage one", "distortion share"),
            ({"prior_decrease": 0.03}, "stage two", "undertrained"),
            ({"stage1_decrease": 0.03, "prior_decrease": 0.03}, "stage one", "undertrained"),
            ({"stage1_decrease": None, "prior_decrease": None}, "stage one", "distortion share"),
            ({"train_bits_per_code": 2.6}, "stage two", "overfitted"),
            ({"train_bits_per_code": 2.6, "held_out_standard_error": 0.3}, "stage one", "distortion share"),
            ({"held_out_bits_per_code": 3.7, "train_bits_per_code": 3.7}, "stage two", "no structure found"),
            ({"prior_decrease": 0.03, "train_bits_per_code": 2.6}, "stage two", "undertrained"),
            (
                {"counts": [80] * 7, "stage1_decrease": 0.1, "train_bits_per_code": 1.0},
                "stage one",
                "codebook collapsed",
            ),
        ],
        ids=str,
    )
    def test_rules(self, changes: dict[str, Any], stage: str, cause: str) -> None:
        verdict = limiting_stage(facts(**changes))
        assert verdict is not None
        assert (verdict.stage, verdict.cause) == (stage, cause)
        assert verdict.sentence.startswith(f"{stage.capitalize()} limits the result ({cause}): ")
        assert "\n" not in verdict.sentence

    def test_the_sentence_says_what_the_other_stage_could_save_at_most(self) -> None:
        verdict = limiting_stage(facts())
        assert verdict is not None
        sentence = verdict.sentence
        assert "71% of the bits are distortion" in sentence
        assert "no more than 0.4000 bits/dim" in sentence

    def test_without_bits_the_other_rules_hold(self) -> None:
        squared = {"distortion_bits_per_dim": None, "swapped_distortion_bits_per_dim": None}
        assert limiting_stage(facts(**squared)) is None
        overfitted = limiting_stage(facts(**squared, train_bits_per_code=2.6))
        assert overfitted is not None
        assert overfitted.cause == "overfitted"

    def test_only_a_decoder_that_can_ignore_its_codes_is_told_to_be_weaker(self) -> None:
        for autoregressive in (True, False):
            verdict = limiting_stage(facts(swapped_distortion_bits_per_dim=1.1, autoregressive=autoregressive))
            assert verdict is not None
            assert ("weaken the decoder" in verdict.reason) == autoregressive
