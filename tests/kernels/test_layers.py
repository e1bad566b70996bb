"""The layers of kernels/: device files know of no host, and files and kernels stay short."""

import re

import pytest

from gpusift.devices import kernel_sources

FOLDER = kernel_sources.folder()
FILES = sorted([*FOLDER.glob("*.cu"), *FOLDER.glob("*.cuh"), *FOLDER.glob("host/*")])
DEVICE_FILES = [path for path in FILES if path.parent == FOLDER and path.name != "platform.cuh"]
MAX_FILE_LINES = 250
MAX_FUNCTION_LINES = 60

# What only platform.cuh and host/ may name: compilers, their intrinsics, and how many samples a CPU takes at a time.
HOST_WORDS = re.compile(r"\b(LANES|STRIP|RUN|SPAN|VECTOR_BYTES|EMULATED_\w+|__CUDACC_RTC__|__AVX\w*|__SSE\w*|_mm\w*)\b")


def functions(path):
    """The name and the number of lines of each function, and of each member function, of a file."""
    found, start = [], None
    for number, line in enumerate(path.read_text().splitlines()):
        opening = re.match(r"( *)(?:KERNEL_OF\(\w+\)|(?:KERNEL|DEVICE|DEVICE_MEMBER)\b).*?(\w+)\(", line)
        if opening:
            start = number, len(opening[1]), opening[2]
        if start and re.fullmatch(rf" {{{start[1]}}}}}", line):
            found.append((start[2], number - start[0] + 1))
            start = None
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_short(path):
    assert len(path.read_text().splitlines()) <= MAX_FILE_LINES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_function_is_short(path):
    long = [name for name, lines in functions(path) if lines > MAX_FUNCTION_LINES]
    assert long == []


@pytest.mark.parametrize("path", DEVICE_FILES, ids=lambda path: path.name)
def test_a_device_file_knows_no_host(path):
    found = {match[0] for match in HOST_WORDS.finditer(path.read_text())}
    assert found == set()


def test_the_check_sees_functions_and_host_words():
    assert ("describe", True) in [(name, lines > 20) for name, lines in functions(FOLDER / "descriptor.cu")]
    assert HOST_WORDS.findall("for (int lane = 0; lane < LANES; ++lane) {} // STRIPES") == ["LANES"]
