"""A device with little memory."""

from gpusift.devices import CpuDevice


class SmallDevice(CpuDevice):
    """The CPU, with memory for blocks of at most `room` bytes; `largest` is the largest block that was taken."""

    def __init__(self, room: int = 0) -> None:
        super().__init__()
        self.room, self.largest = room, 0

    def memory(self, size):
        """A block of so many bytes."""
        if size > self.room:
            raise MemoryError("out of device memory")
        self.largest = max(self.largest, size)
        return super().memory(size)
