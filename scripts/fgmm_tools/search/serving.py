"""Search over HTTP: an index behind a FastAPI application.

    GET  /search?text=two+eggs     moments that fit a text, as `search_videos.py --json` gives them, each with the URL
                                   of its file and time
    POST /search/KIND              moments that fit a sound, picture or clip, which is the body of the request
    GET  /index                    what the index holds
    GET  /media/ID                 a file of the index, by its number there; in parts, so that players can seek
    GET  /docs, /openapi.json      the interface

Files are named by their numbers in the index and nothing else, and one is sent only while its real path, all links
followed, is below an indexed folder. Texts, bodies and answers are bounded; so are the searches at
work, those that wait, and the time that each may take.
"""

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from processing_fgmm import MediaError

from ..cli import UserError
from ..corpora.problems import escape
from .serving_limits import ServingLimits
from .video_index import SearchResult, VideoIndex

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException, Query, Request
    from fastapi.middleware.trustedhost import TrustedHostMiddleware
    from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
except ImportError as error:
    raise UserError("Serving a search needs fastapi and uvicorn; install fgmm[serve].") from error

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_TEXT = 1000  # characters of a query
MAX_TOP = 100  # moments of an answer


class SearchThreads:
    """A bounded number of threads for searches, and a bounded number of searches that wait for them.

    A search whose time is over is answered as late; its thread cannot be stopped, and counts until it is free again.
    """

    def __init__(self, limits: ServingLimits):
        self.limits = limits
        self.executor = ThreadPoolExecutor(limits.max_searches, thread_name_prefix="search")
        self.at_work = 0
        self.arriving = 0

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """While the file of a query arrives; as many may arrive at once as may wait.

        Raises:
            HTTPException: 503 when too many do.
        """
        if self.arriving > self.limits.max_waiting:
            raise HTTPException(503, "Too many searches wait; try again soon.", {"Retry-After": "1"})
        self.arriving += 1
        try:
            yield
        finally:
            self.arriving -= 1

    async def run(self, function: Callable[[], SearchResult]) -> SearchResult:
        """The result of a function that runs in a thread.

        Raises:
            HTTPException: 503 when too many wait, or the time is over.
        """
        if self.at_work >= self.limits.max_searches + self.limits.max_waiting:
            raise HTTPException(503, "Too many searches wait; try again soon.", {"Retry-After": "1"})
        self.at_work += 1
        future = asyncio.get_running_loop().run_in_executor(self.executor, function)
        future.add_done_callback(self.release)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self.limits.timeout)
        except TimeoutError as error:
            raise HTTPException(503, f"The search took longer than {self.limits.timeout:g} s.") from error

    def release(self, future: asyncio.Future) -> None:
        """Counts a search as done, whether or not somebody still waits for it."""
        self.at_work -= 1
        if not future.cancelled():
            future.exception()  # one that nobody waits for is not reported as forgotten


def make_app(index: VideoIndex, limits: ServingLimits | None = None, host: str = LOOPBACK[0]) -> FastAPI:
    """The application.

    Args:
        index: open for searching; indexing may go on beside it.
        limits: None: the defaults.
        host: that it will listen on. On loopback only requests to loopback names are answered, so that no web page can
            reach it by a name of its own that it points here (DNS rebinding).
    """
    limits = limits or ServingLimits()
    threads = SearchThreads(limits)
    app = FastAPI(
        title="fgmm search", description="Finds moments in videos, sounds and images by text, sound or picture."
    )
    if host in LOOPBACK:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])

    @app.exception_handler(UserError)
    def explain(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"detail": escape(str(error))}, 400)

    top = Annotated[int, Query(ge=1, le=MAX_TOP, description="moments at most")]
    inside = Annotated[str | None, Query(max_length=MAX_TEXT, description="folder or file that moments are in")]
    after = Annotated[str | None, Query(max_length=40, description="date of the oldest files, as 2026-05-31")]
    seconds = Annotated[float | None, Query(ge=0, description="of the body's part that is searched for, s")]

    @app.get("/", include_in_schema=False)
    def redirect() -> RedirectResponse:
        return RedirectResponse("/docs")

    @app.get("/index")
    def describe_index() -> dict:
        """What the index holds; `complete` says whether all files of its folders are in it."""
        manifest = index.manifest
        names = ("model", "folders", "complete", "num_files", "num_windows", "num_damaged", "num_pending", "date")
        return {name: getattr(manifest, name) for name in names}

    @app.get("/search")
    async def search_by_text(
        text: Annotated[str, Query(min_length=1, max_length=MAX_TEXT, description="what is seen, heard or said")],
        top: top = 10,
        inside: inside = None,
        after: after = None,
        spoken: Annotated[float, Query(ge=0, le=100, description="weight of words in subtitles")] = 1.0,
    ) -> JSONResponse:
        """The moments that fit a text, the best first."""
        options = {"top": top, "after": after, "spoken": spoken}
        result = await threads.run(lambda: index.search(text, inside=find_inside(index, inside), **options))
        return answer(result)

    @app.post("/search/{kind}")
    async def search_by_media(
        request: Request,
        kind: Literal["sound", "picture", "clip"],
        top: top = 10,
        inside: inside = None,
        after: after = None,
        start: seconds = 0.0,
        end: seconds = None,
    ) -> JSONResponse:
        """The moments that fit a sound, a picture or a clip: a media file, which is the body of the request."""
        options = {"top": top, "after": after}
        with threads.receiving(), tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "query")
            await receive_body(request, path, limits)
            query = (path, start, end) if kind == "clip" else path
            try:
                result = await threads.run(
                    lambda: index.search(**{kind: query}, inside=find_inside(index, inside), **options)
                )
            except MediaError as error:
                raise HTTPException(400, str(error).replace(str(path), "the file of the query")) from error
        return answer(result)

    @app.get("/media/{file}", response_class=FileResponse)
    @app.head("/media/{file}", include_in_schema=False)
    def send_media(file: int) -> FileResponse:
        """A file of the index, by its number; `Range` asks for a part of it."""
        path = find_media(index, file)
        return FileResponse(path, headers={"X-Content-Type-Options": "nosniff"})

    return app


