"""The test side of data that has none: a tenth of the items, chosen by the hash of each item's content.

The choice depends on the item alone, so that adding images never moves one from train to test, and exact copies
always lie on the same side.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from elegan.errors import UserError

SHARE = 0.1


def in_test(keys: Sequence[str], where: Path | str, share: float = SHARE) -> np.ndarray:
    """bool (N,): which items are held out, from their content hashes (hex, at least 8 digits).

    Small data keeps both sides non-empty: the lowest hash is always held out, the highest never.
    Raises `UserError` when there are not two different items.
    """
    distinct = sorted(set(keys))
    if len(distinct) < 2:
        raise UserError(f"{where}: needs at least two different images, so that one can be held out for judging")
    limit = int(share * 2**32)
    return np.array([k != distinct[-1] and (int(k[:8], 16) < limit or k == distinct[0]) for k in keys])
