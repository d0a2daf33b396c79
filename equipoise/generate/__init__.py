"""A trained generator at work: samples, walks, exports."""

from .export import FOLDER_FILES, FORMATS, export, save_hub_folder, save_onnx, save_program
from .frames import require_writable, write_frames, write_grid
from .generator import Generator, draw_latents, generator_file, glance, images, sample, save_generator, truncated
from .imported import Imported, import_published
from .loops import closed_loop, periodic_spline
from .modelcard import Published, grid_of, model_card
from .pictures import grid, png
from .push import Pushed, push
from .saved import Latents, draw_of_latents, latents_of, load_latents, save_latents
from .standing import averaged_generator, standing_statistics, with_standing_statistics
from .style_space import images_of_styles, mixing_grid, styles, truncated_in_w
from .walks import Latent, arithmetic, arithmetic_grid, interpolate, latent, mean_latent, mixed_classes
from .write import write_latents, write_samples

__all__ = [
    "FOLDER_FILES",
    "FORMATS",
    "Generator",
    "Imported",
    "Latent",
    "Latents",
    "Published",
    "Pushed",
    "arithmetic",
    "arithmetic_grid",
    "averaged_generator",
    "closed_loop",
    "draw_latents",
    "draw_of_latents",
    "export",
    "generator_file",
    "glance",
    "grid",
    "grid_of",
    "images",
    "images_of_styles",
    "import_published",
    "interpolate",
    "latent",
    "latents_of",
    "load_latents",
    "mean_latent",
    "mixed_classes",
    "mixing_grid",
    "model_card",
    "periodic_spline",
    "png",
    "push",
    "require_writable",
    "sample",
    "save_generator",
    "save_hub_folder",
    "save_latents",
    "save_onnx",
    "save_program",
    "standing_statistics",
    "styles",
    "truncated",
    "truncated_in_w",
    "with_standing_statistics",
    "write_frames",
    "write_grid",
    "write_latents",
    "write_samples",
]
