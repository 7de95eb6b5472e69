"""A file grounded: what each phrase of a text means in its pictures and its sound."""

import os
from dataclasses import dataclass
from pathlib import Path

from modeling_fgmm import FgmmModel, GroundedPhrase, Grounding
from processing_fgmm import FgmmProcessor
from processing_fgmm.media_fgmm import MediaError, probe_media, read_image, unwrap_file

from ..cli import UserError
from ..paths import check_exists

# A phrase with less than this share of the weight that it would have if all had the same is chatter.
CHATTER = 0.4
# The least confidence with which a phrase counts as shown: on the narrated corpus nine in ten of its own phrases have
# it (model_cards/results/grounding_fine.json).
SURE = 0.9


@dataclass
class FilePhrase:
    """A phrase in the modalities that the model compares with text.

    Args:
        phrase: its words.
        found: under "video" and "audio", what it means there.
        is_chatter: whether it has hardly any weight in any of them.
    """

    phrase: str
    found: dict[str, GroundedPhrase]
    is_chatter: bool

    def is_sure(self, modality: str) -> bool:
        """Whether it fits the clip better than nearly all foreign phrases."""
        confidence = self.found[modality].confidence
        return confidence is None or confidence >= SURE


@dataclass
class GroundedFile:
    """A file, a text, and what the text's phrases mean in the file.

    Args:
        name: of the file, for people.
        text: the text.
        sources: under "video" and "audio" the file's path or bytes; of an image the picture.
        groundings: by modality, of those that the file has and the model compares with text.
        is_image: whether the video is one picture.
    """

    name: str
    text: str
    sources: dict
    groundings: dict[str, Grounding]
    is_image: bool = False

    @property
    def score(self) -> float:
        """The sum of the text's scores with the modalities."""
        return sum(grounding.score for grounding in self.groundings.values())

    @property
    def window(self) -> tuple[float, float] | None:
        """The seconds that the model was shown; None of an image."""
        return next((grounding.window for grounding in self.groundings.values() if grounding.window), None)

    def phrases(self) -> list[FilePhrase]:
        """The phrases in the order of the text; the text as a whole where it has no phrases of its own."""
        lists = [grounding.phrases for grounding in self.groundings.values()]
        phrases = []
        for parts in zip(*lists, strict=True):
            least = CHATTER / len(lists[0])
            is_chatter = len(lists[0]) > 1 and all(part.weight < least for part in parts)
            found = dict(zip(self.groundings, parts, strict=True))
            phrases.append(FilePhrase(parts[0].phrase, found, is_chatter))
        return phrases


def ground_file(
    model: FgmmModel,
    processor: FgmmProcessor,
    text: str,
    *,
    video=None,
    image=None,
    audio=None,
    start: float = 0.0,
    end: float | None = None,
    name: str | None = None,
) -> GroundedFile:
    """Grounds a text in a file, in its pictures and its sound where the model compares text with both.

    Args:
        model, processor: in evaluation mode, as loaded.
        text: a caption.
        video, image, audio: one of them, a path or bytes; of a video its sound is grounded in, too.
        start, end: the part of the file, seconds; end None: its end.
        name: of the file, for people; None: that of its path.

    Raises:
        UserError: when the model compares text with nothing that the file has.
        MediaError, ValueError: as [`~FgmmModel.ground`].
    """
    given = next(item for item in (video, image, audio) if item is not None)
    name = name or (os.path.basename(given) if isinstance(given, (str, os.PathLike)) else "the file")
    sources: dict = {}
    if image is not None:
        sources["video"] = read_image(unwrap_file(image), name)
    else:
        info = probe_media(given, name)
        if video is not None and info.has_video:
            sources["video"] = given
        if info.has_audio:
            sources["audio"] = given
    sources = {modality: source for modality, source in sources.items() if f"text_{modality}" in model.objectives}
    if not sources:
        raise UserError(f"{name} has nothing that this model compares with text ({', '.join(model.objectives)}).")
    options = {"start": start, "end": end, "processor": processor}
    groundings = {}
    for modality, source in sources.items():
        argument = "image" if image is not None else modality
        groundings[modality] = model.ground(text, **{argument: source}, **options)
    return GroundedFile(name, text, sources, groundings, is_image=image is not None)


def ground_path(
    model: FgmmModel,
    processor: FgmmProcessor,
    text: str,
    start: float,
    end: float | None,
    given: dict[str, Path | None],
) -> GroundedFile:
    """As [`ground_file`], of a path that a user gave.

    Args:
        given: the path under "video", "image" or "audio", None under the others.

    Raises:
        UserError: when the path does not exist, or the text or the sound cannot be grounded.
        MediaError: when the file cannot be decoded.
    """
    kind, path = next((kind, path) for kind, path in given.items() if path is not None)
    check_exists(path, f"give the path of a file as --{kind}")
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the path of a file as --{kind}.")
    try:
        return ground_file(model, processor, text, **{kind: str(path)}, start=start, end=end)
    except MediaError:
        raise
    except ValueError as error:  # what is wrong with the text or the sound, in a sentence
        raise UserError(str(error)) from error
