"""A page (HTML) that plays a file and shows what each phrase means in it; it loads nothing and works offline."""

import base64
import html
import io
import json
from importlib.resources import files as package_files

import numpy as np
from PIL import Image

from .colours import colour_levels, scale_to
from .files import FilePhrase, GroundedFile
from .preview import HEIGHT, make_preview
from .spectrogram import read_spectrogram

# Digits of the values of maps in the page.
DIGITS = 3


def make_page(file: GroundedFile) -> str:
    """The page of a grounded file: phrases with their weights, maps over the picture, maps over the spectrogram, and
    moments to play from.

    Raises:
        MediaError: when the file can no longer be read.
    """
    template = package_files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    # "<" is escaped in the data, so that no text can end the script.
    data = json.dumps(describe(file)).replace("<", "\\u003c")
    return template.replace("{{title}}", html.escape(file.text)).replace("{{data}}", data)


def describe(file: GroundedFile) -> dict:
    """What the page's script reads."""
    window = file.window
    picture = sound = spectrogram = None
    if file.is_image:
        picture = embed_picture(file.sources["video"])
    else:
        source = next(iter(file.sources.values()))
        film = make_preview(source, *window, file.name)
        sound = {
            "src": f"data:video/mp4;base64,{base64.b64encode(film).decode()}",
            "hasPicture": "video" in file.groundings,
        }
    if "audio" in file.groundings:
        drawn = read_spectrogram(file.sources["audio"], *file.groundings["audio"].window, file.name)
        grey = Image.fromarray((255 * drawn.levels[::-1]).astype(np.uint8))
        marks = [[round(place, 4), label] for place, label in drawn.marks()]
        spectrogram = {"src": embed_picture(grey), "marks": marks}
    return {
        "name": file.name,
        "text": file.text,
        "window": window,
        "picture": picture,
        "film": sound,
        "spectrogram": spectrogram,
        "area": file.groundings["video"].area if "video" in file.groundings else None,
        "steps": {modality: grounding.steps for modality, grounding in file.groundings.items()},
        "phrases": [describe_phrase(phrase) for phrase in file.phrases()],
        "colours": colour_levels(np.linspace(0, 1, 33)[None])[0].tolist(),
    }


def describe_phrase(phrase: FilePhrase) -> dict:
    """A phrase, and in each modality its weight, similarity, confidence, map from 0 to 1, box and seconds."""
    found = {
        modality: {
            "weight": round(part.weight, DIGITS),
            "similarity": round(part.similarity, DIGITS),
            "confidence": part.confidence,
            "sure": phrase.is_sure(modality),
            "map": np.round(scale_to(part.attention).numpy().astype(float), DIGITS).tolist(),
            "box": part.box,
            "seconds": part.seconds,
        }
        for modality, part in phrase.found.items()
    }
    return {"phrase": phrase.phrase, "chatter": phrase.is_chatter, "found": found}


def embed_picture(picture: Image.Image) -> str:
    """A picture as a data address; larger ones are scaled down."""
    picture = picture.convert("RGB" if picture.mode != "L" else "L")
    if picture.height > 2 * HEIGHT:
        picture = picture.resize((round(picture.width * 2 * HEIGHT / picture.height), 2 * HEIGHT))
    file = io.BytesIO()
    picture.save(file, "PNG" if picture.mode == "L" else "JPEG")
    kind = "png" if picture.mode == "L" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
