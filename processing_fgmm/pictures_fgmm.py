"""Decoded frames and image files to upright RGB pictures."""

import io

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image, ImageOps, UnidentifiedImageError

from .containers_fgmm import LIMITS, MediaError, MediaLimits, check_pixels, describe_error, source_name

# Pixels whose width is that of their height but for this share are square: encoders that round a size to whole pixels
# write such values to keep the shape of the whole.
SQUARE_TOLERANCE = 0.02

# (a, b, c, d) of a display matrix: the pixel at column x and row y is shown at column a·x + c·y and row b·x + d·y.
Matrix = tuple[int, int, int, int]


def display_matrix(frame) -> Matrix:
    """The display matrix in the side data of a decoded frame; that of an upright picture where it has none."""
    try:
        side_data = frame.side_data.get("DISPLAYMATRIX")
    except (KeyError, ValueError):  # side data of a kind that PyAV does not know hide all others
        quarter_turns = round(frame.rotation / 90) % 4
        return [(1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0)][quarter_turns]
    if side_data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(side_data, dtype=np.int32)[:5].tolist()
    return a, b, c, d


def swaps_sides(matrix: Matrix) -> bool:
    """Whether a display matrix shows rows as columns."""
    a, b, c, d = matrix
    return abs(a) + abs(d) < abs(b) + abs(c)


def turn_upright(picture: np.ndarray, matrix: Matrix) -> np.ndarray:
    """Turns and mirrors a picture (H, W, 3) by the quarter turns and mirrors next to its display matrix, as ffmpeg's
    autorotate does; (W, H, 3) if the matrix swaps the sides."""
    x_sign, y_from_x, x_from_y, y_sign = matrix
    if swaps_sides(matrix):
        picture = picture.swapaxes(0, 1)
        x_sign, y_sign = x_from_y, y_from_x
    if x_sign < 0:
        picture = picture[:, ::-1]
    return picture[::-1] if y_sign < 0 else picture


def displayed_size(
    height: int, width: int, pixel_aspect: float, matrix: Matrix, size: int | tuple[int, int] | None
) -> tuple[int, int]:
    """The size of an upright picture with square pixels.

    Args:
        height, width: as stored, pixels.
        pixel_aspect: width of a pixel over its height.
        matrix: display matrix.
        size: of the result, pixels: the shorter side, or (height, width); None: as wide as displayed.

    Returns:
        (height, width), pixels.
    """
    if isinstance(size, tuple):
        return size
    if abs(pixel_aspect - 1) > SQUARE_TOLERANCE:
        width = width * pixel_aspect
    if swaps_sides(matrix):
        height, width = width, height
    ratio = 1 if size is None else size / min(height, width)
    return max(1, round(height * ratio)), max(1, round(width * ratio))


def to_rgb(frame, size: tuple[int, int], reformatter: VideoReformatter) -> np.ndarray:
    """A decoded frame to an upright RGB picture.

    Args:
        frame: of PyAV.
        size: (height, width) of the result, pixels.
        reformatter: scales with libswscale, so that frames of full size never exist in RGB; setting one up costs more
            than scaling a small frame.

    Returns:
        (H, W, 3) uint8 in [0, 255].
    """
    matrix = display_matrix(frame)
    height, width = size[::-1] if swaps_sides(matrix) else size
    # Area averaging costs more than bilinear interpolation, and only pays where many pixels become one.
    interpolation = Interpolation.AREA if height * 2 < frame.height else Interpolation.BILINEAR
    scaled = reformatter.reformat(frame, width, height, "rgb24", interpolation=interpolation, threads=1)
    return turn_upright(scaled.to_ndarray(), matrix)


def read_image(source, name: str | None = None, limits: MediaLimits = LIMITS) -> Image.Image:
    """Decodes an image file to RGB, turned upright by its EXIF orientation; 16-bit grey is scaled to 8 bits.

    Args:
        source: path, bytes or binary file.
        name: of the source in messages; None: its path.
        limits: of its pixels.

    Raises:
        MediaError: when it is not an image, damaged, or too large.
    """
    name = source_name(source, name)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            check_pixels(opened.height, opened.width, limits)
            return scale_depth(ImageOps.exif_transpose(opened)).convert("RGB")
    except UnidentifiedImageError as error:
        raise MediaError(f"{name} is not an image of a format that Pillow can read.") from error
    except Exception as error:  # Pillow's readers of damaged files raise errors of almost any kind
        raise MediaError(f"{name} is not an image that can be read: {describe_error(error).rstrip('.')}.") from error


def scale_depth(image: Image.Image) -> Image.Image:
    """An image of 16-bit grey values (modes "I", "I;16" and so on) to one of 8-bit values; others as they are."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) / 257).round().clip(0, 255).astype(np.uint8))
