"""The vision encoders of CLIP, SigLIP and SigLIP 2: frames to regions and one pooled vector each."""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionModel, PreTrainedConfig, PreTrainedModel, Siglip2VisionModel, SiglipVisionModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .hf_encoders_fgmm import check_frames
from .layers_fgmm import RegionFeatures


class DualVideoEncoder(nn.Module):
    """A vision encoder with its own pooling, applied to each frame; `out_channels` is its hidden size (C)."""

    model_class: type[PreTrainedModel]

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.config = config
        self.model = self.model_class._from_config(config)
        self.out_channels = config.hidden_size

    def forward(self, pixel_values_videos: torch.Tensor, **options: bool) -> RegionFeatures:
        """
        Args:
            pixel_values_videos: (B, T, 3, H, W) normalised pixels, of the configuration's height and width.
            **options: `output_hidden_states`, `output_attentions`: return the encoder's own, with a row for each frame.

        Returns:
            [`RegionFeatures`] with N = T·h·w, the grid (T, h, w) and one pooled vector for each frame.

        Raises:
            ValueError: for another shape.
        """
        size, patch = self.config.image_size, self.config.patch_size
        check_frames(pixel_values_videos, self.config.model_type, size=(size, size))
        output, regions = self.encode_frames(pixel_values_videos.flatten(0, 1), **options)
        batch, frames = pixel_values_videos.shape[:2]
        return RegionFeatures(
            regions.unflatten(0, (batch, frames)).flatten(1, 2),
            (frames, size // patch, size // patch),
            pooled=output.pooler_output.unflatten(0, (batch, frames)),
            hidden_states=output.hidden_states if options.get("output_hidden_states") else None,
            attentions=output.attentions,
        )

    @abstractmethod
    def encode_frames(
        self, pixel_values: torch.Tensor, **options: bool
    ) -> tuple[BaseModelOutputWithPooling, torch.Tensor]:
        """(F, 3, H, W) -> the encoder's output, and the regions (F, h·w, C)."""


class ClipVideoEncoder(DualVideoEncoder):
    """CLIP's vision encoder, applied to each frame.

    Regions are the patches of the last layer with query-query attention, without residual connection and MLP
    (ClearCLIP: Lan et al., ECCV 2024, equation 4): only the class token was trained against texts, and the residual
    connection of the last layer dominates its patches, which are then hardly related to the text.
    """

    model_class = CLIPVisionModel

    def encode_frames(
        self, pixel_values: torch.Tensor, output_hidden_states: bool = False, output_attentions: bool = False
    ) -> tuple[BaseModelOutputWithPooling, torch.Tensor]:
        before_last = -2  # of the hidden states, the input of the last layer
        output = self.model(
            pixel_values, output_hidden_states=output_hidden_states or before_last, output_attentions=output_attentions
        )
        patches = self.attend_by_queries(output.hidden_states[before_last])[:, 1:]  # the class token goes first
        return output, self.model.post_layernorm(patches)

    def attend_by_queries(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The last layer's self-attention with queries in place of keys: (F, tokens, C) -> (F, tokens, C)."""
        layer = self.model.encoder.layers[-1]
        attention = layer.self_attn
        tokens = layer.layer_norm1(hidden_states)
        query, value = (
            project(tokens).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
            for project in (attention.q_proj, attention.v_proj)
        )
        attended = F.scaled_dot_product_attention(query, query, value, scale=attention.scale)
        return attention.out_proj(attended.transpose(1, 2).flatten(2))


class SiglipVideoEncoder(DualVideoEncoder):
    """SigLIP's vision encoder, applied to each frame.

    Regions are the output of the attention-pooling head for each patch alone: the value and output projections of its
    attention, then its MLP (as MaskCLIP does with the attention pooling of CLIP's ResNets: Zhou et al., ECCV 2022,
    section 3.2).
    """

    model_class = SiglipVisionModel

    def encode_frames(
        self, pixel_values: torch.Tensor, **options: bool
    ) -> tuple[BaseModelOutputWithPooling, torch.Tensor]:
        output = self.model(pixel_values, **options)
        return output, self.pool_alone(output.last_hidden_state)

    def pool_alone(self, patches: torch.Tensor) -> torch.Tensor:
        """The head's output for each patch alone: (F, n, C) -> (F, n, C)."""
        head = self.model.head
        value_weight, value_bias = (
            weights.chunk(3)[2] for weights in (head.attention.in_proj_weight, head.attention.in_proj_bias)
        )
        attended = head.attention.out_proj(F.linear(patches, value_weight, value_bias))
        return attended + head.mlp(head.layernorm(attended))


class NaflexVideoEncoder(SiglipVideoEncoder):
    """SigLIP 2's NaFlex vision encoder, for frames of any aspect ratio; regions are made as those of SigLIP."""

    model_class = Siglip2VisionModel
    any_aspect_ratio = True

    def forward(
        self, pixel_values_videos: torch.Tensor, video_sizes: torch.Tensor | None = None, **options: bool
    ) -> RegionFeatures:
        """
        Args:
            pixel_values_videos: (B, T, 3, H, W) normalised pixels, padded at the right and bottom.
            video_sizes: (B, 2) height and width of each item's frames without padding, in pixels, multiples of the
                patch size. None: nothing is padding.
            **options: see [`DualVideoEncoder`].

        Returns:
            [`RegionFeatures`] with N = T·h·w, the grid (T, h, w), a mask, False in the padding, and one pooled vector
            for each frame.

        Raises:
            ValueError: for another shape, or sides that are no multiples of the patch size.
        """
        patch = self.config.patch_size
        check_frames(pixel_values_videos, self.config.model_type, parts=(patch, patch))
        batch, frames, _, height, width = pixel_values_videos.shape
        if video_sizes is None:
            video_sizes = torch.tensor([[height, width]], device=pixel_values_videos.device).expand(batch, 2)
        grid = (frames, height // patch, width // patch)
        rows, columns = (torch.arange(number, device=pixel_values_videos.device) for number in grid[1:])
        shapes = video_sizes // patch  # (B, 2)
        inside = (rows[:, None] < shapes[:, 0, None, None]) & (columns < shapes[:, 1, None, None])  # (B, h, w)
        inside = inside.flatten(1).repeat_interleave(frames, 0)  # (B·T, h·w)
        # The encoder takes each frame's patches in row-major order, followed by padding.
        order = inside.int().argsort(dim=1, descending=True, stable=True)[:, : int(inside.sum(1).max())]
        patches = pixel_values_videos.unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch))
        patches = patches.permute(0, 1, 3, 5, 4, 6, 2).flatten(4).flatten(2, 3).flatten(0, 1)  # (B·T, h·w, p·p·3)
        output = self.model(
            patches.gather(1, order.unsqueeze(-1).expand(-1, -1, patches.shape[-1])),
            inside.gather(1, order),
            shapes.repeat_interleave(frames, 0),
            **options,
        )
        tokens = self.pool_alone(output.last_hidden_state)
        regions = tokens.new_zeros(*inside.shape, tokens.shape[-1])
        regions = regions.scatter(1, order.unsqueeze(-1).expand_as(tokens), tokens)
        return RegionFeatures(
            (regions * inside.unsqueeze(-1)).unflatten(0, (batch, frames)).flatten(1, 2),
            grid,
            mask=inside.unflatten(0, (batch, frames)).flatten(1),
            pooled=output.pooler_output.unflatten(0, (batch, frames)),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
