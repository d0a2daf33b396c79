"""Wrong versions of the library that the tests must notice: mistakes of public code, and others that are easily made.

Each is an edit of one file: `old` stands there exactly once, in code, and is replaced by `new`. `mutate.py` runs them.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["EQUIVALENT", "FIRST", "MUTANTS", "Mutant"]


class Mutant(NamedTuple):
    """A wrong version.

    name: the mistake.
    file: below equipoise/.
    tests: test files, without `test_` and `.py`, or tests in them, "ema::test_x". They run before the tests in `FIRST`.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = ()


FIRST: dict[str, tuple[str, ...]] = {
    "augment/ada.py": ("augment_ada", "augment_loop"),
    "augment/affine.py": ("augment_geometry", "augment_published"),
    "augment/bilinear.py": ("augment_geometry", "augment_ada"),
    "augment/blur.py": ("blur",),
    "augment/chain.py": ("augment_fixed", "augment_loop"),
    "augment/color.py": ("augment_color", "augment_published"),
    "augment/corruption.py": ("augment_color", "augment_published"),
    "augment/diffaugment.py": ("augment_fixed",),
    "augment/draws.py": ("augment_ada", "augment_geometry", "augment_color"),
    "augment/filters.py": ("augment_color", "augment_published"),
    "augment/noise.py": ("augment_fixed", "augment_loop"),
    "config.py": ("rectangles",),
    "compute/distributed.py": ("distributed", "train_processes"),
    "compute/pieces.py": ("pieces",),
    "core/latents.py": ("latents",),
    "core/types.py": ("rectangles",),
    "data/mirror.py": ("mirror",),
    **dict.fromkeys(
        (f"doctor/{name}.py" for name in ("arnoldi", "field", "landscape", "norms", "path", "stopped")),
        ("landscape",),
    ),
    "train/geometry.py": ("landscape",),
    "generate/loops.py": ("style_space",),
    "generate/saved.py": ("style_space",),
    "data/decode.py": ("data_folders", "data_nasty"),
    "data/files.py": ("data_folders",),
    "data/foreign.py": ("data_foreign",),
    "data/images.py": ("rectangles",),
    "data/kinds.py": ("data_nasty",),
    "data/labels.py": ("data_folders", "data_nasty"),
    "data/prepared.py": ("data_folders",),
    "data/sources.py": ("data_folders",),
    "data/survey.py": ("data_folders",),
    "generate/standing.py": ("standing",),
    "generate/style_space.py": ("style_space",),
    "losses/adversarial.py": ("losses", "zoo_fixtures"),
    "losses/features.py": ("matching", "train_matching"),
    "losses/gamma.py": ("gamma",),
    "losses/joint.py": ("joint", "train_joint"),
    "losses/lazy.py": ("lazy_step", "path_length"),
    "losses/objective.py": ("objective", "train_several"),
    "losses/path_length.py": ("path_length", "stylegan2_iteration"),
    "losses/penalties.py": ("penalties", "zoo_fixtures", "train_penalties"),
    "losses/players.py": ("train_update", "train_classes", "train_several", "games"),
    "losses/regularizers.py": ("regularizers", "train_regularizers"),
    "metrics/critic.py": ("evaluate_discriminator",),
    "metrics/equivariance.py": ("equivariance",),
    "metrics/frechet.py": ("frechet", "metrics_oracles"),
    "metrics/gaussian.py": ("frechet",),
    "metrics/inception_score.py": ("inception_score", "evaluate"),
    "metrics/kernel.py": ("kernel_distance", "metrics_oracles"),
    "metrics/modes.py": ("modes",),
    "metrics/neighbours.py": ("neighbours", "evaluate"),
    "metrics/of_generator.py": ("equivariance",),
    "metrics/parzen.py": ("parzen", "evaluate"),
    "metrics/perceptual_path.py": ("perceptual_path",),
    "metrics/probe.py": ("probe", "evaluate_discriminator"),
    "metrics/sliced.py": ("kernel_distance",),
    "metrics/base.py": ("rectangles",),
    "models/progan.py": ("progan",),
    "models/resnet.py": ("resnet", "zoo_fixtures"),
    "models/stylegan.py": ("stylegan1",),
    "models/stylegan2.py": ("stylegan2",),
    "models/stylegan3.py": ("stylegan3",),
    "nn/attention.py": ("attention_layer", "attention"),
    "nn/conditioning.py": ("conditioning", "heads"),
    "nn/filters.py": ("styled_layers", "stylegan2"),
    "nn/heads.py": ("heads", "conditioning"),
    "nn/mapping.py": ("styled_layers", "stylegan2", "stylegan1"),
    "nn/minibatch.py": ("minibatch",),
    "nn/filtered.py": ("filtered", "stylegan3"),
    "nn/fixed.py": ("fixed", "styled_layers"),
    "nn/fourier.py": ("stylegan3",),
    "nn/lowpass.py": ("filtered", "stylegan3"),
    "nn/modulated.py": ("styled_layers", "stylegan2"),
    "nn/norms.py": ("norms",),
    "nn/residual.py": ("resnet", "biggan", "sagan", "zoo_fixtures"),
    "nn/san.py": ("san",),
    "nn/scaled.py": ("styled_layers", "stylegan2"),
    "nn/sizes.py": ("rectangles",),
    "nn/styled.py": ("styled_layers", "stylegan2", "stylegan1"),
    "nn/tracing.py": ("san",),
    "rules/critic.py": ("critic",),
    "rules/ema.py": ("ema",),
    "rules/growth.py": ("train_growth", "cost_of_growth"),
    "rules/history.py": ("games", "train_processes"),
    "rules/optim.py": ("optim", "lazy_step", "train_update"),
    "rules/transfer.py": ("transfer", "train_transfer"),
    "runs/checkpoint.py": ("checkpoint", "reuse"),
    "train/batches.py": ("dequantise", "train_growth", "train"),
    "train/context.py": ("train_update", "games", "train_several", "train_joint"),
    "train/drawing.py": ("train_update", "pieces"),
    "train/gan.py": ("train_update", "train_classes", "games"),
    "train/loop.py": ("train_update", "train_regularizers"),
    "train/showing.py": ("reuse", "games"),
    "train/start.py": ("augment_loop", "train_regularizers"),
    "train/steps.py": ("train_update", "pieces", "train_regularizers"),
    "weights/constraints.py": ("constraints",),
    "weights/equalized.py": ("normalizers", "progan"),
    "weights/matrices.py": ("singular", "regularizers", "constraints"),
    "weights/normalizers.py": ("normalizers", "transfer"),
    "weights/spectral.py": ("spectral", "normalizers", "zoo_fixtures"),
}
"""The tests that are most likely to notice, by file."""

EQUIVALENT: dict[str, str] = {
    "terms leave gradients in the other player": "the other player's weights require no gradient by then, so autograd "
    "adds none; `inputs` saves computing them",
}
"""Wrong versions that compute the same, by name, and why."""


FILTERED = (
    Mutant(
        "a filter with the other layer's band",
        "models/stylegan3.py",
        "lowpass(self.up_taps, self.before.cutoff",
        "lowpass(self.up_taps, self.after.cutoff",
    ),
    Mutant("padding split the other way", "models/stylegan3.py", "low = (total + up) // 2", "low = total // 2"),
    Mutant(
        "separable filters in StyleGAN3-R",
        "models/stylegan3.py",
        "design = radial_lowpass if self.radial else lowpass",
        "design = lowpass",
    ),
    Mutant(
        "radial filters in critically sampled layers",
        "models/stylegan3.py",
        "radial = cfg.radial and index < cfg.layers - cfg.num_critical",
        "radial = cfg.radial",
    ),
    Mutant(
        "the magnitude not under the root",
        "models/stylegan3.py",
        "input_gain=self.magnitude_ema.rsqrt()",
        "input_gain=self.magnitude_ema.reciprocal()",
    ),
    Mutant(
        "the layer that makes images demodulates",
        "models/stylegan3.py",
        "demodulate=not stage.makes_image",
        "demodulate=True",
    ),
    Mutant(
        "averages follow G's update",
        "models/stylegan3.py",
        "self.training and not torch.is_grad_enabled() if update is None",
        "self.training if update is None",
    ),
    Mutant(
        "each process keeps its own magnitude",
        "models/stylegan3.py",
        "stack_ranks(torch.stack([mean, count])).unbind(1)",
        "torch.stack([mean, count])[None].unbind(1)",
    ),
    Mutant(
        "no damping of frequencies above the band", "nn/fourier.py", "amplitudes.clamp(0, 1)", "amplitudes.clamp(1, 1)"
    ),
    Mutant(
        "the user's transform after the style's",
        "nn/fourier.py",
        "turn @ move @ self.transform",
        "self.transform @ turn @ move",
    ),
    Mutant(
        "phases moved by the turned frequencies",
        "nn/fourier.py",
        "self.freqs @ motion[:, :2, 2:]",
        "self.freqs @ motion[:, :2, :2].mT @ motion[:, :2, 2:]",
    ),
    Mutant(
        "the clamp below the high rate",
        "nn/filtered.py",
        "x = F.hardtanh(x, -clamp, clamp)",
        "x = F.hardtanh(x, -2 * clamp, 2 * clamp)",
    ),
    Mutant("upsampling without its gain", "nn/filtered.py", "gain * up**2, flip)", "gain * up, flip)"),
    Mutant(
        "a transposed convolution cropped by a sample less",
        "nn/filtered.py",
        "len(taps) - up - after",
        "len(taps) - 1 - after",
    ),
    Mutant(
        "a matrix that downsamples from the second sample",
        "nn/filtered.py",
        "torch.arange(0, size * up + before",
        "torch.arange(down - 1, size * up + before",
    ),
    Mutant("a transposed filter that is not flipped", "nn/fixed.py", ".flip(2, 3), padding", ", padding"),
    Mutant(
        "samples that strides left out are lost",
        "nn/fixed.py",
        "output_padding=rest",
        "output_padding=0",
    ),
    Mutant("a wide window for a narrow band", "nn/lowpass.py", "width / (rate / 2)", "width / rate"),
)


