"""A small Hub on loopback: as much of its HTTP interface as huggingface_hub, transformers and datasets use to create
repositories, to upload (preupload, LFS in one or several parts, commit) and to read (revisions, trees, files, ranges).

    with HubServer(tokens={"hf_owner": {"org"}}) as hub:
        HF_ENDPOINT=hub.endpoint ...

Files live in memory. LFS files are served from another origin than the rest, as the Hub's are.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

DATE = "2026-01-01T00:00:00.000Z"
# What the Hub keeps outside git, by its default .gitattributes.
LARGE = (".safetensors", ".parquet", ".bin", ".png", ".mp4")


@dataclass(frozen=True)
class File:
    """A file of a commit; of an LFS file `content` lies in the server's store, too."""

    content: bytes
    is_lfs: bool

    @property
    def oid(self) -> str:
        """sha256 of an LFS file, git's blob hash of another."""
        if self.is_lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    def entry(self, path: str) -> dict:
        """As trees list it."""
        lfs = {"lfs": {"oid": self.oid, "size": len(self.content), "pointerSize": 134}} if self.is_lfs else {}
        return {"type": "file", "path": path, "size": len(self.content), "oid": self.oid, **lfs}


@dataclass
class Repository:
    """Its commits, {path: File} each, by their ids; the last is main."""

    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, File]:
        return self.commits[self.head]

    def commit(self, files: dict[str, File]) -> str:
        text = repr((len(self.commits), sorted((path, file.oid) for path, file in files.items())))
        self.commits[hashlib.sha1(text.encode()).hexdigest()] = files
        return self.head

    def resolve(self, revision: str) -> str | None:
        """The commit that a revision names."""
        return self.head if revision == "main" else revision if revision in self.commits else None


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, code: str | None = None):
        self.status, self.message, self.code = status, message, code


