"""Every kernel builds for every GPU that is supported, without a warning, within its limits; no GPU is needed."""

import re
import shutil
from dataclasses import replace

import pytest

from gpusift import devices
from gpusift.devices import kernel_sources
from gpusift.parameters import MAX_BINS, MAX_RADIUS, Parameters, gaussian_taps
from tests.support import nvrtc
from tests.support.nvrtc import ARCHITECTURES, PRECISIONS, BuildError

in_each_precision = pytest.mark.parametrize("dtype", PRECISIONS)
of_each_kernel = pytest.mark.parametrize("name", kernel_sources.kernels())


def launch_of(name):
    return next(launch for launch in nvrtc.default_launches() if launch.kernel == name)


def blur_blocks(dtype):
    """The shared memory of a blur of each radius, bytes, as the compiler computes it; it refuses what is too much."""
    text = kernel_sources.text("scale_space")
    for radius in range(1, devices.nvrtc.WIDE_RADIUS + 1):
        size = f"sizeof(BlurBlock<BlurMemory<{radius}>::samples>)"
        text += f'extern "C" __device__ const int block_{radius} = {size};\n'
    ptx = nvrtc.compiled_to_ptx(text, launch_of("decimate").options(dtype))
    return {int(radius): int(size) for radius, size in re.findall(r"\.u32 block_(\d+) = (\d+);", ptx)}


@in_each_precision
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("stage", kernel_sources.stages())
def test_a_stage_builds_within_the_limits(stage, architecture, dtype):
    launches = [*nvrtc.default_launches(), *nvrtc.extreme_launches()]
    of_stage = {launch.options(dtype): launch for launch in launches if launch.stage == stage}
    assert of_stage
    assert [found for launch in of_stage.values() for found in nvrtc.problems(launch, dtype, architecture)] == []


# Wider than any sensible blur, and the first and last radii on either side of the one where taps stop being unrolled.
@pytest.mark.parametrize(("architecture", "dtype"), [("75", "float64"), ("120", "float32")])
@pytest.mark.parametrize("radius", [32, 33, MAX_RADIUS])
def test_wide_blurs_build(architecture, dtype, radius):
    blur = replace(launch_of("blur"), sizes=nvrtc.radii(radius))
    assert nvrtc.problems(blur, dtype, architecture) == []


@in_each_precision
def test_the_blur_that_takes_most_shared_memory_builds(dtype):
    """And the next wider one, whose tile is not copied; the kernel shares nothing but its block."""
    sizes = blur_blocks(dtype)
    assert len(sizes) == devices.nvrtc.WIDE_RADIUS
    widest = max(sizes, key=sizes.get)
    for radius in (widest, widest + 1):
        build = nvrtc.built(replace(launch_of("blur"), sizes=nvrtc.radii(radius)), dtype, "90")
        assert build.figures["blur"].shared == sizes[radius] <= nvrtc.SHARED_BYTES


@in_each_precision
def test_the_compiler_refuses_tiles_that_are_too_large_for_a_blur(dtype, monkeypatch):
    monkeypatch.setitem(devices.nvrtc.TILES, "BLUR_TILE_ROWS", 64)
    with pytest.raises(BuildError, match="the tiles are too large for a blur of this radius"):
        blur_blocks(dtype)


def test_the_launches_are_those_of_all_kernels_and_default_radii():
    launches = nvrtc.default_launches()
    assert {launch.kernel for launch in launches} == set(kernel_sources.kernels())
    parameters = Parameters()
    first, *others = (len(gaussian_taps(sigma)) - 1 for sigma in (parameters.first_blur, *parameters.blurs))
    assert launch_of("first_level").constant == first
    assert {launch.sizes for launch in launches if launch.kernel == "blur"} == {nvrtc.radii(*reversed(others))}
    assert launch_of("upsample").constant == parameters.upsampling
    extreme = nvrtc.extreme_launches()
    assert {launch.constant for launch in extreme if launch.kernel == "upsample"} >= {1, 4}
    assert (("MAX_BINS", MAX_BINS),) in [launch.sizes for launch in extreme]


