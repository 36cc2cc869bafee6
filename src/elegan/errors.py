"""The user's mistakes, as one kind of error.

Every message says what is wrong, where, and what to do, on one line. The command line prints it and exits
with code 2; from Python it is a `ValueError`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave (a flag, a file, a folder), with its remedy."""

    exit_code = 2


def nearest(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'fashion'?"` when a known word is close to `word`, else the list of known words.

    Meant to end an error message: `UserError(f"unknown preset {word!r}{nearest(word, PRESETS)}")`.
    """
    known = sorted(known)
    close = difflib.get_close_matches(word.lower(), [k.lower() for k in known], n=1, cutoff=0.6)
    if close:
        original = next(k for k in known if k.lower() == close[0])
        return f"; did you mean {original!r}?"
    return f"; known: {', '.join(known)}"
