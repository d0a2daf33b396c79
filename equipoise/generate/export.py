"""A trained generator for other programs: plain weights, an ONNX model, a torch program, a folder to publish."""

from __future__ import annotations

import io
import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equipoise.core.extras import install
from equipoise.core.files import replace_file, writing
from equipoise.core.grammar import suggest
from equipoise.nn import LevelOfDetail
from equipoise.runs import NETWORKS, NOTICE, Networks, Run, config_text, networks_of, notice_of, read_run, save_networks

from .generator import IN_FOLDER, Generator, save_generator, truncated
from .modelcard import Published, grid_of, model_card
from .pictures import grid, png
from .write import require_empty

__all__ = ["FOLDER_FILES", "FORMATS", "export", "save_hub_folder", "save_onnx", "save_program"]

FORMATS = {"safetensors": ".safetensors", "onnx": ".onnx", "pt2": ".pt2", "hub-folder": ""}
"""Export format -> ending of the file's name; "" for a folder."""

FOLDER_FILES = ("README.md", "config.json", "config.txt", str(IN_FOLDER), NETWORKS, "samples.png", NOTICE)
"""Files that an exported folder may hold."""


def export(
    place: str | Path,
    to: str,
    out: Path | None = None,
    *,
    truncation: float | None = None,
    with_discriminator: bool = False,
    known: Mapping[str, Any] | None = None,
) -> Path:
    """Export the generator in `place`, a run or its best/, to the format `to` -> its path. Normalisers are folded away.

    to:
        "safetensors": weights and settings in one file, for `Generator.from_pretrained`.
        "onnx": `save_onnx`.  "pt2": `save_program`.  "hub-folder": `save_hub_folder`.
    out: the file or folder to make; None: generator.onnx and the like, or hub-folder. An existing file is replaced. A
        folder must be empty or new.
    truncation: threshold at which the generator is truncated before the export; see `truncated`.
    with_discriminator: a hub-folder also holds G, D and the average of G of the newest checkpoint. Other runs start
        from them: ``start=Transfer(run=FOLDER)``.
    known: your own components by name, which the run's config calls beside the library's.

    Raises:
        ValueError: for an unknown format, a file name that does not fit the format, a missing or damaged generator, or
            missing packages that the format needs.
        RunError: if the export cannot be written.
    """
    if to not in FORMATS:
        raise ValueError(f"cannot export to {to!r}{suggest(to, FORMATS)}")
    ending = FORMATS[to]
    out = Path(f"generator{ending}" if ending else to) if out is None else out
    if out.suffix != ending:
        what = f"a file, NAME{ending}" if ending else "a folder, NAME without an ending"
        raise ValueError(f"{to} is {what}; got {out}")
    if with_discriminator and to != "hub-folder":
        raise ValueError(f"D is for a folder that other runs start from: export to hub-folder, or {to} without D")
    if to == "hub-folder":
        require_empty(out)
    if to == "onnx":
        require_onnx()
    place = Path(place)
    generator = Generator.from_pretrained(place, known)
    if truncation is not None:
        generator = truncated(generator, truncation)
    match to:
        case "safetensors":
            with writing(out):
                save_generator(generator, out)
        case "onnx":
            save_onnx(generator, out)
        case "pt2":
            save_program(generator, out)
        case "hub-folder":
            run, networks = described_by(place, known), networks_beside(place) if with_discriminator else None
            save_hub_folder(generator, run, out, networks=networks)
    return out


def is_best(place: Path) -> bool:
    """Whether `place` is the best/ of a run, whose config is the run's."""
    return place.name == "best" and not (place / "config.txt").exists()


def described_by(place: Path, known: Mapping[str, Any] | None = None) -> Run:
    """The run that trained the generator in `place`, a run, its best/ or an exported folder."""
    return read_run(place.parent if is_best(place) else place, known)


def networks_beside(place: Path) -> Networks:
    """G, D and the average of G in `place`. Raises ValueError for best/, which keeps the generator alone."""
    if is_best(place):
        raise ValueError(f"{place} keeps the generator alone: give the run itself, {place.parent}, to export D as well")
    return networks_of(place)


# ---- as a program ----------------------------------------------------------------------------------------


class OfNoise(nn.Module):
    """An unconditional generator as a function of z alone."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.net(z, None)
        return x


class Constant(nn.Module):
    """Replacement for a `LevelOfDetail` once the network is fully grown: a program cannot branch on a tensor."""

    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self) -> float:
        return self.value


def stop_growing(net: nn.Module) -> None:
    """Replace every level of detail in `net` by a constant, in place."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LevelOfDetail):
                setattr(parent, name, Constant(child()))


