"""Other NVRTCs than the installed one build every kernel without a warning; the options are those that CuPy adds."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import nvrtc, other_nvrtc


@pytest.mark.parametrize("version", other_nvrtc.VERSIONS)
def test_another_compiler_builds_every_kernel(version):
    if other_nvrtc.library_of(version) is None:
        pytest.skip(f"NVRTC {version} is not in {other_nvrtc.FOLDER}; make test installs it")
    command = [sys.executable, "-m", other_nvrtc.__name__, version]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, [version]), done.stdout + done.stderr


def test_the_options_are_those_that_cupy_adds():
    """Read from CuPy's source, which needs no GPU; what it adds on request or for ROCm only is listed."""
    package = importlib.util.find_spec("cupy")
    compiler = Path(package.origin).parent / "cuda" / "compiler.py" if package and package.origin else None
    if compiler is None or not compiler.is_file():
        pytest.skip("needs the source of CuPy: pip install cupy-cuda13x")
    text = compiler.read_text()
    functions = [
        re.search(rf"^def {name}\(.*?(?=^def )", text, re.DOTALL | re.MULTILINE)[0] for name in NVRTC_FUNCTIONS
    ]
    added = set(re.findall(r"options \+= \(f?'(-[^']+)',", "".join(functions)))
    on_request = {
        "-dlto",
        "--device-debug",
        "--generate-line-info",
        "-DCUPY_USE_JITIFY",
        "--pch",
        "-arch=compute_{arch}",
    }
    assert added - on_request == set(nvrtc.ADDED_BY_CUPY)
    assert "return f'-arch=sm_{arch}', 'cubin'" in text


NVRTC_FUNCTIONS = ("_compile_using_nvrtc_no_warning", "_compile_with_cache_cuda")
