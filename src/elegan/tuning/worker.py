"""One of several processes that work on a search: `python -m elegan.tuning.worker FOLDER`, started by `elegan tune`."""

from __future__ import annotations

import os
import sys

from elegan.errors import UserError


def main(path: str) -> int:
    """Take trials until there are enough; 0, or 2 after a mistake of the user, 128 + N after signal N."""
    from elegan.training.run import Interrupted, stop_on_signals
    from elegan.tuning.folder import SearchFolder
    from elegan.tuning.search import work

    def say(line: str) -> None:
        os.write(1, f"{line}\n".encode())  # whole lines also where several processes write

    try:
        with stop_on_signals() as stop:
            work(SearchFolder(path), stop, say)
    except UserError as error:
        print(f"elegan: {error}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        return 128 + stopped.signal
    return 128 + stop.signal if stop.signal else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
