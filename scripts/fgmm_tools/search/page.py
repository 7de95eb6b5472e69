"""The moments of a search as one HTML page that needs no other file: pictures, heat maps, and links that play."""

import html
from pathlib import Path

from tqdm import tqdm

from ..records import write_whole
from .moments import Moment
from .pictures import Picture, draw
from .times import format_time
from .video_index import SearchResult, VideoIndex

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --accent: #d9480f; }
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1180px; padding: 1.2rem; }
h1 { font-size: 1.35rem; margin: 0 0 .2rem; }
.note { margin: .3rem 0; opacity: .8; }
.none { border-left: 4px solid var(--accent); padding: .4rem .8rem; background: var(--soft); opacity: 1; }
ol { list-style: none; padding: 0; display: grid; gap: 1rem;
     grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
li { border: 1px solid var(--line); border-radius: 10px; overflow: hidden; display: flex; flex-direction: column; }
.picture { position: relative; display: block; height: 180px; background: #111; text-align: center; }
.picture img { height: 180px; max-width: 100%; object-fit: contain; position: absolute; inset: 0; margin: auto; }
.picture .heat { opacity: 0; transition: opacity .15s; }
.picture:hover .heat, .picture:focus .heat, body:has(#heat:checked) .heat { opacity: 1; }
.missing { color: #ccc; line-height: 180px; }
.words { padding: .6rem .8rem .8rem; display: grid; gap: .3rem; }
.where { overflow-wrap: anywhere; font-weight: 600; }
.folder, .facts { overflow-wrap: anywhere; font-size: .85rem; opacity: .75; }
.said { font-style: italic; display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical;
        overflow: hidden; }
.chip { display: inline-block; padding: 0 .45rem; margin: 0 .25rem .2rem 0; border-radius: 9px;
        background: var(--soft); }
video, audio { width: 100%; max-height: 260px; background: #111; }
.strip { position: relative; height: 10px; background: var(--soft); border-radius: 3px; overflow: hidden; }
.strip i { position: absolute; top: 0; bottom: 0; background: var(--accent); }
.strip b { position: absolute; top: 0; bottom: 0; border: 1px solid currentColor; border-radius: 3px; }
"""


def write_page(path: Path, index: VideoIndex, result: SearchResult, title: str, text: str | None) -> list[str]:
    """Writes the page.

    Args:
        title: what was searched for. text: the query, where it was a text; its attention is drawn.

    Returns:
        a sentence for each moment that has no picture.
    """
    items, problems = [], []
    for number, moment in enumerate(tqdm(result.moments, desc="Drawing", unit="moment", leave=False), 1):
        picture = draw(moment, index.model, index.processor, text)
        if picture is None:
            problems.append(f"{moment.path} cannot be read any more, so that the page has no picture of it.")
        items.append(format_moment(number, moment, picture))
    has_heat = any('class="heat"' in item for item in items)
    toggle = (
        '<label><input type="checkbox" id="heat"> show where the words are seen or heard</label>' if has_heat else ""
    )
    write_whole(
        path,
        f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
<body>
<h1>{html.escape(title)}</h1>
{format_notes(index, result)}
{toggle}
<ol>
{"".join(items)}
</ol>
</body>
</html>
""",
    )
    return problems


def format_notes(index: VideoIndex, result: SearchResult) -> str:
    """What the reader must know before the moments."""
    manifest = index.manifest
    notes = []
    if result.nothing_matches:
        notes.append(("note none", "Nothing matches." + (" The nearest are shown." if result.moments else "")))
    if result.unknown_words:
        notes.append(("note none", f"The model does not know: {', '.join(result.unknown_words)}."))
    if not result.complete:
        notes.append(("note none", "The index is not complete: some files are not in it yet."))
    found = f"{len(result.moments)} moments in {manifest.num_files} files, {result.seconds:.2f} s"
    notes.append(("note", f"{found}. A click on a picture plays the moment."))
    return "\n".join(f'<p class="{kind}">{html.escape(note)}</p>' for kind, note in notes)


def format_moment(number: int, moment: Moment, picture: Picture | None) -> str:
    """One moment of the page."""
    uri = moment.file.path.as_uri()
    is_image = moment.file.kind == "image"
    link = uri if is_image else f"{uri}#t={moment.start:.2f},{moment.end:.2f}"
    times = "image" if is_image else f"{format_time(moment.start)} to {format_time(moment.end)}"
    shown = '<span class="missing">no picture</span>'
    if picture is not None:
        shown = f'<img src="{picture.plain}" alt="">'
        if picture.heat is not None:
            shown += f'<img class="heat" src="{picture.heat}" alt="">'
    chips = "".join(
        f'<span class="chip" style="opacity:{0.35 + 0.65 * min(1, weight):.2f}">{html.escape(words)}</span>'
        for words, weight in (picture.phrases if picture else [])
    )
    facts = [f"score {moment.score:.2f}"]
    facts += [name for name, holds in (("dark", moment.best.entry.dark), ("still", moment.best.entry.still)) if holds]
    if moment.duplicates:
        names = ", ".join(f"{other.file.path.name} {format_time(other.start)}" for other in moment.duplicates)
        facts.append(f"nearly the same: {names}")
    player = ""
    if not is_image:
        tag = "audio" if moment.file.kind == "audio" else "video"
        media = f'<{tag} controls preload="none" src="{html.escape(link)}"></{tag}>'
        player = f"<details><summary>play here</summary>{media}</details>"
    said = f'<div class="said">“{html.escape(moment.spoken)}”</div>' if moment.spoken else ""
    return f"""<li>
<a class="picture" href="{html.escape(link)}" title="play">{shown}</a>
<div class="words">
<div><span class="where">{number}. {html.escape(moment.file.path.name)}</span> {times}</div>
{format_strip(moment)}
<div>{chips}</div>
{said}
<div class="facts">{html.escape("; ".join(facts))}</div>
<div class="folder">{html.escape(str(moment.file.path.parent))}</div>
{player}
</div>
</li>
"""


def format_strip(moment: Moment) -> str:
    """The length of a file as a strip: the scores of its windows that were looked at, and a frame around the moment."""
    duration = moment.file.duration
    if not duration:
        return ""
    best = max(moment.score, 1e-6)
    parts = [
        f'<i style="left:{100 * window.entry.start / duration:.2f}%;'
        f"width:{100 * (window.entry.end - window.entry.start) / duration:.2f}%;"
        f'opacity:{max(0.0, min(1.0, window.score / best)) / 2:.2f}"></i>'
        for window in moment.windows
    ]
    left, width = 100 * moment.start / duration, 100 * (moment.end - moment.start) / duration
    return f'<div class="strip">{"".join(parts)}<b style="left:{left:.2f}%;width:{width:.2f}%"></b></div>'