AUGMENT = (
    Mutant(
        "p without an upper bound",
        "augment/ada.py",
        "(level / total).clamp(0, settings.most)",
        "(level / total).clamp_min(0)",
    ),
    Mutant(
        "p moves away from its target", "augment/ada.py", "(r - settings.target).sign()", "(settings.target - r).sign()"
    ),
    Mutant("p moves by the last batch alone", "augment/ada.py", "direction * self.images", "direction * num_images"),
    Mutant(
        "p moves at every iteration",
        "augment/ada.py",
        "due = self.iterations == settings.every",
        "due = self.iterations > 0",
    ),
    Mutant(
        "r divided by the number of images twice",
        "augment/ada.py",
        "self.sums += num_images * torch.stack",
        "self.sums += torch.stack",
    ),
    Mutant("r_v with the wrong sign", "augment/ada.py", "(real - held_out) / gap", "(held_out - real) / gap"),
    Mutant(
        "r never forgets", "augment/ada.py", '            if name != "p":\n', '            if name == "iterations":\n'
    ),
    Mutant(
        "one decision to augment per batch",
        "augment/draws.py",
        "fires = self.uniform(0, 1) <",
        "fires = self.uniform(0, 1)[:1].expand(self.n) <",
    ),
    Mutant(
        "the colour of a batch, not of an image",
        "augment/draws.py",
        "std * torch.randn(self.n,",
        "std * torch.randn(1,",
    ),
    Mutant("general transforms before blits", "augment/affine.py", "blits @ general", "general @ blits"),
    Mutant(
        "rotation, which is there twice, fires with p each time",
        "augment/affine.py",
        ", p=1 - (1 - draws.p).clamp_min(0).sqrt())",
        ")",
    ),
    Mutant(
        "scaling down where up is meant",
        "augment/affine.py",
        "scaling(1 / factor, 1 / factor)",
        "scaling(factor, factor)",
    ),
    Mutant("contrast before brightness", "augment/color.py", "offset = (along * brightness)", "offset = brightness"),
    Mutant("grid and corners not aligned", "augment/bilinear.py", "align_corners=True", "align_corners=False"),
    Mutant("a hole of the whole size", "augment/corruption.py", ".abs() < 0.25", ".abs() < 0.5"),
    Mutant(
        "one draw of DiffAugment's colours per batch",
        "augment/diffaugment.py",
        "torch.rand(3, len(x), 1, 1, 1,",
        "torch.rand(3, 1, 1, 1, 1,",
    ),
    Mutant("saturation up to 1, not 2", "augment/diffaugment.py", "grey + 2 * saturation *", "grey + saturation *"),
    Mutant("cutout that starts at its centre", "augment/diffaugment.py", "(centre - side // 2)", "centre"),
    Mutant(
        "gains without the power they divide by",
        "augment/filters.py",
        "amplified / power.sqrt().unsqueeze(1)",
        "amplified",
    ),
    Mutant("instance noise that stays", "augment/noise.py", "at(self.settings.std, nimg)", "at(self.settings.std, 0)"),
    Mutant("one noise per batch", "augment/noise.py", "torch.randn_like(x)", "torch.randn_like(x[:1])"),
    Mutant(
        "a chain backwards",
        "augment/chain.py",
        "for part in self.parts:\n            x = part(x)",
        "for part in reversed(self.parts):\n            x = part(x)",
    ),
)

COMPUTE = (
    Mutant("pieces add up instead of averaging", "compute/pieces.py", "share=1 / count", "share=1.0"),
    Mutant("buffers move with every piece", "compute/pieces.py", "buffer.copy_(value)", "pass"),
    Mutant(
        "statistics of pieces add up", "compute/pieces.py", "for piece in stats]).mean()", "for piece in stats]).sum()"
    ),
    Mutant("every piece sees the first images", "compute/pieces.py", "start=i * size:", "start=0:"),
    Mutant(
        "gradients are never cleared",
        "compute/distributed.py",
        "    optimizer.zero_grad()\n",
        "\n",
        ("own_loops", "train_penalties"),
    ),
    Mutant(
        "the sum of gradients over processes",
        "compute/distributed.py",
        "total /= world_size()",
        "total /= 1",
        ("distributed",),
    ),
    Mutant(
        "the sum of values over processes",
        "compute/distributed.py",
        "return total / world_size()",
        "return total",
        ("train_processes",),
    ),
    Mutant(
        "the slope of a sum over processes stays on its process",
        "compute/distributed.py",
        "total: Tensor = SumOverRanks.apply(gradient)",
        "total: Tensor = gradient.clone()",
        ("norms",),
    ),
    Mutant(
        "weights stay trainable after a step",
        "compute/distributed.py",
        "p.requires_grad_(required)",
        "p.requires_grad_(True)",
        ("train_penalties", "own_loops"),
    ),
    Mutant(
        "weights without a gradient are left out of the step",
        "compute/distributed.py",
        "p.grad = torch.zeros_like(p)",
        "continue",
        ("distributed", "own_loops"),
    ),
    Mutant("truncation that only scales z", "core/latents.py", "moved.clamp(-threshold, threshold)", "(threshold * z)"),
    Mutant("a biased standing variance", "generate/standing.py", "/ (count - 1))", "/ count)"),
    Mutant(
        "standing statistics of the last batch",
        "generate/standing.py",
        "sums[module] + now if module in sums else now",
        "now",
    ),
)

LOSSES = (
    Mutant(
        "the cross-entropy of log(sigmoid + ε)",
        "losses/adversarial.py",
        "return F.softplus(-fake)",
        "return -(fake.sigmoid() + 1e-8).log()",
    ),
    Mutant("two-sided smoothing", "losses/adversarial.py", "+ smoothing * real +", "+ smoothing * (real - fake) +"),
    Mutant(
        "the hinge's sign",
        "losses/adversarial.py",
        "F.relu(1 - real) + F.relu(1 + fake)",
        "F.relu(1 + real) + F.relu(1 - fake)",
    ),
    Mutant(
        "a hinge without margin",
        "losses/adversarial.py",
        "F.relu(1 - real) + F.relu(1 + fake)",
        "F.relu(-real) + F.relu(fake)",
    ),
    Mutant("Wasserstein's sign", "losses/adversarial.py", "return fake - real", "return real - fake"),
    Mutant(
        "least squares: G aims at b", "losses/adversarial.py", "(fake - self.c).square()", "(fake - self.b).square()"
    ),
    Mutant(
        "the relativistic G minimises D's loss",
        "losses/adversarial.py",
        "F.softplus(real - fake)",
        "F.softplus(fake - real)",
    ),
    Mutant(
        "logits of an image add up",
        "losses/objective.py",
        "return loss.d(real, fake).mean()\n",
        "return loss.d(real, fake).sum(1).mean()\n",
    ),
    Mutant(
        "discriminators average",
        "losses/objective.py",
        "return torch.stack(total).sum()",
        "return torch.stack(total).mean()",
    ),
    Mutant(
        "SAN's direction is pushed the other way",
        "losses/objective.py",
        "return loss.g(real) - loss.g(fake)",
        "return loss.g(fake) - loss.g(real)",
    ),
    Mutant(
        "SAN's direction loss reads fun",
        "losses/objective.py",
        "mean_direction(loss, r.dir, f.dir,",
        "mean_direction(loss, r.fun, f.fun,",
    ),
    Mutant(
        "the means that normalise the direction loss are exchanged",
        "losses/objective.py",
        "loss.g(real) / mean_weight(loss, real) - loss.g(fake) / mean_weight(loss, fake)",
        "loss.g(real) / mean_weight(loss, fake) - loss.g(fake) / mean_weight(loss, real)",
    ),
    Mutant(
        "logits in another shape of equal size",
        "losses/objective.py",
        "    if real.shape != fake.shape:",
        "    if real.numel() != fake.numel():",
    ),
    Mutant("the other side's constant stays in the mean", "losses/objective.py", " - loss.d(zero, zero)", ""),
    Mutant(
        "one logit of several counts in G's loss",
        "losses/objective.py",
        "loss.g(f.fun).mean() for f in flat(fake)",
        "loss.g(f.fun[:, :1]).mean() for f in flat(fake)",
    ),
    Mutant(
        "consensus: the norm, not its square",
        "losses/joint.py",
        "torch.stack(squares).sum()",
        "torch.stack(squares).sum().sqrt()",
    ),
    Mutant(
        "consensus: each loss by the other's weights",
        "losses/joint.py",
        "in ((d_loss, d_weights), (g_loss, g_weights))\n",
        "in ((d_loss, g_weights), (g_loss, d_weights))\n",
    ),
    Mutant(
        "features are matched in pairs",
        "losses/features.py",
        "(mean(real) - mean(fake)).square().sum()",
        "(real - fake).square().mean(0).sum()",
    ),
    Mutant(
        "the mean over features",
        "losses/features.py",
        "(mean(real) - mean(fake)).square().sum()",
        "(mean(real) - mean(fake)).square().mean()",
    ),
    Mutant(
        "matching replaces the loss it should stand beside",
        "losses/features.py",
        "return not self.adversarial",
        "return self.adversarial",
    ),
    Mutant(
        "SAN's normalisation is dropped",
        "losses/players.py",
        "seen.on_fake, normalize=self.normalize)",
        "seen.on_fake)",
    ),
    Mutant(
        "generated images take the labels of real ones",
        "losses/players.py",
        "class_loss(seen.on_fake, seen.fake.label)",
        "class_loss(seen.on_fake, seen.real.label)",
    ),
    Mutant(
        "classes are learned from every image",
        "losses/players.py",
        "class_loss(seen.on_labelled, seen.labelled.label)",
        "class_loss(seen.on_real, seen.real.label)",
    ),
)

