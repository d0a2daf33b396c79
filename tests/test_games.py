"""Games other than z against images: toy translators, autoencoders and encoders through the trainer's own steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from loops import loop_over
from processes import on_two_processes
from runs import assert_resumes, same
from tiny import recipe
from torch import Tensor, nn
from torch.testing import assert_close

from equipoise.compute.settings import Compute
from equipoise.core.types import Batch, Condition, Generated, ImageSpec, component
from equipoise.lab.points.gan import PointGAN, plain_gan
from equipoise.losses import R1, LeastSquares, NonSaturating, Term, discriminator_loss
from equipoise.models import DiscriminatorConfig, GeneratorConfig, Head, MLPDiscriminator
from equipoise.nn import Discriminator, PerLabel
from equipoise.rules import Adam, Game, Generation, History, Shown, ToConvergence
from equipoise.train import GAN, StepContext, d_step, g_step, iteration_flops
from equipoise.weights import NoNormalizer

SPEC = ImageSpec(resolution=8, channels=1, num_classes=2)
N = 8


class Plain(Term):
    """A term of G at every update."""

    every = 1
    player = "G"
    place = "fused"
    strength: float

    def weight(self, nimg):
        return self.strength


# ---- translation between two domains -----------------------------------------------------------------------------


def neighbour(batch: Batch) -> Condition:
    """Domains take turns in the batch: images 0 and 1 are partners, 2 and 3, and so on."""
    partner = torch.arange(len(batch.x)) ^ 1
    return Condition(batch.label[partner], batch.x[partner])


@component
class Translation(Game):
    """Image i is of domain y_i, and made from an image of the other domain."""

    tells_labels = True

    def show(self, G, z, batch):
        made = Generated.by(G, z, Condition(batch.label, neighbour(batch).image))
        return Shown(batch, Batch(made.x, batch.label), made)

    def terms(self):
        return (CycleBack(),)


class CycleBack(Plain):
    """|G(G(x)) - x|."""

    strength = 10.0

    def of(self, seen):
        source = neighbour(seen.real)
        back = seen.again(Condition(source.label, seen.fake.x)).x
        return (back - source.image).abs().mean()


def of_pixels(inputs: int, outputs: int = 64) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.ELU(), nn.Linear(32, outputs))


class Translator(nn.Module):
    """G(z, y) reads the image of y alone."""

    def __init__(self):
        super().__init__()
        self.net = of_pixels(64)

    def forward(self, z, y):
        return self.net(y.image).tanh().unflatten(1, (1, 8, 8))


@component
class Translators(GeneratorConfig):
    """One for each domain that it translates to."""

    def build(self, spec):
        return PerLabel(Translator() for _ in range(spec.num_classes))


@component
class DiscriminatorOfEach(DiscriminatorConfig):
    """One for each domain."""

    def build(self, spec, head):
        return PerLabel(MLPDiscriminator(width=16, depth=2).build(spec, head) for _ in range(spec.num_classes))


# ---- an autoencoder with a loss of its own ------------------------------------------------------------------------


@component
class Autoencoding(Game):
    """D compares x with G(x)."""

    def show(self, G, z, batch):
        made = Generated.by(G, z, Condition(image=batch.x))
        return Shown(batch, Batch(made.x), made)

    def terms(self):
        return (Rebuilt(), OwnLoss())


class Rebuilt(Plain):
    strength = 10.0

    def of(self, seen):
        return (seen.fake.x - seen.real.x).abs().mean()


class OwnLoss(Plain):
    strength = 1.0

    def of(self, seen):
        return seen.made.loss


class Quantised(nn.Module):
    """An encoder, a codebook of 4 entries, a decoder."""

    def __init__(self):
        super().__init__()
        self.encode, self.codebook, self.decode = of_pixels(64, 3), nn.Embedding(4, 3), of_pixels(3)

    def forward(self, z, y):
        h = self.encode(y.image)
        codes = torch.cdist(h, self.codebook.weight).argmin(1)
        q = self.codebook(codes)
        loss = (h.detach() - q).square().mean() + 0.25 * (h - q.detach()).square().mean()
        x = self.decode(h + (q - h).detach()).tanh().unflatten(1, (1, 8, 8))
        return Generated(x, loss, codes)


@component
class Autoencoder(GeneratorConfig):
    def build(self, spec):
        return Quantised()


# ---- an encoder beside a generator --------------------------------------------------------------------------------


@component
class Inference(Game):
    """D compares (x, E(x)) with (G(z), z) (Donahue et al. 2017)."""

    def show(self, G, z, batch):
        made = Generated.by(G, z)
        real = Batch(batch.x, Condition(code=G.encode(batch.x)))
        return Shown(real, Batch(made.x, Condition(code=z)), made)

    def terms(self):
        return (RolesSwapped(),)


class RolesSwapped(Plain):
    """G and E minimise D's loss with real and generated pairs exchanged."""

    strength = 1.0
    replaces_loss = True

    def of(self, seen):
        return discriminator_loss(NonSaturating(), plain(seen.on_fake), plain(seen.on_real))


