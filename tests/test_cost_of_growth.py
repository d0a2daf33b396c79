"""What growth costs: the sweep's numbers, tables and figure; the model of BigGAN on many GPUs against sums by hand."""

from __future__ import annotations

import multiprocessing
import platform
import sys
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from equipoise.config import override
from equipoise.core.types import ImageSpec
from equipoise.models.counts import count, on_meta
from equipoise.models.zoo import ZOO
from equipoise.train import iteration_flops
from equipoise.weights import NoNormalizer

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the package

from benchmarks import biggan_on_paper as on_paper
from benchmarks import cost_of_growth as growth

# ---- the sweep -------------------------------------------------------------------------------------------


def test_settings_along_an_axis():
    resnet, digits = growth.DEFAULTS
    assert [s.batch for s in growth.along("batch", resnet, growth.AXES["batch"])] == [16, 32, 64, 128, 256]
    assert [s.width for s in growth.along("width", resnet, (0.5, 2))] == [8, 32]
    assert [s.resolution for s in growth.along("resolution", digits, growth.AXES["resolution"])] == [28]
    for default in growth.DEFAULTS:
        for axis, values in growth.AXES.items():
            settings = growth.along(axis, default, values)
            assert default in settings  # every axis goes through the default
            others = set(default._fields) - {axis}
            assert all(getattr(s, o) == getattr(default, o) for s in settings for o in others)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is read from Linux and glibc")
def test_processes_share_a_batch(monkeypatch):
    monkeypatch.setattr(growth, "get_context", lambda _: multiprocessing.get_context("fork"))  # it imports nothing anew
    setting = growth.Setting("san_digits_conditional", batch=8, width=4, resolution=28, processes=2)
    with growth.started(setting) as workers:
        seconds, memory = zip(*(workers.iterate() for _ in range(2)), strict=True)
    assert min(seconds) > 0
    assert 0 < memory[0] <= memory[1] < 2**31
    assert growth.least_memory(setting) == growth.least_memory(setting._replace(batch=4, processes=1))


def point(**changes):
    known = growth.Setting("r", batch=10, width=1, resolution=32)._asdict()
    numbers = {"axis": "batch", "seconds": [0.5, 0.1, 0.2], "memory": 20 * 2**20, "flops": 4 * 10**9}
    return known | numbers | {"least_memory": 10 * 2**20} | changes


def test_numbers_of_an_image():
    found = {name: of(point()) for name, of in growth.QUANTITIES.items()}
    assert found == pytest.approx({"operations": 400.0, "time": 20.0, "memory": 2.0, "least memory": 1.0})
    row = growth.tables([point(), point(batch=20)]).splitlines()[2]
    assert row == "| r | batch | 10 | 400.0 | 20.000 | 20.0 | 2.00 | 1.00 |"  # 4 GFLOP in 0.2 s


def test_exponents():
    x = [1.0, 2.0, 5.0]
    assert growth.exponent(x, [3 * v**1.7 for v in x]) == pytest.approx(1.7)
    points = [point(batch=n, seconds=[0.1 * n**1.5], memory=n * 2**20, flops=10**6 * n) for n in (8, 16, 32)]
    assert growth.tables(points).splitlines()[-1] == "| r | batch | +0.00 | +0.50 | +0.00 | -1.00 |"


def test_figure():
    pytest.importorskip("matplotlib")
    points = [point(batch=n, seconds=[0.1 * n]) for n in (8, 16)]
    points += [point(axis="processes", processes=n, seconds=[1 / n]) for n in (1, 2)]
    picture = Image.open(BytesIO(growth.figure(points)))
    assert picture.format == "PNG"
    assert picture.width > picture.height > 300


