"""Paths and URLs in one form, so that they can be compared and have names.

A file in an archive has a path below the archive's file, and a URL a path below its scheme. So every file has one path,
and paths can be compared: `zip://s/a.jpg::/data/b.zip` is file/data/b.zip/s/a.jpg.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from urllib.parse import unquote_to_bytes

# A chain of fsspec: wrappers such as "simplecache::", a scheme, the path, and "::" with what that path lies in.
_URL = re.compile(
    r"(?P<wrappers>(?:\w+::)*)(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<path>.*?)(?P<container>::.*)?", re.DOTALL
)

# A file's URL (RFC 8089): with no host or this one, and fsspec's own word for it.
_FILE_URL = re.compile(r"(?:file:(?://(?:localhost(?=/))?)?|local://)(?P<path>[^:]*(?::(?!:)[^:]*)*)", re.DOTALL)

HTTP = ("http", "https")

# Parameters of a query that sign a URL, in lower case: Amazon S3, CloudFront, Google Cloud Storage, Azure, Alibaba OSS,
# Tencent COS, Akamai, Cloudflare, Firebase.
SIGNATURES = frozenset(
    {"x-amz-signature", "signature", "x-goog-signature", "sig", "x-oss-signature", "q-signature"}
    | {"hdnts", "hdnea", "__token__", "verify", "token", "access_token"}
)


@dataclass(frozen=True)
class Location:
    """A file or folder.

    Attributes
    ----------
    path : str
        Its path, absolute on this machine, or what follows "://" in its URL.
    scheme, wrappers, container : str
        The rest of the URL; empty on this machine.
    """

    path: str
    scheme: str = ""
    wrappers: str = ""
    container: str = ""

    @classmethod
    def parse(cls, text: str) -> Location:
        """Make it from a path or a URL."""
        if match := _FILE_URL.fullmatch(text):
            return cls(os.path.abspath(_decoded(match["path"])))
        match = _URL.fullmatch(text)
        if not match:
            return cls(os.path.abspath(text))
        parts = match.groupdict(default="")
        container = parts["container"] and "::" + cls.parse(parts["container"][2:]).url
        return cls(parts["path"], parts["scheme"], parts["wrappers"], container)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, outside of any archive."""
        return not self.scheme

    @property
    def is_web(self) -> bool:
        """Whether it is on a web server, outside of any archive."""
        return self.scheme in HTTP and not self.container

    @property
    def url(self) -> str:
        """What it is made from: an absolute path, or a URL."""
        return f"{self.wrappers}{self.scheme}://{self.path}{self.container}" if self.scheme else self.path

    @property
    def public_url(self) -> str:
        """Its URL without a query that signs it, for logs and records: who reads these may not read the file."""
        if self.container:
            container = "::" + Location.parse(self.container[2:]).public_url
            return replace(self, container=container).url
        return replace(self, path=_unsigned(self.path)).url if self.is_web else self.url

    @property
    def parts(self) -> tuple[str, ...]:
        """Its path's parts, below those of the archive it is in; without a query that signs a URL."""
        path = (_unsigned(self.path) if self.is_web else self.path).strip("/")
        own = tuple(path.split("/")) if path else ()
        if self.container:
            return Location.parse(self.container[2:]).parts + own
        return (self.scheme or "file", *own)

    def child(self, name: str) -> Location:
        """Return what has this name in this folder."""
        separator = "" if not self.path or self.path.endswith("/") else "/"
        return replace(self, path=f"{self.path}{separator}{name}")

    def parent(self) -> Location:
        """Return the folder it is in."""
        path = _unsigned(self.path) if self.is_web else self.path
        head, separator, _ = path.rstrip("/").rpartition("/")
        return replace(self, path=head or separator)


def _decoded(path: str) -> str:
    """Return the path that a file's URL stands for: percent-encoded, unless a file is called as it is written."""
    return path if os.path.lexists(path) else os.fsdecode(unquote_to_bytes(os.fsencode(path)))


def _unsigned(path: str) -> str:
    """Return a web server's path without its fragment and, if its query signs the URL, without its query.

    A signature is another one every time. Any other query may say which picture it is.
    """
    path = path.partition("#")[0]
    head, _, query = path.partition("?")
    names = {parameter.partition("=")[0].lower() for parameter in query.split("&")}
    return head if names & SIGNATURES else path
