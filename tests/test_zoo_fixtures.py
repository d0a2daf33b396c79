"""Networks, losses, penalties, layers and metrics beside the numbers of published implementations, in float64.

The files and whose numbers they hold: `zoo/README.md` of the fixtures. Augmentation has tests of its own.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loops import loop_over
from torch import nn
from torch.testing import assert_close

from equipoise.core.types import Batch, ImageSpec
from equipoise.losses import (
    R1,
    R2,
    Dragan,
    Drift,
    GradientPenalty,
    Hinge,
    LeastSquares,
    NonSaturating,
    Orthogonal,
    RelativisticPairing,
    Saturating,
    SoftLeastSquares,
    Wasserstein,
    class_loss,
    discriminator_loss,
    generator_loss,
)
from equipoise.metrics import density_coverage, frechet_distance, inception_score, mmd2, precision_recall
from equipoise.models import (
    BigGANDiscriminator,
    BigGANGenerator,
    Head,
    Projection,
    ResNetDiscriminator,
    ResNetGenerator,
)
from equipoise.nn import (
    MinibatchDiscrimination,
    MinibatchStd,
    SANHead,
    SelfAttention,
    SemiSupervisedHead,
    UnconditionalVector,
    VirtualBatchNorm,
    WithReference,
)
from equipoise.rules import ProgressiveGrowing, Stages
from equipoise.weights import DividedBySigma, SpectralNorm
from tests.fixtures import numbers


def tensors(name):
    """The arrays of a file, those of floats as float64."""
    found = {key: torch.from_numpy(np.asarray(value)) for key, value in numbers(f"zoo/{name}.npz").items()}
    return {key: value.double() if value.is_floating_point() else value for key, value in found.items()}


def state(arrays):
    return {key.removeprefix("state/"): value for key, value in arrays.items() if key.startswith("state/")}


def assert_same(ours, theirs):
    """Within 1e-9 of the largest number; all of them may be small, as gradients of D are."""
    assert_close(ours.detach(), theirs, rtol=1e-9, atol=1e-9 * theirs.abs().max().clamp_max(1).item())


def loaded(net, arrays):
    """In float64, with the stored weights."""
    net.double().load_state_dict(state(arrays))
    return net


# ---- networks --------------------------------------------------------------------------------------------------------

GENERATORS = {
    "sngan32_conditional_g": (
        ResNetGenerator(z_dim=16, width=8, channels="constant"),
        ImageSpec(32, 3, num_classes=10),
        None,
    ),
    "biggan32_g": (
        BigGANGenerator(z_dim=12, width=3, attention=0, embed=6),
        ImageSpec(32, 3, num_classes=5),
        SpectralNorm(skip=("embed",)),
    ),
}

DISCRIMINATORS = {
    "sngan32_projection_d": (
        Head(Projection()),
        ResNetDiscriminator(width=8, channels="constant"),
        ImageSpec(32, 3, num_classes=10),
    ),
    "sngan48_d": (Head(), ResNetDiscriminator(width=4), ImageSpec(48, 3)),
    "biggan32_d": (Head(Projection()), BigGANDiscriminator(width=3, attention=0), ImageSpec(32, 3, num_classes=5)),
}


@loop_over("mode", ["eval", "train"])
@loop_over("name", GENERATORS)
def test_generators(name, mode):
    arrays, (cfg, spec, normalizer) = tensors(name), GENERATORS[name]
    G = cfg.build(spec)
    if normalizer is not None:
        normalizer(G)
    G = loaded(G, arrays).train(mode == "train")
    assert_same(G(arrays["z"], arrays["y"]), arrays[f"{mode}/images"])


@loop_over("mode", ["eval", "train"])
@loop_over("name", DISCRIMINATORS)
def test_discriminators(name, mode):
    """Logits, their gradient with respect to the images, and what R1 makes of it."""
    arrays, (head, cfg, spec) = tensors(name), DISCRIMINATORS[name]
    D = head.build(cfg.build, spec)
    SpectralNorm()(D)
    D = loaded(D, arrays).train(mode == "train")
    x, y = arrays["x"].requires_grad_(True), arrays.get("y")
    logits = D(x, y).fun
    assert_same(logits, arrays[f"{mode}/logits"])
    (gradient,) = torch.autograd.grad(logits.sum(), x)
    assert_same(gradient, arrays[f"{mode}/input_gradient"])
    batch = Batch(x.detach(), y)
    assert_same(R1()(lambda x, y: D(x, y).fun, batch, batch), arrays[f"{mode}/squared_norm"])


# ---- layers ----------------------------------------------------------------------------------------------------------


def test_self_attention_and_its_second_derivative():
    arrays = tensors("attention_block")
    layer = loaded(SelfAttention(16), arrays)
    x = arrays["x"].requires_grad_(True)
    out = layer(x)
    assert_same(out, arrays["out"])
    (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    assert_same(gradient, arrays["input_gradient"])
    second = torch.autograd.grad(gradient.square().sum(), list(layer.parameters()))
    for (name, _), found in zip(layer.named_parameters(), second, strict=True):
        assert_same(found, arrays[f"second/{name}"])


def test_virtual_batch_norm():
    arrays = tensors("layers")
    layer = VirtualBatchNorm(6).double()
    layer.load_state_dict({"gain": arrays["vbn/gain"], "bias": arrays["vbn/bias"]})
    assert_same(WithReference(layer, arrays["vbn/reference"])(arrays["vbn/x"]), arrays["vbn/out"])


def test_minibatch_discrimination():
    """Ours counts each image itself, as the paper writes the sum: exp(0) = 1 more."""
    arrays = tensors("layers")
    T = arrays["minibatch_discrimination/T"]  # (F, kernels, dims)
    layer = MinibatchDiscrimination(*T.shape).double()
    layer.load_state_dict({"T.weight": T.flatten(1).T})
    theirs = arrays["minibatch_discrimination/out_without_self"]
    theirs[:, T.shape[0] :] += 1
    assert_same(layer(arrays["minibatch_discrimination/h"]), theirs)


def test_minibatch_standard_deviation():
    arrays = tensors("layers")
    assert_same(MinibatchStd(4)(arrays["minibatch_std/x"]), arrays["minibatch_std/out_groups_of_4"])


def test_power_iteration():
    """Theirs moves v, then u; ours u, then v: from their first v on, both take the same path."""
    arrays = tensors("power_iteration")
    W, u, v = (arrays[key] for key in ("W", "u", "v"))
    assert_same(torch.nn.functional.normalize(W.T @ arrays["u0"], dim=0), v[0])
    divided = DividedBySigma(W)
    divided._v.copy_(v[0])
    for i in range(7):
        divided.iterate(W, 1)
        assert_same(divided._u, u[i])
        assert_same(divided._v, v[i + 1])
        assert_same(u[i] @ W @ v[i], arrays["sigma"][i])
    divided.iterate(W, 1000)
    assert_same(divided.eval()(W), W / arrays["true_sigma"])


def test_orthogonal_regularisation():
    arrays = tensors("orthogonal")
    conv = nn.Conv2d(4, 6, 3, bias=False).double()
    conv.load_state_dict({"weight": arrays["W"]})
    value = Orthogonal()(conv)
    assert_same(value, arrays["value"])
    (gradient,) = torch.autograd.grad(value, conv.weight)
    assert_same(gradient / 2, arrays["biggan_gradient"])


# ---- losses and penalties --------------------------------------------------------------------------------------------

LOSSES = {
    "hinge": Hinge(),
    "non_saturating": NonSaturating(),
    "non_saturating_smoothing_0_1": NonSaturating(smoothing=0.1),
    "saturating": Saturating(),
    "least_squares": LeastSquares(),
    "wasserstein": Wasserstein(),
    "relativistic": RelativisticPairing(),
    "soft_least_squares": SoftLeastSquares(),
}


@loop_over("name", LOSSES)
def test_losses(name):
    arrays, loss = tensors("losses"), LOSSES[name]
    real, fake = (arrays[key].requires_grad_(True) for key in ("real", "fake"))
    d = discriminator_loss(loss, real, fake)
    g = generator_loss(loss, fake, real)
    d_real, d_fake = torch.autograd.grad(d, (real, fake))
    (g_fake,) = torch.autograd.grad(g, fake)
    for key, value in {"d": d, "d_real": d_real, "d_fake": d_fake, "g": g, "g_fake": g_fake}.items():
        assert_same(value, arrays[f"{name}/{key}"])


def test_the_loss_of_k_plus_1_classes():
    """Class scores are the features of a head whose classifier is the identity. Theirs halves the unlabelled part."""
    arrays = {key.removeprefix("k_plus_1/"): value for key, value in tensors("losses").items()}
    classifier = nn.Linear(5, 5, bias=False).double()
    classifier.load_state_dict({"weight": torch.eye(5)})
    head = SemiSupervisedHead(classifier)
    assert_same(class_loss(head(arrays["labelled"]), arrays["y"]), arrays["loss_labelled"])
    unlabelled = discriminator_loss(NonSaturating(), head(arrays["unlabelled"]), head(arrays["generated"]))
    assert_same(unlabelled / 2, arrays["loss_unlabelled_halved"])


@loop_over("name", ["hinge", "soft_least_squares"])
def test_san_heads(name):
    """The loss, and its gradient for the direction, for its length, and for the features of both kinds of images."""
    arrays = tensors("san_head")
    vectors = UnconditionalVector(7).double()
    vectors.load_state_dict({"linear.weight": arrays["w"]})
    head = SANHead(vectors)
    real, fake = (arrays[f"features_{key}"].requires_grad_(True) for key in ("real", "fake"))
    loss = discriminator_loss(LOSSES[name], head(real), head(fake))
    assert_same(loss, arrays[f"{name}/loss"])
    found = torch.autograd.grad(loss, (vectors.linear.weight, real, fake))
    for key, gradient in zip(("w", "features_real", "features_fake"), found, strict=True):
        assert_same(gradient, arrays[f"{name}/grad_{key}"])


PENALTIES = {
    "r1": R1(),
    "r2": R2(),
    "wgan_gp": GradientPenalty(),
    "zero_centred": GradientPenalty(target=0),
    "dragan": Dragan(),
    "drift": Drift(),
}


@loop_over("name", PENALTIES)
def test_penalties(name, monkeypatch):
    """A value per image, unweighted, and what it does to D's weights."""
    arrays = tensors("penalties")
    D = loaded(
        nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1),
            nn.Softplus(),
            nn.Conv2d(4, 4, 3, stride=2, padding=1),
            nn.Softplus(),
            nn.Flatten(),
            nn.Linear(36, 1),
        ),
        arrays,
    )
    draws = {tuple(arrays[key].shape): arrays[key] for key in ("epsilon", "u")}
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: draws[tuple(*shape)])
    values = PENALTIES[name](lambda x, y: D(x), *(Batch(arrays[key]) for key in ("real", "fake")))
    assert_same(values, arrays[name])
    values.mean().backward()
    given = {key.removeprefix(f"{name}/grad/"): value for key, value in arrays.items() if f"{name}/grad/" in key}
    moved = {key: p.grad for key, p in D.named_parameters() if p.grad is not None}
    assert given.keys() <= moved.keys()
    for key, gradient in moved.items():  # a bias that a penalty on gradients does not depend on is not stored
        assert_same(gradient, given.get(key, torch.zeros_like(gradient)))


