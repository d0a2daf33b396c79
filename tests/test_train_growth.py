"""Growth in the loop: detail, batches and updates as functions of images seen, and runs that pass through all sizes."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from loops import loop_over
from processes import on_two_processes
from runs import assert_resumes, assert_same_run, newest, same, saved
from tiny import recipe
from torch.testing import assert_close

import equipoise.train
from equipoise.augment import ADA
from equipoise.config import known_to, override, to_text
from equipoise.core.grammar import parse
from equipoise.core.types import Batch, ImageSpec
from equipoise.data import ArrayDataset, InfiniteBatches, batches, resident
from equipoise.generate import Generator, draw_latents, images
from equipoise.losses import R1, Drift, GradientPenalty, NonSaturating, Wasserstein
from equipoise.models import Head, ProGANDiscriminator, ProGANGenerator, Projection, SemiSupervised
from equipoise.nn import detail, enlarge, shrink
from equipoise.rules import Adam, EMAConfig, NoGrowth, ProgressiveGrowing, Stages
from equipoise.train import GAN, BatchesByStage, d_step, g_step, train
from equipoise.weights import EqualizedLearningRate

GROWTH = ProgressiveGrowing(stable_kimg=0.04, fade_kimg=0.06, batch_sizes=((14, 12), (28, 8)))
"""For digits: 7x7 in batches of 16 until 40, 14x14 alone from 100 to 140, 28x28 alone from 200 on."""


def growing(**changes):
    """A run through all sizes in a second or two."""
    settings = {
        "generator": ProGANGenerator(z_dim=4, width=4, full_until=28),
        "discriminator": ProGANDiscriminator(width=4, full_until=28, minibatch="std"),
        "head": Head(),
        "loss": Wasserstein(),
        "terms": (GradientPenalty(), Drift(every=2)),
        "g_normalizer": EqualizedLearningRate(),
        "d_normalizer": EqualizedLearningRate(),
        "growth": GROWTH,
        "ema": EMAConfig(halflife_kimg=0.02, rampup=None),
        "batch_size": 16,
        "total_kimg": 0.24,
        "report.log_kimg": 0.08,
        "report.snapshot_kimg": 0.08,
    }
    return override(recipe(), settings | changes)


def test_weight_decay_is_refused_which_would_take_the_waiting_layers_away():
    with pytest.raises(ValueError, match=r"Adam\(.*weight_decay=0\.001\) and growth=.* do not go together: .*near 0"):
        growing(d_optim=Adam(weight_decay=1e-3))
    growing(d_optim=Adam(weight_decay=1e-3), growth=NoGrowth())


# ---- functions of images seen ------------------------------------------------------------------------------------


def test_the_level_of_detail_is_that_of_the_paper():
    """600 kimg of 4x4, then 8x8 fades in over 600, and so on; by hand for 32x32."""
    growth = ProgressiveGrowing()
    wanted = {0: 3, 600: 3, 900: 2.5, 1200: 2, 1800: 2, 1950: 1.75, 2400: 1, 3000: 1, 3300: 0.5, 3600: 0, 9000: 0}
    assert {kimg: growth.lod(kimg * 1000, 32) for kimg in wanted} == wanted
    assert growth.lod(600_001, 32) < 3
    lods = [growth.lod(nimg, 32) for nimg in range(0, 4_000_000, 997)]
    assert all(a >= b for a, b in pairwise(lods))
    assert NoGrowth().lod(0, 32) == 0


@loop_over(
    ("resolution", "initial", "first"),
    [(1024, 4, 4), (1024, 16, 16), (28, 4, 7), (28, 8, 14), (48, 4, 6), (80, 4, 5), (4, 4, 4), (32, 64, 32), (9, 4, 9)],
)
def test_the_first_size_is_the_smallest_that_halving_leads_to(resolution, initial, first):
    growth = ProgressiveGrowing(initial=initial)
    assert resolution / 2 ** growth.lod(0, resolution) == first


def test_without_a_fade_sizes_change_at_once():
    growth = ProgressiveGrowing(stable_kimg=1, fade_kimg=0, batch_sizes=((8, 5), (16, 3)))
    assert [growth.lod(n, 16) for n in (0, 999, 1000, 1999, 2000, 5000)] == [2, 2, 1, 1, 0, 0]
    stages = Stages(growth, 16, 7)
    assert [stages.batch_size(n) for n in (0, 999, 1000, 1999, 2000, 5000)] == [7, 7, 5, 5, 3, 3]


def test_a_batch_size_holds_from_its_size_on_fading_in_included():
    growth = ProgressiveGrowing(stable_kimg=1, fade_kimg=1, batch_sizes=((8, 6), (32, 2)))
    stages = Stages(growth, 64, 9)
    for nimg in range(0, 12_000, 50):
        pixels = 64 / 2 ** int(growth.lod(nimg, 64))  # the larger of the two that are mixed
        assert stages.batch_size(nimg) == (9 if pixels < 8 else 6 if pixels < 32 else 2), nimg
    assert stages.batch_sizes == [9, 6, 6, 2, 2]
    assert Stages(NoGrowth(), 64, 9).batch_sizes == [9]


@loop_over(
    "growth",
    [
        GROWTH,
        NoGrowth(),
        ProgressiveGrowing(stable_kimg=0.01, fade_kimg=0, batch_sizes=((7, 64), (28, 3))),  # stages of no batch
        ProgressiveGrowing(stable_kimg=0.05, fade_kimg=0.001, batch_sizes=((7, 3), (14, 7))),
    ],
)
def test_updates_are_counted_as_a_loop_would(growth):
    stages, nimg = Stages(growth, 28, 8), 0
    for update in range(200):
        assert stages.updates(nimg) == update
        nimg += stages.batch_size(nimg)


def test_sizes_out_of_order_are_refused():
    for pairs in (((8, 4), (4, 8)), ((4, 8), (4, 9))):
        with pytest.raises(ValueError, match="must name sizes in ascending order"):
            ProgressiveGrowing(batch_sizes=pairs)
    with pytest.raises(ValueError, match="batch_sizes"):
        ProgressiveGrowing(batch_sizes=((4, 0),))


def test_growth_is_text_and_can_be_overridden():
    cfg = growing()
    assert parse(to_text(cfg), known_to(cfg)) == cfg
    changed = override(cfg, {"growth": parse("ProgressiveGrowing(batch_sizes=[[4,128],[32,64]])", known_to(cfg))})
    assert changed.growth.batch_sizes == ((4, 128), (32, 64))


def test_a_generator_that_does_not_grow_is_refused():
    with pytest.raises(ValueError, match=r"SANDigitsGenerator makes all in full size\. Use a generator that grows"):
        GAN.build(override(recipe(), {"growth": GROWTH}), ImageSpec(28, 1, 10))
    one_size = override(recipe(), {"growth": ProgressiveGrowing(initial=28)})  # from the start
    GAN.build(one_size, ImageSpec(28, 1, 10))


# ---- images of less detail ---------------------------------------------------------------------------------------


def squares(x, halvings):
    """Means over squares, in their place, by hand."""
    out, side = x.clone(), 2**halvings
    for i in range(0, x.shape[2], side):
        for j in range(0, x.shape[3], side):
            out[:, :, i : i + side, j : j + side] = x[:, :, i : i + side, j : j + side].mean((2, 3), keepdim=True)
    return out


@loop_over("lod", [0, 1, 2, 0.25, 1.5])
def test_detail_is_a_mixture_of_means_over_squares(lod):
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64) * 2 - 1
    whole, rest = int(lod), lod - int(lod)
    wanted = (1 - rest) * squares(x, whole) + rest * squares(x, whole + 1)
    assert_close(detail(x, lod), wanted)
    assert_close(detail(detail(x, whole), whole), detail(x, whole))  # as G's are: nothing is lost


def test_full_detail_is_the_image_itself():
    x = torch.rand(2, 1, 7, 7)
    assert detail(x, 0.0) is x
    assert torch.equal(enlarge(x, 1), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert_close(shrink(enlarge(x, 2), 2), x)


# ---- batches -----------------------------------------------------------------------------------------------------


def shades(n=50, side=28):
    """Images of noise, each of its own."""
    pixels = np.random.default_rng(0).integers(0, 256, (n, 1, side, side), dtype=np.uint8)
    return ArrayDataset(pixels, np.arange(n) % 10)


def stream(start, stop, **options):
    """Batches from `start` to `stop`."""
    stages, found, nimg = Stages(GROWTH, 28, 16), [], start
    with BatchesByStage(shades(), stages=stages, seed=3, start=start, **options) as batches:
        while nimg < stop:
            found.append((nimg, next(batches)))
            nimg += stages.batch_size(nimg)
    return found


def test_a_batch_holds_the_positions_of_the_stream_in_the_detail_of_its_moment():
    with InfiniteBatches(shades(), 1, seed=3) as one_by_one:
        every = [batch.x for batch in islice(one_by_one, 300)]
    sizes = []
    for nimg, batch in stream(0, 280):
        sizes.append(len(batch.x))
        original = torch.cat(every[nimg : nimg + len(batch.x)])
        assert torch.equal(batch.x, detail(original, GROWTH.lod(nimg, 28)))
    assert [size for size, before in zip(sizes, [0, *sizes], strict=False) if size != before] == [16, 12, 8]


def test_a_stream_that_is_begun_anywhere_goes_on_as_the_whole():
    whole = dict(stream(0, 280))
    for start in (32, 48, 108, 144, 200):  # before a size begins to fade in, in a fade, after it, ...
        assert start in whole
        for nimg, batch in stream(start, 280):
            assert torch.equal(batch.x, whole[nimg].x)
            assert torch.equal(batch.y, whole[nimg].y)


def test_whether_images_stay_on_the_device_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(resident, "fits", lambda size, device: True)
    monkeypatch.setattr(resident, "quick", lambda dataset: asked.append(dataset))  # None: it is not
    monkeypatch.setattr(batches, "to_device", lambda x, device: x)
    whole = stream(0, 280, device="cuda")
    assert len({len(batch.x) for _, batch in whole}) == 3
    assert len(asked) == 1


def test_ranks_share_each_batch():
    shares = [stream(0, 280, rank=rank, world=2) for rank in (0, 1)]
    for (nimg, whole), (_, first), (_, second) in zip(stream(0, 280), *shares, strict=True):
        assert torch.equal(torch.cat([first.x, second.x]), whole.x), nimg


def test_a_size_that_processes_cannot_share_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(equipoise.train.start, "world_size", lambda: 8)
    with pytest.raises(ValueError, match="batch_size=12 must be a multiple of the 8 processes"):
        train(growing(), tmp_path)


# ---- a step ------------------------------------------------------------------------------------------------------


def built(**changes):
    return GAN.build(growing(**changes), ImageSpec(28, 1, 10))


def both_steps(gan, nimg):
    gan.at(nimg)
    size = gan.stages.batch_size(nimg)
    batch = Batch(torch.rand(size, 1, 28, 28) * 2 - 1, torch.arange(size) % 10)
    return d_step(gan, batch, nimg), g_step(gan, batch, nimg)


def weights(net):
    return {name: p.detach().clone() for name, p in net.named_parameters()}


def test_the_first_steps_of_a_new_layer_are_no_longer_than_those_of_others():
    """A step is at most lr · (1 + ε); with a past of 1,000 updates without a gradient it would be 10 lr."""
    adam = Adam(lr=1e-3, betas=(0.0, 0.99))
    gan = built(d_optim=adam, g_optim=adam, terms=(), loss=NonSaturating())
    for nimg in (0, 8, 16, 24, 32):
        both_steps(gan, nimg)
    for nimg in (48, 100, 150, 200):  # 14x14 begins to fade in, is there; 28x28, likewise
        before = weights(gan.G) | {f"D.{name}": p for name, p in weights(gan.D).items()}
        both_steps(gan, nimg)
        after = weights(gan.G) | {f"D.{name}": p for name, p in weights(gan.D).items()}
        moved = {name: (after[name] - before[name]).abs().max().item() for name in before}
        assert max(moved.values()) < 1.01e-3, max(moved, key=moved.get)
        assert moved["blocks.1.1.parametrizations.weight.original"] > 0.9e-3


def test_an_optimiser_keeps_its_past_within_a_stage():
    gan = built(terms=(), loss=NonSaturating())
    states = defaultdict(list)
    for nimg in (0, 8, 48, 60, 96, 108, 120, 144):
        both_steps(gan, nimg)
        for player, optimizer in (("G", gan.g_optim), ("D", gan.d_optim)):
            states[player].append({int(state["step"]) for state in optimizer.state.values()})
    assert states["G"] == states["D"] == [{1}, {2}, {1}, {2}, {3}, {1}, {2}, {1}]


def test_without_growth_an_optimiser_keeps_its_past():
    gan = built(growth=NoGrowth(), terms=(), loss=NonSaturating())
    for nimg in (0, 8, 1_000_000):
        both_steps(gan, nimg)
    assert {int(state["step"]) for state in gan.g_optim.state.values()} == {3}


def test_layers_that_are_not_grown_stay_as_they_are():
    gan = built()
    before = weights(gan.G) | {f"D.{name}": p for name, p in weights(gan.D).items()}
    for nimg in (0, 8, 16, 24, 32):
        both_steps(gan, nimg)
    after = weights(gan.G) | {f"D.{name}": p for name, p in weights(gan.D).items()}
    still = {name for name in before if torch.equal(before[name], after[name])}
    later = ("blocks.1", "blocks.2", "to_image.1", "to_image.2", "D.body.entries.0", "D.body.entries.1")
    assert {name for name in before if name.startswith(later)} == still


def test_a_lazy_penalty_is_due_at_every_so_many_updates_whatever_their_size():
    gan, nimg, due = built(terms=(R1(every=3),)), 0, []
    for _ in range(24):
        due.append("D/R1" in both_steps(gan, nimg)[0])
        nimg += gan.stages.batch_size(nimg)
    assert due == [True, False, False] * 8
    assert nimg > 150  # three sizes of batches


# ---- a run -------------------------------------------------------------------------------------------------------


def watch(monkeypatch):
    """What each iteration saw: (nimg, level of G, of D, images, those held out, those with labels)."""
    seen = []

    def step(gan, batch, nimg, held_out=None, labelled=None):
        levels = [net.get_submodule(name).lod() for net, name in ((gan.G, ""), (gan.D, "body"))]
        seen.append((nimg, *levels, batch, held_out, labelled))
        return d_step(gan, batch, nimg, held_out, labelled)

    monkeypatch.setattr(equipoise.train.loop, "d_step", step)
    return seen


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """The directory of a whole run, and what its iterations saw."""
    run = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        seen = watch(patch)
        train(growing(), run)
    return run, seen


def coarse(x, lod):
    """Whether images have the detail that a level allows, and no more."""
    whole = int(lod)
    more = whole < 2 and torch.allclose(detail(x, whole + 1), x, atol=1e-3)
    return torch.allclose(detail(x, whole), x, atol=1e-5) and not more


def test_a_run_passes_through_all_sizes(watched):
    """Both networks and all real images are at the level of the moment; nimg counts what was shown."""
    run, seen = watched
    position = 0
    for nimg, g, d, batch, *_ in seen:
        assert nimg == position
        assert g == d == GROWTH.lod(nimg, 28)
        assert coarse(batch.x, g)
        position += len(batch.x)
    assert position == int(newest(run).name) == 240
    assert {len(batch.x) for _, _, _, batch, *_ in seen} == {16, 12, 8}


def test_images_held_out_and_images_with_labels_are_shown_alike(tmp_path, monkeypatch):
    seen = watch(monkeypatch)
    ada = ADA(heuristic="rv", held_out=0.1, kimg=0.2)
    head = Head(SemiSupervised(labelled=20))
    train(growing(augment=ada, head=head, loss=NonSaturating(), terms=(), total_kimg=0.12), tmp_path)
    for _, g, _, batch, held_out, labelled in seen:
        assert len(held_out.x) == len(labelled.x) == len(batch.x)
        assert coarse(held_out.x, g)
        assert coarse(labelled.x, g)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(watched, tmp_path):
    """Cut where a size begins to fade in, in the middle of a fade, where another batch size begins."""
    for cut in (0.048, 0.072, 0.144):
        train(growing(total_kimg=cut), tmp_path)
        assert int(newest(tmp_path).name) == cut * 1000
    train(growing(), tmp_path)
    assert_same_end(watched[0], tmp_path)


def assert_same_end(a, b):
    assert_same_run(a, b)
    one, other = (torch.load(newest(run) / "state.pt", weights_only=True) for run in (a, b))
    assert one["nimg"] == other["nimg"]
    for player in ("G", "D"):
        states = one["optimizers"][player]["state"], other["optimizers"][player]["state"]
        assert states[0].keys() == states[1].keys()
        assert all(same(states[0][key], states[1][key]) for key in states[0])


def test_a_conditional_san_with_several_updates_of_d_resumes(tmp_path):
    """Levels then change in the middle of an iteration."""
    head = Head(Projection(), san=True)
    assert_resumes(growing(**{"d_steps": 3, "head": head, "discriminator.minibatch": "none"}), tmp_path)


def level(run):
    return saved(run, "ema")["lod.value"].item()


def test_the_average_follows_the_level_and_so_does_the_generators_file(tmp_path):
    """An unfinished run draws images of the size that it has reached, a finished one of the full size.

    Layers that are not grown are the initial ones in the average too. So their average starts where they do: nothing of
    it is from before they were in use.
    """
    initial = {k: v for k, v in GAN.build(growing(), ImageSpec(28, 1, 10)).G.state_dict().items() if "lod" not in k}
    later = [k for k in initial if k.startswith(("blocks.1", "blocks.2", "to_image.1", "to_image.2"))]
    used = [k for k in initial if k not in later and k.endswith("original")]
    for kimg, lod in ((0.04, 2), (0.072, GROWTH.lod(60, 28)), (0.24, 0)):
        net = train(override(growing(), {"total_kimg": kimg}), tmp_path)
        G, ema = saved(tmp_path, "G"), saved(tmp_path, "ema")
        assert net.lod() == level(tmp_path) == G["lod.value"].item() == lod
        generator = Generator.from_pretrained(tmp_path)
        z = draw_latents(generator, 6)
        assert_close(generator.net(z), net(z))
        assert coarse(generator.net(z), lod)
        assert images(generator, z, None).shape == (6, 28, 28, 1)
        assert not any(torch.equal(G[k], initial[k]) or torch.equal(ema[k], G[k]) for k in used)
        if lod == 2:
            assert all(torch.equal(G[k], initial[k]) and torch.equal(ema[k], initial[k]) for k in later)
    assert not any(torch.equal(ema[k], initial[k]) for k in later if k.endswith("original"))


# ---- processes ---------------------------------------------------------------------------------------------------


def trained(cfg, run, rank):
    train(cfg, run)
    return {name: saved(run, name) for name in ("G", "D", "ema")} if rank == 0 else {}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, which fears for other threads
def test_two_processes_do_what_one_does(tmp_path):
    """Beyond rounding: nothing here is a statistic of a batch, or drawn inside a penalty."""
    smooth = Adam(lr=1e-3, eps=0.1)  # of a gradient that is all rounding it makes no step of full length
    cfg = growing(
        **{
            "discriminator.minibatch": "none",
            "terms": (R1(gamma=1.0, every=2), Drift()),
            "loss": NonSaturating(),
            "g_optim": smooth,
            "d_optim": smooth,
            "total_kimg": 0.16,
        }
    )
    train(cfg, tmp_path / "one")
    found, _ = on_two_processes(lambda rank: trained(cfg, tmp_path / "two", rank), tmp_path / "both")
    for name in ("G", "D", "ema"):
        alone = saved(tmp_path / "one", name)
        for key in alone:
            assert_close(found[name][key], alone[key], rtol=0, atol=1e-5)
