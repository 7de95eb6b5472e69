"""What the weights of a model began from: other models, here or on the Hub, and their licences."""

from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HFValidationError, HTTPError

from ..cli import UserError
from .results import read_json

# How long the Hub may take to answer what the licence of a model is, seconds.
TIMEOUT = 10.0


@dataclass(frozen=True)
class Origin:
    """A model that weights began from.

    Args:
        name: on the Hub, or a folder.
        on_hub: whether the Hub has it under this name.
        license_id: as the Hub names it; None where it is unknown.
    """

    name: str
    on_hub: bool
    license_id: str | None


def find_origins(folder: Path) -> list[Origin]:
    """The models that the weights in a folder began from; none where they were trained from random weights alone.

    A folder that a training run began from is followed to what that began from.

    Args:
        folder: of an fgmm model.
    """
    origins, open_folders, followed = {}, [folder], set()
    while open_folders:
        here = open_folders.pop(0)
        if here.resolve() in followed:  # trained in place
            continue
        followed.add(here.resolve())
        for name in list_sources(here):
            if is_fgmm_folder(Path(name)) and Path(name).resolve() != here.resolve():
                open_folders.append(Path(name))
            else:
                origins[name] = describe_origin(name)
    return list(origins.values())


def list_sources(folder: Path) -> list[str]:
    """The names of the models that the weights in a folder were made of, its own where that is not known."""
    config = read_json(folder / "config.json")
    encoders = [config[f"{modality}_config"].get("_name_or_path", "") for modality in config["modalities"]]
    named = [name for name in encoders if name]  # by FgmmModel.from_encoders
    if init_from := read_settings(folder).get("init_from"):
        return [init_from, *named]
    untold = len(named) < len(encoders) and read_training(folder) is None
    return [str(folder), *named] if untold else named


def is_fgmm_folder(folder: Path) -> bool:
    """Whether a folder holds an fgmm model."""
    path = folder / "config.json"
    return path.exists() and read_json(path).get("model_type") == "fgmm"


def describe_origin(name: str) -> Origin:
    """A model by its name: a folder, whose card is read where it has one, or a repository on the Hub."""
    if Path(name).exists():
        card = Path(name) / "README.md"
        return Origin(name, False, ModelCard.load(card).data.license if card.exists() else None)
    try:
        card_data = HfApi().model_info(name, timeout=TIMEOUT).card_data
    except (HTTPError, OSError, HFValidationError):
        return Origin(name, False, None)
    return Origin(name, True, card_data and card_data.license)


def choose_license(folder: Path, origins: list[Origin]) -> str | None:
    """The licence of what the weights in a folder began from; None where they began from random ones.

    Raises:
        UserError: when it is unknown, or there are several.
    """
    remedy = "name the licence of the weights by --license"
    for origin in origins:
        if origin.license_id is None:
            begin = "are of unknown origin" if Path(origin.name) == folder else f"began from {origin.name!r}"
            lack = "" if Path(origin.name) == folder else ", whose licence is not known"
            raise UserError(f"The weights in {folder} {begin}{lack}; {remedy}.")
    licenses = {origin.license_id: origin.name for origin in origins}
    if len(licenses) > 1:
        named = ", ".join(f"{name}: {license_id}" for license_id, name in licenses.items())
        raise UserError(f"The weights in {folder} began from models of different licences ({named}); {remedy}.")
    return next(iter(licenses), None)


def read_training(folder: Path) -> dict | None:
    """The record of the training run that scripts/pretrain.py wrote; None without."""
    path = folder / "training.json"
    return read_json(path) if path.exists() else None


def read_settings(folder: Path) -> dict:
    """The settings of the training run that scripts/pretrain.py wrote; empty without."""
    path = folder / "pretrain.yaml"
    return yaml.safe_load(path.read_text()) if path.exists() else {}
