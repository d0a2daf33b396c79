"""Path length regularisation: lengths against whole Jacobians, the running mean, and the term in a run."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from fixtures import numbers
from processes import on_two_processes
from reference import SPEC, batch, small
from runs import assert_resumes, saved
from torch.testing import assert_close
from toy_styles import Styled, ToyStyles

from equipoise.compute.settings import Compute
from equipoise.core.types import ImageSpec
from equipoise.losses import LazyStep, PathLength, path_lengths
from equipoise.losses.path_length import PathLengths
from equipoise.models.published import network
from equipoise.train import GAN, g_step

IMAGES = ImageSpec(resolution=3, channels=2)


def lengths_by_hand(G, ws, noise):
    """In float64, from the Jacobian of every image: √(Σ_w (Jᵀy)²), squares averaged over the three styles."""
    G, found = copy.deepcopy(G).double(), []
    for w, direction in zip(ws.double(), noise.double(), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda w: G.synthesis(w[None])[0], w)  # (C, H, W, num_ws, w_dim)
        product = torch.einsum("chw,chwkd->kd", direction / math.sqrt(3 * 3), jacobian)
        found.append((product.square().sum() / 3).sqrt())
    return torch.stack(found)


def test_a_length_is_that_of_the_jacobian():
    """Wrong: no √(H W), a sum over styles, one length for the batch."""
    G, ws, noise = ToyStyles(IMAGES, 5), torch.randn(4, 3, 4), torch.randn(4, 2, 3, 3)
    wanted = lengths_by_hand(G, ws, noise)
    assert_close(path_lengths(G, ws.requires_grad_(True), noise).double(), wanted, rtol=1e-5, atol=1e-7)
    assert wanted.std() > 0.05 * wanted.mean()


def test_y_is_normal_and_drawn_anew():
    """A synthesis that is the identity has lengths √(Σ y² / num_ws), Σ y² = χ²(num_ws · w_dim) / (H W)."""
    identity = torch.nn.Module()
    identity.synthesis = lambda ws, noise_mode: ws.view(-1, 1, 4, 5)
    ws = torch.zeros(4000, 2, 10, requires_grad=True)
    squares = path_lengths(identity, ws).square() * 2
    assert squares.mean().item() == pytest.approx(20 / 20, rel=0.02)
    assert squares.std().item() == pytest.approx(math.sqrt(2 * 20) / 20, rel=0.1)


def test_the_penalty_is_against_the_moving_mean_and_its_gradient_runs_through_it():
    """a moves before the penalty reads it. Wrong: a detached in it, the old a, decay the other way round."""
    memory, a = PathLengths(decay=0.25), 0.0
    for values in ([3.0, 5.0], [1.0, 9.0]):
        lengths = torch.tensor(values, requires_grad=True)
        penalty = memory.penalty(lengths)
        a = a + 0.25 * (sum(values) / 2 - a)
        assert_close(penalty.detach(), torch.tensor([(v - a) ** 2 for v in values]))
        assert memory.mean.item() == pytest.approx(a)
        assert not memory.mean.requires_grad
        (gradient,) = torch.autograd.grad(penalty.mean(), lengths)
        excess = sum(v - a for v in values) / 2  # d/dl_i of mean (l - a)² = (l_i - a) - 0.25 / 2 · 2 mean (l - a)
        assert_close(gradient, torch.tensor([(v - a) - 0.25 * excess for v in values]))


def built(**changes):
    cfg = small(**{"generator": Styled(z_dim=4), "terms": (PathLength(strength=3.0, every=2),)} | changes)
    return GAN.build(cfg, replace(SPEC, resolution=6, num_classes=0))


def test_the_term_of_a_run():
    """Half of the latents, G's own styles with random noise, strength · every · mean. Its mean is in the memory."""
    gan, real = built(), batch(pixels=6)
    twin = copy.deepcopy(gan.G).requires_grad_(True)
    z, y = gan.latents(real, gan.players[1].purpose, 16)[::2], real.y[::2]
    found = []
    gan.g_optim.register_step_pre_hook(lambda *_: found.append([p.grad.clone() for p in gan.G.parameters()]))
    torch.manual_seed(0)
    stats = g_step(gan, real, 16)
    (term,) = (term for _, term in gan.added["G"])
    assert [len(ws) for ws, _ in gan.G.asked] == [8, 4]
    assert {mode for _, mode in gan.G.asked} == {"random"}
    assert_close(gan.G.asked[1][0], twin.styles(z, y).detach())

    torch.manual_seed(0)
    noise = torch.randn(4, 1, 6, 6)
    lengths = path_lengths(twin, twin.styles(z, y), noise)
    a = 0.01 * lengths.mean()
    assert_close(term.memory.mean, a.detach())
    penalty = (lengths - a).square().mean()
    assert_close(stats["G/PathLength"], penalty.detach())
    without = built(terms=())
    without.G.load_state_dict(twin.state_dict())
    without.D.load_state_dict(gan.D.state_dict())
    without.g_optim.register_step_pre_hook(lambda *_: found.append([p.grad.clone() for p in without.G.parameters()]))
    g_step(without, real, 16)
    wanted = torch.autograd.grad(2 * 3.0 * penalty, list(twin.parameters()))
    for total, alone, added in zip(*found, wanted, strict=True):
        assert_close(total - alone, added, rtol=1e-3, atol=1e-5)
    assert max(gradient.abs().max() for gradient in wanted) > 1e-3
    assert "G/PathLength" not in g_step(gan, real, 24)  # not due at every second update


