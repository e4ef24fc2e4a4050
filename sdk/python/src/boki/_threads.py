"""Threads for plain functions, and the way back from them to the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

_IDLE_SECONDS = 30.0

Work = Callable[[], None]


class Threads:
    """Runs each piece of work at once, in a thread that has none or in a new one.

    There is no bound here: the server never has more calls open than the worker takes, and a call
    that waits for its children must not keep them out. A thread that was idle for a while ends.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Work] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0

    def run(self, work: Work) -> None:
        with self._lock:
            is_new = self._idle == 0
            if not is_new:
                self._idle -= 1
        self._work.put(work)
        if is_new:
            # What still runs at the end does not keep the process.
            threading.Thread(target=self._serve, name="boki-function", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=_IDLE_SECONDS)
            except Empty:
                with self._lock:
                    # If nobody counts as idle, some work is on its way to this thread.
                    if self._idle > 0:
                        self._idle -= 1
                        return
                continue
            work()
            del work
            with self._lock:
                self._idle += 1


class Mailbox:
    """Has things done in the event loop, from any thread, in order; one wake-up for each burst."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._letters: deque[Work] = deque()
        self._woken = False

    def post(self, work: Work) -> None:
        self._letters.append(work)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._open)
            except RuntimeError:
                # The loop has ended, and with it everybody who might have wanted this.
                self._letters.clear()

    def __len__(self) -> int:
        return len(self._letters)

    def _open(self) -> None:
        # First: what is posted from now on wakes the loop again.
        self._woken = False
        while self._letters:
            self._letters.popleft()()
