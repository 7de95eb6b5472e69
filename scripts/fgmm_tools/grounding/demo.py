"""The page to try grounding: choose, record or upload a file, type, and see where and when the phrases are.

Nothing leaves the machine: files stay in a temporary folder that is emptied, gradio's analytics are off, and browsers
are told to load nothing from elsewhere.
"""

import html
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported

import gradio
from fastapi import FastAPI, Request

from modeling_fgmm import FgmmModel
from processing_fgmm import FgmmProcessor
from processing_fgmm.media_fgmm import MediaError, probe_media

from ..cli import UserError
from .files import ground_file
from .page import make_page

if TYPE_CHECKING:
    from ..search.video_index import VideoIndex  # needs the extra search

# What one request may ask for, seconds of video or sound; and the largest file, bytes.
MAX_SECONDS = 300.0
MAX_BYTES = 2**30
# Requests that are answered at once; others wait for their turn.
LIMITS = {"concurrency_limit": 2, "concurrency_id": "grounding"}
# Moments that a search of the index shows.
NUM_MOMENTS = 8
# Seconds after which uploaded files are deleted.
KEPT = 3600
# What browsers may load: nothing but what this server sends, or what is in the page itself.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:"
)
MEDIA = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".wav", ".mp3", ".flac", ".ogg", ".m4a", ".jpg", ".jpeg", ".png")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
HINT = "Give a file and a text; the phrases of the text appear here, with where and when they are."
ABOUT = (
    "# Where and when is it?\n"
    "Give a video, a sound or a picture and a text about it. Each phrase of the text is shown where and when the model "
    "finds it, with its weight and how sure it is. Everything is computed on this machine."
)


# A part of a file: its path, start and end in seconds, both 0 of an image.
Place = tuple[str, float, float]


@dataclass
class Demo:
    """What answers requests.

    Args:
        model, processor: in evaluation mode, as loaded.
        folder: of media files that may be chosen; None: none.
        index: of media files that are searched; None: none.
    """

    model: FgmmModel
    processor: FgmmProcessor
    folder: Path | None = None
    index: "VideoIndex | None" = None

    def __post_init__(self):
        self.lock = threading.Lock()  # tokenizers change their settings from call to call

    def list_files(self) -> list[str]:
        """The media files of the folder, by their paths in it."""
        if self.folder is None:
            return []
        paths = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in MEDIA)
        return [str(path.relative_to(self.folder)) for path in paths]

    def answer(
        self, path: str | None, chosen: str | None, text: str | None, start: float | None, end: float | None
    ) -> str:
        """The page of one request, or a sentence that says why there is none.

        Args:
            path: of an uploaded or recorded file.
            chosen: of a file in the folder, where none is uploaded.
            text: a caption.
            start, end: the part of the file, seconds; None or 0: its start, its end.
        """
        try:
            return frame_page(make_page(self.ground(path, chosen, text, start, end)))
        except (MediaError, UserError, ValueError) as error:
            return refuse(str(error))
        except (OSError, MemoryError) as error:
            return refuse(f"The file cannot be read ({type(error).__name__}); give another.")

    def search(self, text: str | None) -> tuple[list[Place], str]:
        """The moments of the index that fit a text best, and what is said of them."""
        if not (text or "").strip():
            return [], "Type what you look for."
        try:
            with self.lock:
                found = self.index.search(text.strip(), top=NUM_MOMENTS)
        except (UserError, MediaError, ValueError) as error:
            return [], str(error)
        note = "Nothing matches; these are the nearest moments." if found.nothing_matches else "The best moments:"
        return [(moment.path, moment.start, moment.end) for moment in found.moments], note

    def show_place(self, number: int | None, places: list[Place], text: str | None) -> str:
        """The page of one of the moments that a search has found."""
        if number is None:
            return refuse(HINT)
        path, start, end = places[number]
        return self.answer(path, None, text, start, end)

    def ground(self, path: str | None, chosen: str | None, text: str | None, start: float | None, end: float | None):
        """The grounded file of a request.

        Raises:
            UserError, ValueError, MediaError: a sentence for who asked.
        """
        if not path and chosen in self.list_files():
            path = str(self.folder / chosen)
        if not path:
            raise UserError("Give a file: upload or record one, or choose one of the list.")
        if not (text or "").strip():
            raise UserError("Type what you look for, for example what is seen or heard.")
        name = Path(path).name
        if os.path.getsize(path) > MAX_BYTES:
            raise UserError(f"{name} has more than {MAX_BYTES / 2**30:g} GB; give a smaller file.")
        start, end = start or 0.0, end or None
        if Path(path).suffix.lower() in IMAGES:
            with self.lock:
                return ground_file(self.model, self.processor, text.strip(), image=path, name=name)
        duration = probe_media(path, name).duration
        last = duration if end is None else min(end, duration)
        if start < 0 or start >= last:
            raise UserError(
                f"{name} is {duration:.1f} s long; choose a start before its end, and an end after its start."
            )
        if last - start > MAX_SECONDS:
            raise UserError(
                f"{name} is {duration:.0f} s long, and at most {MAX_SECONDS:.0f} s are shown at once; choose a part by "
                "its start and end."
            )
        with self.lock:
            return ground_file(self.model, self.processor, text.strip(), video=path, start=start, end=last, name=name)