PENALTIES = (
    Mutant(
        "one norm per batch", "losses/penalties.py", "gradient.square().flatten(1).sum(1)", "gradient.square().sum()"
    ),
    Mutant(
        "a mean over pixels",
        "losses/penalties.py",
        "gradient.square().flatten(1).sum(1)",
        "gradient.square().flatten(1).mean(1)",
    ),
    Mutant("one ε per batch", "losses/penalties.py", "torch.rand(one_each(x),", "torch.rand(one_each(x[:1]),"),
    Mutant("one ε per pixel", "losses/penalties.py", "torch.rand(one_each(x),", "torch.rand(x.shape,"),
    Mutant("a penalty cut from the graph", "losses/penalties.py", "x, create_graph=True)", "x, create_graph=False)"),
    Mutant(
        "R1 without its half",
        "losses/penalties.py",
        "return gamma_at(self.gamma, nimg) / 2\n\n"
        "    def for_data(self, spec: ImageSpec, batch_size: int) -> Term:\n"
        "        return replace(self, gamma=gamma_for(self.gamma, spec, batch_size))\n\n"
        "    def __call__(self, critic: Critic, real: Images, fake: Images | None = None) -> Tensor:\n"
        '        return squared_norm(input_gradient(critic, batch_of(real, "real")))',
        "return gamma_at(self.gamma, nimg)\n\n"
        "    def for_data(self, spec: ImageSpec, batch_size: int) -> Term:\n"
        "        return replace(self, gamma=gamma_for(self.gamma, spec, batch_size))\n\n"
        "    def __call__(self, critic: Critic, real: Images, fake: Images | None = None) -> Tensor:\n"
        '        return squared_norm(input_gradient(critic, batch_of(real, "real")))',
    ),
    Mutant("R2 on real images", "losses/penalties.py", 'batch_of(fake, "generated")))', 'batch_of(real, "real")))'),
    Mutant("one-sided on the wrong side", "losses/penalties.py", "(excess.clamp_min(0) if", "(excess.clamp_max(0) if"),
    Mutant("a root with an infinite slope", "losses/penalties.py", "(squared + 1e-12).sqrt()", "squared.sqrt()"),
    Mutant(
        "labels of the wrong end of the segment",
        "losses/penalties.py",
        "torch.lerp(generated, x, epsilon), real.y)",
        "torch.lerp(generated, x, epsilon), fake.y)",
    ),
    Mutant(
        "DRAGAN: a deviation per image",
        "losses/penalties.py",
        "self.noise * x.std(correction=0) * u",
        "self.noise * x.flatten(1).std(1, correction=0).view(one_each(x)) * u",
    ),
    Mutant("DRAGAN: normal noise", "losses/penalties.py", "u = torch.rand(x.shape", "u = torch.randn(x.shape"),
    Mutant(
        "drift of the mean logit",
        "losses/penalties.py",
        "critic(x, real.y).square().mean(1)",
        "critic(x, real.y).mean(1).square()",
    ),
)

REGULARIZERS = (
    Mutant(
        "orthogonal: the diagonal counts",
        "losses/regularizers.py",
        "            if self.off_diagonal\n",
        "            if not self.off_diagonal\n",
    ),
    Mutant(
        "orthogonal: embeddings take part",
        "losses/regularizers.py",
        "total(self.correlation, net, embeddings=False)",
        "total(self.correlation, net)",
    ),
    Mutant(
        "the smallest singular value",
        "losses/regularizers.py",
        "squared_singular_values(matrix)[-1], net)",
        "squared_singular_values(matrix)[0], net)",
    ),
    Mutant("a root of singular values of 0", "losses/regularizers.py", ".clamp_min(self.bound**2)", ".clamp_min(0)"),
    Mutant(
        "a mean that forgets",
        "losses/regularizers.py",
        "self.mean += (flat(net) - self.mean) / self.t",
        "self.mean += (flat(net) - self.mean) * 0.1",
    ),
    Mutant(
        "a mean that is one step behind",
        "losses/regularizers.py",
        "        self.t += 1\n        self.mean += (flat(net) - self.mean) / self.t",
        "        self.mean += (flat(net) - self.mean) / self.t\n        self.t += 1",
    ),
)

GENERATORS = (
    Mutant("a Lanczos window of one lobe", "metrics/equivariance.py", "torch.sinc(t / LOBES) * (", "torch.sinc(t) * ("),
    Mutant("Lanczos taps that do not sum to 1", "metrics/equivariance.py", "whole, taps / taps.sum()", "whole, taps"),
    Mutant(
        "the wrong rotated grid's filter",
        "metrics/equivariance.py",
        "rotation_filter(-angle, 1)",
        "rotation_filter(angle, 1)",
    ),
    Mutant(
        "phases of a rotation's filter that do not sum to 1",
        "metrics/equivariance.py",
        "taps / taps.sum((0, 2), keepdim=True) / up**2",
        "taps / taps.sum()",
    ),
    Mutant(
        "the mask of the whole rotated image",
        "metrics/equivariance.py",
        "first, last = up * RADIUS - up // 2, up * size - up * RADIUS - up // 2 - 1",
        "first, last = 0, up * size - 1",
    ),
    Mutant(
        "an input that moves the other way",
        "metrics/equivariance.py",
        "EQ_T_FRAC = Motion(anywhere, lambda tx, ty: translation_matrix(-tx, -ty)",
        "EQ_T_FRAC = Motion(anywhere, lambda tx, ty: translation_matrix(tx, ty)",
    ),
    Mutant("a dynamic range of 1", "metrics/equivariance.py", "    return 20 * math.log10(2) - 10", "    return -10"),
    Mutant(
        "a mean over pixels, not over channels",
        "metrics/equivariance.py",
        "float(mask.sum()) * len(plain) * plain.shape[1]",
        "float(mask.sum()) * len(plain)",
    ),
    Mutant(
        "stored noise that is not drawn anew",
        "metrics/of_generator.py",
        'if name.rpartition(".")[2] == "noise_const":',
        'if name == "noise_const":',
    ),
    Mutant(
        "a path length divided by its step, not by its square",
        "metrics/perceptual_path.py",
        ".sum(1) / epsilon**2",
        ".sum(1) / epsilon",
    ),
    Mutant(
        "a path between two classes",
        "metrics/perceptual_path.py",
        "(mapped(places.net, end, y) for end in (a, b))",
        "mapped(places.net, a, y), mapped(places.net, b, None if y is None else y.flip(0))",
    ),
    Mutant(
        "truncation in w by 1 - psi",
        "generate/style_space.py",
        "truncation_psi=self.psi",
        "truncation_psi=1 - self.psi",
    ),
    Mutant(
        "rows and columns of mixed styles exchanged",
        "generate/style_space.py",
        "coarse, fine = (of_images(generator, indices, seed, label) for indices in (rows, columns))",
        "fine, coarse = (of_images(generator, indices, seed, label) for indices in (rows, columns))",
    ),
    Mutant(
        "a loop that does not close smoothly",
        "generate/loops.py",
        "torch.linalg.solve(neighbours + 4 * identity, 6 * (neighbours @ points - 2 * points))",
        "0 * points",
    ),
    Mutant(
        "a loop in z that shrinks between its images",
        "generate/loops.py",
        "lerp(norms[i, None], norms[following, None], s) / z.norm(dim=1, keepdim=True)",
        "1.0",
    ),
    Mutant("latents of another generator are taken", "generate/saved.py", "list(values.shape[1:]) != lengths or ", ""),
)

