"""
A small Hub: the endpoints that huggingface_hub uses to create, fill and read repositories, over real HTTP.

Models and data sets share one list of names.
"""

import base64
import hashlib
import json
import os
import re
import threading
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


class Hub:
    """State: repositories by name, branches of files, and large objects by their hash."""

    def __init__(self):
        self.repositories = {}
        self.objects = {}
        self.uploads = []
        self.broken = set()

    def commit_id(self, name, branch):
        content = json.dumps(
            sorted((k, hashlib.sha1(v).hexdigest()) for k, v in self.repositories[name][branch].items())
        )
        return hashlib.sha1(content.encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = Hub()

    def log_message(self, *args):
        pass

    def answer(self, value=None, status=200, headers=(), content=None):
        body = content if content is not None else json.dumps(value if value is not None else {}).encode()
        self.send_response(status)
        for name, header in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **dict(headers),
        }.items():
            self.send_header(name, header)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def missing(self, code):
        self.answer({"error": code}, 404, {"X-Error-Code": code})

    def body(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self):
        hub, path, content = self.hub, unquote(urlsplit(self.path).path), self.body()
        if path == "/api/repos/create":
            request = json.loads(content)
            name = f"{request.get('organization') or 'tester'}/{request['name']}"
            created = name not in hub.repositories
            hub.repositories.setdefault(name, {"main": {}})
            status = 200 if created else 409
            return self.answer(
                {"url": f"{self.server.url}/{name}", "name": name, "private": request.get("private")}, status
            )
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/(.+)", path):
            branches = hub.repositories[match[1]]
            branches.setdefault(match[2], dict(branches["main"]))
            return self.answer()
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/(.+)", path):
            if match[2] not in hub.repositories.get(match[1], {}):
                return self.missing("RevisionNotFound")
            files = json.loads(content)["files"]
            mode = {True: "lfs", False: "regular"}
            return self.answer(
                {
                    "files": [
                        {
                            "path": f["path"],
                            "uploadMode": mode[f["path"].endswith(".safetensors")],
                            "shouldIgnore": False,
                        }
                        for f in files
                    ]
                }
            )
        if match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            objects = []
            for item in json.loads(content)["objects"]:
                upload = {"upload": {"href": f"{self.server.url}/objects/{item['oid']}", "header": {}}}
                objects.append({**item, **({} if item["oid"] in hub.objects else {"actions": upload})})
            return self.answer(
                {"transfer": "basic", "objects": objects}, headers={"Content-Type": "application/vnd.git-lfs+json"}
            )
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            if "commit" in hub.broken:
                return self.answer({"error": "the disk is full"}, 507)  # after 503, clients retry for half a minute
            files = hub.repositories[match[1]][match[2]]
            for line in filter(None, content.split(b"\n")):
                entry = json.loads(line)
                value = entry["value"]
                if entry["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif entry["key"] == "lfsFile":
                    files[value["path"]] = hub.objects[value["oid"]]
            oid = hub.commit_id(match[1], match[2])
            return self.answer(
                {"commitUrl": f"{self.server.url}/{match[1]}/commit/{oid}", "commitOid": oid, "success": True}
            )
        return self.missing("RepoNotFound")

    def do_PUT(self):
        content, oid = self.body(), self.path.rsplit("/", 1)[1]
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.objects[oid] = content
        self.hub.uploads.append(oid)
        self.answer()

    def do_GET(self):
        hub, path = self.hub, unquote(urlsplit(self.path).path)
        if path == "/api/whoami-v2":
            return self.answer({"type": "user", "name": "tester", "orgs": [], "auth": {"type": "access_token"}})
        if match := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            name, branch = match[1], match[2] or "main"
            branches = hub.repositories.get(name)
            if branches is None:
                return self.missing("RepoNotFound")
            branch = next((b for b in branches if branch in (b, hub.commit_id(name, b))), None)
            if branch is None:
                return self.missing("RevisionNotFound")
            siblings = [{"rfilename": file} for file in branches[branch]]
            sha = hub.commit_id(name, branch)
            return self.answer(
                {"id": name, "modelId": name, "sha": sha, "siblings": siblings, "private": False, "tags": []}
            )
        if match := re.fullmatch(r"/api/(?:models|datasets)/([^/]+/[^/]+)/tree/([^/]+)(?:/(.*))?", path):
            branches = hub.repositories.get(match[1], {})
            branch = next((b for b in branches if match[2] in (b, hub.commit_id(match[1], b))), None)
            folder = f"{match[3]}/" if match[3] else ""
            files = {k: v for k, v in branches.get(branch, {}).items() if k.startswith(folder)}
            if not files:
                return self.missing("EntryNotFound")
            folders = {folder + k.removeprefix(folder).split("/")[0] for k in files if "/" in k.removeprefix(folder)}
            if parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() != "true":
                files = {k: v for k, v in files.items() if "/" not in k.removeprefix(folder)}
            return self.answer(
                [{"type": "directory", "path": k, "oid": hashlib.sha1(k.encode()).hexdigest()} for k in folders]
                + [
                    {"type": "file", "path": k, "size": len(v), "oid": hashlib.sha1(v).hexdigest()}
                    for k, v in files.items()
                ]
            )
        if match := re.fullmatch(r"/(?:datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            branches = hub.repositories.get(match[1])
            if branches is None:
                return self.missing("RepoNotFound")
            branch = next((b for b in branches if match[2] in (b, hub.commit_id(match[1], b))), None)
            if branch is None:
                return self.missing("RevisionNotFound")
            content = branches[branch].get(match[3])
            if content is None:
                return self.missing("EntryNotFound")
            headers = {
                "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Repo-Commit": hub.commit_id(match[1], branch),
            }
            return self.answer(content=content, headers=headers)
        return self.missing("RepoNotFound")

    do_HEAD = do_GET  # noqa: N815


@cache
def address():
    """The address of the Hub of this process, on a free local port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.url


@contextmanager
def serve():
    """Start with a new [`Hub`], and leave an empty one behind; gives it and its address."""
    Handler.hub = Hub()
    try:
        yield Handler.hub, address()
    finally:
        Handler.hub = Hub()


def environment(home):
    """Variables by which huggingface_hub uses the Hub of this process, and keeps its files in a folder."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own |= {"HF_ENDPOINT": address(), "HF_TOKEN": "hf_test", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return own | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
