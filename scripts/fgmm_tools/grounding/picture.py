"""Pictures (PNG) of what phrases mean: a row a phrase, over frames at their moments and over the spectrogram."""

from pathlib import Path
from textwrap import fill, shorten

import matplotlib
import numpy as np

from modeling_fgmm import GroundedPhrase
from processing_fgmm.media_fgmm import probe_media, read_frames

from ..records import whole_file
from .colours import COLOUR_MAP, colour_levels, colour_spectrogram, fade, map_over_frame, scale_to
from .files import FilePhrase, GroundedFile
from .spectrogram import Spectrogram, read_spectrogram

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.patches import Rectangle

MAX_MOMENTS, MAX_PHRASES = 4, 8
ROW, CHATTER_ROW, TITLE = 1.55, 0.34, 0.62  # inches
LABEL_WIDTH, SOUND_WIDTH, LEAST_WIDTH = 2.3, 3.6, 8.0
DPI = 110
SHADE = {"video": "#00204d", "audio": "#a08a2e"}  # from both ends of the colour map
SIGNS = {"video": "picture", "audio": "sound"}


def draw_files(files: list[GroundedFile], output: Path) -> None:
    """Draws grounded files below each other.

    Args:
        output: a PNG file.

    Raises:
        MediaError: when a file can no longer be read.
    """
    parts = [FilePicture(file) for file in files]
    width = max(LEAST_WIDTH, *(part.width for part in parts))
    heights = [part.height for part in parts]
    figure = plt.figure(figsize=(width, sum(heights) + 0.55))
    rows = figure.subfigures(len(parts) + 1, 1, height_ratios=[*heights, 0.55], squeeze=False)[:, 0]
    for part, space in zip(parts, rows, strict=False):
        part.draw(space, width)
    draw_legend(rows[-1], any("audio" in file.groundings for file in files))
    with whole_file(output) as partial:
        figure.savefig(partial, dpi=DPI)
    plt.close(figure)


class FilePicture:
    """The part of a picture that shows one file: its text, and a row for each phrase.

    Args:
        file: the grounded file.
    """

    def __init__(self, file: GroundedFile):
        self.file = file
        phrases = file.phrases()
        shown = [phrase for phrase in phrases if not phrase.is_chatter]
        by_weight = sorted(shown, key=lambda phrase: -max(part.weight for part in phrase.found.values()))
        self.shown = [phrase for phrase in shown if phrase in by_weight[:MAX_PHRASES]]
        self.rest = [phrase for phrase in phrases if phrase not in self.shown]
        self.spectrogram: Spectrogram | None = None
        if "audio" in file.groundings and file.groundings["audio"].window:
            self.spectrogram = read_spectrogram(file.sources["audio"], *file.groundings["audio"].window, file.name)
        self.frame_width = ROW * 0.78 * self.aspect() if "video" in file.groundings else 0.0

    def aspect(self) -> float:
        """Width over height of the frames."""
        if self.file.is_image:
            return self.file.sources["video"].width / self.file.sources["video"].height
        info = probe_media(self.file.sources["video"], self.file.name)
        return info.width / info.height

    @property
    def num_moments(self) -> int:
        """Frames in a row."""
        return min(MAX_MOMENTS, len(self.file.groundings["video"].attention)) if "video" in self.file.groundings else 0

    @property
    def width(self) -> float:
        """Inches."""
        sound = SOUND_WIDTH if self.spectrogram else 0.0
        return LABEL_WIDTH + self.num_moments * (self.frame_width + 0.12) + sound + 0.3

    @property
    def height(self) -> float:
        """Inches."""
        return TITLE + ROW * len(self.shown) + CHATTER_ROW * bool(self.rest) + 0.1

    def draw(self, space: SubFigure, width: float) -> None:
        """Draws into a part of the figure that is `width` inches wide."""
        window = self.file.window
        when = f", {window[0]:.1f} to {window[1]:.1f} s" if window else ""
        space.text(0.08 / width, 1 - 0.2 / self.height, f"“{shorten(self.file.text, 150)}”", fontsize=10, va="center")
        note = f"{self.file.name}{when}"
        space.text(0.08 / width, 1 - 0.42 / self.height, note, fontsize=8, color="#555555", va="center")
        for index, phrase in enumerate(self.shown):
            top = TITLE + index * ROW
            self.draw_row(space, phrase, top, width)
        if self.rest:
            self.draw_rest(space, width)

    def place(self, space: SubFigure, left: float, top: float, width: float, height: float, full: float) -> Axes:
        """Axes at a place in inches, from the left and from the top."""
        return space.add_axes((left / full, 1 - (top + height) / self.height, width / full, height / self.height))

    def draw_row(self, space: SubFigure, phrase: FilePhrase, top: float, full: float) -> None:
        """The bars of a phrase, its frames and its sound."""
        self.draw_bars(self.place(space, 0.08, top + 0.1, LABEL_WIDTH - 0.25, ROW - 0.42, full), phrase)
        left = LABEL_WIDTH
        if "video" in phrase.found:
            for moment in self.choose_moments(phrase.found["video"]):
                axis = self.place(space, left, top + 0.08, self.frame_width, ROW * 0.78, full)
                self.draw_frame(axis, phrase, moment)
                left += self.frame_width + 0.12
        if self.spectrogram:
            axis = self.place(space, left + 0.45, top + 0.08, SOUND_WIDTH - 0.55, ROW * 0.74, full)
            draw_sound(axis, self.spectrogram, phrase.found["audio"], phrase.is_sure("audio"))

    def choose_moments(self, phrase: GroundedPhrase) -> list[int]:
        """The steps of the map that are drawn, those with the most attention, in the order of time."""
        over_time = phrase.attention.flatten(1).amax(1)
        return sorted(over_time.argsort(descending=True, stable=True)[: self.num_moments].tolist())

    def draw_bars(self, axis: Axes, phrase: FilePhrase) -> None:
        """The phrase, its weight in the caption and how sure it is, in each modality."""
        axis.set_title(fill(phrase.phrase, 26), fontsize=9.5, loc="left", pad=3, fontweight="bold")
        for place, (modality, found) in enumerate(phrase.found.items()):
            shade = SHADE[modality] if phrase.is_sure(modality) else "#b8b8b8"
            axis.barh(place, 1.0, color="#eeeeee", height=0.34)
            axis.barh(place, found.weight, color=shade, height=0.34)
            sure = "" if found.confidence is None else f", sure {100 * found.confidence:.0f} %"
            note = f"{SIGNS[modality]}: weight {100 * found.weight:.0f} %{sure}"
            axis.text(0, place - 0.26, note, fontsize=7.5, va="bottom")
        axis.set_xlim(0, 1)
        axis.set_ylim(1.5, -0.75)
        axis.axis("off")

    def draw_frame(self, axis: Axes, phrase: FilePhrase, moment: int) -> None:
        """The frame in the middle of a step, in its own size, lit where the phrase attends to; box and point."""
        found, grounding = phrase.found["video"], self.file.groundings["video"]
        values = scale_to(found.attention)[moment]
        if grounding.steps:
            start, end = grounding.steps[moment]
            frame = read_frames(self.file.sources["video"], 1, start, end, name=self.file.name)[0]
            frame = frame.permute(1, 2, 0).numpy()
            axis.set_xlabel(f"{(start + end) / 2:.1f} s", fontsize=7.5, labelpad=2)
        else:
            frame = np.asarray(self.file.sources["video"])
        height, width = frame.shape[:2]
        heat = map_over_frame(values, grounding.area, height, width)
        axis.imshow(fade(frame, heat), interpolation="nearest")
        if heat.max() > heat.min():
            axis.contour(heat, levels=[0.25, 0.5, 0.75], cmap=COLOUR_MAP, vmin=0, vmax=1, linewidths=1.1)
        is_in_span = found.seconds is None or found.seconds[0] <= sum(grounding.steps[moment]) / 2 < found.seconds[1]
        if is_in_span and phrase.is_sure("video"):
            x_min, y_min, x_max, y_max = found.box
            corner, size = (x_min * width, y_min * height), ((x_max - x_min) * width, (y_max - y_min) * height)
            for shade, thickness in (("black", 2.6), ("white", 1.1)):
                axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=shade, linewidth=thickness))
        axis.set_xlim(-0.5, width - 0.5)
        axis.set_ylim(height - 0.5, -0.5)
        axis.set_xticks([])
        axis.set_yticks([])

    def draw_rest(self, space: SubFigure, full: float) -> None:
        """The phrases that are not drawn, in grey: chatter, and those that there is no room for."""
        axis = self.place(space, 0.08, self.height - CHATTER_ROW - 0.05, full - 0.16, CHATTER_ROW - 0.06, full)
        parts = [
            f"{phrase.phrase} {100 * max(found.weight for found in phrase.found.values()):.0f} %"
            for phrase in self.rest
        ]
        axis.text(
            0, 0.5, shorten("hardly any weight: " + " · ".join(parts), 170), fontsize=8, color="#999999", va="center"
        )
        axis.set_xlim(0, 1)
        axis.axis("off")


