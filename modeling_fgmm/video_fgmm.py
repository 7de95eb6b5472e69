"""The video encoder S3D-G (Xie et al., ECCV 2018; as used by Miech et al., CVPR 2020): clips to a map of regions."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_fgmm import FgmmVideoConfig
from .layers_fgmm import RegionFeatures, join_rows

# Channels of the inception blocks at full width: (1x1x1), (reduction, 3x3x3), (reduction, 3x3x3), (pool, 1x1x1).
INCEPTION_STAGES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
# Kernel and stride (time, height, width) of the pooling before stages 3, 4 and 5.
STAGE_POOLING = (((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)))
# Frames that an image is repeated to with zero padding in time: the clip length of MIL-NCE.
STILL_FRAMES = 32


def scale_channels(channels: int, width_multiplier: float) -> int:
    """The number of channels after the width multiplier, a multiple of 8 (for vector registers and tensor cores)."""
    return max(8, round(channels * width_multiplier / 8) * 8)


class TemporalConv3d(nn.Conv3d):
    """A 3D convolution whose padding in time repeats the first and last frame, or is zero.

    With repeated frames a static clip has the features of the image that it shows.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size, stride, padding, temporal_padding: str):
        super().__init__(in_channels, out_channels, kernel_size, stride, (0, *padding[1:]), bias=False)
        self.padding_in_time = padding[0] if isinstance(padding[0], tuple) else (padding[0], padding[0])
        self.temporal_padding = "replicate" if temporal_padding == "replicate" else "constant"

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, C, t, h, w) -> (B, C', t', h', w')."""
        if hidden_states.shape[2] == 1 and self.temporal_padding == "replicate":
            # The frame is repeated: the kernel summed over time gives the same at a fraction of the cost.
            return F.conv3d(hidden_states, self.weight.sum(2, keepdim=True), None, self.stride, self.padding)
        if any(self.padding_in_time):
            hidden_states = F.pad(hidden_states, (0, 0, 0, 0, *self.padding_in_time), mode=self.temporal_padding)
        return super().forward(hidden_states)


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, ReLU; a k x k x k kernel is split into space (1, k, k) and time (k, 1, 1)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, temporal_padding: str):
        super().__init__()
        pad = kernel_size // 2
        self.spatial_conv = nn.Conv3d(
            in_channels, out_channels, (1, kernel_size, kernel_size), padding=(0, pad, pad), bias=False
        )
        self.spatial_norm = nn.BatchNorm3d(out_channels)
        self.temporal_conv = None
        if kernel_size > 1:
            self.temporal_conv = TemporalConv3d(
                out_channels, out_channels, (kernel_size, 1, 1), (1, 1, 1), (pad, 0, 0), temporal_padding
            )
            self.temporal_norm = nn.BatchNorm3d(out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, C, t, h, w) -> (B, C', t, h, w)."""
        hidden_states = F.relu(self.spatial_norm(self.spatial_conv(hidden_states)))
        if self.temporal_conv is not None:
            hidden_states = F.relu(self.temporal_norm(self.temporal_conv(hidden_states)))
        return hidden_states


class SelfGating(nn.Module):
    """Scales each channel by a sigmoid of a linear map of the means of all channels (the feature gating of S3D-G)."""

    def __init__(self, channels: int):
        super().__init__()
        self.linear = nn.Linear(channels, channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, C, t, h, w) -> the same shape."""
        weights = torch.sigmoid(self.linear(hidden_states.mean(dim=(2, 3, 4))))
        return hidden_states * weights[:, :, None, None, None]


def max_pool_same(hidden_states: torch.Tensor, kernel: tuple, stride: tuple) -> torch.Tensor:
    """Maximum pooling with TensorFlow's padding SAME (for even sizes): (B, C, t, h, w) -> (B, C, t', h', w').

    The inputs are outputs of a ReLU, so that zero padding never exceeds a real value.

    Args:
        kernel, stride: (time, height, width).
    """
    time, height, width = (k - s for k, s in zip(kernel, stride, strict=True))
    padding = (width // 2, width - width // 2, height // 2, height - height // 2, time // 2, time - time // 2)
    return F.max_pool3d(F.pad(hidden_states, padding), kernel, stride, ceil_mode=True)


class InceptionBlock(GradientCheckpointingLayer):
    """Four parallel branches, each gated, concatenated along the channels."""

    def __init__(self, in_channels: int, channels: tuple[int, ...], config: FgmmVideoConfig):
        super().__init__()
        point, reduce_a, conv_a, reduce_b, conv_b, pool = channels

        def block(inputs: int, outputs: int, kernel_size: int) -> ConvBlock:
            return ConvBlock(inputs, outputs, kernel_size, config.temporal_padding)

        self.branches = nn.ModuleList(
            [
                block(in_channels, point, 1),
                nn.Sequential(block(in_channels, reduce_a, 1), block(reduce_a, conv_a, 3)),
                nn.Sequential(block(in_channels, reduce_b, 1), block(reduce_b, conv_b, 3)),
                nn.Sequential(nn.MaxPool3d(3, stride=1, padding=1), block(in_channels, pool, 1)),
            ]
        )
        self.out_channels = point + conv_a + conv_b + pool
        outputs = (point, conv_a, conv_b, pool)
        self.gates = nn.ModuleList([SelfGating(size) if config.self_gating else nn.Identity() for size in outputs])

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, C, t, h, w) -> (B, C', t, h, w)."""
        outputs = [gate(branch(hidden_states)) for branch, gate in zip(self.branches, self.gates, strict=True)]
        return torch.cat(outputs, dim=1)


