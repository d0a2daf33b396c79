"""Equivariance: operators and filters against the published ones, and generators whose ratio is known."""

from __future__ import annotations

import json
import math

import pytest
import torch
from fixtures import numbers
from styled import SPEC, Styled, Translated, asked
from torch.testing import assert_close

from equipoise.core.randomness import Purpose, stream
from equipoise.core.types import ImageSpec
from equipoise.metrics.equivariance import (
    EQ_R,
    EQ_T,
    EQ_T_FRAC,
    fractional_translation,
    integer_translation,
    pseudo_rotation,
    psnr,
    rotation,
    rotation_filter,
    squared_differences,
)
from equipoise.metrics.registry import parse_metrics
from equipoise.models.published import network

OPERATORS = {
    "apply_integer_translation": lambda x, case: integer_translation(x, case["tx"], case["ty"]),
    "apply_fractional_translation": lambda x, case: fractional_translation(x, case["tx"], case["ty"]),
    "apply_fractional_rotation": lambda x, case: rotation(x, case["angle"]),
    "apply_fractional_pseudo_rotation": lambda x, case: pseudo_rotation(x, case["angle"]),
}


def test_operators_masks_and_filters_are_the_published_ones():
    held = numbers("stylegan/equivariance.npz")
    x = torch.from_numpy(held["in/x"])
    cases = json.loads(str(held["config"]))["cases"]
    assert {case["op"] for case in cases} == OPERATORS.keys()
    for i, case in enumerate(cases):
        y, mask = OPERATORS[case["op"]](x, case)
        assert torch.equal(mask, torch.from_numpy(held[f"mask/{i}"]).bool()), case
        assert_close(y * mask, torch.from_numpy(held[f"out/{i}"]) * mask, atol=4e-6, rtol=0, msg=str(case))
    for name, angle, up in (("rotation0.3_up4", 0.3, 4), ("rotation-0.3_up1", -0.3, 1)):
        published = torch.from_numpy(held[f"filter/{name}"]).double()
        assert_close(rotation_filter(angle, up), published, atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", ["sg3_t_r32_cond", "sg3_r_r32_cond", "sg3_r_r64"])
def test_ratios_of_published_networks(name):
    """Ratios above 100 dB are made of rounding: only that they are above."""
    held = numbers(f"stylegan/{name}.npz")
    settings = json.loads(str(held["config"]))
    state = {key[2:]: torch.from_numpy(value) for key, value in held.items() if key.startswith("G/")}
    G = network("stylegan3/G", settings["G_kwargs"], state)
    told = json.loads(str(numbers("stylegan/equivariance.npz")["config"]))["one_batch_psnr_dB"][name]
    ws = torch.from_numpy(held["out/w"])
    motions = (("EQ_T", EQ_T, told["t_integer"]), ("EQ_T_frac", EQ_T_FRAC, told["t"]), ("EQ_R", EQ_R, [told["angle"]]))
    for key, motion, parameters in motions:
        found = psnr(*squared_differences(G, ws, motion, tuple(parameters)))
        assert found == pytest.approx(told[key], abs=0.02) or (found > 100 and told[key] > 100), (key, found)


def ratio(name, config, spec=SPEC, seed=0):
    """What a metric finds of a generator."""
    metric = parse_metrics(name, "inception")[name.partition("(")[0]]
    G = asked(config, spec)
    metric.check(G)
    ((found, number),) = metric.find(seed, G).numbers.items()
    assert found == metric.name
    return number.value


def test_waves_that_move_with_the_input_are_equivariant():
    """A wrong sign, axis or order of a transform leaves a few decibels."""
    grey, colour = ImageSpec(32, 1), ImageSpec(32, 3)
    assert ratio("eq_t(num=12)", Translated(z_dim=6), grey) > 120
    assert ratio("eq_t_frac(num=12)", Translated(z_dim=6), grey) > 50
    assert ratio("eq_r(num=12)", Translated(z_dim=6), colour) > 40


@pytest.mark.parametrize(("name", "factor"), [("eq_t", 2.0), ("eq_t_frac", 1.0), ("eq_r", 1.0)])
def test_noise_that_stays_where_it_is_has_its_own_ratio(name, factor):
    """x = waves + s n, n ~ N(0, 1) anew in each batch: the shifted n and n differ by 2 s² in the mean of squares.

    Batches that draw a shift of 0 pixels differ by 0. A Lanczos filter and the rotations lower the variance of the
    moved noise, so the difference is between s² and 2 s².
    """
    s = 0.3
    found = ratio(f"{name}(num=120,batch=3)", Translated(z_dim=6, noise=s), ImageSpec(32, 3))
    expected = 20 * math.log10(2) - 10 * math.log10(2 * s**2)
    if factor == 2:
        draw = stream(0, Purpose.METRIC_MOTIONS)
        shifts = [[round(32 * t) for t in EQ_T.draw(draw, 32)] for _ in range(40)]
        counts = [(32 - abs(right)) * (32 - abs(down)) for right, down in shifts]
        moved = sum(count for count, shift in zip(counts, shifts, strict=True) if any(shift))
        expected -= 10 * math.log10(moved / sum(counts))
        assert found == pytest.approx(expected, abs=0.1)
    else:
        assert expected < found < expected + 3


def test_a_ratio_is_one_of_sums_over_all_images_and_a_matter_of_the_seed():
    config = Translated(z_dim=6, noise=0.3)
    assert ratio("eq_t(num=6)", config) == ratio("eq_t(num=6)", config)
    assert ratio("eq_t(num=6)", config) != ratio("eq_t(num=6)", config, seed=1)
    assert ratio("eq_t(num=6,batch=4)", config) != ratio("eq_t(num=4,batch=4)", config)
    assert psnr(0, 5) == 200
    assert psnr(10, 1000) == pytest.approx(psnr(0.01, 1))
    with pytest.raises(ValueError, match="no pixel is left to compare"):
        psnr(0, 0)


def test_generators_that_cannot_be_asked_say_why():
    for name in ("eq_t", "eq_t_frac", "eq_r"):
        with pytest.raises(ValueError, match=rf"{name} moves an image by .*Styled\(.*has none: ask it of"):
            ratio(name, Styled(z_dim=6))
    with pytest.raises(ValueError, match="eq_r filters over 12 pixels, and the images have 8"):
        ratio("eq_r", Translated(z_dim=6), ImageSpec(8, 1))


def test_images_of_a_diverged_generator_are_refused():
    """By every metric that asks G itself: NaN would pass through the sums into the report."""
    G = asked(Translated(z_dim=6))
    for parameter in G.generator.net.parameters():
        parameter.data.fill_(torch.nan)
    for name, answers in (
        ("eq_t(num=2)", (G,)),
        ("eq_r(num=2)", (G,)),
        ("ppl_w(num=2,distance=pixels)", (G, None)),
        ("ppl_z(num=2,distance=pixels)", (G, None)),
    ):
        (metric,) = parse_metrics(name, "inception").values()
        with pytest.raises(ValueError, match="draws images that hold NaN or Inf: the run has diverged"):
            metric.find(0, *answers)


def test_a_network_that_is_measured_stays_as_it_was():
    G = asked(Translated(z_dim=6, noise=0.3))
    before = {name: value.clone() for name, value in G.generator.net.state_dict().items()}
    for name in ("eq_t", "eq_r"):
        parse_metrics(f"{name}(num=4)", "inception")[name].find(0, G)
    for name, value in G.generator.net.state_dict().items():
        assert torch.equal(value, before[name]), name
