"""The `gpusift` command: extract features from photographs, show, match and hand them on, say what it runs on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from gpusift import __version__
from gpusift.cli_colmap import colmap
from gpusift.cli_extract import extract
from gpusift.cli_match import match
from gpusift.cli_options import (
    check_new,
    check_png,
    compute,
    make_sift,
    reason_of,
    sift_options,
    writing,
)

# A small photograph is enlarged by `show` until its longer side has about this many pixels.
SHOWN_SIZE = 1500
MAX_ZOOM = 4


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="gpusift %(version)s")
def main() -> None:
    """Find SIFT features in photographs, on an NVIDIA GPU or the CPU."""


main.add_command(extract)
main.add_command(match)
main.add_command(colmap)


@main.command(short_help="Draw the keypoints of a photograph.")
@click.argument("image", type=click.Path())
@click.option("-o", "--output", required=True, metavar="PNG", help="The picture to write.")
@click.option("--zoom", type=click.IntRange(1, 16), help="Enlarge.  [default: small images only]")
@click.option("--overwrite", is_flag=True, help="Replace the picture if it is there.")
@sift_options
def show(image: str, output: str, zoom: int | None, overwrite: bool, no_exif: bool, **parameters: Any) -> None:
    """Draw the keypoints of IMAGE: circles of their size, a line along their orientation.

    Colours tell octaves apart.
    """
    from gpusift.plot import draw_keypoints, write_png

    check_png(output)
    check_new(output, overwrite)
    sift = make_sift(parameters)
    try:
        pixels, features = compute(sift, Path(image), not no_exif)
    except Exception as error:
        raise click.ClickException(f"{image}: {reason_of(error)}") from None
    if zoom is None:
        zoom = min(max(round(SHOWN_SIZE / max(pixels.shape)), 1), MAX_ZOOM)
    with writing(output):
        write_png(output, draw_keypoints(pixels, features, zoom=zoom))
    click.echo(f"{len(features)} keypoints on {sift.device.name} -> {output}")


@main.command(short_help="Say what gpusift runs on; check that it computes right.")
@click.option("--check", is_flag=True, help="Compute a small image on each device; exit code 1 if one is wrong.")
@click.option("--devices", metavar="all|0,1,...|cpu", help="Check these; all is all GPUs.  [default: what is there]")
def info(check: bool, devices: str | None) -> None:
    """Say what gpusift runs on: GPUs, CUDA and CuPy, and the CPU's instruction set.

    With --check, a small image is computed on each device, and its features are compared with those
    that every device must give, to the bit.
    """
    import platform
    from importlib.metadata import version

    from gpusift.device import cpu_info, cuda_info

    python = f"Python {platform.python_version()}, NumPy {version('numpy')}"
    click.echo(f"gpusift {__version__}, {python}")
    cpu, cuda = cpu_info(), cuda_info()
    builds = ", ".join(cpu["available"])
    click.echo(f"CPU: {cpu['instruction_set']} (of {builds}), {cpu['threads']} threads")
    if "error" in cuda:
        click.echo(f"CUDA: none; {cuda['error']}")
    else:
        _show_gpus(cuda)
    if check:
        _check(devices)


def _show_gpus(cuda: dict[str, Any]) -> None:
    versions = f"driver {cuda['cuda_driver']}, runtime {cuda['cuda_runtime']}, CuPy {cuda['cupy']}"
    click.echo(f"CUDA: {versions}")
    for gpu in cuda["devices"]:
        free, total = gpu["memory_free"] / 2**30, gpu["memory_total"] / 2**30
        click.echo(
            f"cuda:{gpu['index']}: {gpu['name']}, compute capability {gpu['compute_capability']}, "
            f"{free:.1f} of {total:.1f} GiB free"
        )


def _check(devices: str | None) -> None:
    """Check devices; end the command with exit code 1 if one is wrong."""
    from gpusift.check import check
    from gpusift.device import cuda_info
    from gpusift.stream_devices import device_names

    if devices is None:
        devices = ",".join(["cpu", *(f"cuda:{gpu['index']}" for gpu in cuda_info().get("devices", []))])
    try:
        names = device_names(devices)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    wrong = 0
    for name in dict.fromkeys(names):
        fault = check(name)
        wrong += fault is not None
        click.echo(f"{name}: {f'fails: {fault}' if fault else 'computes right'}")
    if wrong:
        sys.exit(1)