def refuse(sentence: str) -> str:
    """A refusal, as HTML."""
    return f'<div class="refusal" role="alert">{html.escape(sentence)}</div>'


def frame_page(page: str) -> str:
    """A page within the page, as HTML."""
    return f'<iframe class="grounding" title="Grounding" srcdoc="{html.escape(page)}"></iframe>'


STYLE = """
.grounding { width: 100%; height: 760px; border: 0; }
.refusal { padding: 12px 16px; border-left: 4px solid #a08a2e; background: #faf6e6; color: #16181d; font-size: 15px; }
footer { display: none !important; }
"""


def make_blocks(demo: Demo) -> gradio.Blocks:
    """The interface."""
    with gradio.Blocks(title="fgmm: where and when", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as blocks:
        gradio.Markdown(ABOUT)
        with gradio.Row():
            with gradio.Column(scale=1, min_width=320):
                with gradio.Tab("Video"):
                    video = gradio.Video(label="Video", sources=["upload", "webcam"], height=220)
                with gradio.Tab("Sound"):
                    sound = gradio.Audio(label="Sound", sources=["upload", "microphone"], type="filepath")
                with gradio.Tab("Picture"):
                    picture = gradio.Image(label="Picture", sources=["upload", "webcam"], type="filepath", height=220)
                with gradio.Tab("Any file"):
                    other = gradio.File(label="File", type="filepath")
                chosen = gradio.Dropdown(
                    demo.list_files(), value=None, label="Or choose a file", visible=bool(demo.list_files())
                )
                text = gradio.Textbox(label="Text", placeholder="a small red star spins", elem_id="text")
                with gradio.Row():
                    start = gradio.Number(label="Start, s", value=0, minimum=0)
                    end = gradio.Number(label="End, s (0: the end)", value=0, minimum=0)
                button = gradio.Button("Show", variant="primary", elem_id="show")
            with gradio.Column(scale=3, min_width=520):
                answer = gradio.HTML(refuse(HINT), elem_id="answer")
        if demo.index is not None:
            add_search(demo, text, answer)
        latest = gradio.State(None)  # the file that was given last, of whatever tab
        for part in (video, sound, picture, other):
            part.change(lambda path: path, part, latest, show_progress="hidden")
        for event in (button.click, text.submit):
            event(demo.answer, [latest, chosen, text, start, end], answer, **LIMITS)
    return blocks


def add_search(demo: Demo, text: gradio.Textbox, answer: gradio.HTML) -> None:
    """Adds a search of the index for the text, whose moments are then shown."""
    found = gradio.State([])
    button = gradio.Button("Search the index for the text", elem_id="search")
    note = gradio.Markdown("")
    moments = gradio.Radio([], label="Moments", type="value", elem_id="moments")

    def search(words):
        places, sentence = demo.search(words)
        labels = [f"{Path(path).name}{f', {start:.1f} to {end:.1f} s' if end else ''}" for path, start, end in places]
        choices = [(label, number) for number, label in enumerate(labels)]
        return gradio.Radio(choices=choices, value=None), sentence, places

    button.click(search, text, [moments, note, found], **LIMITS)
    moments.input(demo.show_place, [moments, found, text], answer, **LIMITS)


def make_app(demo: Demo) -> FastAPI:
    """The server's application, which tells browsers to load nothing from elsewhere."""
    app = FastAPI()

    @app.middleware("http")
    async def forbid_elsewhere(request: Request, call_next):
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    theme = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    options = {"css": STYLE, "theme": theme, "max_file_size": MAX_BYTES, "ssr_mode": False}
    return gradio.mount_gradio_app(app, make_blocks(demo), path="", **options)


def serve(demo: Demo, host: str, port: int) -> None:
    """Answers requests until it is stopped."""
    import uvicorn

    print(f"Open http://{host}:{port} in a browser; Ctrl-C stops.", flush=True)
    uvicorn.run(make_app(demo), host=host, port=port, log_level="warning")