METRICS = (
    Mutant(
        "the critic's sign", "metrics/critic.py", "float(real.mean() - fake.mean())", "float(fake.mean() - real.mean())"
    ),
    Mutant("the trace counts once", "metrics/frechet.py", "max(spreads - 2 * shared, 0)", "max(spreads - shared, 0)"),
    Mutant(
        "the distance of means, not its square",
        "metrics/frechet.py",
        "np.square(a.mean - b.mean).sum()",
        "np.sqrt(np.square(a.mean - b.mean).sum())",
    ),
    Mutant(
        "a covariance divided by N", "metrics/gaussian.py", "/ math.sqrt(self.count - 1)", "/ math.sqrt(self.count)"
    ),
    Mutant(
        "sets merge without the spread between them",
        "metrics/gaussian.py",
        "math.sqrt(self.count / both.count * other.count) * step",
        "0.0 * step",
    ),
    Mutant("the mean of exponentials", "metrics/inception_score.py", ".sum(axis=1).mean()))", ".sum(axis=1)).mean())"),
    Mutant(
        "splits of images in the order of their classes",
        "metrics/inception_score.py",
        "p, q = shuffled(fake, seed), shuffled",
        "p, q = fake, shuffled",
    ),
    Mutant(
        "the biased kernel distance",
        "metrics/kernel.py",
        "(k.sum() - np.trace(k)) / (len(x) * (len(x) - 1))",
        "k.mean()",
    ),
    Mutant(
        "a kernel that is not scaled by the features", "metrics/kernel.py", "x @ y.T / x.shape[1] + 1", "x @ y.T + 1"
    ),
    Mutant(
        "subsets that hold a sample twice",
        "metrics/kernel.py",
        "rng.choice(len(x), subset_size, replace=False)",
        "rng.choice(len(x), subset_size, replace=True)",
    ),
    Mutant(
        "modes: the entropy of those that are there", "metrics/modes.py", "+ math.log(num_modes)", "+ math.log(len(q))"
    ),
    Mutant(
        "precision and recall exchanged",
        "metrics/neighbours.py",
        "PrecisionAndRecall(float(precise.mean()), float(np.concatenate(covered).mean()))",
        "PrecisionAndRecall(float(np.concatenate(covered).mean()), float(precise.mean()))",
    ),
    Mutant(
        "a sample is its own first neighbour",
        "metrics/neighbours.py",
        "last = smallest(d2, k + 1)[:, -1:]",
        "last = smallest(d2, k)[:, -1:]",
    ),
    Mutant("density without 1/k", "metrics/neighbours.py", "inside / (k * len(y))", "inside / len(y)"),
    Mutant(
        "coverage by balls of generated images",
        "metrics/neighbours.py",
        "balls = squared_radii(x, k)",
        "balls = squared_radii(y, k)",
    ),
    Mutant(
        "an image among its own neighbours", "metrics/neighbours.py", "k=3).distances[:, 1:]", "k=3).distances[:, :2]"
    ),
    Mutant(
        "Parzen: a density of one dimension",
        "metrics/parzen.py",
        "volumes = samples.shape[1] * np.log",
        "volumes = np.log",
    ),
    Mutant(
        "Parzen: divided by the number of points", "metrics/parzen.py", "math.log(len(samples))", "math.log(len(data))"
    ),
    Mutant(
        "the probe's scale reads test images",
        "metrics/probe.py",
        "mean, std = x[:num].mean(axis=0), x[:num].std(axis=0)",
        "mean, std = x.mean(axis=0), x.std(axis=0)",
    ),
    Mutant(
        "the probe is chosen on test images",
        "metrics/probe.py",
        "pair[0].accuracy(*validation)",
        "pair[0].accuracy(*test)",
    ),
    Mutant(
        "the mean of roots", "metrics/sliced.py", "float(costs.mean() ** (1 / p))", "float((costs ** (1 / p)).mean())"
    ),
    Mutant(
        "directions that are not unit vectors",
        "metrics/sliced.py",
        "direction = direction / np.linalg.norm(direction)",
        "direction = direction / 1.0",
    ),
)

NETWORKS = (
    Mutant("softmax over queries", "nn/attention.py", "k.transpose(1, 2)).softmax(2)", "k.transpose(1, 2)).softmax(1)"),
    Mutant("attention scaled by its width", "nn/attention.py", "scale=1.0)", "scale=None)"),
    Mutant(
        "fading the wrong way",
        "models/progan.py",
        "enlarge(self.to_image[last - 1](h), 1), fade)",
        "enlarge(self.to_image[last - 1](h), 1), 1 - fade)",
    ),
    Mutant(
        "the projection alone, without its unconditional part",
        "nn/conditioning.py",
        "scaled_weight(self.linear) + self.embed(labels(y))",
        "0 * scaled_weight(self.linear) + self.embed(labels(y))",
    ),
    Mutant(
        "one length for the vectors of all classes",
        "nn/conditioning.py",
        "lengths: Tensor = w.norm(dim=1, keepdim=True)",
        "lengths: Tensor = w.norm().expand(len(w), 1)",
    ),
    Mutant(
        "an embedding that forgets the shared vector",
        "nn/conditioning.py",
        "self.embed.weight.copy_(w - self.linear.weight)",
        "self.embed.weight.copy_(w)",
    ),
    Mutant(
        "initial weights by the other fan",
        "nn/conditioning.py",
        "1 / math.sqrt(layer.weight.shape[1])",
        "1 / math.sqrt(layer.weight.shape[0])",
    ),
    Mutant(
        "one length for the directions of all classes",
        "nn/heads.py",
        "w.norm(dim=-1, keepdim=True).clamp_min(1e-12)",
        "w.norm().clamp_min(1e-12)",
    ),
    Mutant(
        "the length trains the direction too",
        "nn/heads.py",
        "return length * omega.detach(), ",
        "return length * omega, ",
    ),
    Mutant("the direction trains the length too", "nn/heads.py", "length.detach() * omega\n", "length * omega\n"),
    Mutant(
        "the direction trains the features too",
        "nn/heads.py",
        "contract(direction, h.detach())",
        "contract(direction, h)",
    ),
    Mutant(
        "a sum over positions before the classifier",
        "nn/heads.py",
        "h.to(dtype).flatten(2).mean(2)",
        "h.to(dtype).flatten(2).sum(2)",
    ),
    Mutant(
        "the largest class for the sum of all",
        "nn/heads.py",
        "classes.logsumexp(1, keepdim=True)",
        "classes.amax(1, keepdim=True)",
    ),
    Mutant(
        "positions read as features",
        "nn/heads.py",
        "h.unflatten(1, (-1, self.positions))",
        "h.unflatten(1, (self.positions, -1)).transpose(1, 2)",
    ),
    Mutant(
        "the groups of minibatch deviation and of its map differ",
        "nn/minibatch.py",
        "std.mean((2, 3, 4)).repeat(G, 1)",
        "std.mean((2, 3, 4)).repeat_interleave(G, 0)",
    ),
    Mutant(
        "minibatch discrimination averages", "nn/minibatch.py", "(-distance).exp().sum(1)", "(-distance).exp().mean(1)"
    ),
    Mutant("gains around 0", "nn/norms.py", "torch.ones(num_classes, features)", "torch.zeros(num_classes, features)"),
    Mutant("a conditional gain without its 1", "nn/norms.py", "(1 + gain) * self.norm(h)", "gain * self.norm(h)"),
    Mutant(
        "virtual batch norm forgets its reference",
        "nn/norms.py",
        "mean = (R * ref_mean + own_mean) / (R + 1)",
        "mean = own_mean",
    ),
    Mutant(
        "the variance of a union without the distance of means",
        "nn/norms.py",
        " + R / (R + 1) ** 2 * (ref_mean - own_mean).square()",
        "",
    ),
    Mutant("a biased running variance", "nn/norms.py", "var * total / (total - 1)", "var"),
    Mutant(
        "pixel norm of the sum",
        "nn/norms.py",
        "wide.square().mean(1, keepdim=True)",
        "wide.square().sum(1, keepdim=True)",
        ("progan",),
    ),
    Mutant(
        "fun and dir exchanged",
        "nn/san.py",
        "Logits(origin.half(0), origin.half(1))",
        "Logits(origin.half(1), origin.half(0))",
    ),
    Mutant("hidden layers count as last ones", "nn/san.py", "if not c.hidden and (self.layers", "if (self.layers"),
    Mutant(
        "a sanified direction trains the features",
        "nn/tracing.py",
        "self.again(h.detach(), direction)",
        "self.again(h, direction)",
    ),
    Mutant("a sanified bias keeps its own gradient", "nn/tracing.py", "w[:, features]\n", "self.bias.to(w.dtype)\n"),
    Mutant(
        "a ReLU before the image",
        "nn/residual.py",
        "x if self.first else F.relu(self.norm1(x))",
        "F.relu(self.norm1(x))",
    ),
    Mutant("a sum and a mean exchanged", "nn/residual.py", 'if self.kind == "sum"', 'if self.kind == "mean"'),
    Mutant(
        "BigGAN's D averages over positions",
        "nn/residual.py",
        "F.relu(x).sum((2, 3)) if self.pool",
        "F.relu(x).mean((2, 3)) if self.pool",
    ),
    Mutant(
        "a block divided by √2",
        "nn/residual.py",
        "h + enlarge(self.shortcut(x), 1)",
        "(h + enlarge(self.shortcut(x), 1)) / math.sqrt(2)",
    ),
    Mutant(
        "blocks initialised as if no ReLU were there", "nn/residual.py", "gain=math.sqrt(2), bias=bias)", "bias=bias)"
    ),
    Mutant(
        "no ReLU before G's last layer",
        "models/resnet.py",
        "self.conv(F.relu(self.norm(h)))",
        "self.conv(self.norm(h))",
    ),
    Mutant(
        "the class joins a block too early",
        "models/resnet.py",
        "join = self.join + (self.join > 0)",
        "join = self.join",
        ("middle_concat",),
    ),
    Mutant("the last block halves too", "models/resnet.py", "48: (4, 1)", "48: (5, 0)"),
)

