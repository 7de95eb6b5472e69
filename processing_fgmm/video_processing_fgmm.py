"""Videos and images to normalised frames of one size, in torch."""

import os

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import get_size_dict
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin

from .media_fgmm import read_frames, read_image, unwrap_file

# Floating pixels may leave 0..1 by so much, as they do where a picture was resized.
PIXEL_TOLERANCE = 0.01
# What a call may change, beside the frames and their times.
SETTINGS = (
    "size",
    "crop_size",
    "resample",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)


class FgmmVideoProcessorKwargs(VideosKwargs, total=False):
    """What a call may change.

    start, end: the window that is shown, in seconds; end None is the end of the file.
    """

    start: float | int
    end: float | int | None


class FgmmVideoProcessor(VideoProcessorMixin):
    """Frames at even times, the shorter side scaled, the centre cut out, normalised.

    Args:
        num_frames: frames taken from a clip (T).
        size: before the crop: `{"shortest_edge": pixels}`, or `{"height": pixels, "width": pixels}`, to which a picture
            is stretched.
        crop_size: `{"height": pixels, "width": pixels}` of the result.
        resample: `"bilinear"`, `"bicubic"` or `"nearest"`.
        do_rescale, rescale_factor: whether values are multiplied, and by what.
        do_normalize, image_mean, image_std: whether the mean of each channel is taken off and its deviation divided by,
            after rescaling.
    """

    model_input_names = ["pixel_values_videos", "video_mask"]
    valid_kwargs = FgmmVideoProcessorKwargs

    def __init__(
        self,
        num_frames: int = 8,
        size: dict[str, int] | None = None,
        crop_size: dict[str, int] | None = None,
        resample: str = "bilinear",
        do_rescale: bool = True,
        rescale_factor: float = 1 / 255,
        do_normalize: bool = True,
        image_mean: list[float] | tuple[float, ...] = (0.45, 0.45, 0.45),
        image_std: list[float] | tuple[float, ...] = (0.225, 0.225, 0.225),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_frames = num_frames
        self.size = get_size_dict(size or 224, default_to_square=False)
        self.crop_size = get_size_dict(crop_size or 224, param_name="crop_size")
        self.resample = resample
        self.do_rescale = do_rescale
        self.rescale_factor = rescale_factor
        self.do_normalize = do_normalize
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    def __call__(self, videos, **kwargs) -> BatchFeature:
        return self.preprocess(videos, **kwargs)

    def preprocess(
        self,
        videos,
        num_frames: int | None = None,
        start: float = 0.0,
        end: float | None = None,
        return_tensors: str | None = "pt",
        **kwargs,
    ) -> BatchFeature:
        """
        Args:
            videos: one or a list of: path, bytes, binary file, `{"bytes", "path"}` (datasets' undecoded file), array or
                tensor (T, 3, H, W) or (T, H, W, 3) (uint8, or float in [0, 1]), list of images, or image (path, PIL,
                (H, W, 3) or (3, H, W)); None is an item without video. A list of nothing but PIL images or arrays of
                three axes is one clip of these frames.
            num_frames: T, in place of the processor's own. Images are clips of one frame in a batch of images alone;
                beside videos they stand still for T frames.
            start, end: the window, in seconds; for files only.
            return_tensors: `"pt"` or `"np"`; None is `"pt"`.

        Returns:
            `pixel_values_videos` (B, T, 3, H, W) float32 and `video_mask` (B,) bool, False for None.

        Raises:
            MediaError: for a file that cannot be decoded. ValueError: for anything that is no video or image, or no
                frames.
        """
        num_frames = self.num_frames if num_frames is None else num_frames
        if num_frames < 1:
            raise ValueError(f"num_frames={num_frames} must be at least 1.")
        changed = {name: kwargs[name] for name in SETTINGS if kwargs.get(name) is not None}
        if changed:
            settings = {name: getattr(self, name) for name in SETTINGS} | changed
            return type(self)(**settings).preprocess(videos, num_frames, start, end, return_tensors)
        batch = videos if isinstance(videos, (list, tuple)) else [videos]
        if isinstance(videos, (list, tuple)) and len(videos) and all(map(self.is_frame, videos)):
            batch = [videos]
        batch = [unwrap_file(item) for item in batch]  # to None where there is neither bytes nor path
        clips = [None if item is None else self.load(item, num_frames, start, end) for item in batch]
        clips = [None if clip is None else self.normalize(self.resize_and_crop(clip)) for clip in clips]
        longest = max((len(clip) for clip in clips if clip is not None), default=1)
        pixels = torch.zeros(len(clips), longest, 3, self.crop_size["height"], self.crop_size["width"])
        for row, clip in enumerate(clips):
            if clip is not None:
                pixels[row] = clip if len(clip) == longest else clip[spread(len(clip), longest)]
        mask = torch.tensor([clip is not None for clip in clips], dtype=torch.bool)
        return BatchFeature({"pixel_values_videos": pixels, "video_mask": mask}, tensor_type=return_tensors)

    def preprocess_images(self, images, **kwargs) -> BatchFeature:
        """As `preprocess`, of images alone: one or a list of PIL images, arrays, paths, bytes, binary files, `{"bytes",
        "path"}` or None. What only moving pictures have, `num_frames`, `start` and `end`, is not looked at."""
        batch = images if isinstance(images, (list, tuple)) else [images]
        batch = [unwrap_file(image) for image in batch]
        frames = [None if image is None else image_to_frame(image) for image in batch]
        return self.preprocess(frames, **{**kwargs, "num_frames": 1})

    def load(
        self, item, num_frames: int, start: float = 0.0, end: float | None = None, name: str | None = None
    ) -> torch.Tensor:
        """Any kind of video or image to (T, 3, H, W) uint8, T = 1 for an image; messages say `name` for bytes."""
        item = unwrap_file(item)
        if is_image(item):
            return image_to_frame(item)
        if isinstance(item, (str, os.PathLike, bytes)) or hasattr(item, "read"):
            return read_frames(item, num_frames, start, end, self.decoded_size, name)
        if isinstance(item, (list, tuple)):
            return torch.cat([image_to_frame(image) for image in item])[spread(len(item), num_frames)]
        frames = array_to_frames(item)
        return frames[spread(len(frames), num_frames)]

    @staticmethod
    def is_frame(item) -> bool:
        """Whether it is a picture in memory: a PIL image, or an array or tensor of three axes."""
        return isinstance(item, Image.Image) or getattr(item, "ndim", None) == 3

    @property
    def decoded_size(self) -> int | tuple[int, int]:
        """Pixels of the shorter side, or (height, width), to which files are scaled while they are decoded."""
        return self.size.get("shortest_edge") or (self.size["height"], self.size["width"])

    def resize_and_crop(self, frames: torch.Tensor) -> torch.Tensor:
        """(T, 3, H, W) uint8 to the crop's size: scaled to `size`, then the centre; frames of the crop's size stay."""
        target, (top, left) = self.scale_and_place(*frames.shape[-2:])
        height, width = self.crop_size["height"], self.crop_size["width"]
        return resize(frames, target, self.resample)[..., top : top + height, left : left + width]

    def scale_and_place(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """The (height, width) to which frames of a size are scaled, and the (top, left) of the crop in it; pixels."""
        crop = (self.crop_size["height"], self.crop_size["width"])
        target = self.decoded_size
        if (height, width) == crop:
            target = crop
        elif isinstance(target, int):
            ratio = target / min(height, width)
            target = (round(height * ratio), round(width * ratio))
        # Never smaller than the crop, whatever `size` says.
        target = (max(target[0], crop[0]), max(target[1], crop[1]))
        return target, ((target[0] - crop[0]) // 2, (target[1] - crop[1]) // 2)

    def cropped_area(self, height: int, width: int) -> tuple[float, float, float, float]:
        """What the crop leaves of a frame: (x_min, y_min, x_max, y_max) in shares of its width and height, 0 to 1."""
        (target_height, target_width), (top, left) = self.scale_and_place(height, width)
        bottom, right = top + self.crop_size["height"], left + self.crop_size["width"]
        return left / target_width, top / target_height, right / target_width, bottom / target_height

    def random_crop(
        self, frames: torch.Tensor, generator: np.random.Generator, min_area: float = 1.0, flip: bool = False
    ) -> torch.Tensor:
        """For training: a random part of the frames, the same in all of them, at the crop's size.

        Args:
            frames: (T, 3, H, W) uint8.
            generator: makes the choice.
            min_area: smallest share of the picture's area; sides are chosen within 3/4 to 4/3 of each other.
            flip: mirror every second clip. Not where captions say left and right.
        """
        height, width = frames.shape[-2:]
        area = generator.uniform(min_area, 1.0)
        stretch = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)) / 2) if min_area < 1.0 else 1.0
        crop_height = min(height, max(1, round(height * np.sqrt(area) * stretch)))
        crop_width = min(width, max(1, round(width * np.sqrt(area) / stretch)))
        top = int(generator.integers(height - crop_height + 1))
        left = int(generator.integers(width - crop_width + 1))
        frames = frames[..., top : top + crop_height, left : left + crop_width]
        frames = resize(frames, (self.crop_size["height"], self.crop_size["width"]), self.resample)
        return frames.flip(-1) if flip and generator.random() < 0.5 else frames

    def normalize(self, frames: torch.Tensor) -> torch.Tensor:
        """(T, 3, H, W) uint8 to float32 of about mean 0 and variance 1."""
        frames = frames.float()
        if self.do_rescale:
            frames = frames * self.rescale_factor
        if self.do_normalize:
            mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.image_mean, self.image_std))
            frames = (frames - mean) / std
        return frames


