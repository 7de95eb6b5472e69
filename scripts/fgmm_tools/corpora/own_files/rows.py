"""What rows a folder of one's own files makes: the media in it, with the captions beside them."""

import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePath

from ...cli import UserError
from ..benchmarks.layout import AUDIO, IMAGE, VIDEO, Item, find_files
from ..captions import CAPTION_SUFFIXES, CaptionFileError, read_captions
from ..problems import Problems

# The column of a file by its extension, until it is decoded: a .webm may have sound alone.
COLUMNS = {**dict.fromkeys(AUDIO, "audio"), **dict.fromkeys(IMAGE, "image"), **dict.fromkeys(VIDEO, "video")}
SUBTITLES = (".srt", ".vtt")
# `en`, `pt-BR`, `zh_Hans`: what may stand before the extension of a text or JSON file that holds captions.
LANGUAGE_CODE = re.compile(r"[a-z]{2,3}([-_]\w+)*", re.IGNORECASE)

# The caption files of a row by their language as their names say it, empty where they say none.
CaptionFiles = dict[str, Path]


def find_items(source: Path, captions_required: bool, language: str | None, problems: Problems) -> list[Item]:
    """The rows of a folder: the media in it and below it, with the captions beside them as they stand in their files.

    Files of one name in one folder are one row, as `a.mp4`, `a.wav` and `a.srt` are; its id is their path without
    extension. Where two are of one kind, as `a.jpg` and `a.png` are, each is a row, and its id has the extension.

    Args:
        captions_required: leave out rows without captions.
        language: of captions, where a row has them in several; None: the only one.

    Raises:
        UserError: when there is no file of media, or captions are required and there are none.
    """
    files_of, unusable = find_media(source, problems)
    captions_of = find_captions(source, files_of, unusable, problems)
    if captions_required and files_of and not captions_of:
        raise UserError(
            f"{source} has no captions ({', '.join(CAPTION_SUFFIXES)}) beside its videos, sounds and images, "
            f"{len(files_of)} in number; --captions optional takes them without."
        )
    items = []
    for place, files in files_of.items():
        item = Item(place.relative_to(source).as_posix(), tuple(files.values()), columns=tuple(files))
        media = item.paths()[0].relative_to(source)
        captions = captions_of.get(place, {})
        path = choose_language(captions, language)
        if path is not None:
            items.append(replace(item, captions=read_own_captions(path, source, problems), captions_from=path))
            continue
        if captions and language is None:
            problems.add(media, f"has captions in {', '.join(sorted(captions))}; --language chooses one")
        elif captions:
            problems.add(media, f"has captions in {', '.join(sorted(captions))}, but not in {language!r}")
        elif captions_required:
            problems.add(media, f"has no captions beside it ({', '.join(CAPTION_SUFFIXES)})")
        if not captions_required:
            items.append(item)
    return items


def find_media(source: Path, problems: Problems) -> tuple[dict[Path, dict[str, Path]], set[Path]]:
    """The files of media in a folder and below it.

    Returns:
        {source and id of a row: {column: file}}, and the paths without extension of files that cannot be read.

    Raises:
        UserError: when there is none.
    """

    def add_folder(error: OSError) -> None:
        problems.add(Path(error.filename).relative_to(source), f"cannot be read: {error.strerror}")

    paths_of: dict[Path, list[Path]] = {}
    unusable: set[Path] = set()
    for path in find_files(source, tuple(COLUMNS), add_folder):
        if reason := why_unusable(path):
            problems.add(path.relative_to(source), reason)
            unusable.add(path.with_suffix(""))
            continue
        paths_of.setdefault(path.with_suffix(""), []).append(path)
    if not paths_of and not len(problems):
        suffixes = Counter(path.suffix.lower() or path.name for path in find_files(source))
        found = ", ".join(f"{number} {suffix}" for suffix, number in suffixes.most_common(5))
        raise UserError(
            f"{source} holds no video, sound or image, {f'but {found}' if found else 'and no other file'}; they are "
            "told by their endings, such as .mp4, .wav and .jpg."
        )
    files_of: dict[Path, dict[str, Path]] = {}
    for place, paths in paths_of.items():
        files = {column_of(path): path for path in paths}
        files_of |= {place: files} if len(files) == len(paths) else {path: {column_of(path): path} for path in paths}
    return files_of, unusable


def column_of(path: PurePath) -> str | None:
    """The media column of a file by its extension; None for a file of another kind."""
    return COLUMNS.get(path.suffix.lower())


def why_unusable(path: Path) -> str | None:
    """Why a file cannot be read at all, as the rest of a sentence; None where nothing is known against it."""
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8; rename it"
    if not path.exists():
        return "is a broken link"
    if not path.is_file():
        return "is no file"
    if not os.access(path, os.R_OK):
        return "may not be read"
    return None if path.stat().st_size else "is empty"


def find_captions(
    source: Path, files_of: dict[Path, dict[str, Path]], unusable: set[Path], problems: Problems
) -> dict[Path, CaptionFiles]:
    """The caption files of each row, as of `clip.mp4`: `clip.srt`, `clip.mp4.srt`, `clip.en.srt`, `clip.German.srt`.

    Args:
        files_of, unusable: see [`find_media`].
    """
    row_of = {path: place for place, files in files_of.items() for path in (place, *files.values())}
    row_of = {**dict.fromkeys(unusable), **row_of}
    found: dict[Path, CaptionFiles] = {}
    paths = sorted(find_files(source, CAPTION_SUFFIXES), key=lambda path: CAPTION_SUFFIXES.index(path.suffix.lower()))
    for path in paths:
        place, language = path.with_suffix(""), ""
        while place not in row_of and place.suffix:
            language = f"{place.suffix[1:]}.{language}".rstrip(".")
            place = place.with_suffix("")
        is_subtitle = path.suffix.lower() in SUBTITLES
        if place not in row_of:
            if is_subtitle:  # else it may be anything
                problems.add(path.relative_to(source), "belongs to no video, sound or image beside it, or to several")
        elif row_of[place] and (is_subtitle or not language or LANGUAGE_CODE.fullmatch(language)):  # not clip.info.json
            found.setdefault(row_of[place], {}).setdefault(language, path)
    return found


def choose_language(files: CaptionFiles, language: str | None) -> Path | None:
    """The caption file in a language, None where there is none; without a language that of none, or of the only one.

    `en-orig` and `en.sdh` are of the language `en`; of several such names the shortest is taken.
    """
    if language is not None:
        wanted = language.lower()
        fitting = [name for name in files if wanted in (name.lower(), first_word(name))]
        fitting = fitting or [name for name in files if not name]
    elif "" in files:
        fitting = [""]
    else:
        fitting = list(files) if len(set(map(first_word, files))) == 1 else []
    return files[min(fitting, key=lambda name: (name.lower() != language, len(name), name))] if fitting else None


def first_word(language: str) -> str:
    """The language of `en-orig`, `pt_BR`, `English (auto-generated)` or `en.sdh`, in lower case."""
    return re.split(r"[-_. (]", language.lower())[0]


def read_own_captions(path: Path, source: Path, problems: Problems) -> tuple[tuple, ...]:
    """(text, start, end) of each caption as they stand in a file; none, and a problem, where it cannot be read."""
    try:
        captions = read_captions(path)
    except CaptionFileError as error:
        problems.add(path.relative_to(source), str(error))
        return ()
    return tuple((caption["text"], caption["start"], caption["end"]) for caption in captions)
