"""Completion by the shell, as docs/install.md describes it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def completions(words: str) -> list[str]:
    """What bash is told for a line of which the last word is incomplete: a type and a value each."""
    variables = {
        "_GPUSIFT_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    command = [sys.executable, "-m", "gpusift"]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gpusift ex", ["plain,extract"]),
        ("gpusift extract --pre", ["plain,--precise-upscale"]),
        ("gpusift extract --keep re", ["plain,response"]),
        ("gpusift extract pho", ["file,pho"]),
        ("gpusift extract -o fea", ["file,fea"]),
        ("gpusift colmap pho", ["file,pho"]),
        ("gpusift show pho", ["file,pho"]),
    ],
)
def test_commands_options_choices_and_paths_are_completed(words, expected):
    assert completions(words) == expected
