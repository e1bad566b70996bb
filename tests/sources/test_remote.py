"""Images in archives, in memory, and on a web server, which the tests start."""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest

from gpusift.errors import reason_of
from gpusift.sources import Source, SourceFailure, expand, fetch, reading, wrong_name
from tests.support.image_tree import IMAGES, content, found, make_tree


@pytest.fixture
def tree(tmp_path, monkeypatch):
    return make_tree(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Ask a server again at once."""
    monkeypatch.setattr(reading, "RETRY_SECONDS", (0.0, 0.0))


def zipped(path: Path, *names: str, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(prefix + name, content(name))
    return path


def tarred(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content(name))
            archive.addfile(member, io.BytesIO(content(name)))
    return path


def test_zip(tree):
    zipped(tree / "one.zip", *IMAGES, "__MACOSX/._a.png", "note.txt")
    assert found("zip://::one.zip") == (IMAGES, [])
    assert found("zip://*::one.zip", recursive=False) == (["a.png", "b.JPG", "s/a.png"], [])
    assert found("zip://s::one.zip") == (["a.png", "t/a.tif"], [])
    assert found("zip://s/**/*.tif::one.zip") == (["t/a.tif"], [])
    assert found("zip://s/a.png::one.zip") == (["a.png"], [])
    reasons = ["no such file or folder", "No such file or directory", "no image file matches"]
    assert found("zip://none::one.zip", "zip://::none.zip", "zip://*.gif::one.zip") == ([], reasons)
    assert [one.url for one in expand(["zip://s/a.png::one.zip"])] == [f"zip://s/a.png::{tree}/one.zip"]


def test_two_archives_with_the_same_names(tree):
    zipped(tree / "one.zip", "a.png")
    tarred(tree / "two.tar", "a.png", "s/b.png")
    assert found("zip://::one.zip", "tar://::two.tar") == (["one.zip/a.png", "two.tar/a.png", "two.tar/s/b.png"], [])
    assert found("zip://::one.zip", "p/s/a.png") == (["one.zip/a.png", "p/s/a.png"], [])


HOSTILE = [
    "../up.png",
    "s/../../up.png",
    "/etc/root.png",
    "C:/w.png",
    "a//b.png",
    "./here.png",
    "k::http://localhost:1/x.png",
]


def test_hostile_names_in_archives_are_refused(tree):
    zipped(tree / "bad.zip", "good.png", *HOSTILE)
    got = list(expand(["zip://::bad.zip"]))
    assert [one.name for one in got if isinstance(one, Source)] == ["good.png"]
    assert len(got) == 1 + len(HOSTILE)
    tarred(tree / "bad.tar", "good.png", *HOSTILE)
    names = [one.name for one in expand(["tar://::bad.tar"]) if isinstance(one, Source)]
    assert names == ["a/b.png", "good.png"]  # fsspec takes double slashes of a tar for one


def test_links_in_a_tar_stay_in_it(tree):
    with tarfile.open(tree / "links.tar", "w") as archive:
        for name, target in [("a.png", "/etc/passwd"), ("b.png", "../../etc/passwd"), ("c.png", "c.png")]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    for one in expand(["tar://::links.tar"]):
        with pytest.raises(OSError, match=r"."):
            fetch(one)


def test_a_compressed_bomb_is_read_up_to_the_limit(tree):
    with zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(20_000_000))
    with tarfile.open("bomb.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = 20_000_000
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    for url in ("zip://a.png::bomb.zip", "tar://a.png::bomb.tar.gz"):
        (source,) = expand([url])
        assert len(fetch(source)) == 20_000_000
        tracemalloc.start()
        try:
            with pytest.raises(OSError, match=r"must have at most 1000000 bytes \(max_bytes\)"):
                fetch(source, max_bytes=1_000_000)
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()


def test_broken_archives(tree):
    data = zipped(tree / "one.zip", "a.png", "b.png").read_bytes()
    (tree / "cut.zip").write_bytes(data[:-30])
    (tree / "none.zip").write_bytes(b"no archive")
    (tree / "none.tar").write_bytes(b"no archive")
    for url in ("zip://::cut.zip", "zip://::none.zip", "tar://::none.tar", "nosuch://a.png"):
        (one,) = expand([url])
        assert isinstance(one, SourceFailure)
        assert one.reason
    (tree / "bits.zip").write_bytes(data.replace(content("a.png")[:4], b"    ").replace(b"PK\3\4", b"PK\3\5", 1))
    for one in expand(["zip://::bits.zip"]):
        with pytest.raises(OSError, match=r".") if one.name == "a.png" else contextlib.nullcontext():
            fetch(one)


def test_an_archive_that_changes_is_opened_anew(tree):
    (source,) = expand([f"zip://a.png::{zipped(tree / 'one.zip', 'a.png')}"])
    assert fetch(source) == content("a.png")
    with zipfile.ZipFile("one.zip", "w") as archive:
        archive.writestr("a.png", b"another")
    assert fetch(source) == b"another"
    os.remove("one.zip")
    with pytest.raises(FileNotFoundError):
        fetch(source)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_an_archive_read_by_many_threads(tree, kind):
    names = [f"{i:03}.png" for i in range(200)]
    path = (zipped if kind == "zip" else tarred)(tree / f"many.{kind}", *names)
    sources = list(expand([f"{kind[:3]}://::{path}"]))
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(fetch, sources)) == [content(name) for name in names]


def test_memory_file_system(tree):
    memory = fsspec.filesystem("memory")
    for name in (*IMAGES, "note.txt", ".hidden.png"):
        memory.pipe(f"/sources/p/{name}", content(name))
    memory.pipe("/sources/list", b"memory://sources/p/a.png\nmemory://sources/p/s/a.png\n")
    try:
        assert found("memory://sources/p") == (IMAGES, [])
        assert found("memory://sources/p/*.png") == (["a.png"], [])
        assert found("memory://sources/p/s/a.png", "memory://sources/none") == (["a.png"], ["no such file or folder"])
        assert found(files_from="memory://sources/list") == (["p/a.png", "p/s/a.png"], [])
        assert found("memory://sources/p/s", root="memory://sources/p") == (["s/a.png", "s/t/a.tif"], [])
        (source,) = expand(["memory://sources/p/a.png"])
        memory.rm("/sources/p/a.png")
        with pytest.raises(FileNotFoundError):
            fetch(source)
    finally:
        memory.rm("/sources", recursive=True)


class Trouble(BaseHTTPRequestHandler):
    """A server that answers each path with another trouble."""

    def do_GET(self):
        getattr(self, "get_" + self.path.strip("/").split(".")[0].split("/")[0])()

    def get_missing(self):
        self.send_error(404)

    def get_refused(self):
        self.send_error(500)

    def get_passing(self):
        """Fail twice, then answer."""
        self.server.requests = getattr(self.server, "requests", 0) + 1
        if self.server.requests < 3:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b'<a href="a.png">')

    def get_silent(self):
        self.server.over.wait(60)

    def get_slow(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while not self.server.over.wait(0.05):
            self.wfile.write(b"x")

    def get_cut(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(bytes(10))

    def get_endless(self):
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.server.over.is_set():
                self.wfile.write(bytes(1 << 16))

    def get_bomb(self):
        data = zlib.compress(bytes(30_000_000))
        self.send_response(200)
        self.send_header("Content-Encoding", "deflate")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    def get_loop(self):
        """A page of a folder that has itself in it, and what is not in it."""
        page = (
            b'<a href="deeper/">.</a><a href="a.png">.</a><a href="/loop/">.</a><a href="..">.</a><a href="?C=N">.</a>'
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page + b'<a href="http://localhost:1/b.png">.</a><a href="/other/c.png">.</a>')

    def log_message(self, *_):
        pass


class Files(SimpleHTTPRequestHandler):
    """Python's file server, to which archives are read by ranges of their bytes."""

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return super().do_GET()
        data = Path(self.translate_path(self.path)).read_bytes()
        start, stop = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1) + 1
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.write(data[start:stop])
        return None

    def end_headers(self):
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *_):
        pass


