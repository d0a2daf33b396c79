"""Heads that name the class in the trainer: who learns which labels, from which images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loops import loop_over
from reference import Reference, Watch, assert_gradients, batch, build, cross_entropy, small
from runs import assert_resumes, lines
from tiny import recipe

import equipoise.train
from equipoise.augment import ADA
from equipoise.config import override
from equipoise.core.types import Batch
from equipoise.data import Digits, hold_out
from equipoise.losses import FeatureMatching, Hinge
from equipoise.models import Auxiliary, Head, SemiSupervised
from equipoise.train import d_step, g_step, train


@loop_over("san", [False, True], ids=["plain", "SAN"])
def test_with_an_auxiliary_classifier_both_players_also_minimise_the_cross_entropy(san):
    """D on real and generated images, G on generated ones (Odena et al. 2017)."""
    cfg = small(head=Head(Auxiliary(), san=san), loss=Hinge())
    gan, real = build(cfg), batch()
    watch, reference = Watch(gan), Reference(gan)
    stats = d_step(gan, real, 0)
    on_real, on_fake = reference.logits(real.x), reference.logits(reference.images(watch.z[0], real.y).detach())
    total = F.relu(1 - on_real.fun).mean() + F.relu(1 + on_fake.fun).mean()
    if san:
        total = total + on_fake.dir.mean() - on_real.dir.mean()
    total = total + cross_entropy(on_real.classes, real.y) + cross_entropy(on_fake.classes, real.y)
    assert_gradients(watch.gradients[0], reference.gradient("D", total), "D")
    assert stats["D/loss"].item() == pytest.approx(total.item(), rel=1e-5)
    right = [row.argmax() == label for row, label in zip(on_real.classes, real.y, strict=True)]
    assert stats["D/accuracy"].item() == pytest.approx(sum(right).item() / len(right))

    reference = Reference(gan)
    stats = g_step(gan, real, 0)
    on_fake = reference.logits(reference.images(watch.z[-1], real.y))
    total = cross_entropy(on_fake.classes, real.y) - on_fake.fun.mean()
    assert_gradients(watch.gradients[1], reference.gradient("G", total), "G")
    assert stats["G/loss"].item() == pytest.approx(total.item(), rel=1e-5)
    assert "G/accuracy" not in stats


SEMI_SUPERVISED = {"head": Head(SemiSupervised(labelled=20))}


def test_of_the_unlabelled_images_no_label_is_learned():
    """D minimises the loss on them, and the cross-entropy on the labelled ones alone (Salimans et al. 2016, sec. 5)."""
    lesson, x = torch.rand(8, 1, 28, 28) * 2 - 1, batch().x
    y, other = torch.arange(8), torch.arange(8).flip(0)
    found = []
    for labels, taught in ((y, y), (other, y), (y, other)):
        gan = build(small(**SEMI_SUPERVISED))
        watch, reference = Watch(gan), Reference(gan)
        stats = d_step(gan, Batch(x, labels), 0, None, Batch(lesson, taught))
        found.append(watch.gradients[0]["D"])
        on_real, on_fake = reference.logits(x), reference.logits(reference.images(watch.z[0]).detach())
        # the K + 1 classes written out, generated the last of them
        with_fake = [F.pad(logits.classes, (0, 1)).log_softmax(1) for logits in (on_real, on_fake)]
        unsupervised = -with_fake[0][:, :-1].logsumexp(1).mean() - with_fake[1][:, -1].mean()
        total = unsupervised + cross_entropy(reference.logits(lesson).classes, taught)
        assert_gradients(watch.gradients[0], reference.gradient("D", total), "D")
        assert stats["D/loss"].item() == pytest.approx(total.item(), rel=1e-5)
        accuracy = on_real.classes.argmax(1).eq(labels).double().mean().item()
        assert stats["D/accuracy"].item() == pytest.approx(accuracy)  # on images whose labels it is not told
    one, shuffled, untaught = found
    assert all(torch.equal(one[n], shuffled[n]) for n in one)
    assert not torch.equal(one["head.classifier.weight"], untaught["head.classifier.weight"])


def test_a_semi_supervised_d_trains_on_images_without_labels():
    """Exactly as with labels, which it does not read; how many it would guess is then unknown."""
    real, lesson, found = batch(), batch(), []
    for given in (real, Batch(real.x)):
        gan = build(small(**SEMI_SUPERVISED))
        watch = Watch(gan)
        stats = d_step(gan, given, 0, labelled=lesson)
        found.append((watch.gradients[0]["D"], {name: stats[name] for name in stats if name != "D/accuracy"}))
        assert ("D/accuracy" in stats) == (given is real)
    for told, untold in zip(*found, strict=True):
        assert told.keys() == untold.keys()
        assert all(torch.equal(told[n], untold[n]) for n in told)


def test_a_semi_supervised_d_without_labelled_images_is_refused():
    gan = build(small(**SEMI_SUPERVISED))
    for given in (batch(), Batch(batch().x)):
        with pytest.raises(ValueError, match=r"from labelled images: pass them, d_step\(\.\.\., labelled=batch\)"):
            d_step(gan, given, 0)


def test_g_of_a_semi_supervised_gan_has_no_class_to_be():
    gan, real = build(small(**SEMI_SUPERVISED)), batch()
    watch, reference = Watch(gan), Reference(gan)
    g_step(gan, real, 0, batch())
    total = F.softplus(-reference.logits(reference.images(watch.z[0])).classes.logsumexp(1)).mean()
    assert_gradients(watch.gradients[0], reference.gradient("G", total), "G")


def test_a_run_teaches_the_images_it_was_allowed_and_none_of_those_held_out(tmp_path, monkeypatch):
    """20 of the training part, 2 of each class, each with its own label, at every update of D."""
    lessons, others = [], []

    def noting(gan, batch, nimg, held_out, labelled):
        lessons.append(labelled)
        others.append(held_out)
        return d_step(gan, batch, nimg, held_out, labelled)

    monkeypatch.setattr(equipoise.train.loop, "d_step", noting)
    augment = ADA(heuristic="rv", held_out=0.1)
    train(small(**SEMI_SUPERVISED, augment=augment, d_steps=2), tmp_path)
    training, unseen = hold_out(Digits().build(), 0.1)

    def content(dataset):
        pixels = dataset.read(np.arange(len(dataset)))
        return {x.tobytes(): int(y) for x, y in zip(pixels, dataset.labels, strict=True)}

    known, held_out = content(training), content(unseen)
    taught = {}
    for lesson in lessons:
        assert lesson.x.shape == (8, 1, 28, 28)
        for x, y in zip(((lesson.x + 1) * 127.5).round().byte().numpy(), lesson.y.tolist(), strict=True):
            taught[x.tobytes()] = y
    assert len(lessons) == 16
    assert len(taught) == 20
    assert np.bincount(list(taught.values())).tolist() == [2] * 10
    assert all(known[key] == y and key not in held_out for key, y in taught.items())
    assert all("D/accuracy" in line for line in lines(tmp_path))


def test_other_heads_are_taught_nothing(tmp_path, monkeypatch):
    def noting(gan, batch, nimg, held_out, labelled):
        assert labelled is None
        return d_step(gan, batch, nimg, held_out, labelled)

    monkeypatch.setattr(equipoise.train.loop, "d_step", noting)
    train(override(recipe(), {"head": Head(Auxiliary()), "total_kimg": 0.016}), tmp_path)


@loop_over("labelled", [9, 10**8])
def test_fewer_labelled_images_than_classes_or_more_than_there_are_are_refused(labelled, tmp_path):
    """With 9 of 10 classes, the cross-entropy would say that there is no tenth."""
    with pytest.raises(
        ValueError, match=rf"head\.conditioning\.labelled={labelled} must be at least one image of each of the 10"
    ):
        train(small(head=Head(SemiSupervised(labelled=labelled))), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_that_are_held_out_cannot_be_labelled(tmp_path):
    """The bound is what is left to train on."""
    augment, images = ADA(heuristic="rv", held_out=0.5), len(Digits().build())
    left = len(hold_out(Digits().build(), 0.5)[0])
    assert left < images
    with pytest.raises(ValueError, match=f"there are {left} images to train on"):
        train(small(head=Head(SemiSupervised(labelled=left + 1)), augment=augment), tmp_path / "run")


@pytest.mark.parametrize("head", [Head(Auxiliary(), san=True), Head(SemiSupervised(labelled=12))])
def test_a_run_that_learns_classes_resumes_bit_for_bit(head, tmp_path):
    matching = FeatureMatching(adversarial=False)
    changes = {"head": head, "terms": (matching,)}
    assert_resumes(small(**changes, d_steps=2), tmp_path)
