"""What decides a job's results, derived once from the arguments of `extract` and recorded in its output."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import TYPE_CHECKING, Any

from gpusift import __version__
from gpusift.images import DEFAULT_MAX_PIXELS, DEFAULT_MAX_SCANS
from gpusift.images.reader import NVIMGCODEC, OPENCV, Decoding
from gpusift.opencv_package import import_cv2
from gpusift.parameters import Parameters, pooling_factors
from gpusift.sift import SIFT
from gpusift.sinks import BASE, Sink, format_of, open_sink, recorded_base
from gpusift.sources import Source, SourceFailure, Sources, expand
from gpusift.sources.names import choose_base
from gpusift.stream.summary import Event, RunError, Summary

if TYPE_CHECKING:
    from gpusift.stream.worker import Worker

Given = str | os.PathLike[str] | Iterable[Source | SourceFailure | str | os.PathLike[str]]
Output = str | os.PathLike[str]

# Runs workers on sources, to a sink: `gpusift.stream.run`.
Run = Callable[..., Summary]


def settings_of(
    sift: SIFT | Mapping[str, Any],
    *,
    exif_orientation: bool = True,
    max_size: int | None = None,
    decoder: str = OPENCV,
) -> dict[str, Any]:
    """Return what decides the results of a run, for its output.

    Parameters
    ----------
    sift : SIFT or mapping
        What computes; or keyword arguments of `SIFT`, of which those not given have their defaults. The device and the
        number of threads do not count; but with the decoder "nvimgcodec", whether the device is a GPU or the CPU does.
    exif_orientation, max_size, decoder : optional
        As for `extract`.
    """
    arguments = sift if isinstance(sift, Mapping) else arguments_of(sift)
    chosen = {each.name: arguments.get(each.name, each.default) for each in fields(Parameters)}
    if chosen["pooling"] is not None:
        chosen["pooling"] = list(pooling_factors(chosen["pooling"]))  # JSON has no tuples
    blur = arguments.get("blur", "auto")
    chosen |= {"dtype": str(arguments.get("dtype", "float32")), "blur": "kernel" if blur == "auto" else blur}
    if decoder == NVIMGCODEC:
        from gpusift.images.nvimgcodec import pixels_of

        decoder = pixels_of([str(arguments.get("device", "auto"))])
    return {**chosen, "exif_orientation": exif_orientation, "max_size": max_size, "decoder": decoder}


def arguments_of(sift: SIFT) -> dict[str, Any]:
    """Return the keyword arguments that decide a SIFT's results."""
    chosen = {field.name: getattr(sift.parameters, field.name) for field in fields(Parameters)}
    return {**chosen, "dtype": sift.float_dtype.name, "blur": sift.blur, "device": sift.device.name}


@dataclass(frozen=True)
class Job:
    """What is computed, and where it goes.

    Attributes
    ----------
    output : str
        The output, as given.
    arguments : dict
        Keyword arguments of `SIFT`.
    decoding : Decoding
        How images are decoded.
    own_settings : dict
        Settings of the output's format.
    """

    output: str
    arguments: dict[str, Any]
    decoding: Decoding
    own_settings: dict[str, Any]

    @classmethod
    def plan(
        cls,
        output: Output,
        sift: SIFT | Mapping[str, Any] | None,
        *,
        exif_orientation: bool | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        max_size: int | None = None,
        decoder: str = OPENCV,
        max_scans: int = DEFAULT_MAX_SCANS,
        allow_formats: Collection[str] = (),
        format_settings: Mapping[str, Any] | None = None,
    ) -> Job:
        """Derive a job from the arguments of `extract`; what is not given follows from the output's format."""
        import_cv2()  # without it, no image can be read
        format_, _ = format_of(output)
        arguments = arguments_of(sift) if isinstance(sift, SIFT) else {**format_.sift_parameters, **(sift or {})}
        if exif_orientation is None:
            exif_orientation = format_.exif_orientation
        max_size = format_.max_size if max_size is None else max_size
        decoding = Decoding(exif_orientation, max_pixels, max_size, decoder, max_scans, tuple(allow_formats))
        return cls(os.fspath(output), arguments, decoding, dict(format_settings or {}))

    def settings(self, device: str) -> dict[str, Any]:
        """Return what decides the results, computed on a device, for the output."""
        decoding = self.decoding
        settings = settings_of(
            {**self.arguments, "device": device},
            exif_orientation=decoding.exif_orientation,
            max_size=decoding.max_size,
            decoder=decoding.decoder,
        )
        return {**settings, **self.own_settings}

    def carry_out(
        self,
        run: Run,
        sources: Given,
        workers: Callable[[Sink], Sequence[Worker]],
        *,
        device: str,
        shown: str | None = None,
        by_tasks: bool = False,
        overwrite: bool = False,
        retry_failed: bool = False,
        on_event: Callable[[Event], None] | None = None,
        stop: threading.Event | None = None,
    ) -> Summary:
        """Open the output, run the workers, and close it, also after an error.

        Parameters
        ----------
        run : callable
            `gpusift.stream.run`.
        sources, overwrite, retry_failed, on_event, stop
            As for `extract`.
        workers : callable
            Returns the workers for a sink.
        device : str
            A device that computes: it decides whose pixels the decoder gives.
        shown : str, optional
            What the event "start" calls all that computes.
        by_tasks : bool, optional
            As for `open_sink`.
        """
        images = as_sources(sources, None if overwrite else recorded_base(self.output, by_tasks=by_tasks))
        settings = self.settings(device)
        if isinstance(images, Sources):
            settings[BASE] = images.base
        options = {"overwrite": overwrite, "retry_failed": retry_failed, "by_tasks": by_tasks}
        sink = open_sink(self.output, settings, **options)
        summary = None
        try:
            if on_event is not None:
                start = {"version": __version__, "output": self.output, "device": shown or device}
                on_event({"event": "start", **start, "settings": sink.settings})
            summary = run(images, sink, workers(sink), on_event=on_event, stop=stop)
        except BaseException:
            _close_after_error(sink)
            raise
        try:
            sink.close()
        except Exception as error:
            raise RunError("write", summary, error) from error
        return summary


def _close_after_error(sink: Sink) -> None:
    """Close a sink after an error, which is raised; errors of closing are ignored."""
    try:
        sink.close()
    except Exception:
        return


def as_sources(given: Given, kept_base: str | None) -> Iterator[Source | SourceFailure]:
    """Return the images that are given as such, or that paths and URLs stand for.

    Parameters
    ----------
    given : path, or iterable of paths or of Source and SourceFailure
        As for `extract`.
    kept_base : str or None
        The folder that names in the output are relative to.

    Raises
    ------
    BaseDiffersError
        The images are named relative to another folder.
    """
    if isinstance(given, Sources):
        choose_base(given.base, kept_base, ())
        return given
    if isinstance(given, (str, os.PathLike)):
        given = [given]
    items = iter(given)
    for first in items:
        if isinstance(first, (str, os.PathLike)):
            paths = [os.fspath(first), *(os.fspath(each) for each in items)]  # type: ignore[arg-type]
            return expand(paths, kept_base=kept_base)
        return chain([first], items)  # type: ignore[arg-type]
    return iter(())
