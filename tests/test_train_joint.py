"""Consensus in the trainer: both players' gradients against the squared field differentiated in one piece."""

from __future__ import annotations

import pytest
import torch
from loops import loop_over
from reference import Reference, Watch, assert_gradients, batch, build, games, small
from runs import assert_resumes, lines
from tiny import recipe

from equipoise.config import override
from equipoise.losses import Consensus, NonSaturating, Saturating
from equipoise.losses import adversarial as losses
from equipoise.train import d_step, g_step


@loop_over("loss", [NonSaturating(), Saturating(), losses.RelativisticPairing()], ids=["plain", "minimax", "paired"])
@loop_over("every", [1, 2])
def test_consensus_adds_the_gradient_of_half_the_squared_field_to_both_players(loss, every):
    """own loss + every · gamma/2 · (‖∇_θ L_D‖² + ‖∇_φ L_G‖²), differentiated by each player's own weights."""
    cfg = small(loss=loss, terms=(Consensus(gamma=0.7, every=every),))
    for mover, step in (("D", d_step), ("G", g_step)):
        gan, real = build(cfg), batch()
        watch, reference = Watch(gan), Reference(gan)
        stats = step(gan, real, 0)
        assert len(watch.z) == 2
        assert torch.equal(*watch.z)  # v is taken at the very images of the step
        d, g = games(reference, loss, real, watch.z[0])
        field = (*reference.vectors("D", d, create_graph=True), *reference.vectors("G", g, create_graph=True))
        square = torch.stack([part.square().sum() for part in field]).sum()
        wanted = reference.gradient(mover, (d if mover == "D" else g) + every * 0.7 / 2 * square)
        assert_gradients(watch.gradients[0], wanted, mover)
        assert stats[f"{mover}/Consensus"].item() == pytest.approx(square.item(), rel=1e-4)
        for net in (gan.D, gan.G):  # nothing stays behind
            assert all(p.grad is None and not p.requires_grad for p in net.parameters())
        assert "Consensus" not in " ".join(step(gan, real, 8)) or every == 1


def test_a_run_with_consensus_resumes_bit_for_bit(tmp_path):
    changes = {"terms": (Consensus(gamma=0.1, every=2),), "head.san": False, "d_steps": 2}
    assert_resumes(override(recipe(), changes | {"total_kimg": 0.096}), tmp_path)
    assert {"D/Consensus", "G/Consensus"} <= lines(tmp_path / "whole")[0].keys()
