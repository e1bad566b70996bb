"""The configuration of a `SIFT` object: its parameters and its device as attributes, and how it is copied."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, Generic, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from gpusift import profiles
from gpusift.devices import Device, get_device, precision
from gpusift.features import ARRAYS, Reals
from gpusift.parameters import Parameters
from gpusift.pipeline.plan import Plans
from gpusift.pipeline.strips import limit_in_bytes
from gpusift.stages.scale_space import BLURS

T = TypeVar("T")
C = TypeVar("C", bound="Configuration")

# Of the last image.
ATTRIBUTES = ("keypoints", *ARRAYS, "scalespace_sigmas", "_n_octaves")


class Setting(Generic[T]):
    """A parameter as an attribute of an object with `parameters`; assigning it gives the object new ones, validated."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else getattr(instance.parameters, self._name)

    def __set__(self, instance: Any, value: T) -> None:
        instance.parameters = replace(instance.parameters, **{self._name: value})


class Configuration:
    """Parameters, of which each is an attribute, and what computes with them; see `gpusift.SIFT`.

    The attributes of the last image are copied and pickled with the object. Its buffers on the device are not.
    """

    # None before the first image, as in scikit-image; users need not check for it.
    keypoints: NDArray[np.int64] = None  # type: ignore[assignment]
    positions: Reals = None  # type: ignore[assignment]
    sigmas: Reals = None  # type: ignore[assignment]
    scales: NDArray[np.int64] = None  # type: ignore[assignment]
    orientations: Reals = None  # type: ignore[assignment]
    octaves: NDArray[np.int64] = None  # type: ignore[assignment]
    responses: Reals = None  # type: ignore[assignment]
    descriptors: NDArray[np.uint8] = None  # type: ignore[assignment]
    affine_shapes: Reals = None  # type: ignore[assignment]
    scalespace_sigmas: np.ndarray | None = None

    upsampling = Setting[int]()
    n_scales = Setting[int]()
    sigma_in = Setting[float]()
    c_edge = Setting[float]()
    n_bins = Setting[int]()
    lambda_ori = Setting[float]()
    c_max = Setting[float]()
    lambda_descr = Setting[float]()
    n_hist = Setting[int]()
    n_ori = Setting[int]()
    max_keypoints = Setting["int | None"]()
    keep = Setting[str]()
    upright = Setting[bool]()
    normalization = Setting[str]()
    precise_upscale = Setting[bool]()
    descriptor_layout = Setting[str]()
    pooling = Setting["tuple[float, ...] | None"]()
    affine_shape = Setting[bool]()
    upsampling_grid = Setting[str]()
    extremum_rule = Setting[str]()
    max_orientations = Setting["int | None"]()

    @classmethod
    def colmap(cls: type[C], **arguments: Any) -> C:
        """A SIFT with COLMAP's parameters, conventions and limits; see `gpusift.profiles`.

        Parameters
        ----------
        **arguments
            Those of `SIFT`; they take the place of the profile's.
        """
        return cls(**{**profiles.arguments_of("colmap"), **arguments})

    @classmethod
    def lightglue(cls: type[C], **arguments: Any) -> C:
        """A SIFT with the parameters that LightGlue's network was trained with; otherwise as `colmap`."""
        return cls(**{**profiles.arguments_of("lightglue"), **arguments})

    @classmethod
    def opencv(cls: type[C], **arguments: Any) -> C:
        """A SIFT with the parameters of `cv2.SIFT_create()`; otherwise as `colmap`."""
        return cls(**{**profiles.arguments_of("opencv"), **arguments})

    def _configure(
        self,
        parameters: Parameters,
        device: str,
        dtype: Any,
        blur: str,
        num_threads: int | None,
        memory_limit: int | float | None,
    ) -> None:
        dtype = precision(dtype)
        if blur not in BLURS:
            raise ValueError(f"blur must be one of {', '.join(map(repr, BLURS))}, got {blur!r}")
        self._arguments = (device, dtype.name, blur, num_threads, memory_limit)
        self._device: Device = get_device(device, dtype.name, num_threads)
        self._memory_limit = limit_in_bytes(self._device, memory_limit)
        self._n_octaves = parameters.n_octaves
        self.parameters = parameters

    @property
    def parameters(self) -> Parameters:
        """The parameters in use, as they were passed."""
        return self.plans.parameters

    @parameters.setter
    def parameters(self, parameters: Parameters) -> None:
        self.plans = Plans(self.device, parameters, self.blur, self._memory_limit)

    @property
    def device(self) -> Device:
        """The device that computes."""
        return self._device

    @property
    def float_dtype(self) -> np.dtype:
        """The precision of the computation."""
        return self._device.dtype

    @property
    def blur(self) -> str:
        """Which blur is used."""
        return self._arguments[2]

    @property
    def n_octaves(self) -> int:
        """The octaves of the last image; before that, the parameter."""
        return self._n_octaves

    @n_octaves.setter
    def n_octaves(self, value: int) -> None:
        self.parameters = replace(self.parameters, n_octaves=value)
        self._n_octaves = self.parameters.n_octaves

    @property
    def sigma_min(self) -> float:
        """The blur level of the seed image, input pixels: the parameter divided by upsampling, as in scikit-image."""
        return self.parameters.first_sigma

    @sigma_min.setter
    def sigma_min(self, value: float) -> None:
        self.parameters = replace(self.parameters, sigma_min=value * self.upsampling)

    @property
    def c_dog(self) -> float:
        """The threshold on contrast that is used, intensity: the parameter times a factor of n_scales."""
        return self.parameters.final_c_dog

    @c_dog.setter
    def c_dog(self, value: float) -> None:
        per_c_dog = replace(self.parameters, c_dog=1).final_c_dog
        self.parameters = replace(self.parameters, c_dog=value / per_c_dog)

    @property
    def delta_min(self) -> float:
        """The sampling distance of the first octave, input pixels."""
        return self.parameters.delta_min

    @property
    def deltas(self) -> np.ndarray:
        """The sampling distances of all octaves, input pixels."""
        return self.delta_min * np.power(2, np.arange(self.n_octaves), dtype=self.float_dtype)

    def __repr__(self) -> str:
        default = Parameters()
        values = {field.name: getattr(self.parameters, field.name) for field in fields(Parameters)}
        changed = {name: value for name, value in values.items() if value != getattr(default, name)}
        changed |= {"device": self.device.name, "dtype": self.float_dtype.name}
        return f"SIFT({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def __getstate__(self) -> dict[str, Any]:
        attributes = {name: getattr(self, name) for name in ATTRIBUTES}
        return {"parameters": self.parameters, "arguments": self._arguments, "attributes": attributes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._configure(state["parameters"], *state["arguments"])
        vars(self).update(state["attributes"])