def plain(logits):
    """Without SAN's direction, which is D's to learn."""
    return logits._replace(dir=None)


class WithEncoder(nn.Module):
    def __init__(self, z_dim):
        super().__init__()
        self.generate, self.encode = of_pixels(z_dim), of_pixels(64, z_dim)

    def forward(self, z, y=None):
        return self.generate(z).tanh().unflatten(1, (1, 8, 8))


@component
class GeneratorAndEncoder(GeneratorConfig):
    def build(self, spec):
        return WithEncoder(self.z_dim)


class Pairs(nn.Module):
    """The body and head of D(x, code)."""

    def __init__(self, z_dim, head):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(64 + z_dim, 32), nn.ELU()), head(32)

    def forward(self, x, y):
        return self.head(self.body(torch.cat([x.flatten(1), y.code], 1)), None)


@component
class JointDiscriminator(DiscriminatorConfig):
    z_dim: int = 4

    def build(self, spec, head):
        return Pairs(self.z_dim, head)


# ---- all of them --------------------------------------------------------------------------------------------------

GAMES = {
    "translation": (Translation(), Translators(z_dim=4), DiscriminatorOfEach()),
    "autoencoding": (Autoencoding(), Autoencoder(z_dim=4), MLPDiscriminator(width=16, depth=2)),
    "inference": (Inference(), GeneratorAndEncoder(z_dim=4), JointDiscriminator()),
}
IMPROVES = {"translation": "G/CycleBack", "autoencoding": "G/Rebuilt", "inference": None}


def config(name, **changes):
    game, generator, discriminator = GAMES[name]
    fields = {
        "game": game,
        "generator": generator,
        "discriminator": discriminator,
        "head": Head(san=True),
        "loss": NonSaturating(),
        "terms": (R1(gamma=0.1, every=2),),
        "d_normalizer": NoNormalizer(),
        "g_optim": Adam(lr=2e-3),
        "d_optim": Adam(lr=2e-3),
        "batch_size": N,
    }
    return replace(recipe(), **fields | changes)