# ---- the model of BigGAN ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small():
    """A BigGAN for 64x64 images of width 4, plain and with checkpointed blocks, and its two networks."""
    changes = {"generator.width": 4, "generator.z_dim": 20, "generator.embed": 8, "discriminator.width": 4}
    changes |= {"batch_size": 64, "terms": ()}
    changes |= dict.fromkeys(("g_normalizer", "d_normalizer"), NoNormalizer())  # they take most of the time to build
    spec = ImageSpec(64, 3, 10)
    configs = [override(on_paper.published(checkpoint=checkpoint)[0], changes) for checkpoint in (False, True)]
    return configs, spec, on_meta(configs[0].generator, configs[0].discriminator, configs[0].head, spec)


def test_published_networks_are_those_of_the_zoo():
    cfg, spec = on_paper.published(checkpoint=False)
    pair = ZOO["biggan_256"]
    assert (spec, cfg.discriminator, cfg.head) == (pair.spec, pair.discriminator, pair.head)
    assert cfg.generator == override(pair.generator, {"norm": "sync_batch"})
    assert (cfg.batch_size, cfg.d_steps, cfg.total_kimg) == (2048, 2, 2 * 2.048 * on_paper.UPDATES)


def test_what_an_iteration_needs(small):
    (cfg, _), spec, (G, D, of_g, of_d) = small
    found = on_paper.needs(cfg, spec, 16)
    g, d = count(G, of_g), count(D, of_d)
    assert 16 * found.flops == iteration_flops(cfg, spec)
    assert found.activations == 4 * max(2 * d.stored, g.stored + d.stored)
    # Of n parts, a ring sends n - 1 to be summed and n - 1 that are sums: twice for D's gradients, once for G's.
    assert found.reduced == pytest.approx(2 * 15 * (4 * (2 * d.parameters + g.parameters) / 16))
    # Two norms in each of four blocks, of its input's and of its output's channels, and the last: width 4 x 16, ... 1.
    channels = [4 * w for c_in, c_out in ((16, 16), (16, 8), (8, 4), (4, 2)) for w in (c_in, c_out)] + [4 * 2]
    assert found.exchanges == 4 * len(channels)  # G makes images three times, and learns once
    assert found.exchanged == pytest.approx(4 * sum(channels) * 3 * 16 * 4 * 2 * 15 / 16)
    assert (found.images, found.pixels) == (128, 128 * 3 * 64 * 64)


def test_checkpointed_blocks_take_operations_for_memory(small):
    configs, spec, (G, D, of_g, of_d) = small
    plain, again = (on_paper.needs(cfg, spec, 16) for cfg in configs)
    assert plain.flops < again.flops < 1.5 * plain.flops
    assert again.weights == plain.weights
    assert again.activations < 0.75 * plain.activations
    assert again.exchanges == plain.exchanges + 8  # all but the last norm
    for net, inputs in ((G, of_g), (D, of_d)):
        whole = count(net, inputs).stored
        assert 0.8 * whole < sum(on_paper.of_blocks(net, inputs)) < 1.1 * whole


def test_one_gpu_tells_nobody_anything(small):
    (cfg, _), spec, _ = small
    found = on_paper.needs(cfg, spec, 1)
    assert found.reduced == found.exchanged == 0
    assert found.flops == iteration_flops(cfg, spec)


def test_days():
    n = on_paper.Needs(4, 8, 10**12, 1, 2, 3e9, 50, 1e9, 16, 160)
    found = on_paper.seconds(n, peak=10e12, share=0.5, link=1e10)
    assert found == pytest.approx((0.2, 0.3, 50 * on_paper.LATENCY + 0.1))
    assert on_paper.days(found) == pytest.approx(on_paper.UPDATES * sum(found) / (24 * 3600))
    text = on_paper.tables(n, n)
    assert "| batch 8 on 4 GPUs | plain | checkpointed |" in text
    assert "| PFLOP per iteration | 0.00 | 0.00 |" in text
    assert text.count("| A100 |") == text.count("| H100 |") == len(on_paper.SHARES) * len(on_paper.LINKS)
    assert f"In all {4 * on_paper.UPDATES * 1e12:.2e} operations" in text
