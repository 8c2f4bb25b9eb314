"""A small S3: enough of its protocol for pyarrow and boto3, and it can fail on demand."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

import pytest

from raygan import retries, storage
from raygan.storage import Storage

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class ObjectStore(ThreadingHTTPServer):
    """Buckets exist as soon as they are named; objects lie in memory."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        super().__init__((host, port), _Handler)
        self.objects: dict[str, bytes] = {}
        self.written: dict[str, float] = {}
        self.writers: dict[str, str] = {}
        """Address from which each object was written last."""
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.failures = 0
        """So many requests more are answered with 503."""
        self.full = False
        """Whether its disk is full: writes are answered with 507."""
        self.requests: list[str] = []
        """Method and path of each request."""
        self.lock = threading.Lock()

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to use it."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.server_address[0]}:{self.server_port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def put(self, key: str, data: bytes) -> None:
        """``key`` begins with the bucket."""
        with self.lock:
            self.objects[key] = data
            self.written[key] = time.time()


@contextmanager
def object_store(host: str = "127.0.0.1", port: int = 0) -> Iterator[ObjectStore]:
    """Serve one while the block runs; on a free port by default."""
    with ObjectStore(host, port) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def object_store_server() -> Iterator[ObjectStore]:
    with object_store() as found:
        yield found


@pytest.fixture
def store(object_store_server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """An empty store, to which this process's ``s3://`` addresses lead."""
    for name, value in object_store_server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retries, "FIRST_WAIT", 0.01)
    storage.filesystem.cache_clear()
    object_store_server.objects.clear()
    object_store_server.requests.clear()
    object_store_server.failures = 0
    object_store_server.full = False
    return object_store_server


def far(folder: Path) -> Storage:
    """``folder``, read and written as object storage is."""
    found = Storage(folder.as_uri())
    found.is_local = False
    return found


def upload(store: ObjectStore, folder: Path, key: str) -> None:
    """Put what lies in ``folder`` below ``key``, which begins with the bucket."""
    for file in folder.rglob("*"):
        if file.is_file():
            store.put(f"{key}/{file.relative_to(folder).as_posix()}", file.read_bytes())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ObjectStore

    def log_message(self, *_: object) -> None:
        """Not on the tests' output."""

    def _begin(self) -> bool:
        parts = urlsplit(self.path)
        self.key = unquote(parts.path).lstrip("/")  # a key may end with a slash
        if self.key.count("/") == 1:
            self.key = self.key.rstrip("/")  # a bucket
        self.query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        self.body = self._read_body()
        with self.server.lock:
            self.server.requests.append(f"{self.command} {self.key}")
            fails = self.server.failures > 0
            self.server.failures -= fails
        if fails:
            self._error(503, "SlowDown")
            return False
        if self.server.full and self.command in ("PUT", "POST") and "delete" not in self.query:
            self._error(507, "XMinioStorageFull")
            return False
        return True

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            size = int(self.headers.get("Content-Length") or 0)
            data = self.rfile.read(size)
            if len(data) < size:  # it would be stored as if it were whole
                raise ConnectionError("the connection was cut within a request")
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return data
        plain, rest = b"", data
        while rest:
            line, _, rest = rest.partition(b"\r\n")
            size = int(line.split(b";")[0], 16)
            if not size:
                break
            plain, rest = plain + rest[:size], rest[size + 2 :]
        return plain

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _xml(self, body: str) -> None:
        self._answer(200, f'<?xml version="1.0"?>{body}'.encode(), Content_Type="application/xml")

    def _error(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
        self._answer(status, text.encode(), Content_Type="application/xml")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if not self._begin():
            return
        if "/" not in self.key:
            if "$" in self.key:  # no name of a bucket: pyarrow asks for one that is not there
                self._error(404, "NoSuchBucket")
            elif "list-type" in self.query:
                self._list()
            else:
                self._answer(200, b"", x_amz_bucket_region="us-east-1")
            return
        data = self.server.objects.get(self.key)
        if data is None:
            self._error(404, "NoSuchKey")
            return
        headers = {
            "ETag": f'"{hashlib.md5(data).hexdigest()}"',
            "Last_Modified": formatdate(self.server.written[self.key], usegmt=True),
            "Accept_Ranges": "bytes",
        }
        wanted = self.headers.get("Range")
        if self.command == "HEAD":
            self._answer(200, Content_Length=str(len(data)), **headers)
        elif wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data)) + 1, len(data))
            headers["Content_Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            self._answer(206, data[start:stop], **headers)
        else:
            self._answer(200, data, **headers)

    def _list(self) -> None:
        bucket, prefix = self.key, self.query.get("prefix", "")
        delimiter = self.query.get("delimiter", "")
        limit = int(self.query.get("max-keys", 1000))
        found, folders = "", set()
        keys = sorted(key for key in self.server.objects if key.startswith(f"{bucket}/{prefix}"))
        after = self.query.get("continuation-token", "")
        keys = [key for key in keys if key > after]
        for key in keys[:limit]:
            name = key.removeprefix(f"{bucket}/")
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            data = self.server.objects[key]
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(self.server.written[key]))
            found += (
                f"<Contents><Key>{escape(name)}</Key><Size>{len(data)}</Size>"
                f"<LastModified>{stamp}</LastModified></Contents>"
            )
        for folder in sorted(folders):
            found += f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
        more = len(keys) > limit
        last = escape(keys[limit - 1]) if more else ""
        token = f"<NextContinuationToken>{last}</NextContinuationToken>"
        self._xml(
            f"<ListBucketResult {NAMESPACE}><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(keys[:limit])}</KeyCount><MaxKeys>{limit}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token if more else ''}{found}"
            "</ListBucketResult>"
        )

    def do_PUT(self) -> None:
        if not self._begin():
            return
        if "uploadId" in self.query:
            parts = self.server.uploads[self.query["uploadId"]]
            parts[int(self.query["partNumber"])] = self.body
        elif "/" in self.key:
            self.server.put(self.key, self.body)
            self.server.writers[self.key] = self.client_address[0]
        self._answer(200, ETag=f'"{hashlib.md5(self.body).hexdigest()}"')

    def do_POST(self) -> None:
        if not self._begin():
            return
        bucket, _, key = self.key.partition("/")
        if "uploads" in self.query:
            upload = f"upload-{len(self.server.uploads)}"
            self.server.uploads[upload] = {}
            self._xml(
                f"<InitiateMultipartUploadResult {NAMESPACE}><Bucket>{bucket}</Bucket>"
                f"<Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
                "</InitiateMultipartUploadResult>"
            )
        elif "uploadId" in self.query:
            parts = self.server.uploads[self.query["uploadId"]]
            self.server.put(self.key, b"".join(parts[number] for number in sorted(parts)))
            self._xml(
                f"<CompleteMultipartUploadResult {NAMESPACE}><Key>{escape(key)}</Key>"
                '<ETag>"x"</ETag></CompleteMultipartUploadResult>'
            )
        elif "delete" in self.query:
            for name in re.findall(rb"<Key>(.*?)</Key>", self.body):
                self.server.objects.pop(f"{bucket}/{unescape(name.decode())}", None)
            self._xml(f"<DeleteResult {NAMESPACE}></DeleteResult>")
        else:
            self._error(400, "NotImplemented")

    def do_DELETE(self) -> None:
        if not self._begin():
            return
        self.server.objects.pop(self.key, None)
        self._answer(204)
