"""A Hugging Face hub on this machine: an http server that answers for folders as the real one does for repositories."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

TOKEN = "hf_granted"
OTHER_TOKEN = "hf_stranger"

API = re.compile(r"/api/(?P<kind>models|datasets|spaces)/(?P<id>[^/]+/[^/]+)(?:/(?P<verb>[a-z-]+)(?P<rest>/.*)?)?")
RESOLVE = re.compile(r"/(?:(?P<kind>datasets|spaces)/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


class Hub:
    """Repositories below a folder: ``<kind>/<owner>/<name>/<revision, quoted>/<files>``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.gated: set[str] = set()
        self.asked: list[str] = []
        """Every request: its method, path and how it was answered."""

    def folder(self, kind: str, name: str, revision: str = "main") -> Path:
        """Where a repository's files lie, made where it is not there yet."""
        made = self.root / kind / name / quote(revision, safe="")
        made.mkdir(parents=True, exist_ok=True)
        return made

    def revision(self, kind: str, name: str, wanted: str) -> Path | None:
        """The folder of a branch, or of the commit that it stands at."""
        there = [each for each in (self.root / kind / name).iterdir() if wanted in (unquote(each.name), commit(each))]
        return there[0] if there else None

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Answer requests while the context lasts; gives what HF_ENDPOINT is to be."""
        self.start(port)
        try:
            yield f"http://127.0.0.1:{self.server.server_port}"
        finally:
            self.stop()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Refuse all connections while the context lasts."""
        self.stop()
        try:
            yield
        finally:
            self.start(self.server.server_port)

    def start(self, port: int) -> None:
        handler = type("Handler", (Answers,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def commit(folder: Path) -> str:
    """What stands for the commit that a revision is at."""
    return hashlib.sha1(str(folder).encode()).hexdigest()


class Answers(BaseHTTPRequestHandler):
    """One connection."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        self.hub.asked.append(f"{self.command} {unquote(self.path)} {args[1] if len(args) > 1 else ''}".strip())

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode())
        self.answer(form)

    def do_GET(self) -> None:
        self.answer({})

    def answer(self, form: dict[str, list[str]]) -> None:
        path = urlsplit(self.path).path
        if found := RESOLVE.fullmatch(path):
            kind, name = found["kind"] or "models", found["id"]
            if folder := self.opened(kind, name, unquote(found["revision"])):
                self.file(folder, unquote(found["path"]), closed=name in self.hub.gated)
            return
        if listing := re.fullmatch(r"/api/(models|datasets|spaces)", path):
            self.give(self.search(listing[1], parse_qs(urlsplit(self.path).query)))
            return
        found = API.fullmatch(path)
        if found is None:
            self.missing("RepoNotFound", "Repository not found")
            return
        verb, rest = found["verb"], (found["rest"] or "").removeprefix("/")
        revision, _, inside = rest.partition("/")
        folder = self.opened(found["kind"], found["id"], unquote(revision) or "main")
        if folder is None:
            return
        if verb in (None, "revision"):
            files = [{"rfilename": each["path"]} for each in entries(folder, "", True) or () if each["type"] == "file"]
            self.give({"id": found["id"], "sha": commit(folder), "private": False, "siblings": files, "tags": []})
        elif verb == "tree":
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
            listed = entries(folder, unquote(inside), recursive)
            if listed is None:
                self.missing("EntryNotFound", f"{inside} does not exist")
            else:
                self.give(listed)
        elif verb == "refs":
            self.give(refs(folder.parent))
        elif verb == "paths-info":
            self.give([entry(folder, folder / each) for each in form.get("paths", []) if (folder / each).exists()])
        else:
            self.missing("", "Not found")

    def search(self, kind: str, wanted: dict[str, list[str]]) -> list[dict[str, str]]:
        """The repositories of an owner, or those with a word in their ids."""
        names = sorted("/".join(each.parts[-2:]) for each in (self.hub.root / kind).glob("*/*"))
        owner, word = wanted.get("author", [""])[0], wanted.get("search", [""])[0]
        return [{"id": name} for name in names if name.startswith(f"{owner}/" if owner else "") and word in name]

    def opened(self, kind: str, name: str, revision: str) -> Path | None:
        """The revision's folder, or the answer that there is none, or none for this asker."""
        if not (self.hub.root / kind / name).is_dir():
            # To a stranger the hub does not tell a private repository from none.
            self.missing("RepoNotFound", "Repository not found", 404 if self.token else 401)
            return None
        folder = self.hub.revision(kind, name, revision)
        if folder is None:
            self.missing("RevisionNotFound", f"Invalid rev id: {revision}")
        return folder

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def file(self, folder: Path, path: str, closed: bool) -> None:
        if closed and self.token != TOKEN:
            self.missing("GatedRepo", "Access to this repository is restricted", 403 if self.token else 401)
            return
        if not (folder / path).is_file():
            self.missing("EntryNotFound", "Entry not found", commit=commit(folder))
            return
        whole = (folder / path).read_bytes()
        headers = {"X-Repo-Commit": commit(folder), "ETag": f'"{hashlib.sha1(whole).hexdigest()}"'}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            self.send(200, whole, {"Accept-Ranges": "bytes"} | headers)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(whole) - 1), len(whole) - 1)
        if start >= len(whole):
            self.send(416, b"", {"Content-Range": f"bytes */{len(whole)}"})
            return
        self.send(206, whole[start : end + 1], {"Content-Range": f"bytes {start}-{end}/{len(whole)}"} | headers)

    def give(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def missing(self, code: str, said: str, status: int = 404, commit: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": said, "X-Repo-Commit": commit}
        self.send(
            status, json.dumps({"error": said}).encode(), {name: value for name, value in headers.items() if value}
        )

    def send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def refs(repository: Path) -> dict[str, list[dict[str, str]]]:
    """Branches, and what the hub has converted."""
    made: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": []}
    for folder in sorted(repository.iterdir()):
        name = unquote(folder.name)
        converted = name.startswith("refs/convert/")
        told = {"name": name.rpartition("/")[2], "ref": name if converted else f"refs/heads/{name}"}
        made["converts" if converted else "branches"].append(told | {"targetCommit": commit(folder)})
    return made


def entry(root: Path, path: Path) -> dict[str, Any]:
    """A file or folder as a listing tells of it."""
    if path.is_dir():
        return {"type": "directory", "path": str(path.relative_to(root)), "oid": "0" * 40, "size": 0}
    whole = path.read_bytes()
    told = {"type": "file", "path": str(path.relative_to(root)), "size": len(whole)}
    return told | {"oid": hashlib.sha1(whole).hexdigest()}


def entries(root: Path, inside: str, recursive: bool) -> list[dict[str, Any]] | None:
    """What is in a folder of a repository; None where it has no such folder."""
    if not (root / inside).is_dir():
        return None
    return [entry(root, each) for each in sorted((root / inside).glob("**/*" if recursive else "*"))]
