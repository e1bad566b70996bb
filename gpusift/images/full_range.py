"""Values of a camera's or scanner's depth, such as 12 bits, scaled to all values of their dtype."""

from __future__ import annotations

import numpy as np


def to_full_range(values: np.ndarray, maximum: int) -> np.ndarray:
    """Scale values so that the maximum becomes the dtype's.

    Parameters
    ----------
    values : array of uint8 or uint16
        From 0 to `maximum`; larger ones count as the maximum.
    maximum : int
        The value of white, at least 1.

    Returns
    -------
    array
        Of the same shape and dtype, rounded.
    """
    white = int(np.iinfo(values.dtype).max)
    if maximum >= white:
        return values
    table = (np.minimum(np.arange(white + 1), maximum) * white + maximum // 2) // maximum
    return table.astype(values.dtype)[values]