def images(seed=0):
    """Two domains in turn: flat images, dark and bright."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(N) % 2
    level = torch.rand(N, 1, 1, 1, generator=draws) * (2 * y - 1).view(-1, 1, 1, 1)
    return Batch(level.expand(N, 1, 8, 8).contiguous(), y)


def gradients(gan, step, batch):
    """Of the weights that `step` trains, which stay as they are."""
    optim = gan.d_optim if step is d_step else gan.g_optim
    found = []
    optim.step = lambda: found.extend(p.grad.clone() for group in optim.param_groups for p in group["params"])
    step(gan, batch, 0)
    del optim.step
    return found


@pytest.mark.parametrize("name", GAMES)
def test_it_trains(name):
    gan = GAN.build(config(name), SPEC)
    stats = []
    for i in range(150):
        batch = images(i)
        stats.append(d_step(gan, batch, i * N) | g_step(gan, batch, i * N))
    assert all(value.isfinite() for line in stats for value in line.values())
    assert "D/R1" in stats[0]
    assert "D/R1" not in stats[1]
    improves = IMPROVES[name]
    if improves is not None:
        first, last = (torch.stack([line[improves] for line in part]).mean() for part in (stats[:10], stats[-10:]))
        assert last < 0.7 * first


@loop_over("step", [d_step, g_step])
@loop_over("name", GAMES)
def test_pieces_add_up(name, step):
    """The gradient of an update in pieces is that of the whole batch, whatever the game hands to D."""
    whole, pieces = (GAN.build(config(name, compute=Compute(micro_batch=size)), SPEC) for size in (None, N // 4))
    for expected, found in zip(gradients(whole, step, images()), gradients(pieces, step, images()), strict=True):
        assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert any(g.abs().max() > 0 for g in gradients(whole, step, images()))


def test_g_and_its_encoder_both_learn_from_d():
    gan = GAN.build(config("inference", head=Head()), SPEC)
    batch = images()
    reference = GAN.build(config("inference", head=Head()), SPEC)
    G, D = reference.G.requires_grad_(True), reference.D
    (piece,) = reference.pieces(batch, reference.players[1].purpose, 0)
    on_real = D(batch.x, Condition(code=G.encode(batch.x))).fun
    on_fake = D(G(piece.z), Condition(code=piece.z)).fun
    loss = nn.functional.softplus(on_real).mean() + nn.functional.softplus(-on_fake).mean()
    expected = torch.autograd.grad(loss, list(G.parameters()))
    for found, wanted in zip(gradients(gan, g_step, batch), expected, strict=True):
        assert_close(found, wanted)
        assert wanted.abs().max() > 0


def test_in_ds_update_nothing_that_is_shown_carries_a_graph():
    for name in GAMES:
        gan = GAN.build(config(name), SPEC)
        D, G = gan.players
        for player, graph in ((D, False), (G, True)):
            gan.G.requires_grad_(player is G)
            (piece,) = gan.pieces(images(), player.purpose, 0)
            seen = StepContext(gan, player, piece, 0)
            assert seen.fake.x.requires_grad == graph
            assert not seen.real.x.requires_grad


def test_kept_images_carry_all_that_g_returned():
    gan = GAN.build(config("autoencoding", game=Autoencoding(reuse=True), loss=LeastSquares(), head=Head()), SPEC)
    calls = []
    gan.G.register_forward_hook(lambda *_: calls.append(1))
    d_step(gan, images(), 0)
    stats = g_step(gan, images(), 0)
    assert len(calls) == 1
    assert stats["G/OwnLoss"] > 0


def test_images_made_again_are_float32_as_the_first_ones():
    """bfloat16 computes them, and no loss is taken in its eight bits."""
    gan = GAN.build(config("translation", compute=Compute(precision="bf16")), SPEC)
    (piece,) = gan.pieces(images(), gan.players[1].purpose, 0)
    seen = StepContext(gan, gan.players[1], piece, 0)
    with gan.compute.loss():
        assert seen.fake.x.dtype == seen.made.x.dtype == torch.float32
        assert seen.again(neighbour(seen.real)).x.dtype == torch.float32


# ---- images shown again -------------------------------------------------------------------------------------------


def constant(value, label=0, n=4):
    return Batch(torch.full((n, 1, 8, 8), float(value)), torch.full((n,), label))


def test_a_pool_fills_first_and_then_shows_half_old_images():
    pool = History(size=40).build(SPEC, seed=3)
    for i in range(10):
        assert_close(pool(constant(i)).x, constant(i).x)
    shown, put_in = [], []
    for i in range(10, 410):
        batch = pool(constant(i, label=i % 2))
        values = batch.x[:, 0, 0, 0].long()
        shown += values.tolist()
        put_in += [i] * 4
        recorded = batch.y[values >= 10]
        assert torch.equal(recorded, values[values >= 10] % 2)  # an image keeps its label
    old = sum(s != p for s, p in zip(shown, put_in, strict=True)) / len(shown)
    assert 0.45 < old < 0.55
    kept = pool.images[:, 0, 0, 0].long().tolist()
    seen = sorted(shown + kept)
    assert seen == sorted([i for i in range(410) for _ in range(4)])  # nothing is lost or seen twice


def test_a_pool_goes_on_from_its_buffers():
    pools = [History(size=5).build(SPEC, seed=1) for _ in range(2)]
    for i in range(6):
        pools[0](constant(i))
    pools[1].load_state_dict(pools[0].state_dict())
    for i in range(6, 12):
        assert torch.equal(pools[0](constant(i)).x, pools[1](constant(i)).x)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, which fears for other threads
def test_processes_are_shown_their_shares_of_what_one_would_be(tmp_path):
    """Wrong: the share of the first process for all; a pool of its own for each."""
    batches = [Batch(torch.rand(4, 1, 8, 8), torch.arange(4) + 4 * i) for i in range(6)]

    def shown(of, rank=0, world=1):
        pool, size = History(size=6).build(SPEC, seed=3), 4 // world
        parts = [pool(batch.map(lambda t: t[rank * size : (rank + 1) * size])) for batch in of]
        return [part.x for part in parts], [part.y for part in parts], pool.state_dict()

    (xs_a, ys_a, pool_a), (xs_b, ys_b, pool_b) = on_two_processes(
        lambda rank: shown(batches, rank, 2), tmp_path / "two"
    )
    xs, ys, pool = shown(batches)
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        assert torch.equal(torch.cat([xs_a[i], xs_b[i]]), x)
        assert torch.equal(torch.cat([ys_a[i], ys_b[i]]), y)
    assert any(not torch.equal(x, batch.x) for x, batch in zip(xs, batches, strict=True))
    assert same(pool_a, pool)
    assert same(pool_b, pool)


def test_a_run_with_a_pool_resumes_bit_for_bit(tmp_path):
    """Wrong: a checkpoint without the pool, which then fills anew."""
    assert_resumes(
        replace(recipe(), game=Generation(shown=History(size=12))), tmp_path, names=("G", "D", "ema", "pool")
    )


def test_every_image_of_a_batch_larger_than_the_pool_may_enter_it():
    pool, entered = History(size=3).build(SPEC, seed=5), set()
    for _ in range(60):
        pool(Batch(torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 8, 8).contiguous()))
        entered |= set(pool.images[:, 0, 0, 0].long().tolist())
    assert entered == set(range(8))


def test_a_pool_costs_no_operations():
    cfg = recipe()
    shown = replace(cfg, game=Generation(shown=History(size=4)))
    assert iteration_flops(shown, cfg.data.build().spec) == iteration_flops(cfg, cfg.data.build().spec)


def test_other_settings_leave_the_pool_as_it_is():
    cfg = replace(plain_gan(), game=Generation(shown=History(size=8)), batch_size=16)
    gan = PointGAN(cfg)
    gan.iterate()
    pool = gan.gan.showing.pool
    gan.change(replace(cfg, loss=LeastSquares()))
    assert gan.gan.showing.pool is pool
    gan.change(replace(cfg, game=Generation()))
    assert gan.gan.showing.pool is None


def test_only_ds_update_sees_old_images():
    gan = GAN.build(replace(recipe(), game=Generation(shown=History(size=2)), batch_size=4), ImageSpec(28, 1, 10))
    batch = Batch(torch.zeros(4, 1, 28, 28), torch.arange(4))
    D, G = gan.players
    for i in range(8):
        (piece,) = gan.pieces(batch, D.purpose, i)
        D.show(piece)
    assert gan.showing.pool.filled == 2
    (piece,) = gan.pieces(batch, D.purpose, 9)
    with torch.no_grad():
        assert torch.equal(G.show(piece).fake.x, gan.generate(batch, D.purpose, 9).x)
    assert not torch.equal(D.show(piece).fake.x, gan.generate(batch, D.purpose, 9).x)


@loop_over(
    ("game", "changes", "said"),
    [
        (Generation(reuse=True), {"g_batches": 2}, "reuse=true and g_batches=2 do not go together"),
        (Generation(reuse=True, shown=History()), {}, "reuse=true and game.shown=.*no graph of G"),
    ],
)
def test_what_cannot_be_kept_is_refused(game, changes, said):
    with pytest.raises(ValueError, match=said):
        replace(recipe(), game=game, **changes)


def test_a_pool_keeps_no_images_with_more_than_a_label():
    pool = History(size=2).build(SPEC)
    with pytest.raises(ValueError, match="keeps images and their labels"):
        pool(Batch(torch.zeros(2, 1, 8, 8), Condition(code=torch.zeros(2, 3))))


# ---- a network for each label -------------------------------------------------------------------------------------


def test_each_label_has_its_network():
    nets = [nn.Linear(3, 2) for _ in range(3)]
    x, y = torch.randn(7, 3), torch.tensor([2, 0, 2, 2, 0, 0, 2])
    expected = torch.stack([nets[label](row) for row, label in zip(x, y, strict=True)])

    class Reads(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x, y):
            return self.net(x)

    found = PerLabel(map(Reads, nets))
    assert_close(found(x, y), expected)
    assert_close(found(x, Condition(y)), expected)
    with pytest.raises(ValueError, match="with labels"):
        found(x)


def test_structures_are_joined_in_the_order_of_the_images():
    D = GAMES["translation"][2].build(SPEC, Head(san=True).factory(0))
    batch = images()
    out = D(batch.x, batch.y)
    for i, net in enumerate(D.nets):
        alone = net(batch.x[batch.y == i], None)
        for part, whole in zip(alone, out, strict=True):
            assert (part is None) == (whole is None)
            if part is not None:
                assert_close(whole[batch.y == i], part)
    assert isinstance(D.nets[0], Discriminator)


def test_losses_of_g_are_means_over_images():
    class Lossy(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, z, y):
            return Generated(z, torch.tensor(self.value))

    y = torch.tensor([0, 1, 1, 1])
    assert PerLabel([Lossy(1.0), Lossy(5.0)])(torch.zeros(4, 2), y).loss == 4.0


def test_a_batch_maps_all_its_tensors():
    y = Condition(torch.arange(4), code=torch.arange(8.0).view(4, 2))
    half = Batch(torch.arange(4.0), y).map(lambda t: t[2:])
    assert half.x.tolist() == [2, 3]
    assert half.label.tolist() == [2, 3]
    assert half.y.code.tolist() == [[4, 5], [6, 7]]
    assert half.y.image is None
    assert Batch(torch.zeros(2)).map(Tensor.neg).y is None


@loop_over(
    ("changes", "said"),
    [
        ({"compute": Compute(micro_batch=4)}, "micro_batch=4 and .* do not go together"),
        ({"d_steps": ToConvergence()}, "`every` counts updates of G"),
    ],
)
def test_terms_of_a_game_are_checked_as_those_of_the_config(changes, said):
    @component
    class Spread(Game):
        def show(self, G, z, batch):
            raise NotImplementedError

        def terms(self):
            return (Whole(),)

    class Whole(Plain):
        every, whole_batch, strength = 2, True, 1.0

        def of(self, seen):
            raise NotImplementedError

    with pytest.raises(ValueError, match=said):
        replace(recipe(), game=Spread(), **changes)
