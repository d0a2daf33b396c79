"""What one does with styles: truncation, mixing, loops, latents on disk, by the API and from the command line."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
import torch
from commands import run
from PIL import Image, ImageSequence
from scipy.interpolate import CubicSpline
from styled import SPEC, Styled, build
from torch.testing import assert_close

from equipoise.core.latents import Uniform, lerp, slerp
from equipoise.core.types import ImageSpec
from equipoise.data import to_uint8
from equipoise.generate import (
    Generator,
    Latents,
    closed_loop,
    draw_latents,
    draw_of_latents,
    images,
    interpolate,
    latent,
    latents_of,
    load_latents,
    mixing_grid,
    periodic_spline,
    sample,
    save_generator,
    save_latents,
    styles,
    truncated,
    truncated_in_w,
    write_frames,
    write_latents,
    write_samples,
)
from equipoise.generate.loops import eased
from equipoise.models import MLPGenerator, StyleGAN2Generator

CLASSES = ImageSpec(16, 1, 3)
STYLED = Styled(z_dim=6)


def plain():
    return build(MLPGenerator(z_dim=4, width=8, depth=1))


def pixels(x):
    return to_uint8(x).permute(0, 2, 3, 1).numpy()


# ---- truncation ------------------------------------------------------------------------------------------


def test_truncated_styles_move_towards_their_average_in_the_first_layers():
    for spec in (SPEC, CLASSES):
        G = build(STYLED, spec)
        z = draw_latents(G, 5)
        y = torch.tensor([0, 1, 2, 0, 1]) if spec.num_classes else None
        ws = G.net.mapping(z, y)
        for psi, cutoff in ((0.7, 2), (0.0, None), (-0.5, 4)):
            expected = ws.clone()
            average = G.net.mapping.w_avg
            expected[:, :cutoff] = average + psi * (expected[:, :cutoff] - average)
            made = truncated_in_w(G, psi, cutoff)
            assert_close(styles(made, z, y), expected)
            np.testing.assert_array_equal(images(made, z, y), pixels(G.net.synthesis(expected)))
        assert_close(G.net.mapping(z, y), ws)
        assert np.array_equal(images(truncated_in_w(G, 1.0), z, y), images(G, z, y))


def test_an_image_of_a_truncated_generator_depends_on_its_seed_and_index_alone():
    G = truncated_in_w(truncated(build(STYLED, CLASSES), 0.8), 0.6)
    many = np.concatenate([x for x, _ in sample(G, 300, seed=3)])
    few = np.concatenate([x for x, _ in sample(G, 7, seed=3)])
    np.testing.assert_allclose(few.astype(int), many[:7], atol=1)
    assert (many != np.concatenate([x for x, _ in sample(truncated_in_w(build(STYLED), 0.6), 300, seed=3)])).any()


def test_truncation_that_cannot_be_is_refused(tmp_path):
    G = build(STYLED)
    with pytest.raises(ValueError, match=r"truncation in w needs a generator with a space of styles.*MLPGenerator\("):
        truncated_in_w(plain(), 0.7)
    for cutoff in (0, 5):
        with pytest.raises(ValueError, match=rf"styles for 4 layers, and cutoff={cutoff}: give a cutoff from 1 to 4"):
            truncated_in_w(G, 0.7, cutoff)
    with pytest.raises(ValueError, match=r"expected a finite psi, such as 0\.7"):
        truncated_in_w(G, float("nan"))
    made = truncated_in_w(G, 0.5)
    with pytest.raises(ValueError, match=r"truncated already, with psi=0\.5"):
        truncated_in_w(made, 0.5)
    with pytest.raises(ValueError, match=r"psi=0\.5, is not written: write the untruncated"):
        save_generator(made, tmp_path / "a.safetensors")


# ---- mixing ----------------------------------------------------------------------------------------------


def test_a_grid_of_mixed_styles_has_the_layers_of_rows_and_the_others_of_columns():
    for spec in (SPEC, CLASSES):
        G = build(STYLED, spec)
        tiles, columns = mixing_grid(G, [5, 0], [3, 7, 1], [0, 2], seed=2)
        assert columns == 4
        table = tiles.reshape(3, 4, 16, 16, 1)
        x = np.concatenate([x for x, _ in sample(G, 8, seed=2)])
        assert not table[0, 0].any()
        np.testing.assert_allclose(table[0, 1:].astype(int), x[[3, 7, 1]], atol=1)
        np.testing.assert_allclose(table[1:, 0].astype(int), x[[5, 0]], atol=1)
        points = {i: latent(G, i, seed=2) for i in (5, 0, 3, 7, 1)}
        for r, row in enumerate((5, 0)):
            for c, column in enumerate((3, 7, 1)):
                both = [
                    styles(G, p.z[None], None if p.y is None else torch.tensor([p.y]))
                    for p in (points[column], points[row])
                ]
                ws = both[0]
                ws[:, [0, 2]] = both[1][:, [0, 2]]
                np.testing.assert_allclose(table[r + 1, c + 1].astype(int), pixels(G.net.synthesis(ws))[0], atol=1)
    one_class, _ = mixing_grid(G, [5], [3], [0], label=2)
    point = latent(G, 3, label=2)
    np.testing.assert_allclose(one_class[1].astype(int), images(G, point.z[None], torch.tensor([2]))[0], atol=1)


def test_mixing_that_cannot_be_is_refused():
    G = build(STYLED)
    with pytest.raises(ValueError, match="no layer 4: this generator has styles for layers 0 to 3"):
        mixing_grid(G, [0], [1], [0, 4])
    with pytest.raises(ValueError, match="at least one row, column and layer"):
        mixing_grid(G, [0], [], [0])
    with pytest.raises(ValueError, match="mixing styles needs a generator with a space of styles"):
        mixing_grid(plain(), [0], [1], [0])


# ---- loops -----------------------------------------------------------------------------------------------


def test_a_periodic_spline_is_scipy_s():
    rng = np.random.default_rng(0)
    t = torch.linspace(0, 5, 31, dtype=torch.float64)[:-1]
    for num in (2, 3, 5):
        keys = rng.normal(size=(num, 2, 3))
        expected = CubicSpline(np.arange(num + 1), np.concatenate([keys, keys[:1]]), bc_type="periodic")
        assert_close(periodic_spline(torch.from_numpy(keys), t), torch.from_numpy(expected(t.numpy())))


def test_a_loop_shows_each_image_and_closes():
    """In w and z, both paths; the frames between are those of the styles or latents between."""
    for spec in (SPEC, CLASSES):
        G = build(STYLED, spec)
        points = [latent(G, i, seed=1) for i in (4, 0, 8)]
        x = np.concatenate([x for x, _ in sample(G, 9, seed=1)])[[4, 0, 8]]
        for space in ("w", "z"):
            for path in ("cubic", "eased"):
                film = closed_loop(G, points, 4, space=space, path=path)
                assert film.shape == (12, 16, 16, 1)
                np.testing.assert_allclose(film[::4].astype(int), x, atol=1, err_msg=f"{space} {path}")
                assert (film[11] != film[8]).any()
                assert (film[11] != film[0]).any()
        y = None if not spec.num_classes else torch.tensor([p.y for p in points])
        ws = styles(G, torch.stack([p.z for p in points]), y)
        spline = periodic_spline(ws, torch.tensor([2.75]).double()).float()
        cubic = closed_loop(G, points, 4)  # the default of a styled generator
        np.testing.assert_allclose(cubic[11].astype(int), pixels(G.net.synthesis(spline))[0], atol=1)
        straight = lerp(ws[2:], ws[:1], torch.tensor([[0.75**2 * 1.5]]))
        found = closed_loop(G, points, 4, path="eased")[11]
        np.testing.assert_allclose(found.astype(int), pixels(G.net.synthesis(straight))[0], atol=1)


def test_a_loop_in_z_follows_the_prior_s_path_and_keeps_the_norm():
    G = build(MLPGenerator(z_dim=4, width=8, depth=1))
    points = [latent(G, i) for i in (0, 1, 2)]
    seen = []
    G.net.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    default = closed_loop(G, points, 5)
    z = seen.pop()
    assert_close(z[7:8], slerp(points[1].z, points[2].z, eased(torch.tensor(0.4).double()))[None])
    assert eased(torch.tensor(0.4)) == pytest.approx(0.352)
    np.testing.assert_array_equal(default, closed_loop(G, points, 5, space="z", path="eased"))
    closed_loop(G, points, 5, path="cubic")
    z = seen[-1]
    norms = torch.stack([p.z.norm() for p in points])
    assert_close(z[14].norm(), 0.2 * norms[2] + 0.8 * norms[0])
    curve = periodic_spline(torch.stack([p.z for p in points]), torch.tensor([2.8]).double())[0].float()
    assert_close(z[14] / z[14].norm(), curve / curve.norm())


def test_a_styled_generator_goes_from_class_to_class_in_z():
    G = build(STYLED, CLASSES)
    a, b = latent(G, 3, label=1), latent(G, 3, label=2)
    found = interpolate(G, a, b, 5)
    w = a.z @ G.net.mapping.A.T + torch.lerp(*G.net.mapping.B[1:], torch.linspace(0, 1, 5)[:, None])
    np.testing.assert_allclose(found.astype(int), pixels(G.net.synthesis(w[:, None].repeat(1, 4, 1))), atol=1)


def test_loops_that_cannot_be_are_refused():
    G = build(STYLED)
    points = [latent(G, i) for i in (0, 1)]
    for few, frames in ((points[:1], 3), (points, 0)):
        with pytest.raises(ValueError, match="goes through at least 2 images with at least 1 frame each"):
            closed_loop(G, few, frames)
    with pytest.raises(ValueError, match="there is no space 'x': choose w or z"):
        closed_loop(G, points, 3, space="x")
    with pytest.raises(ValueError, match="there is no path 'x': choose cubic or eased"):
        closed_loop(G, points, 3, path="x")
    with pytest.raises(ValueError, match="a loop in w needs a generator with a space of styles"):
        closed_loop(plain(), points, 3, space="w")
    with pytest.raises(ValueError, match=r"leaves the values that U\[-1, 1\] has: choose path=eased"):
        closed_loop(build(Styled(z_dim=6, prior=Uniform())), points, 3, space="z", path="cubic")


def test_a_webp_film_has_its_frames_in_order(tmp_path):
    grey = np.arange(0, 250, 50, dtype=np.uint8)[:, None, None, None]
    write_frames(np.broadcast_to(grey, (5, 128, 128, 1)), tmp_path / "a.webp", fps=25)
    with Image.open(tmp_path / "a.webp") as film:
        assert film.info["loop"] == 0
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(film)]
        film.seek(1)
        film.load()
        assert film.info["duration"] == 40
    np.testing.assert_allclose([frame.mean() for frame in frames], grey.ravel(), atol=3)


# ---- latents on disk -------------------------------------------------------------------------------------


def test_saved_latents_draw_the_same_images(tmp_path):
    path = tmp_path / "new" / "a.npz"
    for spec in (SPEC, CLASSES):
        whole = build(STYLED, spec)
        for G in (whole, truncated_in_w(whole, 0.6)):
            x, y = (np.concatenate(part) for part in zip(*sample(G, 7, seed=4), strict=True))
            for kind in ("z", "w", "ws"):
                save_latents(latents_of(G, 7, seed=4, kind=kind), path)
                reader = G if kind == "z" else whole  # truncation is part of styles
                found = load_latents(path, reader)
                assert found.kind == kind
                again = [np.concatenate(part) for part in zip(*draw_of_latents(reader, found, batch=3), strict=True)]
                np.testing.assert_allclose(again[0].astype(int), x, atol=1, err_msg=kind)
                assert np.array_equal(again[1], y)
    with np.load(path, allow_pickle=False) as held:
        assert set(held) == {"equipoise_latents", "ws", "y"}
        assert held["ws"].shape == (7, 4, 5)
    with pytest.raises(ValueError, match="styles that differ: take ws"):
        latents_of(truncated_in_w(whole, 0.6, 2), 7, kind="w")
    with pytest.raises(ValueError, match="there are no latents 'x'"):
        latents_of(whole, 7, kind="x")
    with pytest.raises(ValueError, match="a style needs a generator with a space of styles"):
        latents_of(plain(), 2, kind="w")


def test_written_images_are_those_of_sample(tmp_path):
    G = build(STYLED, CLASSES)
    write_samples(G, tmp_path / "a.npz", num=5, seed=1, classes=[2, 0])
    write_latents(G, latents_of(G, 5, seed=1, classes=[2, 0]), tmp_path / "b.npz")
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        assert all(np.array_equal(a[key], b[key]) for key in ("x", "y"))
    write_latents(G, Latents("w", torch.zeros(2, 5)), tmp_path / "c.npz")  # styles without classes
    with np.load(tmp_path / "c.npz") as c:
        assert set(c) == {"x"}


Z = np.zeros((2, 6), np.float32)
MARK = {"equipoise_latents": np.int64(1)}
BAD = {
    "holds no latents: expected the arrays equipoise_latents": {"x": Z},
    "has version 2 of this form": {"equipoise_latents": np.int64(2), "z": Z},
    "holds w, z: expected one of z, w and ws": MARK | {"z": Z, "w": Z},
    "holds nothing: expected one of": MARK,
    r"z of .* is float32 of shape \(2, 5\); this generator takes floats of shape \(N, 6\)": MARK | {"z": Z[:, 1:]},
    r"z of .* is int64 of shape": MARK | {"z": np.zeros((2, 6), np.int64)},
    r"w of .* this generator takes floats of shape \(N, 5\)": MARK | {"w": Z},
    r"ws of .* this generator takes floats of shape \(N, 4, 5\)": MARK | {"ws": np.zeros((2, 3, 5))},
    "has version 1.5 of this form": {"equipoise_latents": np.float64(1.5), "z": Z},
    "holds NaN, Inf": MARK | {"z": Z * np.nan},
    "or numbers beyond float32": MARK | {"z": np.full((2, 6), 1e300)},
    r"shape \(0, 6\)": MARK | {"z": Z[:0]},
    "has no classes y, and this generator reads them": MARK | {"z": Z},
    r"y of .* is int64 of shape \(2,\); expected 2 integers from 0 to 2": MARK | {"z": Z, "y": np.array([0, 3])},
    r"y of .* expected 2 integers": MARK | {"z": Z, "y": np.array([0])},
    "damaged, or no .npz of plain arrays": MARK | {"z": np.array([None])},
}


@pytest.mark.parametrize("message", BAD)
def test_files_of_other_latents_are_refused(tmp_path, message):
    path = tmp_path / "a.npz"
    np.savez(path, **BAD[message])
    with pytest.raises(ValueError, match=message):
        load_latents(path, build(STYLED, CLASSES))


def test_files_that_do_not_fit_the_generator_or_are_none(tmp_path):
    G = build(STYLED, CLASSES)
    path = tmp_path / "a.npz"
    save_latents(latents_of(G, 2, kind="ws"), path)
    with pytest.raises(ValueError, match="has classes y, and this generator reads none: leave y out"):
        load_latents(path, build(STYLED))
    with pytest.raises(ValueError, match=r"which holds ws, needs a generator with a space of styles"):
        load_latents(path, plain())
    with pytest.raises(ValueError, match="truncation is for z: leave the truncation of w out"):
        load_latents(path, truncated_in_w(G, 0.5))
    with pytest.raises(ValueError, match=r"there is no file .*--save-latents b\.npz` writes one"):
        load_latents(tmp_path / "b.npz", G)
    path.write_bytes(b"PK nothing")
    with pytest.raises(ValueError, match="damaged, or no"):
        load_latents(path, G)
    np.savez_compressed(path, **MARK, z=np.random.default_rng(0).normal(size=(200, 6)))
    whole = path.read_bytes()
    for i in range(0, len(whole), 101):  # a changed byte: one line, or none
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :])
        with suppress(ValueError):
            load_latents(path, G)
    with pytest.raises(ValueError, match=r"latents are kept in NAME\.npz, got a\.pt"):
        save_latents(latents_of(G, 2), tmp_path / "a.pt")


# ---- the command line ------------------------------------------------------------------------------------


SMALL = StyleGAN2Generator(z_dim=6, w_dim=5, mapping_layers=2, channel_base=64, channel_max=4)
"""Of 16x16 pixels, so 6 layers."""


@pytest.fixture
def styled_run(tmp_path):
    """A folder with a generator, as a run's."""
    G = build(SMALL, CLASSES)
    G.net.mapping.w_avg.normal_()
    save_generator(G, tmp_path / "generator" / "generator.safetensors")
    return tmp_path


