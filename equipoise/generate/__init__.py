"""A trained generator at work: samples, walks, exports."""

from .export import FORMATS, export, save_hub_folder, save_onnx, save_program
from .frames import require_writable, write_frames, write_grid
from .generator import Generator, draw_latents, generator_file, images, sample, save_generator, truncated
from .imported import Imported, import_published
from .modelcard import grid_of, model_card
from .standing import averaged_generator, standing_statistics, with_standing_statistics
from .walks import Latent, arithmetic, arithmetic_grid, interpolate, latent, mean_latent, mixed_classes
from .write import grid, png, write_samples

__all__ = [
    "FORMATS",
    "Generator",
    "Imported",
    "Latent",
    "arithmetic",
    "arithmetic_grid",
    "averaged_generator",
    "draw_latents",
    "export",
    "generator_file",
    "grid",
    "grid_of",
    "images",
    "import_published",
    "interpolate",
    "latent",
    "mean_latent",
    "mixed_classes",
    "model_card",
    "png",
    "require_writable",
    "sample",
    "save_generator",
    "save_hub_folder",
    "save_onnx",
    "save_program",
    "standing_statistics",
    "truncated",
    "with_standing_statistics",
    "write_frames",
    "write_grid",
    "write_samples",
]
