"""What `gpusift extract` computes with: a device here, devices with a process each, or a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from gpusift.cli.options import make_sift
from gpusift.images.reader import NVIMGCODEC, Decoding

if TYPE_CHECKING:
    from gpusift.sinks import Sink
    from gpusift.stream.worker import Worker

# What the devices are called, and what gives the workers for a sink.
Found = tuple[list[str], Callable[["Sink"], "list[Worker]"]]


@contextmanager
def computing(parameters: dict[str, Any], options: dict[str, Any]) -> Iterator[Found]:
    """Choose what computes by the command's options; an error ends the command.

    Parameters
    ----------
    parameters : dict
        Keyword arguments of `SIFT`.
    options : dict
        Of `gpusift extract`.

    Yields
    ------
    devices : list of str
        What they are called.
    workers_for : callable
        Gives the workers for a sink.
    """
    from gpusift.images import DEFAULT_MAX_PIXELS

    devices, dask = options["devices"], options["dask"]
    if devices and dask:
        raise click.UsageError("--devices and --dask exclude each other: a cluster's workers have devices of their own")
    decoding = Decoding(
        not options["no_exif"], options["max_pixels"] or DEFAULT_MAX_PIXELS, options["max_size"], options["decoder"]
    )
    how = {"decoding": decoding, "n_decoders": options["decoders"]}
    if options["batch_size"]:
        how["batch_size"] = options["batch_size"]
    if devices or dask:
        make_sift({**parameters, "device": "cpu"})  # the other parameters must be valid
    with ExitStack() as stack:
        try:
            if devices:
                found = _processes(devices, parameters, how)
            elif dask:
                found = _cluster(dask, parameters, how, stack)
            else:
                found = _here(parameters, how, stack)
        except (ImportError, OSError, ValueError) as error:
            raise click.ClickException(str(error)) from None
        yield found


def _here(parameters: dict[str, Any], how: dict[str, Any], stack: ExitStack) -> Found:
    from gpusift.images.stderr import Listener
    from gpusift.stream.worker import worker_here

    sift = make_sift(parameters)
    _require(how["decoding"], [sift.device.name])
    listener = stack.enter_context(Listener())
    return [sift.device.name], lambda sink: [worker_here(sift, listener=listener, **how)]


def _processes(names: str, parameters: dict[str, Any], how: dict[str, Any]) -> Found:
    from gpusift.stream import processes

    devices = processes.device_names(names)
    _require(how["decoding"], devices)
    return devices, lambda sink: processes.workers(devices, parameters, listen=True, **how)


def _cluster(address: str, parameters: dict[str, Any], how: dict[str, Any], stack: ExitStack) -> Found:
    from gpusift.distributed import connect, require_device, worker_on

    require_device(parameters, how["decoding"].decoder)
    client = stack.enter_context(connect(address, device=parameters["device"]))
    return [f"Dask at {address}"], lambda sink: [
        worker_on(client, parameters, write_file=getattr(sink, "write_file", None), **how)
    ]


def _require(decoding: Decoding, devices: list[str]) -> None:
    """Raise unless the decoder is there, and gives the same pixels on all devices."""
    if decoding.decoder == NVIMGCODEC:
        from gpusift.images.nvimgcodec import pixels_of, require

        require()
        pixels_of(devices)
