"""Films (MP4) of what phrases mean: a panel for each phrase, lit where it attends to at that moment, with the sound."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from modeling_fgmm.grounding_fgmm import Span
from processing_fgmm.media_fgmm import Media

from ..cli import UserError
from ..records import whole_file
from .colours import colour_levels, colour_spectrogram, fade, map_over_frame, scale_to
from .files import FilePhrase, GroundedFile
from .preview import encode_film, frame_rate_of, iterate_frames, make_even, read_sound
from .spectrogram import Spectrogram, read_spectrogram

# Layout, pixels.
PANEL_HEIGHT, HEAD, STRIP, TITLE, GAP, AXIS, LEAST_WIDTH = 240, 40, 72, 22, 8, 46, 420
MAX_PANELS = 4
INK, FAINT, PAPER = (20, 20, 20), (150, 150, 150), (255, 255, 255)


def draw_film(file: GroundedFile, output: Path) -> None:
    """Draws a film of a grounded video or sound.

    Args:
        file: the grounded file, which has times.
        output: an MP4 file.

    Raises:
        UserError: for an image, which has no times.
        MediaError: when the file can no longer be read.
    """
    if file.window is None:
        raise UserError(f"{file.name} has no times, so that no film can be drawn of it; give an --output of .png.")
    start, end = file.window
    with Media(next(iter(file.sources.values())), file.name) as media:
        film = Film(file, media)
        rate = frame_rate_of(media) if film.has_picture else 10.0
        sound = read_sound(media, start, end)
        encoded = encode_film(film.draw(rate), rate, sound)
    with whole_file(output) as partial:
        partial.write_bytes(encoded)


def value_at(values: torch.Tensor, steps: list[Span], time: float) -> torch.Tensor:
    """A map (t, h, w) at a time, interpolated between the middles of its steps: (h, w)."""
    middles = np.array([(start + end) / 2 for start, end in steps])
    place = float(np.interp(time, middles, np.arange(len(middles))))
    low = int(place)
    high = min(low + 1, len(values) - 1)
    return torch.lerp(values[low], values[high], place - low)


class Film:
    """The pictures of a film, each made of panels of the frame, and below them the sound of each phrase.

    Args:
        file: the grounded file.
        media: the same, opened.
    """

    def __init__(self, file: GroundedFile, media: Media):
        self.file = file
        self.media = media
        self.has_picture = "video" in file.groundings
        phrases = [phrase for phrase in file.phrases() if not phrase.is_chatter]
        strongest = sorted(phrases, key=lambda phrase: -max(found.weight for found in phrase.found.values()))
        self.phrases = [phrase for phrase in phrases if phrase in strongest[:MAX_PANELS]]
        self.font = ImageFont.load_default(15)
        self.small = ImageFont.load_default(11)
        self.width = 0
        if self.has_picture:
            info = media.info
            height = min(PANEL_HEIGHT, info.height) if info.height >= 120 else PANEL_HEIGHT
            self.panel = (height, max(2, round(height * info.width / info.height)))
            self.columns = min(len(self.phrases), 2)
            self.width = self.columns * (self.panel[1] + GAP) + GAP
        self.width = max(self.width, LEAST_WIDTH) // 2 * 2
        self.spectrogram: Spectrogram | None = None
        if "audio" in file.groundings:
            self.spectrogram = read_spectrogram(file.sources["audio"], *file.groundings["audio"].window, file.name)

    def draw(self, rate: float):
        """The pictures (height, width, 3) uint8, `rate` a second."""
        paper = self.draw_paper()
        start, end = self.file.window
        if not self.has_picture:
            for index in range(max(1, round((end - start) * rate))):
                yield make_even(np.asarray(self.draw_moment(paper, start + (index + 0.5) / rate, None)))
            return
        for time, frame in iterate_frames(self.media, start, end, rate, self.panel[0]):
            yield make_even(np.asarray(self.draw_moment(paper, time, frame)))

    def panel_place(self, index: int) -> tuple[int, int]:
        """The left upper corner of a panel."""
        row, column = divmod(index, self.columns)
        return GAP + column * (self.panel[1] + GAP), row * (self.panel[0] + HEAD + GAP) + HEAD

    @property
    def strips_top(self) -> int:
        """Where the spectrograms begin."""
        if not self.has_picture:
            return GAP
        return (len(self.phrases) + self.columns - 1) // self.columns * (self.panel[0] + HEAD + GAP) + GAP

    def draw_paper(self) -> Image.Image:
        """What is the same in all pictures: the phrases, their bars, the spectrograms and the legend."""
        strips = len(self.phrases) * (STRIP + TITLE + GAP) + 18 if self.spectrogram else 0
        height = self.strips_top + strips + 34
        paper = Image.new("RGB", (self.width, height // 2 * 2), PAPER)
        pen = ImageDraw.Draw(paper)
        for index, phrase in enumerate(self.phrases):
            if self.has_picture:
                left, top = self.panel_place(index)
                self.draw_bar(pen, phrase, "video", left, top - HEAD, self.panel[1])
            if self.spectrogram:
                top = self.strips_top + index * (STRIP + TITLE + GAP)
                self.draw_bar(pen, phrase, "audio", AXIS, top, self.width - AXIS - GAP, one_line=True)
                self.draw_strip(paper, phrase, top + TITLE)
        self.draw_legend(paper, pen)
        return paper

    def draw_bar(self, pen, phrase: FilePhrase, modality: str, left: int, top: int, width: int, one_line=False) -> None:
        """A phrase, and its weight as a bar."""
        found = phrase.found[modality]
        shade = INK if phrase.is_sure(modality) else FAINT
        sure = "" if found.confidence is None else f", sure {100 * found.confidence:.0f} %"
        note = f"{100 * found.weight:.0f} %{sure}"
        pen.text((left, top + 2), phrase.phrase, fill=shade, font=self.font)
        if one_line:
            pen.text((left + width, top + 5), f"weight {note}", fill=shade, font=self.small, anchor="ra")
            return
        pen.rectangle((left, top + 24, left + width - 110, top + 33), fill=(235, 235, 235))
        pen.rectangle((left, top + 24, left + round((width - 110) * found.weight), top + 33), fill=(0, 32, 77))
        pen.text((left + width, top + 23), note, fill=shade, font=self.small, anchor="ra")

    def draw_strip(self, paper: Image.Image, phrase: FilePhrase, top: int) -> None:
        """The spectrogram, bright where a phrase attends to, with Hz and seconds."""
        spectrogram = self.spectrogram
        heat = spectrogram.upsample(phrase.found["audio"].attention)
        lit = colour_spectrogram(spectrogram.levels, heat)
        size = (self.width - AXIS - GAP, STRIP)
        paper.paste(Image.fromarray(lit[::-1].copy()).resize(size, Image.Resampling.BILINEAR), (AXIS, top))
        pen = ImageDraw.Draw(paper)
        for place, label in spectrogram.marks()[1::2]:
            pen.text((AXIS - 4, top + round((1 - place) * STRIP)), label, fill=INK, font=self.small, anchor="rm")
        if phrase.is_sure("audio"):
            for second in phrase.found["audio"].seconds:
                x = self.at_second(second)
                pen.line((x, top, x, top + STRIP), fill=PAPER, width=2)

    def at_second(self, second: float) -> int:
        """Where a second is on the strips, pixels."""
        start, end = self.file.window
        return AXIS + round((second - start) / (end - start) * (self.width - AXIS - GAP))

    def draw_legend(self, paper: Image.Image, pen) -> None:
        """What brightness means, and the unit of the axes."""
        bottom = paper.height - 22
        bar = colour_levels(np.linspace(0, 1, 120)[None].repeat(10, 0))
        paper.paste(Image.fromarray(bar), (GAP, bottom))
        note = "attention: none to most; white: at least half" + ("; Hz, s" if self.spectrogram else "")
        pen.text((GAP + 128, bottom - 1), note, fill=INK, font=self.small)
        if self.spectrogram:
            start, end = self.file.window
            for second in np.linspace(start, end, 6):
                x = min(max(self.at_second(second), AXIS + 8), self.width - 20)
                pen.text((x, bottom - 16), f"{second:.1f} s", fill=INK, font=self.small, anchor="mm")

    def draw_moment(self, paper: Image.Image, time: float, frame: np.ndarray | None) -> Image.Image:
        """The picture of a time, s."""
        picture = paper.copy()
        pen = ImageDraw.Draw(picture)
        for index, phrase in enumerate(self.phrases):
            if frame is not None:
                picture.paste(self.light_panel(phrase, time, frame), self.panel_place(index))
            if self.spectrogram:
                top = self.strips_top + index * (STRIP + TITLE + GAP) + TITLE
                x = self.at_second(time)
                pen.line((x, top - 3, x, top + STRIP + 3), fill=(230, 90, 0), width=2)
        return picture

    def light_panel(self, phrase: FilePhrase, time: float, frame: np.ndarray) -> Image.Image:
        """The frame, lit where a phrase attends to; with its box while it means it."""
        found, grounding = phrase.found["video"], self.file.groundings["video"]
        height, width = self.panel
        panel = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.NEAREST))
        values = value_at(scale_to(found.attention), grounding.steps, time)
        lit = Image.fromarray(fade(panel, map_over_frame(values, grounding.area, height, width)))
        start, end = found.seconds
        if start <= time < end and phrase.is_sure("video"):
            x_min, y_min, x_max, y_max = found.box
            box = (x_min * width, y_min * height, x_max * width - 1, y_max * height - 1)
            ImageDraw.Draw(lit).rectangle(box, outline=INK, width=4)
            ImageDraw.Draw(lit).rectangle(box, outline=PAPER, width=2)
        return lit
