"""SIGTERM in training, which schedulers send before they kill: the step is finished and a checkpoint written."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from accelerate import Accelerator

from ..cli import Terminated, is_importing


class Termination:
    """Handles SIGTERM as a context manager: raises [`Terminated`] at once, until [`defer`] is called.

    Attributes:
        received: whether this process has received the signal, or knows of another that has.
    """

    def __init__(self):
        self.received = False
        self.is_deferred = False
        self.process = os.getpid()

    def __enter__(self) -> "Termination":
        self.previous = signal.signal(signal.SIGTERM, self.handle), sys.unraisablehook
        sys.unraisablehook = self.in_callback
        return self

    def __exit__(self, *exception) -> None:
        handler, sys.unraisablehook = self.previous
        # It may come once more, from a launcher after the scheduler, while the process ends.
        signal.signal(signal.SIGTERM, signal.SIG_IGN if self.received else handler)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handles the signal."""
        if os.getpid() != self.process:  # a worker that was just forked; it ends with its training process
            return
        self.received = True
        if self.is_deferred:
            return
        if is_importing(frame):  # C++ modules abort when Python raises as they initialise
            self.send_again()
            return
        raise Terminated("Stopped by SIGTERM before the first step.")

    def in_callback(self, unraisable) -> None:
        """Handles an exception in a destructor or callback, where Python goes on: the signal is sent once more."""
        if issubclass(unraisable.exc_type, Terminated):
            self.send_again()
        else:
            self.previous[1](unraisable)

    def send_again(self) -> None:
        """Sends the signal to this process once more, in a moment."""
        threading.Timer(0.05, os.kill, (self.process, signal.SIGTERM)).start()

    def defer(self) -> None:
        """From now on the signal interrupts nothing; [`requested`] says that it came."""
        self.is_deferred = True

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """A block that the signal ends at once, though it is deferred elsewhere; the code after the block goes on."""
        self.is_deferred = False
        try:
            yield
        except BaseException:
            if not self.received:  # else it is Terminated, or what a library made of it
                raise
        finally:
            self.is_deferred = True

    def requested(self, accelerator: Accelerator) -> bool:
        """Whether any process has received the signal: the same answer in all processes, which call it together."""
        if accelerator.num_processes > 1:
            received = torch.tensor(float(self.received), device=accelerator.device)
            self.received = accelerator.reduce(received, "sum").item() > 0
        return self.received