WEIGHTS = (
    Mutant(
        "singular vectors move in evaluation",
        "weights/spectral.py",
        "            if self.training:\n",
        "            if True:\n",
    ),
    Mutant(
        "σ held constant in the backward",
        "weights/spectral.py",
        "weight / along(weight, u, v, self.axis)",
        "weight / along(weight.detach(), u, v, self.axis)",
    ),
    Mutant(
        "the gradient of σ added",
        "weights/spectral.py",
        "(-inner / sigma) * u[:, None]",
        "(inner / sigma) * u[:, None]",
    ),
    Mutant(
        "σ held constant in the second backward",
        "weights/spectral.py",
        "            sigma = along(weight, u, v, ctx.axis)\n",
        "            pass\n",
    ),
    Mutant(
        "singular vectors that are not normalised",
        "weights/spectral.py",
        "u = F.normalize(torch.mv(matrix, v), dim=0, eps=eps)",
        "u = torch.mv(matrix, v)",
    ),
    Mutant(
        "transposed layers read along the wrong axis",
        "weights/matrices.py",
        "1 if isinstance(layer, TRANSPOSED) else 0",
        "0",
    ),
    Mutant("reading a weight moves it", "weights/matrices.py", "    computed.eval()\n", "\n"),
    Mutant("SAN's heads are normalised", "weights/matrices.py", " and m not in inside)", ")"),
    Mutant(
        "small singular values are raised",
        "weights/matrices.py",
        "squared.clamp_min(0).sqrt()).clamp_min(0)",
        "squared.clamp_min(0).sqrt())",
    ),
    Mutant(
        "a bound that forgets overlapping windows",
        "weights/matrices.py",
        "norms[layer] * math.sqrt(reads(layer))",
        "norms[layer]",
    ),
    Mutant(
        "weights clipped from above alone",
        "weights/constraints.py",
        "weight.clamp_(-bound, bound)",
        "weight.clamp_(max=bound)",
    ),
    Mutant(
        "biases are not clipped",
        "weights/constraints.py",
        "for name, weight in layer.named_parameters():",
        "for name, weight in [('weight', layer.weight)]:",
    ),
    Mutant("a scale without its inverse", "weights/equalized.py", "return weight / self.c", "return weight"),
    Mutant("weight norm along the wrong axis", "weights/normalizers.py", "dim=output_axis(layer))", "dim=0)"),
    Mutant(
        "folding trains what was frozen",
        "weights/normalizers.py",
        "requires_grad=trained[name])",
        "requires_grad=True)",
    ),
)

RULES = (
    Mutant("the average forgets buffers", "rules/ema.py", "b_ema.copy_(b)", "pass"),
    Mutant("the average takes the complement", "rules/ema.py", "current, 1 - beta)", "current, beta)"),
    Mutant(
        "the larger half-life", "rules/ema.py", "min(halflife, nimg * self.rampup)", "max(halflife, nimg * self.rampup)"
    ),
    Mutant("a half-life in images", "rules/ema.py", "self.halflife_kimg * 1000", "self.halflife_kimg"),
    Mutant(
        "fading from the start of a phase", "rules/growth.py", "(rest - stable) / fade if", "rest / (stable + fade) if"
    ),
    Mutant("Adam remembers a past without new layers", "rules/growth.py", "optimizer.state.clear()", "pass"),
    Mutant("updates counted from the wrong batch", "rules/growth.py", "// size + 1, 0)", "// size, 0)"),
    Mutant(
        "a batch of the next stage comes early",
        "rules/growth.py",
        "for last, size in self.parts if nimg <= last)",
        "for last, size in self.parts if nimg < last)",
    ),
    Mutant("betas that stay", "rules/optim.py", "float(at(self.betas[1], nimg)))", "float(at(self.betas[1], 0)))"),
    Mutant(
        "frozen weights in the optimiser",
        "rules/optim.py",
        "            weights, lr=lr, betas",
        "            list(net.parameters()), lr=lr, betas",
        ("optim",),
    ),
    Mutant("RMSProp with a momentum", "rules/optim.py", "alpha=self.alpha)", "alpha=self.alpha, momentum=0.9)"),
    Mutant("old images keep the labels of new ones", "rules/history.py", "x[mine], y[mine] = old", "x[mine] = old[0]"),
    Mutant(
        "the pool never changes",
        "rules/history.py",
        "self.images[theirs], self.labels[theirs] = x[mine], y[mine]",
        "pass",
    ),
    Mutant(
        "a place of the pool twice in one call",
        "rules/history.py",
        "torch.randperm(self.size, generator=draws)[: len(x) - new]",
        "torch.randint(self.size, (len(x) - new,), generator=draws)",
    ),
    Mutant(
        "the pool draws the same numbers each time",
        "rules/history.py",
        "Purpose.HISTORY, int(self.calls))",
        "Purpose.HISTORY, 0)",
    ),
    Mutant(
        "every process is shown the images of the first",
        "rules/history.py",
        "slice(rank() * len(batch.x), (rank() + 1) * len(batch.x))",
        "slice(0, len(batch.x))",
        ("train_processes",),
    ),
    Mutant(
        "convergence when the loss rises",
        "rules/critic.py",
        "before - until.tolerance * abs(before)",
        "before + until.tolerance * abs(before)",
    ),
    Mutant(
        "a layer too many is frozen",
        "rules/transfer.py",
        "return choices[self.layers - 1]",
        "return choices[min(self.layers, len(choices) - 1)]",
    ),
    Mutant(
        "a resumed run begins with a new Adam",
        "runs/checkpoint.py",
        'optimizer.load_state_dict(state["optimizers"][key])',
        "pass",
        ("reuse", "train"),
    ),
    Mutant(
        "a resumed run begins its schedules anew",
        "runs/checkpoint.py",
        'return int(state["nimg"])',
        "return 0",
        ("reuse", "train"),
    ),
    Mutant(
        "the oldest checkpoint is read",
        "runs/checkpoint.py",
        "for path in reversed(finished(folder)):",
        "for path in finished(folder):",
    ),
    Mutant(
        "the newest checkpoints are deleted",
        "runs/checkpoint.py",
        "old = list(paths[: -self.keep])",
        "old = list(paths[self.keep :])",
    ),
    Mutant("checksums are not compared", "runs/checkpoint.py", "if digest(content) != expected[name]:", "if False:"),
    Mutant(
        "weights are saved as they lie in memory",
        "runs/checkpoint.py",
        "value.detach().cpu().contiguous()",
        "value.detach().cpu()",
        ("checkpoint", "precision", "convolutions"),
    ),
)