@in_each_precision
@of_each_kernel
def test_the_compiler_sees_the_signature_that_launches_are_checked_against(name, dtype):
    sizes = {"int32": "u32", "int64": "u64", "uint8": "u8", "float64": "f64"}
    sizes["real"] = "f32" if dtype == "float32" else "f64"
    expected = ["u64" if p.is_array else sizes[p.dtype] for p in kernel_sources.kernels()[name].parameters]
    (entry,) = re.findall(rf"\.entry {name}\((.*?)\)", nvrtc.ptx(launch_of(name), dtype), re.DOTALL)
    assert re.findall(r"\.param \.(\w+)", entry) == expected


@pytest.mark.parametrize("stage", kernel_sources.stages())
def test_python_finds_the_kernels_that_the_compiler_finds(stage):
    ours = [name for name, kernel in kernel_sources.kernels().items() if kernel.stage == stage]
    assert sorted(re.findall(r"\.entry (\w+)\(", nvrtc.ptx(launch_of(ours[0]), "float32"))) == sorted(ours)


@pytest.mark.parametrize(("capability", "load"), [("75", "ld.global.v4.f32"), ("80", "cp.async.cg.shared.global")])
def test_levels_that_other_blocks_write_are_read_past_the_read_only_cache(capability, load):
    text = nvrtc.ptx(launch_of("blur"), "float32", capability)
    blur = text[text.index(".entry blur(") :]
    loads = set(re.findall(r"ld\.global[\w.]*\.v4\.f32|cp\.async[\w.]*\.global", blur.split(".entry", 2)[1]))
    assert loads == {load}
    assert "ld.acquire.gpu" in blur
    assert "red.release.gpu" in blur


# Rounding


def arithmetic(ptx):
    """The distinct floating-point operations of PTX that round, with what they say of rounding: "mul.rn.ftz.f32"."""
    operation = r"\b((?:add|sub|mul|mad|fma|div|rcp|sqrt|rsqrt|ex2|lg2|sin|cos|tanh)\.[\w.]*f(?:32|64))\b"
    return set(re.findall(operation, ptx))


@of_each_kernel
def test_float_arithmetic_is_rounded_in_the_one_way(name):
    ptx = nvrtc.ptx(launch_of(name), "float32")
    one_way = {f"{operation}.rn.ftz.f32" for operation in ("add", "sub", "mul", "fma", "div", "rcp", "sqrt")}
    if name == "intensities":  # scales integers as NumPy does, in double precision, and rounds once
        one_way.add("mul.rn.f64")
    else:
        assert ".f64" not in ptx
    assert arithmetic(ptx) <= one_way
    assert "approx" not in ptx


def test_options_keep_products_and_sums_apart():
    assert "--fmad=false" in devices.OPTIONS
    assert not [option for option in devices.OPTIONS if re.search("fast|prec-div|prec-sqrt|fmad=true", option)]


def test_the_check_of_rounding_sees_contraction_and_approximation():
    text = 'extern "C" __global__ void f(float* x) { x[0] = x[1] * x[2] + x[3] / x[4]; }'

    def found(*options):
        return arithmetic(nvrtc.compiled_to_ptx(text, options))

    assert found(*devices.OPTIONS) == {"mul.rn.ftz.f32", "add.rn.ftz.f32", "div.rn.ftz.f32"}
    assert "fma.rn.ftz.f32" in found("-std=c++17")
    assert "div.approx.ftz.f32" in found(*devices.OPTIONS, "--use_fast_math")


# What the compiler says


@pytest.fixture
def copy_of_kernels(tmp_path, monkeypatch):
    """A copy of kernels/, read by `source` in its place."""
    folder = shutil.copytree(kernel_sources.folder(), tmp_path / "kernels")
    monkeypatch.setattr(kernel_sources, "folder", lambda: folder)
    monkeypatch.setattr(kernel_sources, "text", kernel_sources.text.__wrapped__)
    return folder


