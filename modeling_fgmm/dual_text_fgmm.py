"""The text encoders of dual encoders (CLIP, SigLIP, SigLIP 2, CLAP): texts to phrases and one pooled vector each."""

from dataclasses import replace
from functools import partial

import torch
from torch import nn
from transformers import ClapTextModel, CLIPTextModel, PreTrainedModel, Siglip2TextModel, SiglipTextModel

from .configuration_fgmm import FgmmConfig
from .hf_encoders_fgmm import check_text_length
from .layers_fgmm import WordFeatures
from .text_fgmm import encode_each_caption


class DualTextEncoder(nn.Module):
    """A text encoder with its own pooling; `out_channels` is the input size of the projection (C).

    Phrases are means over their words, to each of which the layers that follow the pooled token are applied.
    """

    model_class: type[PreTrainedModel]

    def __init__(self, config: FgmmConfig):
        super().__init__()
        self.config = config.text_config
        self.padding_side = config.text_padding_side
        self.model = self.build()
        self.out_channels = self.config.hidden_size

    def build(self) -> nn.Module:
        """transformers' encoder with random weights."""
        return self.model_class._from_config(self.config)

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        phrase_spans: torch.Tensor,
        caption_lengths: torch.Tensor | None = None,
        **options: bool,
    ) -> WordFeatures:
        """
        Args:
            input_ids, attention_mask, phrase_spans, caption_lengths: as in `FgmmTextEncoder`.
            **options: `output_hidden_states`, `output_attentions`: return the encoder's own, with a row for each
                caption.

        Returns:
            [`WordFeatures`] of phrases: (B, M, C) the mean over each phrase's words, 0 for padding, and the pooled
            captions (B, K, C).

        Raises:
            ValueError: when a text is longer than the encoder's positions.
        """
        encode = partial(self.encode_words, **options)
        words = encode_each_caption(encode, input_ids, attention_mask, caption_lengths)
        return replace(words, features=mean_over_spans(words.features, phrase_spans))

    def encode_words(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: bool) -> WordFeatures:
        """Token ids and their mask, 1 for tokens, (B, L) each -> words (B, L, C) and pooled texts (B, C)."""
        check_text_length(input_ids, self.model)
        input_ids = input_ids.masked_fill(attention_mask == 0, self.config.pad_token_id or 0)
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **options)
        return WordFeatures(
            self.pool_alone(output.last_hidden_state), output.pooler_output, output.hidden_states, output.attentions
        )

    def pool_alone(self, words: torch.Tensor) -> torch.Tensor:
        """Applies the layers that follow the pooled token to every word: (B, L, C) -> (B, L, C)."""
        return words


class ClipTextEncoder(DualTextEncoder):
    """CLIP's text encoder, which pools the end-of-text token."""

    model_class = CLIPTextModel


class ClapTextEncoder(DualTextEncoder):
    """CLAP's text encoder, which pools the first token, followed by a linear layer and tanh."""

    model_class = ClapTextModel

    def pool_alone(self, words: torch.Tensor) -> torch.Tensor:
        return self.model.pooler.activation(self.model.pooler.dense(words))


class SiglipTextEncoder(DualTextEncoder):
    """SigLIP's text encoder, which pools the last token of a text padded to `max_position_embeddings`."""

    model_class = SiglipTextModel

    def encode_words(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **options: bool) -> WordFeatures:
        """As in [`DualTextEncoder`]; pads to the full length, so that the padding of a batch has no influence."""
        check_text_length(input_ids, self.model)
        mask, length = attention_mask.bool(), self.config.max_position_embeddings
        places = mask.cumsum(1) - 1
        if self.padding_side == "left":
            places = places + length - mask.sum(1, keepdim=True)
        places = places.masked_fill(~mask, length)  # of padding, which one more column takes
        padded = input_ids.new_full((input_ids.shape[0], length + 1), self.config.pad_token_id)
        padded = padded.scatter(1, places, input_ids)[:, :length]
        output = self.model(input_ids=padded, **options)
        places = places.clamp(max=length - 1).unsqueeze(-1)
        words = output.last_hidden_state.gather(1, places.expand(-1, -1, output.last_hidden_state.shape[-1]))
        return WordFeatures(self.model.head(words), output.pooler_output, output.hidden_states, output.attentions)


class Siglip2TextEncoder(SiglipTextEncoder):
    """SigLIP 2's text encoder."""

    model_class = Siglip2TextModel


def mean_over_spans(words: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """The mean of word vectors over each span.

    Args:
        words: (B, L, C).
        spans: (B, M, 2) first and one past the last word.

    Returns:
        (B, M, C); 0 for an empty span.
    """
    places = torch.arange(words.shape[1], device=words.device)
    inside = (places >= spans[..., :1]) & (places < spans[..., 1:])  # (B, M, L)
    return inside.to(words.dtype) @ words / inside.sum(-1, keepdim=True).clamp(min=1)
