"""VIMCO against exact enumeration: its gradient, its bounds, its draws, on latent spaces small enough to list."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from stage1_vqvae.batch import Asked
from stage1_vqvae.images.vimco import VIMCO, multi_sample_bound, vimco_objective
from twostage.errors import UsageError

EVERY_CODE = torch.tensor(list(itertools.product(range(2), repeat=4))).reshape(16, 2, 1, 2)
"""All codes of two codebooks with two codes each on a grid of 1 x 2."""


def _model(**overrides) -> VIMCO:
    """A toy whose posterior is far from uniform and whose pixels depend on the codes."""
    torch.manual_seed(0)
    settings = {"image_shape": (1, 2, 4), "levels": 2, "downsampling": 2, "channels": 8, "residual_blocks": 0}
    sizes = {"head_channels": 6, "embedding_dim": 4, "codebook_size": 2, "codebooks": 2, "samples": 2}
    model = VIMCO(**{**settings, **sizes, **overrides})
    with torch.no_grad():
        model.encoder.layers[-1].weight.mul_(18)
        model.embedding.weight.mul_(1.5)
        model.decoder.likelihood.logits.weight.mul_(6)
        model.prior_logits.normal_()
    return model.eval()


def _images(count: int) -> Tensor:
    return torch.randint(0, 2, (count, 1, 2, 4), generator=torch.Generator().manual_seed(1))


def _log_joint(model: VIMCO, x_BCHW: Tensor) -> Tensor:
    """log p(x, z) of all 16 codes, `[16, B]`."""
    rows = []
    for code in EVERY_CODE:
        codes = code.expand(len(x_BCHW), -1, -1, -1)
        rows.append(model._log_likelihood(x_BCHW, codes) + model.log_prior(codes))
    return torch.stack(rows)


def _log_posterior(model: VIMCO, x_BCHW: Tensor) -> Tensor:
    """log q(z|x) of all 16 codes, `[16, B]`, summed position by position."""
    log_q_BGHWK = model.posterior(x_BCHW)
    rows = []
    for code in EVERY_CODE:
        places = itertools.product(range(2), range(1), range(2))
        rows.append(sum(log_q_BGHWK[:, g, h, w, code[g, h, w]] for g, h, w in places))
    return torch.stack(rows)


def test_toy_estimate_is_unbiased_and_the_control_variate_lowers_its_variance() -> None:
    """One categorical of four, three samples: the mean of many estimates is the gradient of the enumerated bound."""
    torch.manual_seed(0)
    logits, log_joint_Z, samples = torch.tensor([0.8, -0.5, 0.1, 0.4]), torch.tensor([-9.0, -6.0, -8.0, -7.0]), 3

    def enumerated(parameter: Tensor) -> Tensor:
        log_q = parameter.log_softmax(0)
        total = torch.zeros(())
        for draw in itertools.product(range(4), repeat=samples):
            index = torch.tensor(draw)
            bound = multi_sample_bound((log_joint_Z - log_q)[index][:, None])[0]
            total = total + log_q[index].sum().exp() * bound
        return total

    leaf = logits.clone().requires_grad_()
    exact = torch.autograd.grad(enumerated(leaf), leaf)[0]

    def estimates(objective: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        parameter_NZ = logits.repeat(100_000, 1).requires_grad_()
        log_q_NZ = parameter_NZ.log_softmax(1)
        drawn_NS = torch.multinomial(log_q_NZ.detach().exp(), samples, replacement=True)
        value_N = objective(log_joint_Z[drawn_NS].T, log_q_NZ.gather(1, drawn_NS).T)
        return torch.autograd.grad(value_N.sum(), parameter_NZ)[0]

    def without_control(log_joint_SB: Tensor, log_q_SB: Tensor) -> Tensor:
        bound_B = multi_sample_bound(log_joint_SB - log_q_SB)
        return bound_B + bound_B.detach() * (log_q_SB - log_q_SB.detach()).sum(0)

    variances = []
    for objective in (vimco_objective, without_control):
        found_NZ = estimates(objective)
        error_Z = found_NZ.std(0) / math.sqrt(len(found_NZ))
        assert ((found_NZ.mean(0) - exact).abs() < 4 * error_Z).all()
        variances.append(found_NZ.var(0).sum().item())
        if objective is vimco_objective:
            assert error_Z.max() < 0.05 * exact.abs().max()
    assert variances[0] < 0.1 * variances[1]


def test_the_models_gradient_is_that_of_the_enumerated_bound() -> None:
    """All parameters: encoder, embedding, prior, decoder. Two samples of 16 codes: 256 pairs."""
    model, x = _model(), _images(1)
    log_q, log_joint = _log_posterior(model, x)[:, 0], _log_joint(model, x)[:, 0]
    log_w = log_joint - log_q
    pair_bound = torch.logaddexp(log_w[:, None], log_w[None]) - math.log(2)
    exact_loss = -((log_q[:, None] + log_q[None]).exp() * pair_bound).sum() / 8
    parameters = list(model.parameters())
    exact = torch.cat([g.flatten() for g in torch.autograd.grad(exact_loss, parameters)])
    torch.manual_seed(0)
    draws, losses = [], []
    for _ in range(24):
        output = model(x.expand(2048, -1, -1, -1))
        draws.append(torch.cat([g.flatten() for g in torch.autograd.grad(output.loss, parameters)]))
        losses.append(output.loss.item())
    found = torch.stack(draws)
    error = found.std(0) / math.sqrt(len(found)) + 1e-7
    scores = (found.mean(0) - exact) / error
    assert scores.abs().max() < 7  # thousands of scores with 23 degrees of freedom
    assert scores.pow(2).mean().sqrt() < 1.5
    assert error.norm() < 0.1 * exact.norm()
    assert sum(losses) / 24 == pytest.approx(exact_loss.item(), abs=0.003)


def test_bounds_rise_with_samples_to_the_exact_log_probability() -> None:
    model, x = _model(), _images(1)
    with torch.no_grad():
        log_joint, log_q = _log_joint(model, x)[:, 0], _log_posterior(model, x)[:, 0]
    exact = log_joint.logsumexp(0).item()
    exact_elbo = (log_q.exp() * (log_joint - log_q)).sum().item()
    many = x.expand(400, -1, -1, -1)
    bounds = {k: model.bounds(many, samples=k, seed=0) for k in (1, 8, 192)}
    means = {k: bound.multi_sample.mean().item() for k, bound in bounds.items()}
    errors = {k: bound.multi_sample.std().item() / 20 for k, bound in bounds.items()}
    assert means[1] == pytest.approx(exact_elbo, abs=4 * errors[1])
    assert means[1] + 3 * errors[1] < means[8] < means[192] < exact + 4 * errors[192]
    assert means[192] == pytest.approx(exact, abs=4 * errors[192] + 2e-3)
    assert bounds[192].elbo.mean().item() == pytest.approx(exact_elbo, abs=errors[1])
    torch.testing.assert_close(bounds[8].elbo, bounds[8].log_likelihood - bounds[8].kl)


def test_the_rate_is_the_enumerated_kl_and_not_a_sample_of_it() -> None:
    model, x = _model(), _images(5)
    with torch.no_grad():
        log_q, log_prior = _log_posterior(model, x).double(), model.log_prior(EVERY_CODE).double()
    exact = (log_q.exp() * (log_q - log_prior[:, None])).sum(0)
    assert exact.min() > 0.1
    few, many = model.bounds(x, samples=1, seed=0), model.bounds(x, samples=64, seed=1)
    torch.testing.assert_close(few.kl.double(), exact, rtol=0, atol=1e-5)
    assert torch.equal(few.kl, many.kl)
    assert not torch.equal(few.log_likelihood, many.log_likelihood)
    # Under another prior nothing but samples can tell.
    estimates = model.bounds(x.repeat(200, 1, 1, 1), samples=32, seed=0, log_prior=model.log_prior).kl.view(200, -1)
    error = estimates.std(0) / math.sqrt(200)
    assert ((estimates.mean(0).double() - exact).abs() < 4 * error).all()
    assert error.min() > 0


def test_probabilities_of_all_images_sum_to_one() -> None:
    model = _model()
    images = torch.tensor(list(itertools.product(range(2), repeat=8))).reshape(-1, 1, 2, 4)
    with torch.no_grad():
        log_p = _log_joint(model, images).double().logsumexp(0)
        bound = model.bounds(images, samples=3, seed=0).multi_sample.double()
        assert _log_posterior(model, images).exp().sum(0).double().sub(1).abs().max() < 1e-6
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    # The bound of one draw may lie above log p(x); that it is none on average is tested above.
    assert bound.isfinite().all()


def test_another_prior_takes_the_place_of_the_models_own() -> None:
    """With a prior that puts everything on one code, the exact log-probability is that code's."""
    model, x = _model(), _images(1)
    chosen = EVERY_CODE[5]

    def certain(codes: Tensor) -> Tensor:
        return torch.where((codes == chosen).flatten(1).all(1), 0.0, -math.inf)

    own = model.bounds(x.expand(300, -1, -1, -1), samples=64, seed=0)
    same = model.bounds(x.expand(300, -1, -1, -1), samples=64, seed=0, log_prior=model.log_prior)
    assert torch.equal(own.multi_sample, same.multi_sample)
    other = model.bounds(x.expand(300, -1, -1, -1), samples=128, seed=0, log_prior=certain).multi_sample
    exact = model.log_prob(x, chosen[None]).item()
    assert other.double().exp().mean().item() == pytest.approx(math.exp(exact), rel=0.05)


