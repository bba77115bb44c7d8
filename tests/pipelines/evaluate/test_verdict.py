"""Which stage limits a discrete model: every rule, and what the sentence says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from twostage.metrics.codebook_usage import codebook_usage
from twostage_pipelines.evaluate.code_diagnosis import PriorDiagnosis
from twostage_pipelines.evaluate.verdict import StageFacts, limiting_stage, undertrained_reason


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
            bits_by_position=np.ones((2, 2)),
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

    def test_revival_is_advised_only_where_there_is_one(self) -> None:
        verdict = limiting_stage(facts(counts=[80] * 7))
        assert verdict is not None
        assert verdict.reason.endswith("fewer codes, or revival where quantiser.kind has it")

    def test_only_a_decoder_that_can_ignore_its_codes_is_told_to_be_weaker(self) -> None:
        for autoregressive in (True, False):
            verdict = limiting_stage(facts(swapped_distortion_bits_per_dim=1.1, autoregressive=autoregressive))
            assert verdict is not None
            assert ("weaken the decoder" in verdict.reason) == autoregressive


SECOND: dict[str, Any] = {"second_decoder": True, "unit": "bits/sample", "item": "recording"}
IGNORED: dict[str, Any] = {**SECOND, "swapped_distortion_bits_per_dim": 1.39}


class TestWaveNetDecoder:
    """A decoder that follows finished codes: it has a share of the blame of its own."""

    @pytest.mark.parametrize(
        ("changes", "stage", "cause"),
        [
            (SECOND, "stage one", "distortion share"),
            (IGNORED, "WaveNet decoder", "codes ignored"),
            ({**IGNORED, "decoder_decrease": 0.03}, "WaveNet decoder", "undertrained"),
            ({**IGNORED, "stage1_decrease": 0.03}, "stage one", "undertrained"),
            ({**SECOND, "decoder_decrease": 0.03, "prior_decrease": 0.03}, "WaveNet decoder", "undertrained"),
            ({**SECOND, "decoder_decrease": 0.01, "prior_decrease": 0.03}, "stage two", "undertrained"),
        ],
        ids=str,
    )
    def test_rules(self, changes: dict[str, Any], stage: str, cause: str) -> None:
        verdict = limiting_stage(facts(**changes))
        assert verdict is not None
        assert (verdict.stage, verdict.cause) == (stage, cause)

    def test_sentences_speak_of_recordings_in_their_unit(self) -> None:
        ignored, share = limiting_stage(facts(**IGNORED)), limiting_stage(facts(**SECOND))
        assert ignored is not None
        assert share is not None
        assert ignored.sentence == (
            "The WaveNet decoder limits the result (codes ignored): another recording's codes cost 0.3900 bits/sample "
            "more, less than the 0.4000 that the codes cost; weaken it, or train it longer."
        )
        assert "no more than 0.4000 bits/sample; " in share.sentence


def test_what_came_to_rest_is_not_undertrained() -> None:
    assert undertrained_reason(None) is None
    assert undertrained_reason(0.02) is None
    assert str(undertrained_reason(0.034)).startswith("its validation number decreased by 3.4% over the last quarter")