async def receive_body(request: Request, path: Path, limits: ServingLimits) -> None:
    """Writes the body of a request to a file.

    Raises:
        HTTPException: 413 when it is too large, 408 when it takes too long, 400 when there is none.
    """
    size = 0
    try:
        async with asyncio.timeout(limits.timeout):
            with path.open("wb") as file:
                async for piece in request.stream():
                    size += len(piece)
                    if size > limits.max_upload:
                        raise HTTPException(413, f"The file is larger than {limits.max_upload} bytes.")
                    file.write(piece)
    except TimeoutError as error:
        raise HTTPException(408, f"The file did not arrive within {limits.timeout:g} s.") from error
    if not size:
        raise HTTPException(400, "The body of the request must be a media file.")


def answer(result: SearchResult) -> JSONResponse:
    """A result as JSON, each moment with the URL of its file, at its time."""
    content = result.to_dict()
    for moment, entry in zip(result.moments, content["moments"], strict=True):
        time = "" if moment.file.kind == "image" else f"#t={moment.start:.3f},{moment.end:.3f}"
        entry["url"] = f"/media/{moment.file.id}{time}"
    return JSONResponse(escape_all(content))


def escape_all(value):
    """JSON whose texts UTF-8 can hold: names of files need not be UTF-8."""
    if isinstance(value, dict):
        return {name: escape_all(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [escape_all(entry) for entry in value]
    return escape(value) if isinstance(value, str) else value


def find_inside(index: VideoIndex, inside: str | None) -> str | None:
    """The folder or file that moments must be in, as an absolute path below an indexed folder.

    Nothing else of the disk is looked at, so that a request cannot find out what is there.

    Raises:
        HTTPException: 400 when it is not below an indexed folder.
    """
    if inside is None:
        return None
    state = index.state()
    for folder in state.manifest.folders:
        path = os.path.normpath(os.path.join(folder, inside))
        if Path(path).is_relative_to(folder) and len(state.catalog.select_windows(path, None)):
            return path
    raise HTTPException(400, f"{escape(inside)!r} is not in the index.")


def find_media(index: VideoIndex, file: int) -> Path:
    """The real path of a file of the index, all links followed.

    Raises:
        HTTPException: 404 when there is no such file, or its real path is not below an indexed folder.
    """
    state = index.state()
    entry = state.catalog.get_files([file]).get(file) if 0 <= file < 2**63 else None
    path = entry and real_path(entry.path, state.manifest.folders)
    if not path:
        raise HTTPException(404, "The index has no such file, or it is no longer there.")
    return path


def real_path(path: Path, folders: list[str]) -> Path | None:
    """Where a file really is, all links followed; None where that is no file below one of these folders."""
    try:
        real = path.resolve(strict=True)
        roots = [Path(folder).resolve(strict=True) for folder in folders if Path(folder).is_dir()]
    except (OSError, RuntimeError):  # it is gone, or links lead in a circle
        return None
    return real if real.is_file() and any(real.is_relative_to(root) for root in roots) else None


def serve(index: VideoIndex, limits: ServingLimits, host: str, port: int) -> None:
    """Serves an index until the process is stopped.

    Args:
        host, port: to listen on; port 0: a free one.

    Raises:
        UserError: when it cannot listen there, or the index' model is not there any more.
    """
    _ = index.loaded  # so that the first search is as fast as the others
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(
            f"{host}, port {port}, cannot be listened on ({os.strerror(error.errno)}); give another."
        ) from error
    config = uvicorn.Config(
        make_app(index, limits, host),
        log_level="warning",
        limit_concurrency=limits.max_connections,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=2**14,
        server_header=False,
    )
    name = f"[{host}]" if ":" in host else host
    print(f"Serving {index.folder.path} at http://{name}:{listening.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listening])