def test_draws_follow_the_posterior_and_belong_to_their_items() -> None:
    model, x = _model(), _images(6)
    few = model.bounds(x, samples=4, seed=3)
    apart = [model.bounds(x[i : i + 2], samples=4, seed=3, first_item=i) for i in (0, 2, 4)]
    torch.testing.assert_close(few.multi_sample, torch.cat([part.multi_sample for part in apart]))
    assert not torch.equal(few.multi_sample, model.bounds(x, samples=4, seed=4).multi_sample)
    codes = model.sample_codes(x[:1].expand(6000, -1, -1, -1), seed=0)
    shares = torch.stack([(codes == code).flatten(1).all(1).double().mean() for code in EVERY_CODE])
    exact = _log_posterior(model, x[:1])[:, 0].detach().double().exp()
    assert (shares - exact).abs().max() < 4 * 0.5 / math.sqrt(6000)
    assert exact.max() - exact.min() > 0.1
    assert torch.equal(model.encode(x[:1])[0], EVERY_CODE[exact.argmax()])


def test_the_last_code_is_not_drawn_for_what_rounding_has_left() -> None:
    """Of a thousand sums of fp32 masses some are below one: a number beyond them belongs to a code that has mass."""
    model = _model(codebook_size=64, codebooks=1)
    logits = torch.randn(1000, 1, 1, 1, 64, generator=torch.Generator().manual_seed(0))
    logits[..., 32:] = -60.0
    noise = torch.full((1000, 1, 1, 1, 1), 1.0 - 2.0**-53, dtype=torch.float64)
    assert model._invert(logits.log_softmax(-1), noise).max() < 32
    # Masses of 0.9 in sum: the shares stay.
    grid = ((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)[None, None, None, None]
    drawn = model._invert(torch.tensor([0.09, 0.36, 0.45]).log().expand(1, 1, 1, 1, 3), grid)
    assert torch.bincount(drawn.flatten()).tolist() == [100, 400, 500]


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"samples": 1}, "at least 2, not 1"), ({"codebooks": 3}, "that codebooks divides")],
)
def test_impossible_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _model(**settings)