@contextmanager
def serve(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.over = threading.Event()
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_http(tree):
    zipped(tree / "one.zip", *IMAGES)
    (tree / "p" / "with space.png").write_bytes(content("with%20space.png"))
    with serve(Files) as url:
        (tree / "list").write_text(f"{url}/p/a.png\n{url}/p/s/a.png\n")
        assert found(f"{url}/p/a.png") == (["a.png"], [])
        assert found(f"{url}/p/s/a.png", f"{url}/q/a.png") == (["p/s/a.png", "q/a.png"], [])
        assert [one.name for one in expand([f"{url}/p/"])] == ["a.png", "b.JPG", "with%20space.png", *IMAGES[2:]]
        assert len(found(f"{url}/p/")[0]) == 5
        assert found(f"{url}/p/s/*.png") == (["a.png"], [])
        assert found(files_from="list") == (["p/a.png", "p/s/a.png"], [])
        assert found(files_from=f"{url}/list") == (["p/a.png", "p/s/a.png"], [])
        assert found(f"zip://s::{url}/one.zip") == (["a.png", "t/a.tif"], [])
        mixed = [f"http/{url[7:]}/p/s/a.png", f"file{tree}/q/a.png"]
        assert found(f"{url}/p/s/a.png", "q/a.png") == (mixed, [])


@pytest.mark.parametrize(
    ("path", "error", "options"),
    [
        ("missing.png", FileNotFoundError, {}),
        ("refused.png", OSError, {}),
        ("cut.png", OSError, {}),
        ("silent.png", TimeoutError, {"timeout": 0.3}),
        ("slow.png", TimeoutError, {"timeout": 0.3}),
        ("endless.png", OSError, {"max_bytes": 3_000_000}),
        ("bomb.png", OSError, {"max_bytes": 3_000_000}),
    ],
)
def test_a_server_in_trouble(path, error, options):
    with serve(Trouble) as url:
        (source,) = expand([f"{url}/{path}"])
        with pytest.raises(error):
            fetch(source, **options)


def test_a_passing_answer_is_asked_for_again():
    with serve(Trouble) as url:
        assert fetch(Source("a", f"{url}/passing.png")) == b'<a href="a.png">'
    with serve(Trouble) as url:
        assert [one.name for one in expand([f"{url}/passing/"])] == ["a.png"]
    with serve(Trouble) as url:
        assert [one.name for one in expand([], files_from=f"{url}/passing")]


@pytest.mark.parametrize(("path", "answer"), [("missing.png", "HTTP 404 (Not Found)"), ("refused.png", "HTTP 500 (")])
def test_the_answer_of_a_server_is_told(path, answer):
    with serve(Trouble) as url:
        with pytest.raises(OSError, match="HTTP") as raised:
            fetch(Source("a", f"{url}/{path}"))
        assert reason_of(raised.value).startswith(answer)
        with pytest.raises(OSError, match="HTTP") as raised:
            expand([], files_from=f"{url}/{path}")
        assert reason_of(raised.value).startswith(answer)


def test_no_server():
    (source,) = expand(["http://127.0.0.1:1/a.png"])
    with pytest.raises(OSError, match="Connect"):
        fetch(source)
    (one,) = expand(["http://127.0.0.1:1/folder/"])
    assert isinstance(one, SourceFailure)


def test_a_server_whose_folders_have_no_end():
    with serve(Trouble) as url:
        got = list(expand([f"{url}/loop/"]))
    assert [one.name for one in got if isinstance(one, Source)] == ["deeper/" * i + "a.png" for i in range(64)]
    assert [one.reason for one in got if isinstance(one, SourceFailure)] == [
        "folders must be at most 64 deep (limit depth)"
    ]


def test_a_missing_package_is_named():
    code = "import sys; sys.modules['aiohttp'] = None; from gpusift.sources import *\n"
    code += "try: fetch(Source('a', 'http://127.0.0.1:1/a.png'))\nexcept ImportError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "gpusift[http]"' in done.stdout, done.stderr


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_any_broken_archive_gives_files_or_reasons(tree, kind):
    whole = (zipped if kind == "zip" else tarred)(tree / f"whole.{kind}", *IMAGES).read_bytes()
    chance = random.Random(0)
    outcomes = Counter()
    for i in range(150):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(data))
            data[at : at + chance.choice((0, 1, 1, 2, 4))] = chance.randbytes(chance.choice((1, 1, 2, 4)))
        path = tree / f"{i}.{kind}"
        path.write_bytes(data)
        for one in expand([f"{kind[:3]}://::{path}"]):
            if isinstance(one, SourceFailure):
                outcomes["refused"] += 1
                continue
            assert wrong_name(one.name) is None
            try:
                outcomes["read"] += len(fetch(one, max_bytes=1000)) <= 1000
            except OSError:
                outcomes["failed"] += 1
    assert min(outcomes["read"], outcomes["refused"] + outcomes["failed"]) > 20, outcomes


def test_templates_of_references_run_in_a_sandbox():
    """Of the fsspec that is installed: the URL reference:// is one that anybody may give."""
    sandbox = pytest.importorskip("jinja2.sandbox", reason="needs jinja2: pip install jinja2")
    template = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    references = {"version": 1, "templates": {"u": "x"}, "refs": {"a.png": [template, 0, 1]}}
    with pytest.raises(sandbox.SecurityError):
        fsspec.filesystem("reference", fo=references, simple_templates=False, skip_instance_cache=True)
