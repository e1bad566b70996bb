"""What is in a folder when an entry cannot be looked at, or the folder has no end."""

from __future__ import annotations

import errno
import os
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusift.sources import Limits, Source, SourceFailure, expand
from gpusift.sources.limits import DEFAULT_LIMITS
from gpusift.sources.listing import list_folder
from gpusift.sources.locations import Location

FAULTS = [errno.EIO, errno.ESTALE, errno.EACCES, errno.ELOOP]


def names_and_failures(argument: object, **options) -> tuple[list[str], list[tuple[str, str]]]:
    names, failures = [], []
    for each in expand([str(argument)], **options):
        if isinstance(each, Source):
            names.append(each.name)
        else:
            failures.append((os.path.basename(each.name), each.reason))
    return names, failures


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.png", "s/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_links_that_lead_nowhere_cost_themselves(folder):
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "loop").symlink_to("loop")
    (folder / "s" / "gone.png").symlink_to("none")
    (folder / "s" / "long.png").symlink_to("x" * 4000)
    names, failures = names_and_failures(folder)
    assert names == ["a.png", "b.png", "loop.png", "s/c.png", "s/gone.png", "s/long.png"]  # reading says what is wrong
    assert failures == []


class Entry:
    """An entry of a folder whose status cannot be had."""

    def __init__(self, entry: os.DirEntry, fault: int) -> None:
        self.name, self.path, self._fault = entry.name, entry.path, fault

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        raise OSError(self._fault, os.strerror(self._fault), self.path)

    is_symlink = is_dir


@contextmanager
def entries_changed(change) -> Iterator[None]:
    """Have `os.scandir` give what a function makes of its iterator."""
    real = os.scandir

    class Changed:
        def __init__(self, path):
            self._entries = real(path)

        def __enter__(self):
            return change(self._entries)

        def __exit__(self, *_):
            self._entries.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", Changed)
        yield


@pytest.mark.parametrize("fault", FAULTS)
def test_an_entry_whose_status_cannot_be_had_costs_itself(folder, fault):
    with entries_changed(lambda entries: (Entry(each, fault) if each.name == "b.png" else each for each in entries)):
        names, failures = names_and_failures(folder)
    assert names == ["a.png", "s/c.png"]
    assert failures == [("b.png", os.strerror(fault))]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_cannot_be_read_on_costs_the_rest(folder, fault):
    def broken(entries):
        yield from sorted(entries, key=lambda entry: entry.name)[:1]
        raise OSError(fault, os.strerror(fault))

    with entries_changed(broken):
        names, failures = names_and_failures(folder)
    assert names == ["a.png"]
    assert failures == [(folder.name, os.strerror(fault))]