def test_a_batch_that_shrinks_to_nothing_is_one_image():
    gan, real = built(terms=(PathLength(shrink=5),)), batch(3, pixels=6)
    g_step(gan, real, 0)
    assert [len(ws) for ws, _ in gan.G.asked] == [3, 1]


def test_in_ones_own_loop():
    """The lines of the documentation."""
    paths, G = PathLength(), ToyStyles(IMAGES, 5)
    lengths = paths.build(G)
    (4 * paths.weight(0) * lengths(G, torch.randn(6, 5)).mean()).backward()
    assert all(p.grad.isfinite().all() for p in G.parameters() if p.grad is not None)
    assert G.mapping.weight.grad.abs().max() > 0
    assert list(lengths.state_dict()) == ["mean"]
    assert lengths.mean > 0


@pytest.mark.parametrize("own", [True, False], ids=["own step", "with the loss"])
def test_a_resumed_run_goes_on_bit_for_bit(own, tmp_path):
    """With its mean, its draws, and the corrected optimiser."""
    term = PathLength(every=2)
    cfg = small(
        generator=Styled(z_dim=4, mixing=True),
        terms=(LazyStep(term) if own else term,),
        **{"report.snapshot_kimg": 0.032},
    )
    assert_resumes(cfg, tmp_path, ("G", "D", "ema", "G_terms"))
    (mean,) = saved(tmp_path / "whole", "G_terms").values()
    assert mean > 0


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, which fears for other threads
def test_two_processes_have_the_mean_and_the_gradient_of_one(tmp_path):
    """Wrong: a of its own in each process, or a gradient through the mean of one process alone."""

    def work(rank):
        memory, lengths = PathLengths(decay=0.5), torch.arange(8.0).view(2, 4)[rank].requires_grad_(True)
        for _ in range(2):
            penalty = memory.penalty(lengths).mean()
        penalty.backward()
        return {"a": memory.mean, "gradient": lengths.grad / 2}  # as the trainer averages them

    found = on_two_processes(work, tmp_path / "ranks")
    memory, lengths = PathLengths(decay=0.5), torch.arange(8.0).requires_grad_(True)
    for _ in range(2):
        penalty = memory.penalty(lengths).mean()
    penalty.backward()
    assert_close(torch.cat([part["gradient"] for part in found]), lengths.grad)
    assert [part["a"].item() for part in found] == [memory.mean.item()] * 2


def test_what_has_no_styles_and_what_comes_in_pieces_is_refused():
    with pytest.raises(ValueError, match=r"measures how images change with the styles w, and MLPGenerator has none"):
        small(terms=(PathLength(),))
    with pytest.raises(ValueError, match=r"measures how images change.*MLPGenerator"):
        small(terms=(LazyStep(PathLength()),))
    with pytest.raises(ValueError, match=r"micro_batch=2 and PathLength.* do not go together"):
        small(generator=Styled(z_dim=4), terms=(PathLength(),), compute=Compute(micro_batch=2))


# ---- against the published implementation ----------------------------------------------------------------------

PUBLISHED = (
    "sg2_skip_r16_rgb",
    "sg2_orig_r16_rgb",
    "sg2_variants_r16_cond",
    "sg2_skip_r32_rgb_cond",
    "sg2_skip_r32_gray_clamp",
    "sg2_resnet_r32_rgb_clamp",
    "sg2_cifar_r32_cond",
    "sg2_skip_r64_rgb",
)


def loaded(arrays, kind):
    """The published network of a fixture."""
    config = json.loads(str(arrays["config"]))
    weights = {name[2:]: torch.from_numpy(v) for name, v in arrays.items() if name.startswith(f"{kind}/")}
    return network(f"stylegan2/{kind}", config[f"{kind}_kwargs"], weights), config


@pytest.mark.parametrize("name", PUBLISHED)
def test_lengths_mean_penalty_and_gradients_are_the_published_ones(name):
    arrays = numbers(f"stylegan/{name}.npz")
    G, config = loaded(arrays, "G")
    half = len(arrays["in/z"]) // 2
    z, c = (torch.from_numpy(arrays[f"in/{key}"][:half]) for key in ("z", "c"))
    ws = G.mapping(z, c if c.shape[1] else None)
    noise = torch.from_numpy(arrays["in/pl_noise_times32"]).float() / 32
    lengths = path_lengths(G, ws, noise, noise_mode="const")
    assert_close(lengths, torch.from_numpy(arrays["out/pl_lengths"]), rtol=1e-4, atol=1e-6)

    memory = PathLengths(decay=0.01)
    memory.mean.fill_(0.3)
    penalty = memory.penalty(lengths)
    assert_close(memory.mean, torch.tensor(arrays["out/pl_mean_after"]), rtol=1e-5, atol=0)
    assert_close(penalty, torch.from_numpy(arrays["loss/pl_penalty"]), rtol=1e-3, atol=1e-6)

    names = config["G_params"]
    parameters = dict(G.named_parameters())
    found = torch.autograd.grad(
        PathLength().weight(0) * penalty.mean(), [parameters[n] for n in names], allow_unused=True
    )
    largest = max(arrays["grad/Greg/norm"])
    for gradient, norm, dot in zip(found, arrays["grad/Greg/norm"], arrays["grad/Greg/dot"], strict=True):
        if gradient is None:  # the images' biases, which move no length
            assert norm == 0
            continue
        flat = gradient.double().flatten()
        assert flat.norm().item() == pytest.approx(norm, rel=2e-3, abs=1e-5 * largest)
        assert (flat @ torch.cos(torch.arange(len(flat)) + 0.1).double()).item() == pytest.approx(
            dot, rel=2e-3, abs=1e-4 * max(norm, 1e-2 * largest)
        )
