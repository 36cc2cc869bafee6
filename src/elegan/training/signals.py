"""Signals: an interrupt lets the step end, and the run save, before the process goes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Interrupted(KeyboardInterrupt):
    """The process was asked to stop, by this signal."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"signal {signal}")
        self.signal = signal


class StopRequest:
    """Whether the process was asked to stop, and by which signal. From the first question on, signals wait."""

    def __init__(self) -> None:
        self.signal = 0
        self.waits = False

    def __call__(self) -> bool:
        self.waits = True
        return self.signal != 0


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within the block SIGINT or SIGTERM asks for a stop after the step; before training, or twice, it interrupts."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def handle(number: int, frame: Any) -> None:
        if request.signal or not request.waits:
            raise Interrupted(number)
        request.signal = number

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
