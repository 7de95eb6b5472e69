"""The clips of a corpus with their regions, and the texts whose places in them are known."""

from dataclasses import dataclass, field

from tqdm import tqdm

from modeling_fgmm import ClipRegions, FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.clips_fgmm import fetch_media
from processing_fgmm.corpora_fgmm import load_corpus
from processing_fgmm.media_fgmm import MediaError, unwrap_file

from ..cli import UserError
from ..corpora.mentions import Mention, read_mentions


@dataclass(frozen=True)
class LocatedText:
    """Words of a caption, and the mention that says where what they name is.

    Args:
        text: the words.
        mention: of them.
    """

    text: str
    mention: Mention


@dataclass
class LocatedClip:
    """A row of a corpus with the regions of its modalities, and the texts whose places in it are known.

    Args:
        video_id: of the row.
        regions: under "video" and "audio", on the model's device.
        texts: those with a word that the model knows, of modalities that the row has.
    """

    video_id: str
    regions: dict[str, ClipRegions] = field(default_factory=dict)
    texts: list[LocatedText] = field(default_factory=list)

    def of(self, modality: str) -> list[LocatedText]:
        """The texts of one modality."""
        return [located for located in self.texts if located.mention.modality == modality]

    def names(self) -> set[str]:
        """The names of all that its texts name."""
        return {located.mention.name for located in self.texts}


def read_clips(
    model: FgmmModel, processor: FgmmProcessor, dataset: str, split: str, config: str | None, limit: int | None
) -> list[LocatedClip]:
    """The clips of a split with their regions, without those that cannot be decoded or mention nothing.

    Raises:
        UserError: when no row has a mention, or none can be decoded.
    """
    corpus = load_corpus(dataset, split, config)
    if "mentions" not in corpus.column_names:
        raise UserError(
            f"{dataset} has no column 'mentions', which says where things are; prepare it anew, or give a corpus that "
            "has it."
        )
    clips, failures = [], 0
    rows = corpus if limit is None else corpus.take(limit)
    for row in tqdm(rows, desc=f"Encoding {split}", unit="clip", leave=False):
        mentions = read_mentions(row)
        if not mentions:
            continue
        try:
            clips.append(encode_clip(model, processor, fetch_media(row), mentions))
        except MediaError as error:
            failures += 1
            tqdm.write(f"Skipped a clip: {error}")
    clips = [clip for clip in clips if clip.texts]
    if not clips:
        raise UserError(
            f"No clip of the split {split!r} of {dataset} mentions anything that can be measured ({failures} cannot be "
            "decoded); prepare the corpus anew, or give another."
        )
    return clips


def encode_clip(model: FgmmModel, processor: FgmmProcessor, row: dict, mentions: list[Mention]) -> LocatedClip:
    """A row with the regions of the modalities that its mentions are of and that the model compares with text.

    Raises:
        MediaError: when it cannot be decoded.
    """
    clip = LocatedClip(row["video_id"])
    video, image, audio = (unwrap_file(row.get(column)) for column in ("video", "image", "audio"))
    wanted = {mention.modality for mention in mentions}
    if "video" in wanted and "text_video" in model.objectives and (video is not None or image is not None):
        given = {"image": image} if video is None else {"video": video}
        clip.regions["video"] = model.encode_regions(**given, processor=processor)
    sound = video if audio is None else audio
    if "audio" in wanted and "text_audio" in model.objectives and sound is not None:
        try:
            clip.regions["audio"] = model.encode_regions(audio=sound, processor=processor)
        except MediaError:
            raise
        except ValueError:  # it has no sound
            pass
    texts = [row["captions"][mention.caption]["text"][mention.first : mention.last] for mention in mentions]
    _, unknown = processor.check_words(texts)
    clip.texts = [
        LocatedText(text, mention)
        for index, (text, mention) in enumerate(zip(texts, mentions, strict=True))
        if index not in unknown and mention.modality in clip.regions
    ]
    return clip