class HubServer:
    """The server.

    tokens: the namespaces that each token may write to.
    chunk_size: LFS files that are larger go in parts of that many bytes.
    breaking: hashes of LFS files whose uploads break off in the middle.
    requests: (method, path) of all requests, in their order.
    """

    def __init__(self, tokens: dict[str, set[str]], chunk_size: int = 10_000_000):
        self.tokens, self.chunk_size = tokens, chunk_size
        self.repositories: dict[str, Repository] = {}  # "models/org/name"
        self.store: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.breaking: set[str] = set()
        handler = type("Handler", (HubHandler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.storage = f"http://localhost:{self.port}/storage"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()

    def count(self, method: str, part: str) -> int:
        """Requests of this method with `part` in their path."""
        return sum(method == m and part in path for m, path in self.requests)


class HubHandler(BaseHTTPRequestHandler):
    """Answers one connection; `routes` below tells which method answers which path."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *args):
        pass

    def handle_any(self):
        self.hub.requests.append((self.command, self.path))
        self.body = None
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        try:
            for method, pattern, answer in ROUTES:
                match = re.fullmatch(pattern, url.path)
                if match and self.command in method:
                    return answer(self, **{name: unquote(value or "") for name, value in match.groupdict().items()})
            raise Refusal(404, f"Nothing answers {self.command} {url.path}")
        except Refusal as refusal:
            self.read_body()  # what is left unread would be taken for the next request
            headers = {"X-Error-Message": refusal.message}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self.send_json({"error": refusal.message}, refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def read_body(self) -> bytes:
        """The request's body, which can be asked for again."""
        if self.body is None:
            self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return self.body

    def send(self, body: bytes, status: int = 200, headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value, status: int = 200, headers: dict | None = None) -> None:
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    # Who asks, and for what.

    def namespaces(self) -> set[str] | None:
        """Those that the token may write to; None without a token."""
        words = self.headers.get("Authorization", "").split()
        if not words:
            return None
        if words[-1] not in self.hub.tokens:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.hub.tokens[words[-1]]

    def require_writer(self, namespace: str) -> None:
        allowed = self.namespaces()
        if allowed is None:
            raise Refusal(401, "Invalid username or password.")
        if namespace not in allowed:
            raise Refusal(403, "You don't have the rights to write to this namespace")

    def find(self, kind: str, repo: str) -> Repository:
        """A repository that the asker may see."""
        found = self.hub.repositories.get(f"{kind}/{repo}")
        if found is None or (found.private and repo.split("/")[0] not in (self.namespaces() or ())):
            raise Refusal(404 if self.headers.get("Authorization") else 401, "Repository not found", "RepoNotFound")
        return found

    def find_commit(self, kind: str, repo: str, revision: str) -> tuple[Repository, str]:
        found = self.find(kind, repo)
        commit = found.resolve(revision or "main")
        if commit is None:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found, commit

    # Answers.

    def whoami(self):
        if (allowed := self.namespaces()) is None:
            raise Refusal(401, "Invalid username or password.")
        names = sorted(allowed)
        self.send_json({"type": "user", "name": names[0], "orgs": [{"name": name} for name in names]})

    def create(self):
        body = json.loads(self.read_body())
        namespace = body["organization"] or min(self.namespaces() or {""})
        self.require_writer(namespace)
        kind = body.get("type", "model") + "s"
        repo, prefix = f"{namespace}/{body['name']}", "" if kind == "models" else f"{kind}/"
        url = {"url": f"{self.hub.endpoint}/{prefix}{repo}"}
        if f"{kind}/{repo}" in self.hub.repositories:
            return self.send_json({"error": "You already created this repo", **url}, 409)
        self.hub.repositories[f"{kind}/{repo}"] = created = Repository(body.get("visibility") == "private")
        created.commit({".gitattributes": File(b"*.safetensors filter=lfs\n", False)})
        self.send_json({**url, "name": repo, "id": repo})

    def delete(self):
        body = json.loads(self.read_body())
        repo = f"{body['organization']}/{body['name']}"
        self.require_writer(body["organization"])
        self.find(f"{body.get('type', 'model')}s", repo)
        del self.hub.repositories[f"{body.get('type', 'model')}s/{repo}"]
        self.send_json({})

    def validate_yaml(self):
        errors = find_metadata_errors(**json.loads(self.read_body()))
        answer = {"errors": [{"message": error} for error in errors], "warnings": []}
        self.send_json(answer, 400 if errors else 200)

    def preupload(self, kind, repo, revision):
        self.require_writer(repo.split("/")[0])
        found = self.find(kind, repo)
        answers = []
        for asked in json.loads(self.read_body())["files"]:
            there = found.files.get(asked["path"])
            mode = "lfs" if asked["path"].endswith(LARGE) else "regular"
            oid = {"oid": there.oid} if there else {}
            answers.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, **oid})
        self.send_json({"files": answers})

    def lfs_batch(self, kind, repo):
        self.require_writer(repo.split("/")[0])
        self.find(kind or "models", repo)
        objects = []
        for asked in json.loads(self.read_body())["objects"]:
            oid, size = asked["oid"], asked["size"]
            if oid not in self.hub.store:
                href = f"{self.hub.storage}/{oid}"
                upload = {"href": href}
                if size > self.hub.chunk_size:
                    numbers = range(1, -(-size // self.hub.chunk_size) + 1)
                    parts = {f"{number:05d}": f"{href}/{number}" for number in numbers}
                    upload["header"] = {"chunk_size": str(self.hub.chunk_size), **parts}
                asked |= {"actions": {"upload": upload, "verify": {"href": f"{self.hub.endpoint}/verify"}}}
            objects.append(asked)
        self.send_json({"transfer": "basic", "objects": objects})

    def upload(self, oid, number):
        if oid in self.hub.breaking:
            self.rfile.read(1000)
            self.close_connection = True
            self.connection.shutdown(2)
            return
        body = self.read_body()
        if number:
            self.hub.parts[oid, int(number)] = body
        else:
            self.keep(oid, body)
        self.send(b"", headers={"ETag": f'"{hashlib.md5(body).hexdigest()}"'})

    def complete(self, oid):
        parts = json.loads(self.read_body())["parts"]
        self.keep(oid, b"".join(self.hub.parts[oid, part["partNumber"]] for part in parts))
        self.send_json({})

    def keep(self, oid: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, "The content is not that of the hash")
        self.hub.store[oid] = content

    def verify(self):
        asked = json.loads(self.read_body())
        if len(self.hub.store.get(asked["oid"], b"")) != asked["size"]:
            raise Refusal(404, "Not uploaded")
        self.send_json({})

    def commit(self, kind, repo, revision):
        self.require_writer(repo.split("/")[0])
        found = self.find(kind, repo)
        files = dict(found.files)
        for line in self.read_body().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.store:
                    raise Refusal(400, f"{value['path']} was not uploaded")
                files[value["path"]] = File(self.hub.store[value["oid"]], True)
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        oid = found.commit(files)
        self.send_json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{repo}/commit/{oid}"})

    def info(self, kind, repo, revision=""):
        found, commit = self.find_commit(kind, repo, revision)
        siblings = [{"rfilename": path} for path in found.commits[commit]]
        readme = found.commits[commit].get("README.md")
        card = re.match(rb"---\n(.*?)\n---\n", readme.content, re.DOTALL) if readme else None
        shared = {
            "id": repo,
            "cardData": yaml.safe_load(card[1]) if card else None,
            "sha": commit,
            "private": found.private,
            "siblings": siblings,
            "tags": [],
        }
        self.send_json({**shared, "lastModified": DATE, "createdAt": DATE, "downloads": 0, "likes": 0})

    def tree(self, kind, repo, revision, folder=""):
        found, commit = self.find_commit(kind, repo, revision)
        start = f"{folder}/" if folder else ""
        recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
        entries, folders = [], set()
        for path, file in sorted(found.commits[commit].items()):
            rest = path.removeprefix(start)
            if path.startswith(start):
                names = rest.split("/")
                last = len(names) if recursive else min(len(names), 2)
                folders |= {start + "/".join(names[:depth]) for depth in range(1, last)}
                if recursive or len(names) == 1:
                    entries.append(file.entry(path))
        if folder and not entries and not folders:
            raise Refusal(404, f"{folder} does not exist", "EntryNotFound")
        listed = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]
        self.send_json(listed + entries, headers={"X-Repo-Commit": commit})

    def paths_info(self, kind, repo, revision):
        found, commit = self.find_commit(kind, repo, revision)
        body = self.read_body()
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode())["paths"]
        files = found.commits[commit]
        entries = [files[path].entry(path) for path in paths if path in files]
        for path in paths:
            if any(name.startswith(f"{path}/") for name in files):
                entries.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
        self.send_json(entries)

    def refs(self, kind, repo):
        head = self.find(kind, repo).head
        branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": head}
        self.send_json({"branches": [branch], "converts": [], "tags": [], "pullRequests": []})

    def resolve(self, kind, repo, revision, path):
        found, commit = self.find_commit(kind or "models", repo, revision)
        file, headers = found.commits[commit].get(path), {"X-Repo-Commit": commit}
        if file is None:
            message = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self.send(b"", 404, {**headers, **message})
        headers["ETag"] = f'"{file.oid}"'
        if not file.is_lfs:
            return self.send_range(file.content, headers)
        linked = {"X-Linked-ETag": f'"{file.oid}"', "X-Linked-Size": str(len(file.content))}
        self.send(b"", 302, {**headers, **linked, "Location": f"{self.hub.storage}/{file.oid}"})

    def download(self, oid):
        if self.headers.get("Authorization"):
            raise Refusal(400, "A token was sent to the storage, which is another host")
        self.send_range(self.hub.store[oid], {"ETag": f'"{oid}"'})

    def send_range(self, content: bytes, headers: dict) -> None:
        """The content, or the part of it that the header Range asks for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not match:
            return self.send(content, headers=headers)
        first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.send(content[first : last + 1], 206, headers)


def find_metadata_errors(content: str, repoType: str) -> list[str]:
    """What the Hub would refuse in the metadata of a card."""
    match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    data = yaml.safe_load(match[1]) if match else {}
    errors = []
    for key, kind in (("license", str), ("tags", list), ("datasets", list), ("pipeline_tag", str)):
        if key in data and not isinstance(data[key], kind):
            errors.append(f'"{key}" must be a {kind.__name__}')
    for entry in data.get("model-index", []):
        for result in entry["results"]:
            if not {"task", "dataset", "metrics"} <= result.keys() or "name" not in result["dataset"]:
                errors.append('"model-index[0].results" lacks a field')
    if data.get("license") == "unheard-of":
        errors.append('"license" must be one of the Hub\'s')
    return errors


API = r"/api/(?P<kind>models|datasets)/(?P<repo>[^/]+/[^/]+)"
PLAIN = r"/(?:(?P<kind>datasets)/)?(?P<repo>[^/]+/[^/]+?)"
ROUTES = (
    (("GET",), "/api/whoami-v2", HubHandler.whoami),
    (("POST",), "/api/repos/create", HubHandler.create),
    (("DELETE",), "/api/repos/delete", HubHandler.delete),
    (("POST",), "/api/validate-yaml", HubHandler.validate_yaml),
    (("POST",), API + "/preupload/(?P<revision>[^/]+)", HubHandler.preupload),
    (("POST",), API + "/commit/(?P<revision>[^/]+)", HubHandler.commit),
    (("POST",), API + "/paths-info/(?P<revision>[^/]+)", HubHandler.paths_info),
    (("GET",), API + "/refs", HubHandler.refs),
    (("GET",), API + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", HubHandler.tree),
    (("GET",), API + "(?:/revision/(?P<revision>[^/]+))?", HubHandler.info),
    (("POST",), PLAIN + r"\.git/info/lfs/objects/batch", HubHandler.lfs_batch),
    (("PUT",), "/storage/(?P<oid>[0-9a-f]{64})(?:/(?P<number>[0-9]+))?", HubHandler.upload),
    (("POST",), "/storage/(?P<oid>[0-9a-f]{64})", HubHandler.complete),
    (("GET", "HEAD"), "/storage/(?P<oid>[0-9a-f]{64})", HubHandler.download),
    (("POST",), "/verify", HubHandler.verify),
    (("GET", "HEAD"), PLAIN + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)", HubHandler.resolve),
)
