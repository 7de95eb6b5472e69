"""Classification by names alone: the classes are put into sentences and compared as texts."""

from collections.abc import Callable

import torch

from .encoding_fgmm import as_batch, evaluating, list_items
from .layers_fgmm import FgmmPreTrainedModel
from .outputs_fgmm import as_keys, as_queries


class FgmmZeroShotMixin:
    """`zero_shot_video_classification`, which transformers has no pipeline for."""

    @torch.no_grad()
    def zero_shot_video_classification(
        self,
        videos,
        candidate_labels: list[str],
        *,
        hypothesis_template: str | list[str] = "This is a video of {}.",
        processor=None,
        batch_size: int = 8,
        **kwargs,
    ) -> list[dict] | list[list[dict]]:
        """
        Which of some labels a video shows, in the form in which transformers' zero-shot pipelines answer.

        Args:
            videos: a video or image, or a list or column of them, as [`~FgmmModel.encode`] takes them.
            candidate_labels: one label or more.
            hypothesis_template: a sentence with {} for the label; of several the mean of the logits counts.
            processor: the model's. None: the one saved where the model was loaded from.
            batch_size: videos that are read and encoded at once.
            **kwargs: of the processor's call, `start` and `end` of a window in seconds, `num_frames`.

        Returns:
            `{"score", "label"}` of every label, the highest score first, for a list of videos a list of such lists.
            Scores are probabilities: the softmax over the labels of the model's logits.

        Raises:
            ValueError: for labels that are not a list of strings, a template without {}, a model that does not compare
                text with video, or where there is no processor.
            MediaError: (a ValueError) for a file that cannot be decoded.
        """
        templates = [hypothesis_template] if isinstance(hypothesis_template, str) else hypothesis_template
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1.")
        if processor is None:
            processor = self.load_processor()
        videos, single = list_items("videos", videos)
        answers = []
        with evaluating(self):
            score = make_zero_shot(self, processor, "video", candidate_labels, templates)
            for first in range(0, len(videos), batch_size):
                inputs = processor(videos=as_batch("videos", list(videos[first : first + batch_size])), **kwargs)
                for scores in score(inputs.to(self.device, self.dtype)).softmax(-1).tolist():
                    ranked = sorted(zip(scores, candidate_labels, strict=True), key=lambda pair: -pair[0])
                    answers.append([{"score": score, "label": label} for score, label in ranked])
        return answers[0] if single else answers


@torch.no_grad()
def make_zero_shot(
    model: FgmmPreTrainedModel, processor, modality: str, labels: list[str], templates: list[str]
) -> Callable[[dict], torch.Tensor]:
    """Encodes labels, and makes the function that compares with them.

    Args:
        model, processor: an [`FgmmModel`] and its own.
        modality: "video" or "audio".
        labels: of the classes.
        templates: sentences with {} for the label.

    Returns:
        Model inputs of that modality to (B, labels) logits, the mean over the templates.

    Raises:
        ValueError: for labels that are not a list of strings, a template without {}, or a model that does not compare
            text with this modality.
    """
    if f"text_{modality}" not in model.objectives:
        raise ValueError(f"The model does not compare text with {modality}, which zero-shot classification needs.")
    if isinstance(labels, str) or not labels or not all(isinstance(label, str) for label in labels):
        raise ValueError(f"The labels must be a list of at least one string, not {labels!r}.")
    for template in templates:
        if "{}" not in template:
            raise ValueError(f"The template {template!r} has no {{}}, where the label goes.")
    texts = processor(text=[template.replace("{}", label) for template in templates for label in labels])
    queries = as_queries(model.get_text_features(**texts.to(model.device)))
    encode = model.get_video_features if modality == "video" else model.get_audio_features

    def score(inputs: dict) -> torch.Tensor:
        logits = model.objectives[f"text_{modality}"](queries, as_keys(encode(**inputs)), return_loss=False)
        return logits.T.unflatten(1, (len(templates), len(labels))).mean(1)

    return score


__all__ = ["FgmmZeroShotMixin"]
