import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from helpers import make_row, write_shards

from fgmm_tools.corpora.parquet_shards import corpus_features
from processing_fgmm import stores_fgmm
from processing_fgmm.clips_fgmm import fetch_media
from processing_fgmm.loaders_fgmm import ClipLoader
from processing_fgmm.media_fgmm import MediaError
from processing_fgmm.rowgroups_fgmm import ParquetRows, read_metadata
from processing_fgmm.stores_fgmm import is_final, read_file, with_retries
from processing_fgmm.streams_fgmm import NarratedClips


class Handler(BaseHTTPRequestHandler):
    """Gives the files of a folder, or parts of them; before that, as often as it is told to, another answer.

    A status of 0 is no answer: the connection is closed.
    """

    folder, status, failures, requests = None, 503, 0, 0

    def do_GET(self):
        type(self).requests += 1
        if type(self).failures:
            type(self).failures -= 1
            if type(self).status:
                self.send_error(type(self).status)
            return
        path = self.folder / self.path.lstrip("/")
        if not path.exists():
            self.send_error(404)
            return
        data, first, last = path.read_bytes(), 0, None
        if wanted := self.headers.get("Range"):
            first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
        part = data[first : None if last is None else last + 1]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part)

    do_HEAD = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The address of a web server of a folder with a corpus, and the class that handles its requests."""
    monkeypatch.setattr(stores_fgmm, "RETRY_SECONDS", (0, 0))
    rows = [make_row(tmp_path, index) for index in range(4)]
    write_shards(tmp_path, rows, 1, corpus_features("video"), group_rows=2)
    handler = type("OwnHandler", (Handler,), {"folder": tmp_path})
    with ThreadingHTTPServer(("localhost", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://localhost:{running.server_port}", handler
        running.shutdown()


@pytest.mark.parametrize("status", [503, 500, 429, 0])
def test_a_server_that_fails_for_a_while_is_asked_again(server, status):
    address, handler = server
    handler.status, handler.failures = status, 4  # fsspec asks twice before it says that there is no file
    assert with_retries(lambda: read_file(f"{address}/0.mp4"), "0.mp4") == (handler.folder / "0.mp4").read_bytes()
    assert handler.failures == 0


@pytest.mark.parametrize("status", [403, 404])
def test_what_a_server_refuses_is_not_asked_for_again(server, status):
    address, handler = server
    handler.status, handler.failures = status, 100
    with pytest.raises(Exception) as caught:
        with_retries(lambda: read_file(f"{address}/0.mp4"), "0.mp4")
    assert is_final(caught.value) and handler.requests <= 2


def test_media_files_that_a_server_does_not_give_are_named(server):
    address, handler = server
    row = {"video_id": "a", "video": {"bytes": None, "path": f"{address}/0.mp4"}}
    assert fetch_media(row)["video"]["bytes"] == (handler.folder / "0.mp4").read_bytes()
    handler.failures = 1000
    with pytest.raises(MediaError, match=r"a cannot be read from http://localhost:\d+/0.mp4"):
        fetch_media(row)


def test_row_groups_that_a_server_does_not_give_are_left_out_and_the_others_shown(server, processor, monkeypatch):
    """The server is down for the second row group of an epoch, also when it is asked again."""
    address, handler = server
    rows = ParquetRows("web", [f"{address}/data/train-00000-of-00001.parquet"], [None], corpus_features("video"))
    read = ParquetRows.read_columns

    def read_then_fail(self, group, columns):
        table = read(self, group, columns)
        handler.failures = 1000
        return table

    read_metadata.cache_clear()
    monkeypatch.setattr(ParquetRows, "read_columns", read_then_fail)
    batch = next(iter(ClipLoader(NarratedClips([rows], processor, batch_size=4, with_audio=False), 0)))
    assert batch.num_clips == 2 and len(batch.failures) == 2
    assert all(failure.file == rows.files[0] for failure in batch.failures)
    assert batch.failures[0].reason.startswith("Row group ")
    assert "train-00000-of-00001.parquet cannot be read" in batch.failures[0].reason