class FgmmImageProcessor(FgmmVideoProcessor):
    """The video processor as transformers' pipelines for images call it; it is loaded from the same settings."""

    def __call__(self, images, **kwargs) -> BatchFeature:
        return self.preprocess_images(images, **kwargs)


def resize(frames: torch.Tensor, size: tuple[int, int], resample: str) -> torch.Tensor:
    """(T, 3, H, W) uint8 to (T, 3, *size) uint8, by `resample`, with antialiasing where it interpolates."""
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    return F.interpolate(frames, size=size, mode=resample, antialias=resample != "nearest")


def spread(length: int, number: int) -> torch.Tensor:
    """Indices of `number` entries out of `length`, the middle of equal parts."""
    return ((torch.arange(number) + 0.5) * length / number).long()


def is_image(item) -> bool:
    """PIL images, arrays of three axes, and paths with the name of an image."""
    if isinstance(item, (str, os.PathLike)):
        return os.path.splitext(item)[1].lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp")
    return FgmmVideoProcessor.is_frame(item)


def image_to_frame(image) -> torch.Tensor:
    """Path, bytes, binary file, PIL image or array to (1, 3, H, W) uint8, upright by its EXIF orientation."""
    if isinstance(image, (str, os.PathLike, bytes)) or hasattr(image, "read"):
        image = read_image(image)
    if isinstance(image, Image.Image):
        image = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    return array_to_frames(image[None])