def test_a_folder_that_cannot_be_opened_costs_itself(folder):
    real = os.scandir

    def refuse(path):
        if str(path).endswith("/s"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        names, failures = names_and_failures(folder)
    assert names == ["a.png", "b.png"]
    assert failures == [("s", os.strerror(errno.EACCES))]


@given(st.lists(st.binary(min_size=1, max_size=255), max_size=8, unique=True))
def test_any_name_is_a_source_or_a_failure(tmp_path_factory, names):
    folder = os.fsencode(tmp_path_factory.mktemp("names"))
    made = set()
    for name in names:
        name = name.replace(b"/", b"-").replace(b"\0", b"-")[:251] + b".png"
        if not name.startswith(b"."):
            made.add(name)
            with open(os.path.join(folder, name), "wb"):
                pass
    got = list(expand([os.fsdecode(folder)]))
    assert {os.fsencode(os.path.basename(each.url if isinstance(each, Source) else each.name)) for each in got} == made
    assert all(isinstance(each, Source) or each.reason.isprintable() for each in got)


def test_entries_are_limited(folder):
    for i in range(20):
        (folder / "s" / f"{i}.png").touch()
    names, failures = names_and_failures(folder, limits=Limits(entries=10))
    assert names == ["a.png", "b.png"]
    ((name, reason),) = failures
    assert name == "s"
    assert "must stay within 10 (limit entries)" in reason


def test_depth_is_limited(folder):
    (folder / "s" / "t").mkdir()
    names, failures = names_and_failures(folder, limits=Limits(depth=2))
    assert names == ["a.png", "b.png", "s/c.png"]
    assert failures == [("t", "folders must be at most 2 deep (limit depth)")]


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_entries_of_archives_are_limited(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for i in range(50):
                archive.writestr(f"{i}.png", b"")
    else:
        with tarfile.open(path, "w:gz" if kind == "tgz" else "w") as archive:
            for i in range(50):
                archive.addfile(tarfile.TarInfo(f"{i}.png"))
    assert len(list(expand([str(path)]))) == 50
    (failure,) = expand([str(path)], limits=Limits(entries=49))
    assert isinstance(failure, SourceFailure)
    assert "(limit entries)" in failure.reason


def test_a_name_in_a_tar_that_claims_to_be_long_is_not_read(tmp_path):
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    tracemalloc.start()
    try:
        (failure,) = expand([str(tmp_path / "a.tar")])
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
    assert "(limit listing_bytes)" in failure.reason


class Endless(BaseHTTPRequestHandler):
    """A server whose pages never end: of links, of one tag, of text, byte by byte, or from one URL to the next."""

    def do_GET(self):
        kind = self.path.strip("/")
        if kind.startswith("redirect"):
            self.send_response(302)
            self.send_header("Location", f"/redirect{int(kind.removeprefix('redirect') or 0) + 1}")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(b"<a href='first.png'>")
            i = 0
            while kind != "silent" or not self.server.over.wait(20):
                i += 1
                self.wfile.write(
                    {"links": b"<a href=%d.png>" % i * 1000, "tag": b"<a " * 10000}.get(kind, b"A" * 65536)
                )

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def endless() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    server.over = Event()
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("text", Limits(listing_bytes=8 << 20)),
        ("tag", Limits(listing_bytes=8 << 20)),
        ("links", Limits(entries=1000)),
        ("silent", Limits(idle_seconds=0.5)),
        ("text", Limits(listing_seconds=0.5, listing_bytes=1 << 50)),
        ("redirect", Limits(redirects=3)),
    ],
)
def test_a_page_without_an_end_is_a_failure(endless, kind, limits):
    tracemalloc.start()
    try:
        (failure,) = expand([f"{endless}/{kind}/"], limits=limits)
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()
    assert isinstance(failure, SourceFailure)
    assert failure.reason


def test_a_list_without_an_end_is_an_error(endless):
    for kind, limits in (("text", Limits(list_bytes=1 << 22)), ("silent", Limits(idle_seconds=0.5))):
        with pytest.raises(OSError, match=r"."):
            expand([], files_from=f"{endless}/{kind}", limits=limits)
    with pytest.raises(OSError, match=r"limit list_bytes"):
        expand([], files_from="/dev/zero", limits=Limits(list_bytes=1 << 22))


@given(st.lists(st.sampled_from([b"<", b">", b"a ", b"href", b"=", b'"', b"'", b"x.png", b" ", b"\xff", b"&amp;"])))
def test_any_page_is_read(pieces):
    """In pieces of any size the same links are found."""
    from gpusift.sources import listing

    class Page:
        class r:
            headers: dict = {}  # noqa: RUF012

        def __init__(self, size: int) -> None:
            self._rest, self._size = b"".join(pieces) + b"<a href='last.png'>", size

        def read(self, _: int) -> bytes:
            block, self._rest = self._rest[: self._size], self._rest[self._size :]
            return block

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    class Server:
        def __init__(self, size):
            self._size = size

        def open(self, *_, **__):
            return Page(self._size)

    found = []
    for size in (1, 7, 1 << 20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(listing, "open_filesystem", lambda *_, size=size: (Server(size), "", None))
            found.append(list_folder(Location.parse("http://h/p/"), DEFAULT_LIMITS))
    assert found[0] == found[1] == found[2]
