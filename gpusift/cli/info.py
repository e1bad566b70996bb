"""`gpusift info`: what gpusift runs on, and whether it computes correctly there."""

from __future__ import annotations

import sys
from typing import Any

import click

from gpusift import __version__


@click.command(short_help="Show what gpusift runs on; check that it computes correctly.")
@click.option("--check", is_flag=True, help="Compute a small image on each device; exit code 1 if a result is wrong.")
@click.option(
    "--devices", metavar="all|0,1,...|cpu", help="Devices to check; all is all GPUs.  [default: the CPU and all GPUs]"
)
def info(check: bool, devices: str | None) -> None:
    """Show what gpusift runs on: GPUs, CUDA and CuPy, and the CPU's instruction set.

    With --check, a small image is computed on each device, and its features are compared, to the bit,
    with those that every device must give.
    """
    import platform
    from importlib.metadata import version

    from gpusift.devices import cpu_info, cuda_info

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
    from gpusift.devices import free_memory_of

    versions = f"driver {cuda['cuda_driver']}, runtime {cuda['cuda_runtime']}, CuPy {cuda['cupy']}"
    click.echo(f"CUDA: {versions}")
    for gpu in cuda["devices"]:
        free, total = free_memory_of(gpu["index"]), f"{gpu['memory_total'] / 2**30:.1f} GiB"
        memory = f"{total}, but it is reserved or broken" if free is None else f"{free / 2**30:.1f} of {total} free"
        click.echo(f"cuda:{gpu['index']}: {gpu['name']}, compute capability {gpu['compute_capability']}, {memory}")


def _check(devices: str | None) -> None:
    """Check devices; end the command with exit code 1 if one is wrong."""
    from gpusift.cli.self_check import fault_of
    from gpusift.devices import cuda_info
    from gpusift.stream.processes import device_names

    if devices is None:
        devices = ",".join(["cpu", *(f"cuda:{gpu['index']}" for gpu in cuda_info().get("devices", []))])
    try:
        names = device_names(devices)
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    wrong = 0
    for name in dict.fromkeys(names):
        fault = fault_of(name)
        wrong += fault is not None
        click.echo(f"{name}: {f'fails: {fault}' if fault else 'computes correctly'}")
    if wrong:
        sys.exit(1)
