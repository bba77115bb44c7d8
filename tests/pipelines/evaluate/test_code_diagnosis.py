"""Diagnosis of codes and prior: costs of a code of grids and sequences against plain computation, and overfitting."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from stage2_prior import HierarchicalPrior, PixelCNN, WaveNet
from twostage.grids import Grids
from twostage.storage.codes import CodeFile, CodeHeader
from twostage_pipelines.bits.rate import label_frequencies, learned_rate
from twostage_pipelines.evaluate.code_diagnosis import (
    diagnose_prior,
    items_of,
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


def coded(codes: np.ndarray, labels: np.ndarray | None = None, *, grids: Grids | None = None, **more: Any) -> CodeFile:
    """A file of codes `[N, G, *T]`, K = 5; of one grid unless `grids` says otherwise."""
    labels = np.zeros(len(codes), np.int64) if labels is None else labels
    header = CodeHeader(
        dataset="d",
        split="test",
        model="vq-vae",
        codebook_size=5,
        codebooks=codes.shape[1],
        grids=grids or (codes.shape[2:],),
        classes=int(labels.max()) + 1 if labels.any() else 0,
        stage1_sha256="0" * 64,
        speakers=int(more["speakers"].max()) + 1 if "speakers" in more else 0,
    )
    return CodeFile(codes=codes, labels=labels, header=header, **more)


def _by_table(codes: np.ndarray) -> list[np.ndarray]:
    """Codes of each level and codebook of grids 1x2 and 2x4."""
    return [codes[:, group, part] for part in (slice(0, 2), slice(2, 10)) for group in range(2)]


def marginalised(_: CodeFile) -> None:
    """Labels are not given."""


def label_and_speaker(file: CodeFile) -> np.ndarray:
    assert file.speakers is not None
    return np.stack([file.labels, file.speakers], 1)


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
        bits = position_bits(prior, coded(codes), labels, marginalised, device=CPU, batch_size=2)
        rate = learned_rate(prior, codes, frequencies=frequency, device=CPU, batch_size=5)
        np.testing.assert_allclose(bits.sum((1, 2)), rate.bits, rtol=1e-5)

    def test_labels_are_weighed_by_what_was_seen_before_a_position(self) -> None:
        """Bayes by hand: the second position's label frequencies are those after the first."""
        prior, frequency = build(classes=(2,), grid=(1, 2)), np.array([0.3, 0.7])
        codes = random_codes(6, prior)
        bits = position_bits(prior, coded(codes), np.array([0] * 3 + [1] * 7), marginalised, device=CPU, batch_size=4)
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
    def test_costs_of_a_code_by_hand(self) -> None:
        prior = build()
        held_out, train = random_codes(7, prior, seed=1), random_codes(30, prior, seed=2)
        found = diagnose_prior(prior, coded(held_out), coded(train), marginalised, device=CPU, batch_size=4)
        assert found.uniform_bits_per_code == pytest.approx(math.log2(5))
        counts = np.bincount(train.ravel(), minlength=5) + 1
        assert found.unigram_bits_per_code == pytest.approx(-np.log2(counts / counts.sum())[held_out].mean())
        per_code_N = learned_rate(prior, held_out, device=CPU, batch_size=4).bits / 6
        assert found.held_out_bits_per_code == pytest.approx(per_code_N.mean(), rel=1e-5)
        assert found.held_out_standard_error == pytest.approx(per_code_N.std(ddof=1) / math.sqrt(7), rel=1e-4)
        assert found.bits_by_position.shape == (2, 3)
        assert found.bits_by_position.sum() == pytest.approx(6 * found.held_out_bits_per_code)
        assert np.asarray(found.record()["bits_by_position"]).sum() == pytest.approx(found.bits_by_position.sum())

    def test_levels_of_a_hierarchy_are_priced_by_themselves(self) -> None:
        torch.manual_seed(0)
        grids = ((1, 2), (2, 4))
        prior = HierarchicalPrior(codebook_size=5, grids=grids, codebooks=2, channels=8, layers=2).eval()
        held_out, train = random_codes(7, prior, seed=1), random_codes(9, prior, seed=2)
        files = (coded(held_out, grids=grids), coded(train, grids=grids))
        found = diagnose_prior(prior, *files, marginalised, device=CPU, batch_size=4)
        codes = torch.from_numpy(held_out[:, :, :2]).unflatten(2, (1, 2))
        with torch.no_grad():
            coarse = -prior.level(0).log_prob(codes).double().mean().item() / math.log(2)
            both = -prior.log_prob(torch.from_numpy(held_out)).double().mean().item() / math.log(2)
        first, second = found.levels
        assert first.bits_per_item == pytest.approx(coarse, rel=1e-5)
        assert second.bits_per_item == pytest.approx(both - coarse, rel=1e-5)
        assert first.bits_per_code == pytest.approx(coarse / 4, rel=1e-5)
        assert second.bits_per_code == pytest.approx((both - coarse) / 16, rel=1e-5)
        assert found.held_out_bits_per_code == pytest.approx(both / 20, rel=1e-5)
        assert found.record()["grids"] == "1x2+2x4"
        assert f"Level 2 (2x4): {second.bits_per_code:.3f} bits a code" in found.sentence()
        tables = [np.bincount(part.ravel(), minlength=5) + 1.0 for part in _by_table(train)]
        bits = sum(-np.log2(t / t.sum())[c].sum() for t, c in zip(tables, _by_table(held_out), strict=True))
        assert found.unigram_bits_per_code == pytest.approx(bits / held_out.size)

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
            diagnose_prior(
                prior, coded(held_out), coded(train, labels), marginalised, device=CPU, batch_size=10, **given
            )
            for given in (known, {})
        )
        assert passes == [7] * 9
        assert reused.record() == anew.record()

    def test_learning_by_heart_is_caught(self) -> None:
        """Codes without any structure: what is learned of twenty items is of no use to others."""
        prior = build(codebook_size=4, channels=16, grid=(3, 3))
        train, held_out = random_codes(20, prior, seed=0), random_codes(40, prior, seed=1)
        optimiser, codes = torch.optim.Adam(prior.parameters(), 1e-2), torch.from_numpy(train)
        before = diagnose_prior(prior, coded(held_out), coded(train), marginalised, device=CPU, batch_size=40)
        for _ in range(60):
            optimiser.zero_grad()
            prior.log_prob(codes).mean().neg().backward()
            optimiser.step()
        after = diagnose_prior(prior, coded(held_out), coded(train), marginalised, device=CPU, batch_size=40)
        assert not before.overfitted
        assert after.train_bits_per_code < 1.0
        assert after.held_out_bits_per_code > 2.0
        assert after.overfitted


