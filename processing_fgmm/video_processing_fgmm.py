"""Videos and images to batches of normalised frames of one size, in torch."""

import math
import os
from numbers import Real

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import get_size_dict
from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin

from .media_fgmm import read_frames, read_image, unwrap_file

# Float pixels may exceed [0, 1] by this much: bicubic resizing overshoots.
PIXEL_TOLERANCE = 0.01
# Arguments of the constructor that a call may override.
OVERRIDABLE_KWARGS = (
    "size",
    "crop_size",
    "resample",
    "resize_backend",
    "max_num_patches",
    "patch_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)


class FgmmVideoProcessorKwargs(VideosKwargs, total=False):
    """Keyword arguments of a call beyond those of transformers.

    start, end: the window of a file from which frames are taken, seconds; end None: the end of the file. A list has one
    an item.
    """

    start: float | int | list[float | int]
    end: float | int | list[float | int | None] | None


class FgmmVideoProcessor(VideoProcessorMixin):
    """Samples frames uniformly in time, resizes them, crops the centre, rescales and normalises.

    Args:
        num_frames: frames sampled from a clip (T).
        size: before the crop, pixels: `{"shortest_edge": ...}`, which keeps the aspect ratio, or `{"height": ...,
            "width": ...}`, which does not.
        crop_size: of the result (H, W), pixels: `{"height": ..., "width": ...}`.
        resample: `"bilinear"`, `"bicubic"` or `"nearest"`.
        resize_backend: `"torch"`, or `"pillow"`, which is slower and resizes as the image processors of transformers:
            pixels may differ by one level of 255, and the longer edge by one pixel.
        max_num_patches: None, or the most patches of a frame (SigLIP 2 NaFlex), which is then resized to as many of
            them as keep its aspect ratio, and is cropped in training only; files are decoded to `size`.
        patch_size: side of a patch, pixels; with `max_num_patches`.
        do_rescale, rescale_factor: whether pixels in [0, 255] are multiplied by the factor.
        do_normalize, image_mean, image_std: whether rescaled pixels are normalised, with one value for each channel.
    """

    valid_kwargs = FgmmVideoProcessorKwargs

    def __init__(
        self,
        num_frames: int = 8,
        size: dict[str, int] | None = None,
        crop_size: dict[str, int] | None = None,
        resample: str = "bilinear",
        resize_backend: str = "torch",
        max_num_patches: int | None = None,
        patch_size: int = 16,
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
        self.resize_backend = resize_backend
        self.max_num_patches = max_num_patches
        self.patch_size = patch_size
        self.do_rescale = do_rescale
        self.rescale_factor = rescale_factor
        self.do_normalize = do_normalize
        self.image_mean = list(image_mean)
        self.image_std = list(image_std)

    @property
    def model_input_names(self) -> list[str]:
        return ["pixel_values_videos", "video_mask", *(["video_sizes"] if self.max_num_patches else [])]

    def __call__(self, videos, **kwargs) -> BatchFeature:
        return self.preprocess(videos, **kwargs)

    def preprocess(
        self,
        videos,
        num_frames: int | None = None,
        start: float | list[float] = 0.0,
        end: float | list[float | None] | None = None,
        return_tensors: str | None = "pt",
        **kwargs,
    ) -> BatchFeature:
        """
        Args:
            videos: one or a list of: path, bytes, binary file, `{"bytes", "path"}` (datasets' undecoded file), array or
                tensor (T, 3, H, W) or (T, H, W, 3) (uint8 in [0, 255] or float in [0, 1]), list of images, or image
                (path, PIL, (H, W, 3) or (3, H, W)); None is an item without video. A list of PIL images or
                three-dimensional arrays alone is one clip of these frames.
            num_frames: T, overrides that of the processor. An image has one frame in a batch of images alone; in a
                batch with videos it is repeated for T frames.
            start, end: the window, seconds; end None: the end of the file. A list has one an item. For files only.
            return_tensors: `"pt"` or `"np"`; None means `"pt"`.
            **kwargs: the constructor's arguments but `num_frames`, for this call.

        Returns:
            `pixel_values_videos` (B, T, 3, H, W) float32 and `video_mask` (B,) bool, False for None. With
            `max_num_patches` also `video_sizes` (B, 2) int64, height and width of each item's frames, which have
            padding at the right and bottom where others are larger.

        Raises:
            MediaError: for a file that cannot be decoded.
            ValueError: for an item that is neither a video nor an image, `num_frames` below 1, or a list of windows of
                another length.
        """
        num_frames = self.num_frames if num_frames is None else num_frames
        if num_frames < 1:
            raise ValueError(f"num_frames={num_frames} must be at least 1.")
        overrides = {name: kwargs[name] for name in OVERRIDABLE_KWARGS if kwargs.get(name) is not None}
        if overrides:
            settings = {name: getattr(self, name) for name in OVERRIDABLE_KWARGS} | overrides
            return type(self)(**settings).preprocess(videos, num_frames, start, end, return_tensors)
        batch = videos if isinstance(videos, (list, tuple)) else [videos]
        if isinstance(videos, (list, tuple)) and len(videos) and all(map(self.is_frame, videos)):
            batch = [videos]
        batch = [unwrap_file(item) for item in batch]  # to None where there is neither bytes nor path
        windows = list_windows(start, end, len(batch))
        clips = [
            None if item is None else self.load_frames(item, num_frames, *window)
            for item, window in zip(batch, windows, strict=True)
        ]
        data = self.stack_clips([None if clip is None else self.resize_and_crop(clip) for clip in clips])
        data["pixel_values_videos"] = self.normalize_batch(**data)
        return BatchFeature(data, tensor_type=return_tensors)

    def stack_clips(self, clips: list[torch.Tensor | None]) -> dict[str, torch.Tensor]:
        """Cropped clips to one batch, which [`normalize_batch`] makes the model inputs.

        Args:
            clips: (T, 3, H, W) uint8 of each item, None without; shorter ones are repeated in time.

        Returns:
            `pixel_values_videos` (B, T, 3, H, W) uint8, `video_mask` (B,) bool and, with `max_num_patches`,
            `video_sizes` (B, 2) int64, see [`preprocess`].
        """
        crop = (self.crop_size["height"], self.crop_size["width"])
        sizes = torch.tensor([crop if clip is None else clip.shape[-2:] for clip in clips]).reshape(-1, 2)
        longest = max((len(clip) for clip in clips if clip is not None), default=1)
        largest = sizes.amax(0).tolist() if clips else crop
        pixels = torch.zeros(len(clips), longest, 3, *largest, dtype=torch.uint8)
        for row, clip in enumerate(clips):
            if clip is not None:
                clip = clip if len(clip) == longest else clip[uniform_indices(len(clip), longest)]
                pixels[row, :, :, : clip.shape[2], : clip.shape[3]] = clip
        mask = torch.tensor([clip is not None for clip in clips], dtype=torch.bool)
        data = {"pixel_values_videos": pixels, "video_mask": mask}
        return {**data, "video_sizes": sizes} if self.max_num_patches else data

    def normalize_batch(
        self, pixel_values_videos: torch.Tensor, video_mask: torch.Tensor, video_sizes: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Rescales and normalises what [`stack_clips`] gave, on the device where it is.

        Returns:
            (B, T, 3, H, W) float32, 0 in padding.
        """
        pixels = torch.empty(pixel_values_videos.shape, device=pixel_values_videos.device)
        for clip, frames in zip(pixels, pixel_values_videos, strict=True):  # each fits the processor's cache
            self.rescale_and_normalize(clip.copy_(frames))
        padding = ~video_mask.view(-1, 1, 1)
        if video_sizes is not None:
            rows, columns = (torch.arange(length, device=pixels.device) for length in pixels.shape[-2:])
            heights, widths = video_sizes.unsqueeze(-1).unbind(1)
            padding = padding | (rows >= heights).unsqueeze(2) | (columns >= widths).unsqueeze(1)
        return pixels.masked_fill_(padding.view(len(pixels), 1, 1, *padding.shape[1:]), 0)

    def preprocess_images(self, images, **kwargs) -> BatchFeature:
        """Images as clips of one frame, see [`preprocess`].

        Args:
            images: one or a list of PIL images, arrays (H, W, 3) or (3, H, W), paths, bytes, binary files, `{"bytes",
                "path"}` or None.
            **kwargs: of [`preprocess`]; `num_frames`, `start` and `end`, which only videos have, are ignored.

        Returns:
            As [`preprocess`], with T = 1.
        """
        batch = images if isinstance(images, (list, tuple)) else [images]
        batch = [unwrap_file(image) for image in batch]
        frames = [None if image is None else image_to_frame(image) for image in batch]
        return self.preprocess(frames, **{**kwargs, "num_frames": 1})

    def load_frames(
        self, item, num_frames: int, start: float = 0.0, end: float | None = None, name: str | None = None
    ) -> torch.Tensor:
        """Frames of one video or image, decoded and sampled but not yet cropped.

        Args:
            item: one video or image as [`preprocess`] takes it, except None and `{"bytes", "path"}`.
            num_frames: T.
            start, end: the window, seconds; for files only.
            name: of a file in messages; None: its path.

        Returns:
            (T, 3, H, W) uint8 in [0, 255], T = 1 for an image.

        Raises:
            MediaError: for a file that cannot be decoded.
            ValueError: for an item that is neither a video nor an image.
        """
        item = unwrap_file(item)
        if is_image(item):
            return image_to_frame(item)
        if isinstance(item, (str, os.PathLike, bytes)) or hasattr(item, "read"):
            return read_frames(item, num_frames, start, end, self.decoded_size, name)
        if isinstance(item, (list, tuple)):
            return torch.cat([image_to_frame(image) for image in item])[uniform_indices(len(item), num_frames)]
        frames = array_to_frames(item)
        return frames[uniform_indices(len(frames), num_frames)]

    def load_image(self, item) -> torch.Tensor:
        """One image, of any kind that [`preprocess_images`] takes but None, uncropped: (1, 3, H, W) uint8.

        Raises:
            MediaError: for a file that cannot be decoded.
            ValueError: for an item that is no image.
        """
        return image_to_frame(unwrap_file(item))

    @staticmethod
    def is_frame(item) -> bool:
        """Whether it is a picture in memory: a PIL image, or an array or tensor of three axes."""
        return isinstance(item, Image.Image) or getattr(item, "ndim", None) == 3

    @property
    def decoded_size(self) -> int | tuple[int, int]:
        """Size to which files are scaled while they are decoded, pixels: the shorter side, or (height, width)."""
        return self.size.get("shortest_edge") or (self.size["height"], self.size["width"])

    def resize_and_crop(self, frames: torch.Tensor) -> torch.Tensor:
        """Resizes frames to `size` and crops their centre; frames of the crop's size are returned as they are. With
        `max_num_patches` the size follows from the frames', and nothing is cropped.

        Args:
            frames: (T, 3, H, W) uint8.

        Returns:
            (T, 3, crop height, crop width) uint8.
        """
        target, (top, left, bottom, right) = self.scale_and_place(*frames.shape[-2:])
        return self.resize(frames, target)[..., top:bottom, left:right]

    def resize(self, frames: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Resizes frames (T, 3, H, W) uint8 to (T, 3, *size) uint8 by this processor's filter and backend."""
        if self.resize_backend == "pillow":
            return resize_by_pillow(frames, size, self.resample)
        return resize(frames, size, self.resample)

    def scale_and_place(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """The (height, width) to which frames of a size are scaled, and the crop in it, (top, left, bottom, right);
        pixels."""
        if self.max_num_patches:
            target = get_image_size_for_max_num_patches(height, width, self.patch_size, self.max_num_patches)
            return target, (0, 0, *target)
        crop = (self.crop_size["height"], self.crop_size["width"])
        target = self.decoded_size
        if (height, width) == crop:
            target = crop
        elif isinstance(target, int) and self.resize_backend == "pillow":
            target = (int(target * height / min(height, width)), int(target * width / min(height, width)))
        elif isinstance(target, int):
            ratio = target / min(height, width)
            target = (round(height * ratio), round(width * ratio))
        # Not smaller than the crop, even if `size` is.
        target = (max(target[0], crop[0]), max(target[1], crop[1]))
        top, left = (target[0] - crop[0]) // 2, (target[1] - crop[1]) // 2
        return target, (top, left, top + crop[0], left + crop[1])

    def cropped_area(self, height: int, width: int) -> tuple[float, float, float, float]:
        """What the crop leaves of a frame: (x_min, y_min, x_max, y_max) in shares of its width and height, 0 to 1."""
        (target_height, target_width), (top, left, bottom, right) = self.scale_and_place(height, width)
        return left / target_width, top / target_height, right / target_width, bottom / target_height

    def random_crop(
        self, frames: torch.Tensor, generator: np.random.Generator, min_area: float = 1.0, flip: bool = False
    ) -> torch.Tensor:
        """Random resized crop for training, the same for all frames of a clip (Inception-style augmentation).

        Args:
            frames: (T, 3, H, W) uint8.
            generator: source of randomness.
            min_area: smallest area of the crop as a share of the frame, in (0, 1]; below 1 its aspect ratio differs
                from the frame's by a factor in [3/4, 4/3].
            flip: flip horizontally with probability 1/2; not for captions that say left and right.

        Returns:
            (T, 3, crop height, crop width) uint8.
        """
        height, width = frames.shape[-2:]
        area = generator.uniform(min_area, 1.0)
        ratio = np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)) / 2) if min_area < 1.0 else 1.0
        crop_height = min(height, max(1, round(height * np.sqrt(area) * ratio)))
        crop_width = min(width, max(1, round(width * np.sqrt(area) / ratio)))
        top = int(generator.integers(height - crop_height + 1))
        left = int(generator.integers(width - crop_width + 1))
        frames = frames[..., top : top + crop_height, left : left + crop_width]
        frames = self.resize(frames, (self.crop_size["height"], self.crop_size["width"]))
        return frames.flip(-1) if flip and generator.random() < 0.5 else frames

    def rescale_and_normalize(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames (T, 3, H, W) float32 in [0, 255] in place to (pixel · rescale_factor - image_mean) / image_std."""
        if self.do_rescale:
            frames *= self.rescale_factor
        if self.do_normalize:
            values = (self.image_mean, self.image_std)
            mean, std = (torch.tensor(value, device=frames.device).view(3, 1, 1) for value in values)
            frames -= mean
            frames /= std
        return frames


class FgmmImageProcessor(FgmmVideoProcessor):
    """The video processor with the call of an image processor, for transformers' pipelines; same saved settings."""

    def __call__(self, images, **kwargs) -> BatchFeature:
        return self.preprocess_images(images, **kwargs)


def list_windows(start, end, number: int) -> list[tuple[float, float | None]]:
    """The window (start, end) of each item of a batch.

    Args:
        start, end: of all items, seconds, or a list of one an item; end None: the end of the file.
        number: of items.

    Raises:
        ValueError: for a list of another length, or what is no number of seconds.
    """
    bounds = [bound if isinstance(bound, (list, tuple)) else [bound] * number for bound in (start, end)]
    for name, values in zip(("start", "end"), bounds, strict=True):
        if len(values) != number:
            raise ValueError(f"{name} has {len(values)} values for {number} items; give one, or one an item.")
        for value in values:
            if not (isinstance(value, Real) and math.isfinite(value)) and (name == "start" or value is not None):
                raise ValueError(f"{name}={value!r} is no number of seconds{'' if name == 'start' else ', or None'}.")
    return list(zip(*bounds, strict=True))


def resize(frames: torch.Tensor, size: tuple[int, int], resample: str) -> torch.Tensor:
    """Resizes frames (T, 3, H, W) uint8 to (T, 3, *size) uint8, with antialiasing unless `resample` is "nearest"."""
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    return F.interpolate(frames, size=size, mode=resample, antialias=resample != "nearest")


def resize_by_pillow(frames: torch.Tensor, size: tuple[int, int], resample: str) -> torch.Tensor:
    """As [`resize`], by Pillow."""
    if tuple(frames.shape[-2:]) == tuple(size):
        return frames
    resampling = Image.Resampling[resample.upper()]
    pictures = [Image.fromarray(frame) for frame in frames.permute(0, 2, 3, 1).contiguous().numpy()]
    resized = np.stack([np.array(picture.resize(size[::-1], resampling)) for picture in pictures])
    return torch.from_numpy(resized).permute(0, 3, 1, 2)


def uniform_indices(length: int, num_samples: int) -> torch.Tensor:
    """(num_samples,) int64 indices into a sequence: the centres of `num_samples` equal segments."""
    return ((torch.arange(num_samples) + 0.5) * length / num_samples).long()


def is_image(item) -> bool:
    """PIL images, arrays of three axes, and paths with the name of an image."""
    if isinstance(item, (str, os.PathLike)):
        return os.path.splitext(item)[1].lower() in (".jpg", ".jpeg", ".png", ".bmp", ".webp")
    return FgmmVideoProcessor.is_frame(item)


def image_to_frame(image) -> torch.Tensor:
    """One image to (1, 3, H, W) uint8, rotated upright by its EXIF orientation.

    Args:
        image: path, bytes, binary file, PIL image, or array or tensor as in [`array_to_frames`] without its T.

    Raises:
        MediaError: for a file that cannot be decoded.
        ValueError: for anything else.
    """
    if isinstance(image, (str, os.PathLike, bytes)) or hasattr(image, "read"):
        image = read_image(image)
    if isinstance(image, Image.Image):
        image = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    return array_to_frames(image[None] if isinstance(image, (np.ndarray, torch.Tensor)) else image)


def array_to_frames(array) -> torch.Tensor:
    """Array or tensor (T, H, W, 3) or (T, 3, H, W), uint8 in [0, 255] or float in [0, 1], to (T, 3, H, W) uint8.

    Raises:
        ValueError: for another type or shape, or floats outside [0, 1].
    """
    if not isinstance(array, (np.ndarray, torch.Tensor)):
        raise ValueError(
            f"A video or image cannot be a {type(array).__name__}; give a path, bytes, a file, an array or a tensor."
        )
    frames = torch.as_tensor(array)
    if frames.ndim == 4 and frames.shape[1] != 3 and frames.shape[3] == 3:
        frames = frames.permute(0, 3, 1, 2)
    if frames.ndim != 4 or frames.shape[1] != 3 or not len(frames):
        raise ValueError(f"A video cannot be of shape {tuple(frames.shape)}; give (T, H, W, 3) or (T, 3, H, W).")
    if frames.is_floating_point():
        lowest, highest = frames.min().item(), frames.max().item()
        if not (lowest >= -PIXEL_TOLERANCE and highest <= 1 + PIXEL_TOLERANCE):  # in this form NaN is refused, too
            raise ValueError(
                f"Float pixels must lie in [0, 1], not in [{lowest:g}, {highest:g}]; give uint8, or divide by 255."
            )
        frames = (frames * 255).round().clamp(0, 255)
    return frames.to(torch.uint8).contiguous()


__all__ = ["FgmmImageProcessor", "FgmmVideoProcessor"]
