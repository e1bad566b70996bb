"""What the driver raises."""

from standin.errors import CUDADriverError as CUDADriverError