class TestSequences:
    """Codes of recordings: 3 to 6 positions, 2 codes at each, a prior that is given label and speaker."""

    LENGTHS = np.array([6, 3, 5, 4, 3])

    def prior(self, **changes: Any) -> WaveNet:
        torch.manual_seed(0)
        arguments: dict[str, Any] = {"codebook_size": 5, "max_length": 8, "codebooks": 2, "classes": (2, 3)}
        small = {"channels": 8, "blocks": 1, "layers_per_block": 2}
        prior = WaveNet(**(arguments | small | changes))
        torch.nn.init.normal_(prior.head.output_weight_GSK, std=1.0)
        for bias in prior.condition.parameters():
            torch.nn.init.normal_(bias, std=1.0)
        return prior.eval()

    def file(self, *, behind: int = 0, seed: int = 0, lengths: np.ndarray = LENGTHS) -> CodeFile:
        """Random codes; `behind` stands in place of those behind the end."""
        random, count = np.random.default_rng(seed), len(lengths)
        codes = random.integers(0, 5, (count, 2, 6))
        codes[~np.broadcast_to(np.arange(6) < lengths[:, None, None], codes.shape)] = behind
        labels, speakers = np.arange(count) % 2, np.arange(count) % 3
        return coded(codes, labels, lengths=lengths, speakers=speakers)

    def test_every_code_costs_what_the_prior_says_given_label_and_speaker(self) -> None:
        prior, file = self.prior(), self.file()
        bits = position_bits(prior, file, file.labels, label_and_speaker, device=CPU, batch_size=2)
        assert file.speakers is not None
        for item, length in enumerate(self.LENGTHS):
            codes = torch.from_numpy(file.codes[item : item + 1, :, :length])
            condition = torch.tensor([[file.labels[item], file.speakers[item]]])
            with torch.no_grad():
                log_table = prior(codes, condition)[0].log_softmax(-1)
            expected = -log_table.gather(-1, codes[..., None])[0, :, :, 0].sum(0).numpy() / math.log(2)
            np.testing.assert_allclose(bits[item, :length], expected, rtol=1e-4)
            assert (bits[item, length:] == 0).all()

    def test_means_are_over_real_codes_and_nothing_behind_an_end_counts(self) -> None:
        prior, (held_out, train) = self.prior(), (self.file(seed=1), self.file(seed=2))
        found = diagnose_prior(prior, held_out, train, label_and_speaker, device=CPU, batch_size=3)
        bits = position_bits(prior, held_out, train.labels, label_and_speaker, device=CPU, batch_size=3)
        assert found.held_out_bits_per_code == pytest.approx(bits.sum() / (2 * 21))
        assert found.unigram_bits_per_code == pytest.approx(self.unigram(held_out, train))
        # A ratio of sums: an item of six positions weighs as much as two of three.
        residuals = bits.sum(1) - found.held_out_bits_per_code * 2 * self.LENGTHS
        error = math.sqrt((residuals**2).sum() / (5 * 4)) / (2 * 21 / 5)
        assert found.held_out_standard_error == pytest.approx(error)
        # Three of five items have a fourth position, two have a fifth, and one has a sixth.
        assert found.bits_by_position.shape == (4,)
        assert found.bits_by_position[3] == pytest.approx(bits[[0, 2, 3], 3].mean())
        assert found.bits_by_position[0] == pytest.approx(bits[:, 0].mean())
        other = diagnose_prior(
            prior, self.file(behind=4, seed=1), self.file(behind=3, seed=2), label_and_speaker, device=CPU, batch_size=3
        )
        assert other.record() == found.record()

    @staticmethod
    def unigram(held_out: CodeFile, train: CodeFile) -> float:
        bits = []
        for group in range(2):
            seen, own = (
                np.concatenate([codes[:length] for codes, length in zip(file.codes[:, group], lengths, strict=True)])
                for file, lengths in ((train, TestSequences.LENGTHS), (held_out, TestSequences.LENGTHS))
            )
            counts = np.bincount(seen, minlength=5) + 1
            bits.append(-np.log2(counts / counts.sum())[own])
        return float(np.concatenate(bits).mean())

    def test_some_items_keep_everything_of_theirs(self) -> None:
        some = items_of(self.file(), np.array([3, 0]))
        assert some.lengths is not None
        assert some.speakers is not None
        assert (some.lengths.tolist(), some.speakers.tolist(), some.labels.tolist()) == ([4, 6], [0, 0], [1, 0])
        np.testing.assert_array_equal(some.codes, self.file().codes[[3, 0]])

    def test_the_sentence_says_what_the_prior_is_given(self) -> None:
        found = diagnose_prior(
            self.prior(), self.file(), self.file(seed=1), label_and_speaker, device=CPU, batch_size=5
        )
        assert "under the learned prior given label and speaker, " in found.sentence(
            "recording", given="label and speaker"
        )
        assert found.sentence("recording").endswith("(5 recordings).")
        assert "under the learned prior, " in found.sentence()