def arrays(path):
    with np.load(path) as held:
        return dict(held)


def test_commands_draw_what_the_functions_do(styled_run, tmp_path):
    place = styled_run
    made = truncated_in_w(Generator.from_pretrained(place), 0.7, 2)
    settings = ("--truncation-psi", "0.7", "--cutoff", "2")
    first, second, kept = tmp_path / "a.npz", tmp_path / "b.npz", tmp_path / "latents.npz"
    asked = ("--num", 6, "--seed", 2, "--save-latents", kept, "--space", "ws", "--out", first)
    run("sample", place, *asked, *settings)
    x = np.concatenate([x for x, _ in sample(made, 6, seed=2)])
    assert np.array_equal(arrays(first)["x"], x)
    run("sample", place, "--latents", kept, "--out", second)
    np.testing.assert_allclose(arrays(second)["x"].astype(int), x, atol=1)
    assert np.array_equal(arrays(second)["y"], arrays(first)["y"])

    strip = ("--rows", "0,1", "--columns", "3,4", "--layers", "0-1,3", *settings, "--out", tmp_path / "mix.png")
    run("mix", place, *strip)
    tiles, columns = mixing_grid(made, [0, 1], [3, 4], [0, 1, 3])
    assert columns == 3
    with Image.open(tmp_path / "mix.png") as picture:
        rows = tiles.reshape(3, 3, 16, 16).swapaxes(1, 2).reshape(48, 48)
        np.testing.assert_array_equal(np.asarray(picture), rows)

    walked = ("--images", "0-2", "--classes", "2,0", "--frames", 3, *settings, "--out", tmp_path / "walk.png")
    run("walk", place, *walked)
    points = [latent(made, i, label=label) for i, label in enumerate((2, 0, 2))]
    with Image.open(tmp_path / "walk.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), np.concatenate(closed_loop(made, points, 3)[..., 0], 1))


def test_commands_say_what_is_wrong(styled_run, tmp_path):
    place, kept = styled_run, tmp_path / "a.npz"
    for arguments, message in (
        (("--cutoff", 2), "--cutoff 2 is for --truncation-psi: give both"),
        (("--latents", kept, "--seed", 0), "leave --num, --seed, --classes and --truncation out"),
        (("--latents", kept, "--truncation", 0.5), "leave --num, --seed, --classes and --truncation out"),
        (("--latents", kept, "--save-latents", kept), "would write what --latents"),
        (("--space", "w"), "--space w is for the latents of --save-latents"),
        (("--latents", kept), "there is no file"),
    ):
        assert message in run("sample", place, *arguments, code=2), arguments
    said = run("mix", place, "--rows", "0", "--columns", "1", "--layers", "3-1", code=2)
    assert "--layers takes layers and ranges of them, such as 0-3,7; got '3-1'" in said
    said = run("walk", place, "--images", "0,1", "--classes", "0,1,2", code=2)
    assert "--classes gives 3 classes, and --images 2 images" in said
    assert "cannot write .jpg here" in run("walk", place, "--images", "0,1", "--out", "a.jpg", code=2)
