"""The text encoder: MIL-NCE's text tower applied to each phrase, optionally after transformer layers; word pooling."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_fgmm import FgmmTextConfig
from .layers_fgmm import FgmmPreTrainedModel, WordFeatures


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention, with the signature of transformers' other implementations.

    Args:
        query, key, value: (B, heads, L, C / heads).
        attention_mask: (B, 1, L, L), added to the logits; None: every token attends to all.
        scaling: factor of the logits.

    Returns:
        The output (B, L, heads, C / heads), and the weights (B, heads, L, L).
    """
    logits = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        logits = logits + attention_mask
    weights = logits.softmax(-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights


class TextLayer(GradientCheckpointingLayer):
    """A pre-norm transformer layer (Vaswani et al., 2017)."""

    is_causal = False  # read by transformers' attention implementations

    def __init__(self, config: FgmmTextConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.attention_norm = nn.LayerNorm(config.hidden_size)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.attention_output = nn.Linear(config.hidden_size, config.hidden_size)
        self.mlp_norm = nn.LayerNorm(config.hidden_size)
        self.mlp_input = nn.Linear(config.hidden_size, 4 * config.hidden_size)
        self.mlp_output = nn.Linear(4 * config.hidden_size, config.hidden_size)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, L, C), and a mask for the attention implementation -> (B, L, C), and weights (B, heads, L, L) or None."""
        batch, length, width = hidden_states.shape
        qkv = self.qkv(self.attention_norm(hidden_states)).view(batch, length, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        attended, weights = attention(
            self, query, key, value, attention_mask, scaling=(width // self.num_heads) ** -0.5, dropout=0.0
        )
        hidden_states = hidden_states + self.attention_output(attended.reshape(batch, length, width))
        return hidden_states + self.mlp_output(F.gelu(self.mlp_input(self.mlp_norm(hidden_states)))), weights


class FgmmTextEncoder(FgmmPreTrainedModel):
    """Tokens to one vector a phrase, before the projection; `out_channels` is its number of dimensions (C)."""

    config_class = FgmmTextConfig
    main_input_name = "input_ids"
    input_modalities = ("text",)
    _input_embed_layer = "word_embedding"

    def __init__(self, config: FgmmTextConfig):
        super().__init__(config)
        self.word_embedding = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([TextLayer(config) for _ in range(config.num_hidden_layers)])
        if self.layers:
            self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
            self.norm = nn.LayerNorm(config.hidden_size)
        self.linear = nn.Linear(config.hidden_size, config.intermediate_size)
        self.out_channels = config.intermediate_size

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        phrase_spans: torch.Tensor,
        caption_lengths: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> WordFeatures:
        """
        Args:
            input_ids: (B, L) token ids, all candidate captions of an item end to end.
            attention_mask: (B, L) 1 for tokens, 0 for padding.
            phrase_spans: (B, M, 2) first token and one past the last of each phrase; phrases do not overlap, and an
                empty span is padding.
            caption_lengths: (B, K) tokens of each candidate caption, 0 for padding; transformer layers attend within a
                caption. None: an item is one text.
            output_hidden_states, output_attentions: return those of the transformer layers, see [`FgmmTextOutput`].

        Returns:
            [`WordFeatures`] of phrases: (B, M, C) the maximum over each phrase's words, 0 for padding.

        Raises:
            ValueError: when a text is longer than the transformer layers' positions.
        """
        encode = partial(
            self.encode_words, output_hidden_states=output_hidden_states, output_attentions=output_attentions
        )
        if self.layers:
            words = encode_each_caption(encode, input_ids, attention_mask, caption_lengths)
        else:
            words = encode(input_ids, attention_mask)
        return replace(words, features=max_over_spans(words.features, phrase_spans))

    def encode_words(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> WordFeatures:
        """Token ids and their mask, 1 for tokens, (B, L) each -> word vectors (B, L, C)."""
        hidden_states = self.dropout(self.word_embedding(input_ids))
        states, attentions = [], []
        if self.layers:
            length = input_ids.shape[1]
            if length > self.config.max_position_embeddings:
                raise ValueError(
                    f"The text has {length} tokens, but max_position_embeddings is "
                    f"{self.config.max_position_embeddings}; pass truncation=True and max_length to the processor."
                )
            hidden_states = hidden_states + self.position_embedding(torch.arange(length, device=input_ids.device))
            attention_mask = create_bidirectional_mask(self.config, hidden_states, attention_mask)
            states = [hidden_states]
            for layer in self.layers:
                hidden_states, weights = layer(hidden_states, attention_mask)
                states.append(hidden_states)
                attentions += [] if weights is None else [weights]
            hidden_states = self.norm(hidden_states)
        return WordFeatures(
            F.relu(self.linear(hidden_states)),
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )


def encode_each_caption(
    encode: Callable, input_ids: torch.Tensor, attention_mask: torch.Tensor, caption_lengths: torch.Tensor | None
) -> WordFeatures:
    """Encodes each candidate caption separately: an item's captions are alternatives, not one text.

    Args:
        encode: token ids and their mask, 1 for tokens, (captions, l) each, to [`WordFeatures`] of words (captions, l,
            C) and, of an encoder with a pooling of its own, one vector a caption (captions, C).
        input_ids: (B, L) token ids, the candidate captions of an item end to end.
        attention_mask: (B, L) 0 for padding.
        caption_lengths: (B, K) tokens of each candidate caption, 0 for padding. None: an item is one text.

    Returns:
        [`WordFeatures`]: word vectors (B, L, C), pooled captions (B, K, C), 0 for padding, or None; hidden states and
        attentions have one row a caption.
    """
    if caption_lengths is None or not bool(caption_lengths.any()):
        # An item without tokens attends to its padding, which no phrase contains: a softmax over nothing is NaN.
        texts = encode(input_ids, attention_mask.masked_fill(~attention_mask.bool().any(1, keepdim=True), 1))
        return texts if texts.pooled is None else replace(texts, pooled=texts.pooled.unsqueeze(1))
    batch, length = input_ids.shape
    item, caption = caption_lengths.nonzero(as_tuple=True)  # (captions,)
    lengths = caption_lengths[item, caption]
    first = item * length + caption_lengths.cumsum(1)[item, caption] - lengths
    offsets = torch.arange(int(lengths.max()), device=input_ids.device)
    inside = offsets < lengths.unsqueeze(1)
    places = (first.unsqueeze(1) + offsets).clamp(max=batch * length - 1)  # (captions, l)
    captions = encode(input_ids.flatten()[places], inside.long())
    words, pooled = captions.features, captions.pooled
    rows = words.new_zeros(batch * length, words.shape[-1])
    rows[places[inside]] = words[inside]
    if pooled is not None:
        pooled = pooled.new_zeros(*caption_lengths.shape, pooled.shape[-1]).index_put((item, caption), pooled)
    return replace(captions, features=rows.view(batch, length, -1), pooled=pooled)


def max_over_spans(words: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """The maximum of word vectors over each span.

    No shape depends on values, so that graphs can be compiled and exported.

    Args:
        words: (B, L, C).
        spans: (B, M, 2) first and one past the last word; spans do not overlap.

    Returns:
        (B, M, C); 0 for an empty span.
    """
    batch, length, channels = words.shape
    places = torch.arange(length, device=words.device).unsqueeze(-1)
    inside = (places >= spans[:, None, :, 0]) & (places < spans[:, None, :, 1])  # (B, L, M)
    # Words outside of all spans go into one more span, which is dropped.
    span = torch.where(inside.any(2), inside.int().argmax(2), spans.shape[1])
    pooled = words.new_full((batch, spans.shape[1] + 1, channels), torch.finfo(words.dtype).min)
    pooled = pooled.scatter_reduce(1, span.unsqueeze(-1).expand_as(words), words, reduce="amax")[:, :-1]
    return pooled.masked_fill((spans[..., 1] <= spans[..., 0]).unsqueeze(-1), 0.0)


def complete_phrases(
    attention_mask: torch.Tensor,
    phrase_spans: torch.Tensor | None,
    phrase_captions: torch.Tensor | None,
    phrase_mask: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Completes the phrase inputs that are None, and zeroes padded entries.

    Args:
        attention_mask: (B, L) 0 for padding.
        phrase_spans: (B, M, 2) first token and one past the last of each phrase. None: each item is one phrase.
        phrase_captions: (B, M) index of each phrase's candidate caption. None: each item is one caption.
        phrase_mask: (B, M) False for padding. None: empty spans are padding.

    Returns:
        The three of them, the mask bool, spans and captions 0 for padding; and K.
    """
    if phrase_spans is None:
        phrase_spans = span_of_text(attention_mask)
    if phrase_mask is None:
        phrase_mask = phrase_spans[..., 1] > phrase_spans[..., 0]
    phrase_mask = phrase_mask.bool()
    phrase_spans = phrase_spans.masked_fill(~phrase_mask.unsqueeze(-1), 0)
    if phrase_captions is None:
        return phrase_spans, torch.zeros_like(phrase_mask, dtype=torch.long), phrase_mask, 1
    phrase_captions = phrase_captions.masked_fill(~phrase_mask, 0)
    num_captions = int(phrase_captions.max()) + 1 if phrase_captions.numel() else 1
    return phrase_spans, phrase_captions, phrase_mask, num_captions


def span_of_text(attention_mask: torch.Tensor) -> torch.Tensor:
    """The span of all tokens, with the padding on either side: (B, L) -> (B, 1, 2); (0, 0) of an empty text."""
    length = attention_mask.shape[1]
    places = torch.arange(length, device=attention_mask.device)
    first = torch.where(attention_mask.bool(), places, length).amin(1)
    last = torch.where(attention_mask.bool(), places + 1, 0).amax(1)
    return torch.stack([torch.minimum(first, last), last], dim=-1).unsqueeze(1)


def max_over_captions(
    phrases: torch.Tensor, phrase_mask: torch.Tensor, phrase_captions: torch.Tensor, num_captions: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The maximum over the words of each item and of each caption, that is over those of their phrases.

    Args:
        phrases: (B, M, C) maxima over the words of each phrase.
        phrase_mask: (B, M) False for padding.
        phrase_captions: (B, M) index of each phrase's caption, in 0..K-1.
        num_captions: K.

    Returns:
        Items (B, C) and captions (B, K, C), 0 where they have no phrase, and the captions' mask (B, K), False there.
    """
    caption_mask = (F.one_hot(phrase_captions, num_captions).bool() & phrase_mask.unsqueeze(-1)).any(1)
    lowest = torch.finfo(phrases.dtype).min
    shape = (phrases.shape[0], num_captions, phrases.shape[2])  # len(phrases) would fix B in an exported graph
    index = phrase_captions.unsqueeze(-1).expand_as(phrases)
    words = phrases.masked_fill(~phrase_mask.unsqueeze(-1), lowest)
    captions = phrases.new_full(shape, lowest).scatter_reduce(1, index, words, reduce="amax")
    items = captions.amax(1).masked_fill(~caption_mask.any(1, keepdim=True), 0.0)
    return items, captions.masked_fill(~caption_mask.unsqueeze(-1), 0.0), caption_mask
