"""The folder that names are relative to, whatever else is in a list, and shards of names."""

from __future__ import annotations

import os
from collections import Counter
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpusift.sources import BaseDiffersError, Source, expand
from gpusift.sources.names import parts_of, shard_of, text_of
from tests.support.image_tree import make_tree

FILES = ["p/a.png", "p/s/a.png", "p/s/t/a.tif", "q/a.png"]


@pytest.fixture
def tree(tmp_path, monkeypatch):
    return make_tree(tmp_path, monkeypatch)


def names(*arguments: str, **options) -> list[str]:
    got = list(expand([str(argument) for argument in arguments], **options))
    assert all(isinstance(each, Source) for each in got), got
    return [each.name for each in got]


@given(st.data())
def test_a_name_in_a_list_does_not_depend_on_the_other_lines(tmp_path_factory, data):
    """Relative and absolute lines, files elsewhere, buckets and servers: alone or together, each has its name."""
    with pytest.MonkeyPatch.context() as patch:
        tree = make_tree(tmp_path_factory.mktemp("tree"), patch)
        kinds = {
            "relative": FILES,
            "absolute": [f"{tree}/{file}" for file in FILES],
            "elsewhere": [f"/data/{year}/{file}" for year in (2025, 2026) for file in FILES],
            "web": [f"https://host/{file}" for file in FILES],
            "bucket": [f"s3://bucket/{file}" for file in FILES],
            "archive": [f"zip://{file}::/data/one.zip" for file in FILES],
        }
        lines = data.draw(st.sampled_from(list(kinds.values())))
        chosen = data.draw(st.lists(st.sampled_from(lines), min_size=1, unique=True))

        def name_of(lines: list[str]) -> dict[str, str]:
            (tree / "list").write_text("\n".join(lines))
            return {each.url: each.name for each in expand([], files_from=str(tree / "list"))}

        everywhere = name_of(lines)
        assert len(set(everywhere.values())) == len(lines)
        assert name_of(chosen).items() <= everywhere.items()


def test_the_base_of_earlier_results_stays(tree):
    whole = expand(["p", "q"])
    assert whole.base == str(tree)
    assert names("p/s", kept_base=whole.base) == ["p/s/a.png", "p/s/t/a.tif"]
    assert expand(["p/s"], kept_base=whole.base).base == whole.base
    assert names("q/a.png", kept_base=expand(["q"]).base) == ["a.png"]


@pytest.mark.parametrize(
    ("kept", "arguments", "options"),
    [
        ("p", ["p", "q"], {}),
        ("p/s", ["p"], {}),
        ("p", ["q/a.png"], {}),
        ("p", ["p"], {"root": "."}),
        (".", ["p"], {"root": "p"}),
    ],
)
def test_another_base_is_refused_and_both_are_shown(tree, kept, arguments, options):
    kept = os.path.abspath(kept)
    with pytest.raises(BaseDiffersError) as raised:
        expand(arguments, kept_base=kept, **options)
    assert raised.value.kept == kept
    assert raised.value.now != kept
    assert kept in str(raised.value)
    assert raised.value.now in str(raised.value)


def test_a_folder_by_another_path_is_the_same(tree):
    (tree / "link").symlink_to(tree / "p")
    assert names("link", kept_base=str(tree / "p")) == names("p")
    assert names("link/s", root=str(tree / "link"), kept_base=str(tree / "p")) == ["s/a.png", "s/t/a.tif"]


def test_a_folder_that_was_moved_is_named_by_root(tree):
    before = names("p")
    base = expand(["p"]).base
    os.rename("p", "moved")
    with pytest.raises(BaseDiffersError, match="--root"):
        expand(["moved"], kept_base=base)
    assert names("moved", root="moved", kept_base=base) == before


@given(st.lists(st.text(st.characters(exclude_characters="/:#?\0", exclude_categories=["Cs"]), min_size=1), max_size=4))
def test_a_base_is_written_and_read_back(parts):
    parts = [part for part in parts if part not in (".", "..")]
    for base in ((), ("file", *parts), ("s3", "bucket", *parts), ("https", "host", *parts)):
        assert parts_of(text_of(base)) == base


def test_shards_divide_the_images(tree):
    for n in (1, 2, 5):
        shards = [names("p", "q", shard=(i, n)) for i in range(n)]
        assert sorted(chain(*shards)) == sorted(names("p", "q"))
        assert all(shard_of(name, n) == i for i, shard in enumerate(shards) for name in shard)
    assert shard_of("a.png", 1000) == 982  # another number would compute all images of a cluster's job anew


@given(st.integers(1, 50))
def test_shards_are_of_similar_size(n):
    counts = Counter(shard_of(f"photographs/{i:06}.jpg", n) for i in range(200 * n))
    assert len(counts) == n
    assert max(counts.values()) < 300
