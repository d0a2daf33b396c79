"""Push a run's generator to the Hugging Face Hub: an export with its model card, uploaded in one commit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from equipoise.core.tensorfile import unpack
from equipoise.runs import NETWORKS, hub_name, upload

from .export import FOLDER_FILES, described_by, networks_beside, save_hub_folder
from .generator import IN_FOLDER, IN_RUN, Generator, truncated
from .modelcard import Published

__all__ = ["Pushed", "push"]


class Pushed(NamedTuple):
    """A push. files: names and sizes in bytes.  address: of the repository; None if nothing was uploaded."""

    files: tuple[tuple[str, int], ...]
    address: str | None


def push(
    place: str | Path,
    name: str,
    *,
    private: bool = False,
    with_discriminator: bool = False,
    truncation: float | None = None,
    licence: str | None = None,
    known: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> Pushed:
    """Upload the generator in `place` to the repository `name` on the Hub, and make it if it is not there.

    A run or its best/ is exported first, as `save_hub_folder` does. A folder that `export` has made is uploaded as it
    is, with the changes made to its README.md: only files of an export, and no others that lie there. The token is the
    one of huggingface_hub's login.

    private: make a repository that only you see. A public one of that name is refused.
    with_discriminator, truncation, known: as in `export`.
    licence: the Hub's name of the licence, for the model card.
    dry_run: change nothing on the Hub; huggingface_hub is not needed.

    Raises:
        ValueError: for another kind of name, a damaged or missing generator, a folder with settings that belong to its
            export, or without the extra `hub`.
        RunError: if the upload fails.
    """
    place = Path(place)
    repo = hub_name(name if name.startswith("hf:") else f"hf://{name}")
    if repo is None or repo.revision is not None:
        raise ValueError(f"{name!r:.100} is not a name on the Hub: give your name and the model's, such as you/faces")
    with TemporaryDirectory(prefix="equipoise-push-") as temporary:
        if (place / IN_FOLDER).is_file() and not (place / IN_RUN).is_file():
            settings = {"--with-discriminator": with_discriminator, "--truncation": truncation, "--licence": licence}
            require_as_it_is(place, [option for option, value in settings.items() if value])
            folder = place
        else:
            folder = Path(temporary) / "export"
            generator = Generator.from_pretrained(place, known)
            networks = networks_beside(place) if with_discriminator else None
            save_hub_folder(
                generator if truncation is None else truncated(generator, truncation),
                described_by(place, known),
                folder,
                networks=networks,
                published=Published(repo.name, licence),
            )
        files = [name for name in FOLDER_FILES if (folder / name).is_file()]
        sizes = tuple((name, (folder / name).stat().st_size) for name in files)
        return Pushed(sizes, None if dry_run else upload(folder, files, repo.name, private=private))


def require_as_it_is(folder: Path, settings: list[str]) -> None:
    """Raises ValueError for settings of an export that is there already, and for files that are missing or damaged."""
    if settings:
        raise ValueError(
            f"{folder} is exported already, and {', '.join(settings)} belongs to the export: leave it out, or push "
            "the run"
        )
    if not (folder / "README.md").is_file():
        raise ValueError(
            f"{folder} has no README.md, the model card: export it with `equipoise export --to hub-folder`"
        )
    for name in (str(IN_FOLDER), NETWORKS):
        if (folder / name).is_file():
            unpack(folder / name)
