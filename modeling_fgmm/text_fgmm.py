"""Words to phrases: the text tower of MIL-NCE applied to each phrase, optionally after transformer layers."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_fgmm import FgmmTextConfig


class TextLayer(GradientCheckpointingLayer):
    """A pre-norm transformer layer (Vaswani et al., 2017)."""

    def __init__(self, config: FgmmTextConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.attention_norm = nn.LayerNorm(config.hidden_size)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.attention_output = nn.Linear(config.hidden_size, config.hidden_size)
        self.mlp_norm = nn.LayerNorm(config.hidden_size)
        self.mlp_input = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.mlp_output = nn.Linear(4 * config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """(B, L, C) with a boolean mask (B, 1, 1, L) of what may be attended to -> (B, L, C)."""
        batch, length, width = hidden_states.shape
        qkv = self.qkv(self.attention_norm(hidden_states)).view(batch, length, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        hidden_states = hidden_states + self.attention_output(attended.transpose(1, 2).reshape(batch, length, width))
        return hidden_states + self.mlp_output(F.gelu(self.mlp_input(self.mlp_norm(hidden_states))))


class FgmmTextEncoder(nn.Module):
    """Words to one vector a phrase, before the projection; `out_channels` are its dimensions."""

    def __init__(self, config: FgmmTextConfig):
        super().__init__()
        self.config = config
        self.word_embedding = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([TextLayer(config) for _ in range(config.num_hidden_layers)])
        if self.layers:
            self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
            self.norm = nn.LayerNorm(config.hidden_size)
        self.linear = nn.Linear(config.hidden_size, config.intermediate_size)
        self.out_channels = config.intermediate_size

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, phrase_spans: torch.Tensor
    ) -> torch.Tensor:
        """
        Args:
            input_ids: (B, L) token ids, all candidate captions of an item end to end.
            attention_mask: (B, L) 1 for tokens, 0 for padding.
            phrase_spans: (B, M, 2) first token and one past the last token of each phrase; phrases do not overlap,
                and an empty span is padding.

        Returns:
            (B, M, C) the maximum over each phrase's words, 0 for padding.

        Raises:
            ValueError: when the text is longer than the transformer layers' positions.
        """
        hidden_states = self.dropout(self.word_embedding(input_ids))
        if self.layers:
            length = input_ids.shape[1]
            if length > self.config.max_position_embeddings:
                raise ValueError(
                    f"The text has {length} tokens, but max_position_embeddings is "
                    f"{self.config.max_position_embeddings}; pass truncation=True and max_length to the processor."
                )
            hidden_states = hidden_states + self.position_embedding.weight[:length]
            for layer in self.layers:
                hidden_states = layer(hidden_states, attention_mask.bool()[:, None, None, :])
            hidden_states = self.norm(hidden_states)
        return max_over_spans(F.relu(self.linear(hidden_states)), phrase_spans)


def max_over_spans(words: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """Maximum of non-negative word vectors over each span.

    Args:
        words: (B, L, C), not negative.
        spans: (B, M, 2) first and one past the last word.

    Returns:
        (B, M, C); an empty span gives 0.
    """
    batch, length, channels = words.shape
    lengths = spans[..., 1] - spans[..., 0]
    offsets = torch.arange(max(1, int(lengths.max()) if lengths.numel() else 1), device=words.device)
    rows = torch.arange(batch, device=words.device)[:, None, None] * length
    places = rows + (spans[..., :1] + offsets).clamp(max=length - 1)  # (B, M, W)
    pooled = words.flatten(0, 1).index_select(0, places.flatten()).view(*places.shape, channels)
    return pooled.masked_fill((offsets >= lengths.unsqueeze(-1)).unsqueeze(-1), 0.0).amax(2)