def array_to_frames(array) -> torch.Tensor:
    """(T, H, W, 3) or (T, 3, H, W), uint8 or float in [0, 1], to (T, 3, H, W) uint8.

    Raises:
        ValueError: for another shape, or floats outside of [0, 1].
    """
    if not isinstance(array, (np.ndarray, torch.Tensor)):
        raise ValueError(
            f"A video cannot be a {type(array).__name__}; give a path, bytes, a file, an array or a tensor."
        )
    frames = torch.as_tensor(array)
    if frames.ndim == 4 and frames.shape[1] != 3 and frames.shape[3] == 3:
        frames = frames.permute(0, 3, 1, 2)
    if frames.ndim != 4 or frames.shape[1] != 3 or not len(frames):
        raise ValueError(f"A video of shape {tuple(frames.shape)} is neither (T, H, W, 3) nor (T, 3, H, W).")
    if frames.is_floating_point():
        lowest, highest = frames.min().item(), frames.max().item()
        if not (lowest >= -PIXEL_TOLERANCE and highest <= 1 + PIXEL_TOLERANCE):  # so written, NaN is refused, too
            raise ValueError(
                f"Floating pixels must lie in [0, 1], not in [{lowest:g}, {highest:g}]; give uint8, or divide by 255."
            )
        frames = (frames * 255).round().clamp(0, 255)
    return frames.to(torch.uint8).contiguous()


__all__ = ["FgmmImageProcessor", "FgmmVideoProcessor"]
