"""Rows of `evaluate` on images: every way of scoring one trained model, with the bits of every item behind it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stage1_vqvae import VAE, VQVAE
from stage1_vqvae.images.autoencoder import Autoencoder
from stage1_vqvae.images.vimco import VIMCO
from stage2_prior import PixelCNN
from twostage.data import ImageDataset
from twostage.metrics.codebook_usage import codebook_usage
from twostage.metrics.statistics import evenly
from twostage.progress import say
from twostage.storage.codes import CodeFile

from ..bits.code_search import search_codes
from ..bits.images import (
    Distortion,
    ItemBits,
    bound_bits,
    codebook_distortion,
    drawn_codes,
    reconstruction_psnr_db,
)
from ..bits.rate import label_frequencies, learned_rate, uniform_bits, unigram_bits
from ..modality.images import Stage1
from ..runs.codes import extract_codes
from ..runs.loading import LoadedStage1, parameter_count
from ..runs.run import Run, is_finished, training_cost
from .differences import Scored
from .rows import Row


def _scored(
    bits: ItemBits | None,
    *,
    partner: Scored | None = None,
    bits_by_position: np.ndarray | None = None,
    **fields: Any,
) -> Scored:
    distortion = None if bits is None or bits.distortion is None else float(bits.distortion.mean())
    rate = None if bits is None or bits.rate is None else float(bits.rate.mean())
    row = Row(
        bits_per_dim=None if bits is None else bits.mean,
        standard_error=None if bits is None else bits.standard_error,
        distortion_bits_per_dim=distortion,
        rate_bits_per_dim=rate,
        **fields,
    )
    bits_N = None if bits is None else bits.total
    return Scored(row=row, bits_N=bits_N, partner=partner, bits_by_position=bits_by_position)


def _psnr_of(model: Stage1) -> str:
    return "sample" if model.autoregressive else "mean"


def _measured(model: VQVAE, distortion: Distortion, codes: np.ndarray) -> dict[str, Any]:
    """Fields of a row that depend on its items and their codes `[N, G, h, w]`, bits apart."""
    usage = codebook_usage(codes, codebook_size=model.codebook_size)
    swapped = float(distortion.swapped_bits_per_dim.mean())
    return {
        "psnr_db": distortion.psnr_db,
        "psnr_of": _psnr_of(model),
        "codebook_perplexity": usage.perplexity,
        "codebook_used": usage.used,
        "swapped_distortion_bits_per_dim": swapped if model.likelihood_is_discrete and len(codes) > 1 else None,
    }


@dataclass(frozen=True, kw_only=True)
class ImageRows:
    """What the rows of one evaluation of images share."""

    run: Run
    dataset: ImageDataset
    split: str
    device: torch.device

    def score(self, name: str, stage1: LoadedStage1) -> Iterator[Scored]:
        """All rows of a trained model."""
        if isinstance(stage1.model, VQVAE):
            return self._codebook(name, stage1, stage1.model)
        if isinstance(stage1.model, Autoencoder):
            return self._autoencoder(name, stage1, stage1.model)
        return self._bounds(name, stage1, stage1.model)

    def _codebook(self, name: str, stage1: LoadedStage1, model: VQVAE) -> Iterator[Scored]:
        """Uniform, unigram and, where it is trained, learned prior; the latter also with searched codes."""
        run, batch_size = self.run, self.run.recipe.evaluation.batch_size
        images = self.dataset.split(self.split).images
        files = extract_codes(run, name, stage1, self.dataset, self.device)
        codes, train = files[self.split].codes, files["train"]
        distortion = codebook_distortion(
            model, images, codes, seed=run.recipe.seed, device=self.device, batch_size=batch_size
        )
        cost, parameters = training_cost(run.stage1_folder(name)), parameter_count(model)
        shared: dict[str, Any] = {
            "model": name,
            "kind": "vq-vae",
            "codebook_update": model.quantiser.update_rule,
            "bound": "two-part",
            "likelihood": stage1.record["architecture"]["likelihood"],
            "alphabet": model.levels,
            **_measured(model, distortion, codes),
            "stage1_sha256": stage1.sha256,
            "codebook_size": model.codebook_size * model.code_shape[0],
        }
        alone: dict[str, Any] = {
            "labels": "none",
            "parameters": parameters,
            "steps": cost.steps,
            "train_seconds": cost.seconds,
        }
        if not model.likelihood_is_discrete:
            yield _scored(None, **{**shared, "bound": None}, **alone)
            return

        def two_part(rate_bits_N: np.ndarray) -> ItemBits:
            return ItemBits.two_part(distortion.bits_per_dim, rate_bits_N / model.dims)

        yield _scored(two_part(uniform_bits(codes, model.codebook_size)), prior="uniform", **shared, **alone)
        unigram = unigram_bits(codes, train.codes, model.codebook_size)
        yield _scored(two_part(unigram), prior="unigram", **shared, **alone)
        if not is_finished(run.prior_folder(name)):
            say(f"{name} has no finished prior; run train-prior {run.path} --model {name} for its row")
            return
        loaded, prior_cost = run.prior(name, stage1, self.device), training_cost(run.prior_folder(name))
        prior = loaded.model
        learned = learned_rate(
            prior,
            codes,
            frequencies=label_frequencies(prior, train.labels),
            by_position=True,
            device=self.device,
            batch_size=batch_size,
        )
        both: dict[str, Any] = {
            **shared,
            "prior": "learned",
            "prior_sha256": loaded.checkpoint.sha256["model.safetensors"],
            "labels": "marginalised" if prior.classes else "none",
            "parameters": parameters + parameter_count(prior),
            "steps": cost.steps + prior_cost.steps,
            "train_seconds": cost.seconds + prior_cost.seconds,
        }
        bits = two_part(learned.bits)
        yield _scored(bits, bits_by_position=learned.by_position, **both)
        if run.recipe.evaluation.search_items:
            yield from self._searched(model, prior, bits, files, both)

    def _searched(
        self, model: VQVAE, prior: PixelCNN, bits: ItemBits, files: dict[str, CodeFile], fields: dict[str, Any]
    ) -> Iterator[Scored]:
        """Some items once more: with the encoder's codes, and with codes searched for fewer bits."""
        settings, labels = self.run.recipe.evaluation, files["train"].labels
        rows = evenly(len(self.dataset.split(self.split)), settings.search_items)
        images = self.dataset.split(self.split).images[rows]
        assert bits.distortion is not None
        assert bits.rate is not None
        common: dict[str, Any] = {"device": self.device, "batch_size": settings.batch_size}
        own, seed = files[self.split].codes[rows], self.run.recipe.seed
        found = search_codes(
            model,
            prior,
            images,
            train_labels=labels,
            candidates=settings.search_candidates,
            sweeps=settings.search_sweeps,
            **common,
        )
        before, after = (codebook_distortion(model, images, codes, seed=seed, **common) for codes in (own, found))
        partner = _scored(
            ItemBits.two_part(bits.distortion[rows], bits.rate[rows]),
            **{**fields, **_measured(model, before, own)},
            search_items=len(rows),
        )
        yield partner
        rate = learned_rate(prior, found, frequencies=label_frequencies(prior, labels), **common).bits / model.dims
        yield _scored(
            ItemBits.two_part(after.bits_per_dim, rate),
            partner=partner,
            **{**fields, **_measured(model, after, found)},
            search_items=len(rows),
            searched=True,
        )

    def _baseline(self, name: str, stage1: LoadedStage1) -> dict[str, Any]:
        """Fields of a row of a model without codebook."""
        model, cost = stage1.model, training_cost(self.run.stage1_folder(name))
        return {
            "model": name,
            "kind": stage1.record["kind"],
            "likelihood": stage1.record["architecture"]["likelihood"],
            "alphabet": model.levels,
            "beta": model.beta if isinstance(model, VAE) else None,
            "labels": "given" if isinstance(model, VAE) and model.classes else "none",
            "psnr_of": _psnr_of(model),
            "stage1_sha256": stage1.sha256,
            "parameters": parameter_count(model),
            "steps": cost.steps,
            "train_seconds": cost.seconds,
        }

    def _autoencoder(self, name: str, stage1: LoadedStage1, model: Autoencoder) -> Iterator[Scored]:
        """No bits: nothing says what its latents cost. Reconstructions only."""
        psnr = reconstruction_psnr_db(
            model,
            self.dataset.split(self.split).images,
            seed=self.run.recipe.seed,
            device=self.device,
            batch_size=self.run.recipe.evaluation.batch_size,
        )
        yield _scored(None, **self._baseline(name, stage1), psnr_db=psnr)

    def _bounds(self, name: str, stage1: LoadedStage1, model: VAE | VIMCO) -> Iterator[Scored]:
        """ELBO and the tighter bound of several samples, of a conditional VAE given the labels."""
        settings, split = self.run.recipe.evaluation, self.dataset.split(self.split)
        common: dict[str, Any] = {"seed": self.run.recipe.seed, "device": self.device}
        common["batch_size"] = settings.batch_size
        conditional = isinstance(model, VAE) and model.classes > 0
        labels = split.labels if conditional else None
        bits = bound_bits(model, split.images, labels, samples=settings.iwae_samples, **common)
        shared = {**self._baseline(name, stage1), "psnr_db": bits.psnr_db}
        if isinstance(model, VIMCO):
            usage = codebook_usage(drawn_codes(model, split.images, **common), codebook_size=model.codebook_size)
            shared |= {"codebook_perplexity": usage.perplexity, "codebook_used": usage.used}
            shared["codebook_size"] = model.codebook_size * model.code_shape[0]
        shared["prior"] = "learned" if isinstance(model, VIMCO) else "gaussian"
        if not model.likelihood_is_discrete:
            yield _scored(None, **shared)
            return
        shared["samples_k"] = settings.iwae_samples
        yield _scored(bits.elbo, **{**shared, "bound": "elbo"})
        tighter = "multi-sample" if isinstance(model, VIMCO) else "iwae"
        yield _scored(bits.multi_sample, **{**shared, "bound": tighter})