def draw_sound(axis: Axes, spectrogram: Spectrogram, phrase: GroundedPhrase, is_sure: bool) -> None:
    """The log-mel spectrogram, bright where the phrase attends to, with seconds and Hz; and the phrase's seconds."""
    heat = spectrogram.upsample(phrase.attention)
    extent = (spectrogram.start, spectrogram.end, 0, 1)
    picture = colour_spectrogram(spectrogram.levels, heat)
    axis.imshow(picture, extent=extent, origin="lower", aspect="auto", interpolation="nearest")
    if is_sure:
        for second in phrase.seconds:
            axis.axvline(second, color="black", linewidth=2.6)
            axis.axvline(second, color="white", linewidth=1.1)
    axis.set_xlim(spectrogram.start, spectrogram.end)
    axis.set_ylim(0, 1)
    places, labels = zip(*spectrogram.marks(), strict=True)
    axis.set_yticks(places, labels)
    axis.tick_params(labelsize=6.5, length=2, pad=2)
    axis.set_xlabel("seconds", fontsize=7, labelpad=1)
    axis.set_ylabel("Hz", fontsize=7, labelpad=1)


def draw_legend(space: SubFigure, with_sound: bool) -> None:
    """What colours and lines mean."""
    axis = space.add_axes((0.012, 0.46, 0.2, 0.2))
    axis.imshow(colour_levels(np.linspace(0, 1, 256)[None]), aspect="auto", extent=(0, 1, 0, 1))
    axis.set_yticks([])
    axis.set_xticks([0, 0.25, 0.5, 0.75, 1])
    axis.tick_params(labelsize=7, length=2)
    lines = "box" if not with_sound else "box, or two lines"
    text = (
        "attention over its largest value: contours at ¼, ½ and ¾; pale, or dark in sound, without.  "
        f"{lines.capitalize()}: at least half of it.\n"
        "Sure: share of foreign phrases that fit less well; below 90 % nothing is marked."
    )
    space.text(0.23, 0.55, text, fontsize=7.5, va="center")