@pytest.mark.parametrize("codes", [torch.full((1, 2, 1, 2), 2), torch.zeros(1, 1, 1, 2, dtype=torch.int64)])
def test_foreign_codes_are_refused(codes: Tensor) -> None:
    with pytest.raises(UsageError, match="pass codes of this model"):
        _model().decode(codes)


def test_draws_follow_the_table_of_each_position() -> None:
    model = VIMCO(
        image_shape=(1, 4, 4), levels=5, downsampling=2, channels=8, head_channels=4,
        codebook_size=3, codebooks=2, embedding_dim=4,
    )  # fmt: skip
    torch.nn.init.normal_(model.prior_logits)
    codes = model.sample_latents(Asked(items=torch.arange(3000)), seed=1)
    assert codes.shape == (3000, 2, 2, 2)
    share = torch.nn.functional.one_hot(codes, 3).double().mean(0)
    expected = model.prior_logits.detach().double().softmax(-1)
    assert (expected.flatten(0, -2)[0] - expected.flatten(0, -2)[1]).abs().max() > 0.2  # positions differ
    torch.testing.assert_close(share, expected, atol=0.04, rtol=0.0)
    best = model.sample_latents(Asked(items=torch.arange(4)), seed=0, top_k=1)
    assert torch.equal(best, expected.argmax(-1).expand_as(best))
    cold = model.sample_latents(Asked(items=torch.arange(500)), seed=1, temperature=0.25)
    sharper = (model.prior_logits.detach().double() / 0.25).softmax(-1)
    torch.testing.assert_close(torch.nn.functional.one_hot(cold, 3).double().mean(0), sharper, atol=0.1, rtol=0.0)
