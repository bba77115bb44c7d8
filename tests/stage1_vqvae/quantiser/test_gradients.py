"""The rotation trick against an explicit rotation matrix, what it keeps, and the cases without a rotation."""

from typing import Literal

import pytest
import torch
from torch import Tensor

from stage1_vqvae.quantiser.gradients import Rotation
from stage1_vqvae.quantiser.quantiser import VectorQuantiser
from twostage.errors import UsageError

UPDATES: tuple[Literal["ema", "loss"], ...] = ("ema", "loss")


def rotation_matrix(z_D: Tensor, e_D: Tensor) -> Tensor:
    """R with R z/|z| = e/|e|: by the angle in the plane of the two, the identity outside it (Gram-Schmidt)."""
    a_D, b_D = z_D / z_D.norm(), e_D / e_D.norm()
    cosine = a_D @ b_D
    c_D = b_D - cosine * a_D
    sine = c_D.norm()
    c_D = c_D / sine
    turn = cosine * (torch.outer(a_D, a_D) + torch.outer(c_D, c_D))
    turn = turn + sine * (torch.outer(c_D, a_D) - torch.outer(a_D, c_D))
    return torch.eye(len(a_D), dtype=a_D.dtype) - torch.outer(a_D, a_D) - torch.outer(c_D, c_D) + turn


def one_item(x_GND: Tensor) -> Tensor:
    """The vectors as the positions of one item, `[1, G * D, N]`."""
    return x_GND.mT.reshape(1, -1, x_GND.shape[1])


def gradient_at_z(z: Tensor, e: Tensor, grad: Tensor) -> Tensor:
    z = z.detach().clone().requires_grad_()
    Rotation.apply(z, one_item(e)).backward(one_item(grad))
    assert z.grad is not None
    return z.grad


@pytest.mark.parametrize("width", [2, 3, 16])
def test_gradient_is_that_of_the_explicit_scaled_rotation(width: int) -> None:
    """Autograd through lambda R z, R built as a matrix and held constant."""
    torch.manual_seed(0)
    z_GND, e_GND, grad_GND = torch.randn(3, 2, 20, width, dtype=torch.float64)
    expected_GND = torch.empty_like(z_GND)
    for g in range(2):
        for n in range(20):
            z_D, e_D = z_GND[g, n].clone().requires_grad_(), e_GND[g, n]
            matrix = rotation_matrix(z_D.detach(), e_D)
            q_D = e_D.norm() / z_D.detach().norm() * matrix @ z_D
            torch.testing.assert_close(q_D.detach(), e_D)
            q_D.backward(grad_GND[g, n])
            assert z_D.grad is not None
            expected_GND[g, n] = z_D.grad
    torch.testing.assert_close(gradient_at_z(z_GND, e_GND, grad_GND), expected_GND)


def test_gradient_keeps_its_angle_to_the_vector_and_its_length_up_to_the_scale() -> None:
    torch.manual_seed(1)
    z_GND, e_GND, grad_GND = torch.randn(3, 1, 500, 8)
    z_GND[0, :100] = e_GND[0, :100] + 0.01 * z_GND[0, :100]  # as close as a trained encoder comes
    moved_GND = gradient_at_z(z_GND, e_GND, grad_GND)
    scale_GN = e_GND.norm(dim=-1) / z_GND.norm(dim=-1)
    torch.testing.assert_close(moved_GND.norm(dim=-1), scale_GN * grad_GND.norm(dim=-1))
    angle_at_z = torch.cosine_similarity(moved_GND, z_GND, dim=-1)
    torch.testing.assert_close(angle_at_z, torch.cosine_similarity(grad_GND, e_GND, dim=-1), atol=1e-5, rtol=0)
    assert not torch.allclose(moved_GND, grad_GND)  # it is not the straight-through gradient


def test_second_derivative_sees_a_constant_rotation() -> None:
    """With lambda R constant, the gradient of |R^T g|^2 to g is 2 lambda^2 g and that to z is nothing."""
    torch.manual_seed(2)
    z_GND = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    e_GND = torch.randn(1, 5, 4, dtype=torch.float64)
    grad_GND = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    (moved_GND,) = torch.autograd.grad(
        Rotation.apply(z_GND, one_item(e_GND)), z_GND, one_item(grad_GND), create_graph=True
    )
    to_grad, to_z = torch.autograd.grad(moved_GND.square().sum(), [grad_GND, z_GND], allow_unused=True)
    scale_GN1 = e_GND.norm(dim=-1, keepdim=True) / z_GND.detach().norm(dim=-1, keepdim=True)
    torch.testing.assert_close(to_grad, 2 * scale_GN1**2 * grad_GND.detach())
    assert to_z is None