TRAIN = (
    Mutant(
        "data start anew when the batch grows",
        "train/batches.py",
        "self.endless(size, start=self.nimg)",
        "self.endless(size, start=0)",
    ),
    Mutant(
        "dequantisation draws the same noise",
        "train/batches.py",
        "stream(*self.key, self.nimg,",
        "stream(*self.key, 0,",
    ),
    Mutant(
        "generated images with the labels of real ones",
        "train/context.py",
        "outputs(self.fake.x, self.fake.y)",
        "outputs(self.fake.x, self.real.y)",
    ),
    Mutant(
        "weights of terms that stay",
        "train/context.py",
        "term.weight(seen.nimg) * value",
        "term.weight(0) * value",
    ),
    Mutant(
        "weighted values are reported",
        "train/context.py",
        "values[term.name] = value.detach()",
        "values[term.name] = weighted.detach()",
    ),
    Mutant(
        "each of the joint losses draws its own images",
        "train/context.py",
        "StepContext(gan, player, self.piece, self.nimg, shown)",
        "StepContext(gan, player, self.piece, self.nimg)",
    ),
    Mutant(
        "every process draws the same z",
        "train/drawing.py",
        "z = z[rank() * images : (rank() + 1) * images]",
        "z = z[:images]",
    ),
    Mutant(
        "z is the same in every update",
        "train/drawing.py",
        "stream(cfg.seed, purpose, nimg)",
        "stream(cfg.seed, purpose)",
    ),
    Mutant("augmentation skipped", "train/gan.py", "self.D(self.augment(x), y)", "self.D(x, y)", ("augment_loop",)),
    Mutant("G's z is D's", "train/gan.py", "purpose=Purpose.Z_FOR_G", "purpose=Purpose.Z_FOR_D", ("reuse", "recipes")),
    Mutant(
        "G's updates counted as D's",
        "train/gan.py",
        "updates=lambda nimg: self.stages.updates(nimg) // steps,",
        "updates=self.stages.updates,",
        ("train_regularizers",),
    ),
    Mutant(
        "G normalised as D",
        "train/gan.py",
        "cfg.g_normalizer(G)",
        "cfg.d_normalizer(G)",
        ("train_warnings", "recompute"),
    ),
    Mutant(
        "D with G's optimiser",
        "train/gan.py",
        'cfg.optim("D").build(D)',
        'cfg.optim("G").build(D)',
        ("train_penalties", "optim"),
    ),
    Mutant("G's larger batch is dropped", "train/gan.py", "times=cfg.g_batches,", "times=1,", ("pieces",)),
    Mutant(
        "no loss beside one that is replaced",
        "train/gan.py",
        "losses = [term for term in losses if not term.opposes]",
        "losses = []",
        ("train_classes", "train_matching"),
    ),
    Mutant(
        "the schedule of the augmentation stays",
        "train/gan.py",
        "self.augment.at(nimg)",
        "self.augment.at(0)",
        ("augment_loop",),
    ),
    Mutant(
        "terms forget when the config changes",
        "train/gan.py",
        "next((pair for pair in before if pair[0] == new[0]), new)",
        "new",
        ("playground", "points"),
    ),
    Mutant(
        "memories of G are not updated",
        "train/gan.py",
        'after=[memory.update for memory in self.memories("G")]',
        "after=()",
        ("train_regularizers",),
    ),
    Mutant(
        "initial weights do not follow the seed",
        "train/gan.py",
        "seed_torch(cfg.seed, Purpose.WEIGHTS)",
        "seed_torch(0, Purpose.WEIGHTS)",
        ("train_update",),
    ),
    Mutant(
        "G's step at the images seen after D's",
        "train/loop.py",
        "g_step(gan, drawn.batch, start,",
        "g_step(gan, drawn.batch, nimg,",
        ("train::test_every_update_of_d_has_the_settings_of_its_moment",),
    ),
    Mutant(
        "the average counts one batch of several",
        "train/loop.py",
        "nimg, nimg - start)\n    for",
        "nimg, size)\n    for",
        ("train_update",),
    ),
    Mutant(
        "p follows one process",
        "train/loop.py",
        'mean_over_ranks(d_stats["D/sign_real"])',
        'd_stats["D/sign_real"]',
        ("train_processes", "augment_loop"),
    ),
    Mutant(
        "D's learning rate once per iteration",
        "train/loop.py",
        'cfg.optim("D").apply(gan.d_optim, nimg)',
        'cfg.optim("D").apply(gan.d_optim, start)',
        ("train::test_every_update_of_d_has_the_settings_of_its_moment",),
    ),
    Mutant(
        "G's learning rate stays",
        "train/loop.py",
        'cfg.optim("G").apply(gan.g_optim, nimg)',
        'cfg.optim("G").apply(gan.g_optim, 0)',
        ("train::test_every_update_of_d_has_the_settings_of_its_moment",),
    ),
    Mutant(
        "draws are the same on every process",
        "train/loop.py",
        "Purpose.DRAWS, rank(), nimg)",
        "Purpose.DRAWS, 0, nimg)",
        ("train_processes",),
    ),
    Mutant(
        "a resumed run draws anew",
        "train/loop.py",
        "    seed_torch(cfg.seed, Purpose.DRAWS, rank(), nimg)\n",
        "\n",
        ("augment_loop",),
    ),
    Mutant(
        "reused images keep G's graph in D's step", "train/showing.py", "return detached(self.kept)", "return self.kept"
    ),
    Mutant(
        "D never sees the pool",
        "train/showing.py",
        "shown if self.pool is None else shown._replace(fake=self.pool(shown.fake))",
        "shown",
    ),
    Mutant("images are reused twice", "train/showing.py", "kept, self.kept = self.kept, None", "kept = self.kept"),
    Mutant("a resumed run begins with p of 0", "train/start.py", ', "augment": gan.augment}', "}"),
    Mutant("a resumed run forgets its pool", "train/start.py", 'nets["pool"] = gan.showing.pool', "pass", ("games",)),
    Mutant(
        "lazy terms lose their factor",
        "train/steps.py",
        "share * term.every * term.weight(seen.nimg)",
        "share * term.weight(seen.nimg)",
        ("train_regularizers",),
    ),
    Mutant(
        "lazy terms at every update", "train/steps.py", "if update % term.every == 0]", "]", ("train_regularizers",)
    ),
    Mutant(
        "lazy terms one update late",
        "train/steps.py",
        "if update % term.every == 0]",
        "if (update - 1) % term.every == 0]",
        ("train_regularizers",),
    ),
    Mutant(
        "lazy terms counted in images",
        "train/steps.py",
        "update = me.updates(nimg)",
        "update = nimg",
        ("train_regularizers",),
    ),
    Mutant(
        "the loss of each piece counts whole", "train/steps.py", "(piece.share * loss).backward()", "loss.backward()"
    ),
    Mutant(
        "constraints before the step",
        "train/steps.py",
        "        apply_gradients(me.optim, reduction)\n    for then in me.after:\n        then(me.net)\n",
        "        for then in me.after:\n            then(me.net)\n        apply_gradients(me.optim, reduction)\n",
        ("constraints",),
    ),
    Mutant(
        "terms leave gradients in the other player",
        "train/steps.py",
        "torch.autograd.backward(weight * value, inputs=owned(seen.me.optim))",
        "torch.autograd.backward(weight * value)",
        ("train_joint", "train_penalties"),
    ),
    Mutant(
        "images held out are those trained on",
        "train/steps.py",
        "me.watch(piece.held_out)",
        "me.watch(piece.real)",
        ("augment_loop",),
    ),
    Mutant(
        "gradients travel before the penalties' are added",
        "train/steps.py",
        "piece.last and not (apart or whole)",
        "piece.last",
        ("train_processes", "distributed"),
    ),
    Mutant(
        "the means of one process",
        "train/steps.py",
        'mean_over_ranks(d_stats[f"D/{name}"])',
        'd_stats[f"D/{name}"]',
        ("augment_loop", "train_processes"),
    ),
    Mutant(
        "one penalty of two of a kind is reported",
        "train/steps.py",
        "values[name] + value.detach() if name in values else value.detach()",
        "value.detach()",
        ("train_penalties",),
    ),
    Mutant(
        "labelled images without their repetition",
        "train/steps.py",
        "None if labelled is None else repeated(labelled, me.times)",
        "labelled",
        ("train_classes",),
    ),
)