def insert(path, before, line):
    """Puts a line before the first one that begins so; returns the number that it has then."""
    lines = path.read_text().splitlines()
    index = next(i for i, there in enumerate(lines) if there.startswith(before))
    path.write_text("\n".join([*lines[:index], line, *lines[index:]]))
    return index + 1


@pytest.mark.parametrize(
    ("file", "before"),
    [
        ("extrema.cu", "#include"),
        ("extrema.cu", "KERNEL"),
        ("platform.cuh", "using real"),
        ("arithmetic.cuh", "DEVICE int ceil_div"),
    ],
)
def test_an_error_names_the_file_and_the_line(copy_of_kernels, file, before):
    number = insert(copy_of_kernels / file, before, "int broken = nonsense;")
    with pytest.raises(BuildError, match=rf'(?m)^{file}\({number}\): error: identifier "nonsense" is undefined'):
        nvrtc.built(launch_of("find_extrema"), "float32", "90")


def test_a_warning_is_seen_and_names_the_line(copy_of_kernels):
    number = insert(copy_of_kernels / "extrema.cu", "    alignas(16) __shared__", "    int never_used;")
    found = nvrtc.problems(launch_of("find_extrema"), "float32", "90")
    assert f'extrema.cu({number}): warning #177-D: variable "never_used" was declared' in "\n".join(found)


def test_too_much_shared_memory_is_seen(copy_of_kernels):
    too_much = "    __shared__ volatile int much[13000]; much[n_scales] = 1;"
    insert(copy_of_kernels / "extrema.cu", "    alignas(16) __shared__", too_much)
    (found,) = nvrtc.problems(launch_of("find_extrema"), "float32", "90")
    assert "shared" in found


def test_spills_and_too_many_registers_are_seen(monkeypatch):
    text = kernel_sources.text("scale_space")
    assert "#define MAX_UNROLLED 32\n" in text
    unrolled = text.replace("#define MAX_UNROLLED 32\n", "#define MAX_UNROLLED 999\n")
    monkeypatch.setattr(kernel_sources, "text", lambda stage: unrolled)
    widest = replace(launch_of("blur"), sizes=nvrtc.radii(MAX_RADIUS // 2), threads=512)
    found = "\n".join(nvrtc.problems(widest, "float64", "90"))
    assert re.search(r"blur spills \d+ bytes", found)
    assert re.search(r"\d+ registers for each of 512 threads", found)


def test_figures_are_read_from_ptxas_log():
    log = (
        "ptxas info    : Compiling entry function 'f' for 'sm_90'\n"
        "ptxas info    : Function properties for f\n"
        "ptxas         .     40 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info    : Used 114 registers, used 1 barriers, 40 bytes cumulative stack size, 4648 bytes smem\n"
        "ptxas info    : Compile time = 143.390 ms\n"
        "ptxas info    : Function properties for called\n"
        "ptxas         .     0 bytes stack frame, 4 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Compiling entry function 'g' for 'sm_90'\n"
        "ptxas info    : Function properties for g\n"
        "ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 19 registers, used 0 barriers, 388 bytes cmem[0]\n"
    )
    assert nvrtc.Build(b"", log).figures == {
        "f": nvrtc.Figures(registers=114, shared=4648, stack=40, spilled=20),
        "called": nvrtc.Figures(registers=0, shared=0, stack=0, spilled=4),
        "g": nvrtc.Figures(registers=19, shared=0, stack=0, spilled=0),
    }


# The kept table


def test_the_kept_table_is_of_these_kernels():
    from bench.kernels import ptxas

    kept = ptxas.kept()
    ours = {(ptxas.name_of(launch), dtype) for launch in ptxas.launches() for dtype in PRECISIONS}
    assert set(kept) == ours, "the kernels have changed: run python -m bench.kernels.ptxas"
    for (name, dtype), spilled in kept.items():
        assert spilled <= nvrtc.spills_allowed(name.split()[0], dtype), name
