"""Penalties in the trainer: one that was cut from D's weights is refused, and only the mover's weights move."""

from __future__ import annotations

import pytest
import torch
from loops import loop_over
from reference import Watch, batch, build, small
from torch import nn

from equipoise.compute.distributed import trainable
from equipoise.core.types import Batch, component
from equipoise.losses import R1, Penalty
from equipoise.train import d_step


@component
class Cut(Penalty):
    """‖grad D(x)‖², cut from the weights of D in one of the ways in which that happens."""

    how: str
    every: int = 1

    def weight(self, nimg: int) -> float:
        return 1.0

    def __call__(self, critic, real, fake):
        x = real.x.detach().requires_grad_(True)
        with torch.set_grad_enabled(self.how != "no_grad"):
            logits = critic(x, real.y)
        if self.how == "no_grad":
            return logits.square().sum(1)
        (slope,) = torch.autograd.grad(logits.sum(), x, create_graph=self.how != "create_graph")
        value = slope.square().sum((1, 2, 3))
        return value.detach() if self.how == "detach" else value


@loop_over("how", ["no_grad", "create_graph", "detach"])
def test_a_penalty_that_trains_nothing_is_refused(how):
    """It would be reported, and do nothing. After the error D's weights rest, as between steps."""
    gan = build(small(terms=(R1(every=1), Cut(how))))
    with pytest.raises(
        ValueError, match=rf"Cut\(how='{how}', every=1\) does not depend on D's weights.* train nothing"
    ):
        d_step(gan, batch(), 0)
    assert not any(p.requires_grad for p in gan.D.parameters())


def test_the_same_penalty_in_one_piece_is_that_of_r1():
    """So the test above refuses what was cut, and no more."""
    found = []
    for penalty in (Cut("not"), R1(gamma=2.0, every=1)):
        gan, real = build(small(terms=(penalty,))), Batch(torch.linspace(-1, 1, 8 * 784).view(8, 1, 28, 28))
        watch = Watch(gan)
        d_step(gan, real, 0)
        found.append(watch.gradients[0]["D"])
    assert all(torch.equal(found[0][n], found[1][n]) for n in found[0])


def test_whose_gradients_are_taken_is_as_it_was_afterwards():
    """Also of two players at once, inside a step of one of them, of weights that rest, and after an error."""
    D, G = nn.Linear(2, 2), nn.Linear(2, 2)
    D.bias.requires_grad_(False)
    d_optim, g_optim = torch.optim.SGD([D.weight, D.bias], lr=1.0), torch.optim.SGD([G.weight], lr=1.0)
    G.weight.requires_grad_(False)

    def wanting():
        return {name for name, p in (("D.w", D.weight), ("D.b", D.bias), ("G.w", G.weight)) if p.requires_grad}

    with trainable(g_optim):
        assert wanting() == {"D.w", "G.w"}
        with trainable(d_optim, g_optim):
            assert wanting() == {"D.w", "D.b", "G.w"}
        assert wanting() == {"D.w", "G.w"}
    assert wanting() == {"D.w"}
    with pytest.raises(RuntimeError, match="on purpose"), trainable(d_optim, g_optim):
        raise RuntimeError("on purpose")
    assert wanting() == {"D.w"}
    assert G.bias.requires_grad  # which no optimiser owns