@pytest.mark.parametrize(
    ("z", "e"),
    [
        ([0.0, 0.0, 0.0], [1.0, 2.0, 2.0]),
        ([1.0, 2.0, 2.0], [0.0, 0.0, 0.0]),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        ([1e-9, 0.0, 0.0], [1.0, 2.0, 2.0]),
        ([1e-30, 0.0, 1e-30], [1.0, 2.0, 2.0]),
        ([1.0, 2.0, 2.0], [0.0, 1e-9, 0.0]),
    ],
)
def test_vectors_without_an_angle_get_the_straight_through_gradient(z: list[float], e: list[float]) -> None:
    """Beside them, an ordinary vector of the same batch is rotated as ever."""
    grad_GND = torch.tensor([[[0.5, -1.0, 3.0], [0.5, -1.0, 3.0]]])
    # the second pair: a quarter turn in the first two channels at twice the length
    z_GND, e_GND = torch.tensor([[z, [1.0, 0.0, 0.0]]]), torch.tensor([[e, [0.0, 2.0, 0.0]]])
    moved_GND = gradient_at_z(z_GND, e_GND, grad_GND)
    assert torch.equal(moved_GND[0, 0], grad_GND[0, 0])
    torch.testing.assert_close(moved_GND[0, 1], 2 * torch.tensor([-1.0, -0.5, 3.0]))


@pytest.mark.parametrize("tilt", [0.0, 1e-7, 3e-5])
def test_opposite_vectors_get_the_reflection(tilt: float) -> None:
    z_GND, e_GND = torch.tensor([[[3.0, 0.0, 4.0]]]), torch.tensor([[[-1.5, tilt, -2.0]]])
    grad_GND = torch.tensor([[[3.0, 2.0, 4.0]]])
    # along z the sign turns, across it nothing does, and lambda is one half
    expected_GND = 0.5 * torch.tensor([[[-3.0, 2.0, -4.0]]])
    torch.testing.assert_close(gradient_at_z(z_GND, e_GND, grad_GND), expected_GND, atol=1e-4, rtol=0)


def test_equal_vectors_get_the_gradient_unchanged() -> None:
    torch.manual_seed(3)
    z_GND, grad_GND = torch.randn(2, 1, 50, 6)
    torch.testing.assert_close(gradient_at_z(z_GND, z_GND, grad_GND), grad_GND)


# In the quantiser


def pair(update: Literal["ema", "loss"], codebooks: int) -> tuple[VectorQuantiser, VectorQuantiser]:
    """A straight-through and a rotating quantiser with the same codebook."""
    torch.manual_seed(4)
    copied = VectorQuantiser(codebook_size=7, embedding_dim=6, codebooks=codebooks, update=update)
    rotating = VectorQuantiser(
        codebook_size=7, embedding_dim=6, codebooks=codebooks, update=update, gradient="rotation"
    )
    with torch.no_grad():
        copied.codebook.normal_()
    rotating.load_state_dict(copied.state_dict())
    return copied, rotating


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("codebooks", [1, 2])
def test_values_and_losses_are_those_of_the_straight_through_path(
    update: Literal["ema", "loss"], codebooks: int
) -> None:
    results = []
    for module in pair(update, codebooks):
        z_BDS = torch.linspace(-2, 2, 4 * 6 * 5).reshape(4, 6, 5).sin().requires_grad_()
        quantised = module(z_BDS)
        loss = module.loss(quantised)
        loss.backward()
        results.append([quantised.vectors, quantised.codes, loss, z_BDS.grad])
        if update == "loss":
            results[-1].append(module.codebook.grad)
    assert all(torch.equal(first, second) for first, second in zip(*results, strict=True))


@pytest.mark.parametrize("grid", [(), (2, 3)])
def test_every_codebook_rotates_its_own_channels(grid: tuple[int, ...]) -> None:
    module = pair("ema", 2)[1]
    z_BDS = torch.randn(4, 6, *grid, requires_grad=True)
    grad_BDS = torch.randn(4, 6, *grid)
    quantised = module(z_BDS)
    quantised.vectors.backward(grad_BDS)
    assert z_BDS.grad is not None

    def vectors(x: Tensor) -> Tensor:
        """[B, D, *S] to [B * S, 2, 3]: one row for each position and codebook."""
        return x.detach().reshape(4, 6, -1).transpose(1, 2).reshape(-1, 2, 3)

    z, e, grad, moved = (vectors(x) for x in (z_BDS, quantised.vectors, grad_BDS, z_BDS.grad))
    for row in range(len(z)):
        for g in range(2):
            matrix = rotation_matrix(z[row, g], e[row, g])
            expected = e[row, g].norm() / z[row, g].norm() * matrix.T @ grad[row, g]
            torch.testing.assert_close(moved[row, g], expected, atol=1e-5, rtol=1e-4)


def test_low_precision_and_empty_batches_pass() -> None:
    module = pair("ema", 2)[1]
    z_BDS = torch.randn(2, 6, 3).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantised = module(z_BDS)
    quantised.vectors.sum().backward()
    assert z_BDS.grad is not None
    assert z_BDS.grad.isfinite().all()
    empty = torch.zeros(0, 6, 3, requires_grad=True)
    module(empty).vectors.sum().backward()
    assert empty.grad is not None


def test_an_unknown_gradient_is_refused() -> None:
    with pytest.raises(UsageError, match="'straight-through' or 'rotation', got 'copy'"):
        VectorQuantiser(codebook_size=8, embedding_dim=4, gradient="copy")  # type: ignore[arg-type]
