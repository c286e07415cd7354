"""A small hub: the part of the Hugging Face hub's API that uploads and downloads of a dataset use.

Files are downloaded from a second address, as from the hub's CDN, which must not see the key.
"""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.common.http_server import http_server

KEY = "hf_" + "k3yOfTheTest" * 2


@dataclass
class Hub:
    """`repositories` has files by name and revision; `asked` the requests, with whether the key was in them."""

    url: str = ""
    cdn: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, bool]] = field(default_factory=list)
    sent: int = 0
    """Bytes that the CDN sent."""

    def environment(self) -> dict[str, str]:
        """For a process that uses this hub."""
        variables = {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": KEY}
        return {**variables, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def noted(self, request: Request, where: str = "hub") -> bool:
        has_key = request.headers.get("authorization") == f"Bearer {KEY}"
        self.asked.append((where, f"{request.method} {request.url.path}", has_key))
        return has_key

    def files(self, request: Request) -> dict[str, bytes] | None:
        name = f"{request.path_params['owner']}/{request.path_params['name']}"
        return self.repositories.get(name, {}).get(request.path_params.get("revision", "main"))

    async def info(self, request: Request) -> Response:
        if not self.noted(request) or self.files(request) is None:
            return Response(status_code=404, headers={"X-Error-Code": "RepoNotFound"})
        return JSONResponse({"id": f"{request.path_params['owner']}/{request.path_params['name']}", "sha": "1" * 40})

    async def create(self, request: Request) -> Response:
        assert self.noted(request)
        body = await request.json()
        name = f"{body['organization']}/{body['name']}" if body.get("organization") else body["name"]
        self.private[name] = body.get("private") is True or body.get("visibility") == "private"
        self.repositories.setdefault(name, {"main": {}})
        return JSONResponse({"url": f"{self.url}/datasets/{name}"})

    async def branch(self, request: Request) -> Response:
        assert self.noted(request)
        name = f"{request.path_params['owner']}/{request.path_params['name']}"
        self.repositories[name].setdefault(request.path_params["revision"], {})
        return JSONResponse({})

    async def tree(self, request: Request) -> Response:
        assert self.noted(request)
        files = self.files(request) or {}
        return JSONResponse([{"type": "file", "path": path, "size": len(c), "oid": "0"} for path, c in files.items()])

    async def preupload(self, request: Request) -> Response:
        assert self.noted(request)
        wanted = (await request.json())["files"]
        modes = [
            {"path": file["path"], "uploadMode": "regular" if file["path"].endswith(".json") else "lfs"}
            for file in wanted
        ]
        return JSONResponse({"files": [{**mode, "shouldIgnore": False} for mode in modes]})

    async def batch(self, request: Request) -> Response:
        assert self.noted(request)
        objects = (await request.json())["objects"]
        answers = [
            {**one, "authenticated": True, "actions": {"upload": {"href": f"{self.cdn}/objects/{one['oid']}"}}}
            for one in objects
        ]
        return JSONResponse({"transfer": "basic", "objects": answers}, media_type="application/vnd.git-lfs+json")

    async def commit(self, request: Request) -> Response:
        assert self.noted(request)
        files = self.files(request)
        assert files is not None
        for line in (await request.body()).decode().splitlines():
            row = json.loads(line)
            value: Any = row["value"]
            if row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif row["key"] == "deletedFile":
                del files[value["path"]]
        return JSONResponse(
            {
                "commitUrl": f"{self.url}{request.url.path.removeprefix('/api').replace('/main', '/1')}",
                "commitOid": "1" * 40,
            }
        )

    async def resolve(self, request: Request) -> Response:
        files = self.files(request)
        path = request.path_params["path"]
        if not self.noted(request) or files is None or path not in files:
            return Response(status_code=404, headers={"X-Error-Code": "EntryNotFound"})
        digest = hashlib.sha256(files[path]).hexdigest()
        headers = {"X-Linked-Etag": f'"{digest}"', "X-Repo-Commit": "1" * 40, "X-Linked-Size": str(len(files[path]))}
        if path.endswith(".json"):
            return Response(files[path], headers={**headers, "ETag": f'"{digest}"'})
        self.objects[digest] = files[path]
        return RedirectResponse(f"{self.cdn}/objects/{digest}", 302, headers)

    async def receive(self, request: Request) -> Response:
        assert not self.noted(request, "cdn")
        self.objects[request.path_params["oid"]] = await request.body()
        return Response()

    async def send(self, request: Request) -> Response:
        self.noted(request, "cdn")
        content = self.objects[request.path_params["oid"]]
        start = int(request.headers.get("range", "bytes=0-")[6:].split("-")[0])
        rest = content[start:]
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self.sent += len(rest)
        return Response(rest, 206 if start else 200, headers)


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()
    repository = "/datasets/{owner}/{name}"
    routes = [
        Route(f"/api{repository}", hub.info),
        Route(f"/api{repository}/revision/{{revision}}", hub.info),
        Route("/api/repos/create", hub.create, methods=["POST"]),
        Route(f"/api{repository}/branch/{{revision}}", hub.branch, methods=["POST"]),
        Route(f"/api{repository}/tree/{{revision}}", hub.tree),
        Route(f"/api{repository}/preupload/{{revision}}", hub.preupload, methods=["POST"]),
        Route("/datasets/{owner}/{name}.git/info/lfs/objects/batch", hub.batch, methods=["POST"]),
        Route(f"/api{repository}/commit/{{revision}}", hub.commit, methods=["POST"]),
        Route(f"{repository}/resolve/{{revision}}/{{path:path}}", hub.resolve, methods=["GET", "HEAD"]),
    ]
    objects = [Route("/objects/{oid}", hub.receive, methods=["PUT"]), Route("/objects/{oid}", hub.send)]
    with http_server(objects) as hub.cdn, http_server(routes) as hub.url:
        yield hub