OF_STYLEGANS = (
    Mutant(
        "lengths without the size of images",
        "losses/path_length.py",
        "y = noise / math.sqrt(images.shape[2] * images.shape[3])",
        "y = noise",
    ),
    Mutant("lengths add up over styles", "losses/path_length.py", ".sum(2).mean(1).sqrt()", ".sum(2).sum(1).sqrt()"),
    Mutant("squares of lengths", "losses/path_length.py", ".sum(2).mean(1).sqrt()", ".sum(2).mean(1)"),
    Mutant(
        "the mean of lengths counts as a constant",
        "losses/path_length.py",
        "return (lengths - mean).square()",
        "return (lengths - self.mean).square()",
    ),
    Mutant(
        "the mean of lengths keeps what it should forget",
        "losses/path_length.py",
        "mean = self.mean + self.decay *",
        "mean = self.mean + (1 - self.decay) *",
    ),
    Mutant(
        "each process has its own mean of lengths",
        "losses/path_length.py",
        "stack_ranks(lengths.mean()).mean()",
        "lengths.mean()",
    ),
    Mutant(
        "path lengths of the whole batch",
        "losses/path_length.py",
        "max(n // shrink, 1), device=seen.z.device) * shrink",
        "n, device=seen.z.device)",
    ),
    Mutant(
        "path lengths with the stored noise",
        "losses/path_length.py",
        'noise_mode: str = "random"',
        'noise_mode: str = "const"',
    ),
    Mutant(
        "path lengths of other classes",
        "losses/path_length.py",
        "self.memory(seen.net, told.x, told.y)",
        "self.memory(seen.net, told.x, None)",
    ),
    Mutant(
        "the share of steps the wrong way round",
        "losses/lazy.py",
        "interval / (interval + 1)",
        "(interval + 1) / interval",
    ),
    Mutant(
        "a correction for one step of every interval",
        "losses/lazy.py",
        "interval / (interval + 1)",
        "(interval - 1) / interval",
    ),
    Mutant(
        "the correction of one player for both",
        "losses/lazy.py",
        'term.own_step and term.player in (player, "both")',
        "term.own_step",
    ),
    Mutant(
        "a resumed or rebuilt term without its memory",
        "losses/lazy.py",
        "return LazyStep(self.term.at_work(net))",
        "return self",
    ),
    Mutant(
        "betas that are not corrected",
        "rules/optim.py",
        "betas=(raised(beta1, share), raised(beta2, share)))",
        "betas=self.betas)",
    ),
    Mutant(
        "betas scaled, not raised",
        "rules/optim.py",
        "schedule(nimg) ** power) if callable(schedule) else schedule**power",
        "schedule(nimg) * power) if callable(schedule) else schedule * power",
        ("lazy_step",),
    ),
    Mutant(
        "gamma by the side, not the area",
        "losses/gamma.py",
        "self.factor * size**2 / batch",
        "self.factor * size / batch",
    ),
    Mutant(
        "gamma that grows with the batch",
        "losses/gamma.py",
        "self.factor * size**2 / batch",
        "self.factor * size**2 * batch",
    ),
    Mutant(
        "the term's step is left out",
        "train/steps.py",
        "term.own_step == own] for own in (False, True)",
        "term.own_step == own] for own in (False, None)",
        ("lazy_step",),
    ),
    Mutant(
        "the term's step has the latents of the loss",
        "train/steps.py",
        "once = Piece(batch, gan.latents(batch, me.purpose_of_terms, nimg), labelled=known)",
        "once = Piece(batch, gan.latents(batch, me.purpose, nimg), labelled=known)",
        ("stylegan2_iteration",),
    ),
    Mutant(
        "pieces of the term's step have the latents of the loss",
        "train/steps.py",
        "gan.pieces(batch, me.purpose_of_terms, nimg, labelled=known)",
        "gan.pieces(batch, me.purpose, nimg, labelled=known)",
        ("lazy_step",),
    ),
    Mutant(
        "no constraint after the term's step",
        "train/steps.py",
        "    for then in me.after:\n        then(me.net)\n    return mean_of(stats) | added",
        "    return mean_of(stats) | added",
        ("lazy_step",),
    ),
    Mutant(
        "the term's step on images kept for G",
        "train/context.py",
        "else self.me.show_terms(self.piece)",
        "else self.me.show(self.piece)",
        ("lazy_step",),
    ),
    Mutant("mirrored up and down", "data/mirror.py", "x[..., ::-1]", "x[..., ::-1, :]"),
    Mutant(
        "mirrored images between the others",
        "data/mirror.py",
        "turned, plain = np.divmod(indices, len(self.dataset))",
        "plain, turned = np.divmod(indices, 2)",
    ),
    Mutant(
        "labels of mirrored images in another order",
        "data/mirror.py",
        "np.tile(dataset.labels, 2)",
        "np.repeat(dataset.labels, 2)",
    ),
    Mutant("a blur of base e", "augment/blur.py", "torch.exp2(", "torch.exp("),
    Mutant(
        "a Gaussian blur of that deviation", "augment/blur.py", "(i / self.sigma) ** 2", "(i / self.sigma) ** 2 / 2"
    ),
    Mutant("a blur cut at two sigma", "augment/blur.py", "math.floor(3 * self.sigma)", "math.floor(2 * self.sigma)"),
    Mutant(
        "a blur that never ends",
        "augment/blur.py",
        "max(1 - nimg / (self.settings.kimg * 1000), 0.0)",
        "0.5 ** (nimg / (self.settings.kimg * 1000))",
    ),
    Mutant(
        "R1's signs add up without their number",
        "augment/ada.py",
        "            self.verdicts += num_images\n        return",
        "            pass\n        return",
    ),
    Mutant(
        "rotations that fire at no p above 1",
        "augment/affine.py",
        "(1 - draws.p).clamp_min(0).sqrt()",
        "(1 - draws.p).sqrt()",
        ("augment_ada",),
    ),
    Mutant(
        "signs of all calls of D count as real",
        "train/context.py",
        "        return self.gan.critic\n",
        "        return self.critic_of_real\n",
        ("augment_ada",),
    ),
)

DATA = (
    Mutant(
        "padded pictures count as enlarged by their short side",
        "data/decode.py",
        'min(factors) if how == "pad" else max(factors)',
        "max(factors)",
    ),
    Mutant(
        "padded pictures lie in the corner",
        "data/decode.py",
        "((target[0] - width) // 2, (target[1] - height) // 2)",
        "(0, 0)",
    ),
    Mutant(
        "width and height exchanged", "data/decode.py", "target = shape[1], shape[0]", "target = shape", ("rectangles",)
    ),
    Mutant("a crop is as high as wide", "data/decode.py", "top + height))", "top + width))", ("rectangles",)),
    Mutant(
        "rectangles are stored without their width",
        "core/types.py",
        "if self.width is None else fields |",
        "if True else fields |",
    ),
    Mutant("prepared rectangles are refused", "data/images.py", "is_prepared(place):  # rect", "False:  # rect"),
    Mutant("rectangles halve while one side can", "nn/sizes.py", "min(height, width) >= 8", "max(height, width) >= 8"),
    Mutant(
        "networks for squares are built for rectangles",
        "config.py",
        "        require_shape(spec, self.generator, self.discriminator)\n",
        "",
    ),
    Mutant(
        "gamma of a rectangle counts its height",
        "losses/gamma.py",
        "math.sqrt(height * width)",
        "height",
        ("rectangles",),
    ),
    Mutant("pixels of turned pictures are compared", "metrics/base.py", "fake[0].size == real[0].size", "False"),
    Mutant("the last of two labels wins", "data/labels.py", "classes[name] != label", "name not in classes"),
    Mutant("train and val are classes", "data/labels.py", "if not splits and len(folders) > 1", "if False"),
    Mutant("files with equal ends are equal", "data/survey.py", "(size_of, ends_of, hash_of)", "(size_of, ends_of)"),
    Mutant(
        "chunks are not compared with their checksums",
        "data/prepared.py",
        "zlib.crc32(file.read((chunk.stop - chunk.start) * chunk.size)) == checksum",
        "checksum > 0",
    ),
    Mutant("what was written is emptied", "data/prepared.py", '"r+b" if path.exists() else "wb"', '"wb"'),
    Mutant(
        "changed files are taken for the old ones",
        "data/files.py",
        "repr((name, state_of(self.source, name)))",
        "repr(name)",
    ),
    Mutant(
        "labels move when broken files are left out", "data/files.py", "self.labels[kept]", "self.labels[: len(kept)]"
    ),
    Mutant("folders that systems make are read", "data/kinds.py", "part.lower() in IGNORED", "part == IGNORED"),
    Mutant(
        "shards of a WebDataset are classes",
        "data/sources.py",
        'name.partition("/")[2] if self._several else name.lstrip("/")',
        'name.lstrip("/")',
    ),
    Mutant("targets that a transform changes are believed", "data/foreign.py", "stored[0] == int(first)", "True"),
)