@torch.no_grad()
def traced(generator: Generator) -> torch.export.ExportedProgram:
    """The program z (N, z_dim) float32, y (N,) int64 if conditional -> x (N, C, H, W), on the CPU, for any N >= 1."""
    net, config = generator.folded().net, generator.config
    stop_growing(net)
    N = torch.export.Dim("N", min=1)
    z, y = torch.zeros(2, config.z_dim), torch.zeros(2, dtype=torch.int64)  # tracing takes a size of 1 for a constant
    given = {"z": z, "y": y} if generator.conditional else {"z": z}
    program = torch.export.export(
        net if generator.conditional else OfNoise(net),
        tuple(given.values()),
        dynamic_shapes={name: {0: N} for name in given},
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths and source lines of the exporting machine are private
    return program


def save_program(generator: Generator, path: Path) -> None:
    """Write a .pt2 file: `torch.export.load(path).module()` is x = G(z), or G(z, y), and needs torch alone.

    z (N, z_dim) float32, y (N,) int64 -> x (N, C, H, W) in [-1, 1], any N. Its extra file "equipoise.json" holds the
    generator's settings.
    """
    content = io.BytesIO()
    torch.export.save(traced(generator), content, extra_files={"equipoise.json": json.dumps(generator.about)})
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.getvalue())


def require_onnx() -> None:
    """Raise ValueError if the packages that write ONNX are missing."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"ONNX models need onnx and onnxscript: {install('export')}") from error


def save_onnx(generator: Generator, path: Path) -> None:
    """Write an ONNX model with inputs z (N, z_dim) float32 and, if conditional, y (N,) int64, and output x.

    x (N, C, H, W) float32 in [-1, 1], any N. The model's metadata holds the generator's settings.

    Raises:
        ValueError: without the extra `export`.
    """
    require_onnx()
    import onnx

    program = traced(generator)
    names = [name for name in ("z", "y") if name == "z" or generator.conditional]
    with of_torch_itself():
        converted = torch.onnx.export(program, dynamo=True, input_names=names, output_names=["x"], verbose=False)
    assert converted is not None
    model = converted.model_proto
    name_batch_size(model)
    del model.graph.metadata_props[:]
    onnx.helper.set_model_props(model, generator.about)
    onnx.checker.check_model(model)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, model.SerializeToString())


def name_batch_size(model: Any) -> None:
    """Rename the batch dimension to N everywhere in the model. Torch names it after a symbol, such as s17."""
    graph = model.graph
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
                dim.dim_param = "N"


@contextmanager
def of_torch_itself() -> Iterator[None]:
    """Silence messages of torch's exporter about torch: a deprecation in its own calls, operators of torchvision."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


# ---- as a folder -----------------------------------------------------------------------------------------


def save_hub_folder(
    generator: Generator,
    run: Run,
    out: Path,
    *,
    networks: Networks | None = None,
    published: Published | None = None,
) -> None:
    """Make a folder to publish, as `huggingface_hub.upload_folder` takes it and `Generator.from_pretrained` reads it.

    README.md is the model card. model.safetensors holds weights and settings, and config.json the settings for other
    programs. config.txt is the run's config, and samples.png a grid that nobody has selected. NOTICE.txt is there if
    the run has one. The folder appears complete or not at all.

    run: the run that trained the generator.
    networks: G, D and the average of G, for networks.safetensors; None leaves it out.
    published: the name and the licence for the model card.

    Raises:
        ValueError: if `out` exists and is not an empty directory.
        RunError: if the folder cannot be written.
    """
    require_empty(out)
    columns, num = grid_of(generator)
    about = {
        "library_name": "equipoise",
        "generator": repr(generator.config),
        "spec": generator.spec.stored,
        "truncation": generator.truncation,
        "nimg": generator.nimg,
    }
    picture = png(grid(generator.sample(num, seed=0), columns))
    texts = {
        "README.md": model_card(generator, run, published or Published(), both=networks is not None),
        "config.json": json.dumps(about, indent=2) + "\n",
        "config.txt": config_text(run.folder / "config.txt"),
    }
    if notice := notice_of(run.folder):
        texts[NOTICE] = f"{notice}\n"
    out = out.resolve()
    temporary = out.with_name(f".{out.name}.tmp")
    with writing(out):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for name, text in texts.items():
                replace_file(temporary / name, text.encode())
            replace_file(temporary / "samples.png", picture)
            save_generator(generator, temporary / IN_FOLDER)
            if networks is not None:
                save_networks(networks, temporary / NETWORKS)
            temporary.replace(out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