# ---- metrics and schedules -------------------------------------------------------------------------------------------


@loop_over("k", [3, 5])
def test_precision_recall_density_coverage(k):
    arrays = numbers("zoo/metrics.npz")
    sets = arrays["real"], arrays["fake"]
    found = precision_recall(*sets, k=k)._asdict() | density_coverage(*sets, k=k)._asdict()
    assert found == pytest.approx({key: float(arrays[f"prdc/k{k}/{key}"]) for key in found}, abs=1e-12)


def test_distances_of_distributions():
    """The Fréchet distance also with fewer samples than features, where torch-fidelity is off in the eighth digit."""
    arrays = numbers("zoo/metrics.npz")
    real, fake = arrays["real"], arrays["fake"]
    assert frechet_distance(real, fake) == pytest.approx(float(arrays["fid"]), rel=1e-9)
    assert mmd2(real[:90], fake) == pytest.approx(float(arrays["kid_of_first_90"]), rel=1e-9)
    exact, off = (float(arrays[f"singular/fid_{key}"]) for key in ("exact", "torch_fidelity"))
    found = frechet_distance(arrays["singular/real"], arrays["singular/fake"])
    assert found == pytest.approx(exact, rel=1e-9) != pytest.approx(off, rel=1e-9)


@loop_over("splits", [1, 4])
def test_inception_score(splits):
    arrays = tensors("metrics")
    found = inception_score(arrays["logits"].softmax(1), splits)
    wanted = [arrays[f"inception_score/splits{splits}/{key}"].item() for key in ("mean", "std")]
    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12)


def test_the_schedule_of_progan():
    """Level of detail and batch size after so many images, on one GPU (preset v1-1gpu)."""
    arrays = numbers("zoo/progan_schedule.npz")
    sizes = ((256, 14), (512, 6), (1024, 3))
    stages = Stages(ProgressiveGrowing(initial=4, stable_kimg=800, fade_kimg=800, batch_sizes=sizes), 1024, 16)
    for nimg, lod, batch in zip(arrays["nimg"].tolist(), arrays["lod"], arrays["batch"], strict=True):
        assert stages.lod(nimg) == pytest.approx(lod, abs=1e-9), nimg
        assert stages.batch_size(nimg) == batch, nimg
