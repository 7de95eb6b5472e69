"""PE-AV (Perception Encoder Audio-Video): its video, audio and text encoders, and their contrastive heads.

Its text encoder has one head for videos and another for sounds, and videos and sounds are compared, too. Of all three
modalities the shared space is therefore made of three blocks, one for each pair: each modality has its vectors in the
blocks of its pairs, and 0 in the third. A cosine in this space is half of PE-AV's, for every pair.

PE-AV's logits are dot products of vectors that are not normalised, times a scale, plus a bias, of each pair. With
`normalize_embeds=False` embeddings are these vectors, and logits are exactly PE-AV's. It is not the default because
indexes, and scores that mix pooled embeddings with regions, need normalised ones.

PE-AV's joint encoder of videos with their sounds is left out. The published vision transformer is one of timm's
(`TimmWrapperConfig`), so that videos need timm, which needs torchvision; its video processor needs torchvision in
transformers, but not here, where [`FgmmVideoProcessor`] takes its settings over.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, PeAudioEncoder, PeVideoEncoder, PreTrainedConfig
from transformers.models.pe_audio_video.modeling_pe_audio_video import PeAudioVideoContrastiveHead

from .configuration_fgmm import FgmmConfig
from .dual_text_fgmm import DualTextEncoder
from .hf_encoders_fgmm import check_text_length, join_states
from .layers_fgmm import RegionFeatures, WordFeatures, join_rows

# The head that fills each block of the space of three modalities, video and text, audio and text, audio and video.
BLOCKS = {"video": (0, None, 0), "audio": (None, 0, 0), "text": (0, 1, None)}


class PeProjection(nn.Module):
    """The heads of one modality: one of videos and of sounds, of texts one for each modality that they describe."""

    def __init__(self, modality: str, config: FgmmConfig):
        super().__init__()
        self.blocks = BLOCKS[modality] if config.dual_encoder == "pe_audio_video" else (0,)
        size, width = getattr(config, f"{modality}_config").hidden_size, config.text_config.hidden_size
        self.heads = nn.ModuleList(PeAudioVideoContrastiveHead(size, width) for _ in {*self.blocks} - {None})

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(..., C) -> (..., D), of which the blocks are L2-normalised: only its direction has a meaning."""
        return self.concatenate([F.normalize(head(features), dim=-1) for head in self.heads])

    def concatenate_heads(self, features: torch.Tensor) -> torch.Tensor:
        """(..., C) -> (..., D), whose dot products are those of PE-AV's own vectors."""
        return self.concatenate([head(features) for head in self.heads])

    def concatenate(self, projected: list[torch.Tensor]) -> torch.Tensor:
        """The blocks of the shared space, 0 where the modality has no vector: of each head (..., D_b) -> (..., D)."""
        absent = torch.zeros_like(projected[0])
        return torch.cat([absent if block is None else projected[block] for block in self.blocks], dim=-1)


class PeVideoTower(nn.Module):
    """PE-AV's video encoder; `out_channels` is its hidden size (C). Its regions are frames, for it pools each frame."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.config = config
        self.model = PeVideoEncoder._from_config(config)
        self.out_channels = config.hidden_size

    def forward(self, pixel_values_videos: torch.Tensor, **options: bool) -> RegionFeatures:
        """
        Args:
            pixel_values_videos: (B, T, 3, H, W) normalised pixels.
            **options: `output_hidden_states`, `output_attentions`: return the encoder's own.

        Returns:
            [`RegionFeatures`] with N = T, the grid (T, 1, 1) and one pooled vector.
        """
        output = self.model(pixel_values_videos, **options)
        return RegionFeatures(
            output.last_hidden_state,
            (pixel_values_videos.shape[1], 1, 1),
            pooled=output.pooler_output.unsqueeze(1),
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )


class PeAudioTower(nn.Module):
    """PE-AV's audio encoder of waveforms; `out_channels` is its hidden size (C). A region is one hop of its codec."""

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.config = config
        self.model = PeAudioEncoder._from_config(config)
        self.out_channels = config.hidden_size
        self.hop_length = math.prod(config.dac_config.downsampling_ratios)

    def constant_modules(self) -> list[nn.Module]:
        """The codec, through which transformers' class passes no gradients."""
        return [self.model.embedder.dac_encoder, self.model.embedder.bottleneck]

    def forward(
        self, input_features: torch.Tensor, input_features_mask: torch.Tensor, **options: bool
    ) -> RegionFeatures:
        """Encodes sounds of one length together and without padding, at the edge of which the codec differs.

        Args:
            input_features: (B, S) samples.
            input_features_mask: (B, S) bool, False for padding, which is at the end.
            **options: `output_hidden_states`, `output_attentions`: return the encoder's own, 0 in the padding.

        Returns:
            [`RegionFeatures`], 0 in the padding, with the grid (1, N) and one pooled vector.

        Raises:
            ValueError: for another shape.
        """
        if input_features.ndim != 2:
            raise ValueError(
                f"input_features has shape {tuple(input_features.shape)}, but {self.config.model_type} takes "
                "waveforms, (batch, samples); make them with its own processor, FgmmProcessor.from_dual_encoder."
            )
        hops = self.count_hops(input_features_mask)
        longest = int(hops.max()) * self.hop_length
        waveforms = F.pad(
            input_features.masked_fill(~input_features_mask, 0.0), (0, max(0, longest - input_features.shape[1]))
        )
        rows = [(hops == number).nonzero().squeeze(1) for number in hops.unique().tolist()]
        outputs = [
            self.model(waveforms[own, : int(hops[own[0]]) * self.hop_length].unsqueeze(1), **options) for own in rows
        ]
        features = join_rows(rows, [output.last_hidden_state for output in outputs])
        pooled = join_rows(rows, [output.pooler_output for output in outputs])
        return RegionFeatures(
            features, (1, features.shape[1]), pooled=pooled.unsqueeze(1), **join_states(rows, outputs)
        )

    def count_hops(self, mask: torch.Tensor) -> torch.Tensor:
        """Regions of each sound, at least one: mask (B, S) -> (B,)."""
        return (mask.sum(1) + self.hop_length - 1).div(self.hop_length, rounding_mode="floor").clamp(min=1)

    def region_mask(self, input_features_mask: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        """The mask of the regions, (B, N) bool, False for padding.

        Args:
            input_features_mask: (B, S) bool, True for the samples of the sound.
            grid: (1, N).
        """
        places = torch.arange(grid[1], device=input_features_mask.device)
        return (places < self.count_hops(input_features_mask).unsqueeze(1)) & input_features_mask.any(1, keepdim=True)


class PeTextEncoder(DualTextEncoder):
    """PE-AV's text encoder, whose pooled token is the first."""

    def build(self) -> nn.Module:
        return AutoModel.from_config(self.config)

    def encode_words(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: bool) -> WordFeatures:
        """As in [`DualTextEncoder`]."""
        check_text_length(input_ids, self.model)
        input_ids = input_ids.masked_fill(attention_mask == 0, self.config.pad_token_id or 0)
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **options)
        words = output.last_hidden_state
        return WordFeatures(words, words[:, 0], output.hidden_states, output.attentions)