class VideoStage(nn.Sequential):
    """Maximum pooling, then inception blocks."""

    def __init__(self, blocks: list[InceptionBlock], kernel: tuple, stride: tuple):
        super().__init__(*blocks)
        self.kernel, self.stride = kernel, stride

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, C, t, h, w) -> (B, C', t', h', w')."""
        return super().forward(max_pool_same(hidden_states, self.kernel, self.stride))


def space_to_depth(pixels: torch.Tensor) -> torch.Tensor:
    """Moves 2x2x2 neighbourhoods into channels and pads for the stem: (B, C, T, H, W) -> (B, 8C, T/2, H/2+3, W/2+3)."""
    if pixels.shape[2] % 2:
        pixels = torch.cat([pixels, pixels[:, :, -1:]], dim=2)
    batch, channels, frames, height, width = pixels.shape
    pixels = pixels.reshape(batch, channels, frames // 2, 2, height // 2, 2, width // 2, 2)
    pixels = pixels.permute(0, 3, 5, 7, 1, 2, 4, 6).flatten(1, 4)
    return F.pad(pixels, (1, 2, 1, 2))


class Stem(GradientCheckpointingLayer):
    """From pixels to a feature map of 1/4 of the height and width and half of the frames."""

    def __init__(self, config: FgmmVideoConfig):
        super().__init__()
        first, second = scale_channels(64, config.width_multiplier), scale_channels(192, config.width_multiplier)
        self.space_to_depth = config.space_to_depth
        if config.space_to_depth:
            # Kernel 2x4x4 at stride 1, with one more position of padding at the end than at the beginning.
            self.conv = TemporalConv3d(
                8 * config.num_channels, first, (2, 4, 4), 1, ((0, 1), 0, 0), config.temporal_padding
            )
        else:
            self.conv = TemporalConv3d(
                config.num_channels, first, (3, 7, 7), (2, 2, 2), (1, 3, 3), config.temporal_padding
            )
        self.norm = nn.BatchNorm3d(first)
        self.point_conv = ConvBlock(first, first, 1, config.temporal_padding)
        self.conv_block = ConvBlock(first, second, 3, config.temporal_padding)
        self.gate = SelfGating(second) if config.self_gating else nn.Identity()
        self.out_channels = second

    def convolve(self, pixels: torch.Tensor) -> torch.Tensor:
        """The first convolution, (B, C, T, H, W) -> (B, C', T/2, H/2, W/2), the input of `forward`.

        It is not part of `forward`, because reentrant gradient checkpointing gives no gradient to the weights of a
        layer whose input needs none.
        """
        return self.conv(space_to_depth(pixels) if self.space_to_depth else pixels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(B, C, t, h, w) -> (B, C', t, h/2, w/2)."""
        hidden_states = F.relu(self.norm(hidden_states))
        hidden_states = max_pool_same(hidden_states, (1, 3, 3), (1, 2, 2))
        return self.gate(self.conv_block(self.point_conv(hidden_states)))


class FgmmVideoEncoder(nn.Module):
    """S3D-G without its head; `out_channels` is the number of channels of the feature map (C)."""

    def __init__(self, config: FgmmVideoConfig):
        super().__init__()
        self.config = config
        self.stem = Stem(config)
        channels = self.stem.out_channels
        self.stages = nn.ModuleList()
        for stage, pooling, depth in zip(INCEPTION_STAGES, STAGE_POOLING, config.depths, strict=False):
            blocks = []
            for sizes in stage[:depth]:
                blocks.append(
                    InceptionBlock(
                        channels, tuple(scale_channels(size, config.width_multiplier) for size in sizes), config
                    )
                )
                channels = blocks[-1].out_channels
            self.stages.append(VideoStage(blocks, *pooling))
        self.out_channels = channels

    def forward(
        self, pixel_values_videos: torch.Tensor, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> RegionFeatures:
        """
        Args:
            pixel_values_videos: (B, T, 3, H, W) normalised pixels; an image is a clip of one frame.
            output_hidden_states: return the feature maps before the first and after each stage, (B, C, t, h, w).
            output_attentions: has no effect, for there is no attention.

        Returns:
            [`RegionFeatures`] with N = t·h·w and the grid (t, h, w); with a mask if the batch mixes images and clips
            and the padding in time is zero, see `encode_stills`.

        Raises:
            ValueError: when the shape is not (B, T, 3, H, W), or the sides are odd with `space_to_depth`.
        """
        if pixel_values_videos.ndim != 5 or pixel_values_videos.shape[2] != self.config.num_channels:
            raise ValueError(
                f"pixel_values_videos has shape {tuple(pixel_values_videos.shape)}, but (batch, frames, "
                f"{self.config.num_channels}, height, width) is needed; give one image as a clip of one frame."
            )
        if self.config.space_to_depth and any(size % 2 for size in pixel_values_videos.shape[-2:]):
            raise ValueError(
                f"space_to_depth does not take frames of {tuple(pixel_values_videos.shape[-2:])} pixels; resize them "
                "to an even height and width."
            )
        batch, frames = pixel_values_videos.shape[:2]
        mask = None
        if self.config.frame_by_frame:
            maps = self.encode_maps(pixel_values_videos.flatten(0, 1).unsqueeze(1), output_hidden_states)
            maps = [of_frames.squeeze(2).unflatten(0, (batch, frames)).transpose(1, 2) for of_frames in maps]
        elif self.config.temporal_padding == "zeros":
            maps, mask = self.encode_stills(pixel_values_videos, output_hidden_states)
        else:
            maps = self.encode_maps(pixel_values_videos, output_hidden_states)
        grid = tuple(maps[-1].shape[2:])
        features = maps[-1].flatten(2).transpose(1, 2)
        return RegionFeatures(features, grid, mask, hidden_states=tuple(maps) if output_hidden_states else None)

    def encode_maps(self, clips: torch.Tensor, keep: bool) -> list[torch.Tensor]:
        """Clips (B, T, 3, H, W) to the feature maps (B, C, t, h, w) before the first and after each stage; only the
        last of them without `keep`."""
        maps = [self.stem(self.stem.convolve(clips.transpose(1, 2)))]
        for stage in self.stages:
            maps = [*(maps if keep else []), stage(maps[-1])]
        return maps

    def encode_stills(self, clips: torch.Tensor, keep: bool) -> tuple[list[torch.Tensor], torch.Tensor | None]:
        """Encodes clips with zero padding in time; images are repeated to `STILL_FRAMES` frames.

        In a batch with videos an image arrives repeated to their length; it is encoded separately, so that its features
        equal those without the videos.

        Args:
            clips: (B, T, 3, H, W).
            keep: see [`encode_maps`].

        Returns:
            Feature maps as of [`encode_maps`], 0 after an item's end in time, and the mask of the regions (B, N), False
            there; None if all have one length.
        """
        if clips.shape[1] == 1:
            return self.encode_maps(clips.expand(-1, STILL_FRAMES, -1, -1, -1), keep), None
        # Shapes in a graph cannot depend on values.
        if clips.shape[1] == STILL_FRAMES or torch.compiler.is_compiling():
            return self.encode_maps(clips, keep), None
        still = (clips == clips[:, :1]).flatten(1).all(1)
        if not bool(still.any()):
            return self.encode_maps(clips, keep), None
        rows = [still.nonzero().squeeze(1), (~still).nonzero().squeeze(1)]
        parts = [self.encode_maps(clips[rows[0], :1].expand(-1, STILL_FRAMES, -1, -1, -1), keep)]
        if len(rows[1]) == 0:
            return parts[0], None
        parts.append(self.encode_maps(clips[rows[1]], keep))
        maps = [join_rows(rows, list(of_parts)) for of_parts in zip(*parts, strict=True)]
        inside = join_rows(rows, [torch.ones_like(part[-1][:, 0]) for part in parts])  # (B, t, h, w)
        return maps, inside.flatten(1) > 0
