# make demo    features and matches of scikit-image's photographs, by the command line, into demo/
# make test    the tests, then those of the GPU on a stand-in for CuPy (docs/cuda-standin.md)
# make bench   speed and memory beside OpenCV and scikit-image, into bench/results/ (GPUSIFT_DATA: a folder of photographs)
# make gpu     on a machine with a GPU: kept hashes, first measurements, tests, then the bench, with the Python that is
#              there; rows are written as they are made. GPU_SECONDS: the time for all of it
# make docs    the site, into build/docs/html; it runs the examples
# make lint, make format, make dist (a wheel and the archive of the sources), make clean
#
# demo, test, bench, docs and lint each install what they need into .venv; with an NVIDIA driver, CuPy for its CUDA version too.

PYTHON ?= python3
GPU_PYTHON ?= python3
BIN := .venv/bin
CUDA := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA Version: \([0-9]*\).*/\1/p')
comma := ,
GPU_EXTRA := $(if $(CUDA),$(if $(filter 12,$(CUDA)),$(comma)cuda12,$(comma)cuda13))
DATA := $(if $(GPUSIFT_DATA),--data $(GPUSIFT_DATA))
CPP := $(wildcard kernels/*.cu kernels/*.cuh kernels/host/*.hpp kernels/host/*.cpp)

.PHONY: demo test bench gpu docs lint format dist clean

demo: .venv/installed-demo
	$(BIN)/python -m bench.demo

test: .venv/installed-test
	$(BIN)/python -m pytest -n 2 --dist loadgroup
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "gpu or standin" --cuda-standin=1
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m "gpu or standin" --cuda-standin=2 tests/devices tests/pipeline
	$(BIN)/python -m pytest -m gpu --cuda-standin=3 --cuda-standin-kernels=emulated -k "mask or matching or refined and True" \
		tests/test_second_gpu.py

bench: .venv/installed-test
	$(BIN)/python -m bench.speed.run $(DATA)
	$(BIN)/python -m bench.speed.plot

gpu:
	PYTHONPATH=. $(GPU_PYTHON) -m bench.gpu $(DATA) $(if $(GPU_SECONDS),--seconds $(GPU_SECONDS))

docs: .venv/installed-docs
	$(BIN)/python -m sphinx --builder html --conf-dir docs --nitpicky --fail-on-warning --keep-going . build/docs/html

lint: .venv/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run -Werror $(CPP)

format: .venv/installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP)

dist: .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --outdir dist

clean:
	rm -rf .venv build dist demo

.venv/bin/python:
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "a virtual environment could not be made: Debian has venv in the package python3-venv" >&2; exit 1; }

# Without a GPU, the tests compare their stand-in with CuPy itself.
.venv/installed-test: GPU_EXTRA := $(or $(GPU_EXTRA),$(comma)test-cupy)

# The compilers of other versions of CUDA, which build every kernel in the tests.
.venv/installed-test: build/compilers/12.9 build/compilers/13.0
build/compilers/12.9: NVRTC := nvidia-cuda-nvrtc-cu12==12.9.*
build/compilers/13.0: NVRTC := nvidia-cuda-nvrtc==13.0.*
build/compilers/%: .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@ "$(NVRTC)" || { rm -rf $@; exit 1; }

# What a target needs is installed again when what an installation takes from the checkout changes.
.venv/installed-%: .venv/bin/python pyproject.toml CMakeLists.txt $(CPP)
	@echo "Installing gpusift[$*$(GPU_EXTRA)] into .venv: packages are downloaded and the CPU kernels built; minutes at first."
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on --editable ".[$*$(GPU_EXTRA)]"
	touch $@