STYLES = (
    Mutant(
        "an up-convolution with its weight unflipped",
        "nn/filters.py",
        ".transpose(1, 2).flatten(0, 1)  # (I",
        ".transpose(1, 2).flatten(0, 1).flip(2, 3)  # (I",
    ),
    Mutant(
        "an upsampling that keeps the mean of its zeros",
        "nn/filters.py",
        "gain=up**2)",
        "gain=1.0)",
    ),
    Mutant(
        "the blur of a downsampling convolution off by a pixel",
        "nn/filters.py",
        "((taps + 1) // 2, taps // 2)",
        "(taps // 2, taps // 2 + 1)",
    ),
    Mutant(
        "demodulation by the styles, not their squares",
        "nn/modulated.py",
        "F.linear(styles.to(wide).square(), squares)",
        "F.linear(styles.to(wide), squares)",
    ),
    Mutant(
        "demodulation sees the input gain",
        "nn/modulated.py",
        "demodulation(weight, styles) if",
        "demodulation(weight, styles if input_gain is None else styles * input_gain) if",
    ),
    Mutant(
        "the clamp ignores the extra gain",
        "nn/scaled.py",
        "h.clamp(-clamp * gain, clamp * gain)",
        "h.clamp(-clamp, clamp)",
    ),
    Mutant(
        "a mapping's bias without its multiplier",
        "nn/scaled.py",
        "F.linear(h, self.weight * self.gain, bias)",
        "F.linear(h, self.weight * self.gain, self.bias)",
    ),
    Mutant(
        "the class embedding is not normalised",
        "nn/mapping.py",
        "[self.normalize(part) for part in inputs]",
        "[self.normalize(inputs[0]), *inputs[1:]]",
    ),
    Mutant(
        "the decay of w_avg reversed",
        "nn/mapping.py",
        ".lerp(self.w_avg, self.w_avg_beta)",
        ".lerp(self.w_avg, 1 - self.w_avg_beta)",
    ),
    Mutant(
        "the class head without 1 / √M",
        "nn/mapping.py",
        "return m / math.sqrt(m.shape[1])",
        "return m",
    ),
    Mutant(
        "a mixed style moves w_avg",
        "nn/styled.py",
        "y, update=False)",
        "y)",
    ),
    Mutant(
        "a cut before the first style",
        "nn/styled.py",
        "torch.randint(1, layers, ())",
        "torch.randint(0, layers, ())",
    ),
    Mutant(
        "toRGB is not clamped",
        "models/stylegan2.py",
        "return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)",
        "return x",
    ),
    Mutant(
        "toRGB without 1 / √inputs",
        "models/stylegan2.py",
        "cfg.conv_clamp, 1 / math.sqrt(c_in)",
        "cfg.conv_clamp, 1.0",
    ),
    Mutant(
        "toRGB reads the style of the layer before",
        "models/stylegan2.py",
        "= [styles[0], *styles]",
        "= [styles[0], *styles[:-1], styles[-2]]",
    ),
    Mutant(
        "G's residual layers without √½",
        "models/stylegan2.py",
        "style, noise_mode, gain=half)",
        "style, noise_mode)",
    ),
    Mutant(
        "D's residual layers without √½",
        "models/stylegan2.py",
        "return y + self.conv1(self.conv0(h), gain=half), image",
        "return y + self.conv1(self.conv0(h)), image",
    ),
    Mutant(
        "noise is left out",
        "models/stylegan2.py",
        "h.add_(scale * noise)",
        "h.add_(0 * noise)",
    ),
    Mutant(
        "noise without the gain of the activation",
        "models/stylegan2.py",
        "h.add_(scale * noise)",
        "h.add_(noise)",
    ),
    Mutant(
        "the epilogue's fromRGB is clamped",
        "models/stylegan2.py",
        "self.fromrgb = Layer(image_channels, width, 1)",
        "self.fromrgb = Layer(image_channels, width, 1, clamp=cfg.conv_clamp)",
    ),
    Mutant(
        "a learned noise image",
        "models/stylegan2.py",
        "else h.new_empty(len(h), 1, *h.shape[2:]).normal_()",
        "else h.new_empty(1, 1, *h.shape[2:]).normal_()",
    ),
    Mutant(
        "z and class of the first StyleGAN normalised apart",
        "nn/mapping.py",
        "h = self.normalize(torch.cat(inputs, dim=1))",
        "h = torch.cat([self.normalize(part) for part in inputs], dim=1)",
    ),
    Mutant(
        "√2 of the first StyleGAN's mapping on its biases",
        "nn/mapping.py",
        "F.leaky_relu(h, 0.2) if self.first_form else scaled_lrelu(h)",
        "scaled_lrelu(h)",
    ),
    Mutant(
        "a cut among layers that have not grown",
        "nn/styled.py",
        "self.num_ws if self.in_use is None else self.in_use()",
        "self.num_ws",
    ),
    Mutant(
        "a style of scale s instead of s + 1",
        "models/stylegan.py",
        "adaptive_norm(h, scale + 1, shift)",
        "adaptive_norm(h, scale, shift)",
    ),
    Mutant(
        "the norm before the activation",
        "models/stylegan.py",
        "return adaptive_norm(h, scale + 1, shift)",
        "return lrelu(adaptive_norm(h, scale + 1, shift))",
    ),
    Mutant(
        "the deviation with n - 1",
        "models/stylegan.py",
        "correction=0, keepdim=True)",
        "correction=1, keepdim=True)",
    ),
    Mutant(
        "a kernel widened by a turned one",
        "models/stylegan.py",
        "widened(self.weight.flip(2, 3))",
        "widened(self.weight)",
    ),
    Mutant(
        "a sum over 2x2 instead of the mean",
        "models/stylegan.py",
        "(self.gain / 4)",
        "self.gain",
    ),
    Mutant(
        "StyleGAN1's images fade in the wrong way",
        "models/stylegan.py",
        "enlarge(blocks[-2].image(smaller), 1), fade)",
        "enlarge(blocks[-2].image(smaller), 1), 1 - fade)",
    ),
    Mutant(
        "He's √2 in toRGB",
        "models/stylegan.py",
        "self.torgb = ScaledConv2d(c_out, image_channels, 1)",
        "self.torgb = he(ScaledConv2d(c_out, image_channels, 1))",
    ),
)

DOCTOR: tuple[Mutant, ...] = (
    Mutant(
        "products with Jᵀ",
        "doctor/field.py",
        "(product,) = torch.autograd.grad(self.pulled, self.cotangent, u, retain_graph=True, materialize_grads=True)",
        "product = flat(torch.autograd.grad(self.field.v(graph=True), self.field.weights, u, materialize_grads=True))",
    ),
    Mutant(
        "the gradients ascend",
        "doctor/field.py",
        "v = -torch.cat(parts)",
        "v = torch.cat(parts)",
    ),
    Mutant(
        "D's weights first in the field",
        "doctor/field.py",
        "v = -torch.cat(parts)",
        "v = -torch.cat(parts[::-1])",
    ),
    Mutant(
        "norms with PyTorch's own third derivatives",
        "doctor/field.py",
        "with WrittenOut(), Stops() as stops:",
        "with Stops() as stops:",
    ),
    Mutant(
        "a gradient that ends early counts as constant",
        "doctor/field.py",
        "            require_derivatives(v)\n",
        "",
    ),
    Mutant(
        "weights stay at another place",
        "doctor/field.py",
        "weight.data = values  # the same",
        "weight.data = weight.data  # the same",
    ),
    Mutant(
        "a stop holds in all derivatives",
        "doctor/stopped.py",
        "self.stopping = False",
        "self.stopping = True",
    ),
    Mutant(
        "no stop at all",
        "doctor/stopped.py",
        "return None if ctx.stops.stopping else slopes[0], None",
        "return slopes[0], None",
    ),
    Mutant(
        "a batch norm of each image",
        "doctor/norms.py",
        "dims = [0, *range(2, x.ndim)]",
        "dims = [*range(1, x.ndim)]",
    ),
    Mutant(
        "an unbiased variance in norms",
        "doctor/norms.py",
        "centred.square().mean(tuple(dims), keepdim=True)",
        "centred.var(tuple(dims), keepdim=True)",
    ),
    Mutant(
        "one pass of orthogonalisation",
        "doctor/arnoldi.py",
        "return w - second @ basis, first + second",
        "return w, first",
    ),
    Mutant(
        "a Krylov space that ends stays small",
        "doctor/arnoldi.py",
        "elif j + 1 < n:  # an invariant space",
        "elif False:",
    ),
    Mutant(
        "residuals as error bars",
        "doctor/arnoldi.py",
        "return self.condition * self.residuals",
        "return self.residuals",
    ),
    Mutant(
        "the first component of Ritz vectors",
        "doctor/arnoldi.py",
        "Y[-1].abs()",
        "Y[0].abs()",
    ),
    Mutant(
        "the attraction of the fastest motion",
        "doctor/landscape.py",
        "part[outer].argmax()",
        "part[outer].argmin()",
    ),
    Mutant(
        "small eigenvalues count",
        "doctor/landscape.py",
        "size > self.floor * size.max()",
        "size > 0 * size.max()",
    ),
    Mutant(
        "the best motion decides",
        "doctor/landscape.py",
        "values.imag.abs()).max() for",
        "values.imag.abs()).min() for",
    ),
    Mutant(
        "the path from b to a",
        "doctor/path.py",
        "with field.at(a.to(line) + alpha * line):",
        "with field.at(b.to(line) - alpha * line):",
    ),
    Mutant(
        "an average of D beside G's",
        "doctor/path.py",
        "with field.at(torch.cat([place[: field.sizes[0]], last[field.sizes[0] :]])):",
        "with field.at(place):",
    ),
    Mutant(
        "a lazy term counts as often as it is due",
        "train/geometry.py",
        "term.weight(seen.nimg) * term.of(seen)",
        "term.every * term.weight(seen.nimg) * term.of(seen)",
        ("landscape",),
    ),
    Mutant(
        "the field draws anew",
        "train/geometry.py",
        "with unmoved(parts(gan)), seeded(gan, nimg):",
        "with unmoved(parts(gan)):",
        ("landscape",),
    ),
    Mutant(
        "buffers move with the field",
        "train/geometry.py",
        "with unmoved(parts(gan)), seeded(gan, nimg):",
        "with seeded(gan, nimg):",
        ("landscape",),
    ),
    Mutant(
        "power iterations in the field",
        "train/geometry.py",
        "                layer.parametrizations.eval()\n",
        "                layer.parametrizations.train()\n",
        ("landscape",),
    ),
    Mutant(
        "generated images without a graph",
        "train/geometry.py",
        "shown = gan.showing.to_both(piece)",
        "shown = gan.showing.to_terms_of_d(piece)",
        ("landscape",),
    ),
)

MUTANTS: tuple[Mutant, ...] = (
    *AUGMENT,
    *DATA,
    *COMPUTE,
    *LOSSES,
    *PENALTIES,
    *REGULARIZERS,
    *METRICS,
    *GENERATORS,
    *NETWORKS,
    *STYLES,
    *FILTERED,
    *WEIGHTS,
    *RULES,
    *TRAIN,
    *OF_STYLEGANS,
    *DOCTOR,
)
