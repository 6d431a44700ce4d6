# Copyright (c) s4d_mm contributors. Licensed under Apache-2.0.
"""A thread that sees whether a run goes on, and ends it when it does not."""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.util import _exit_function
from types import CodeType
from typing import Any

from mmengine.logging import MMLogger
from torch.utils.data import Dataset

from .board import RankBoard
from .readers import child_pids, describe_readers

EXIT_CODE = 1
TICK = 1.0  # seconds between two looks, or a tenth of the limit where that is less
TELL = 3.0  # seconds between two words to the other ranks, or a fifth of the limit
SILENT = 2.5  # times that: a rank that has told nothing for so long
PATIENCE = 5.0  # seconds that the last words may take: where they go may stand still too


class Watchdog:
    """Ends the process when it has neither finished a step nor begun a sample for a time.

    Two threads: one looks at the clock each second and touches no file and no connection, so that
    it cannot stand still itself; the other tells the ranks and the log. A step costs no more than
    :meth:`mark`.

    Time in which the whole process was stopped (a job put to sleep, a laptop closed) does not
    count, and neither does what the process does after the run was left by an exception.

    Args:
        timeout (float): Seconds, more than 0.
        heartbeat (float): Seconds without a step after which a line goes to the log, and again
            each time they have passed; 0 for never.
        logger (MMLogger): The log.
        board (RankBoard): For the words of the ranks.
        run_codes (Sequence[CodeType]): Code of the functions that run, of which one is on the
            stack of this thread as long as the run lasts.
    """

    _current = None  # there is one in a process

    def __init__(
        self,
        timeout: float,
        heartbeat: float,
        logger: MMLogger,
        board: RankBoard,
        run_codes: Sequence[CodeType],
    ) -> None:
        self.timeout, self.heartbeat = timeout, heartbeat
        self.logger, self.board = logger, board
        # what waits for children at the end of a process is part of the run
        self.run_codes = {*run_codes, _exit_function.__code__}
        self.tell_every = min(TELL, timeout / 5)
        self.datasets: list[Dataset] = []
        self.thread_id = threading.get_ident()
        self.standing = 0.0
        self.marks, self.place, self._marked = 0, ('starts', 0), time.monotonic()
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin to watch the thread that calls this; an earlier watchdog ends."""
        if Watchdog._current is not None:
            Watchdog._current.stop()
        Watchdog._current = self
        for work, name in ((self._watch, 'watchdog'), (self._tell, 'heartbeat')):
            threading.Thread(target=work, name=f's4d_mm {name}', daemon=True).start()

    def stop(self) -> None:
        """End the threads."""
        self._stop.set()

    def mark(self, where: str, number: int = 0) -> None:
        """Note that the run goes on.

        Args:
            where (str): What it does from now on, with ``{}`` for the number.
            number (int): Of the step. Defaults to 0.
        """
        self.place = (where, number)
        self.marks += 1
        self._marked = time.monotonic()

    @property
    def where(self) -> str:
        """str: What the run does."""
        where, number = self.place
        return where.format(number)

    # ------------------------------------------------------------------ the clock
    def _watch(self) -> None:
        tick = min(TICK, self.timeout / 10)
        # rank 0 has the log: it speaks first if it stands still as well
        limit = self.timeout + (PATIENCE if self.board.rank else 0)
        last_change, last_look = 0.0, time.monotonic()
        while not self._stop.wait(tick):
            change = max([self._marked, *(d.notes.last_change() for d in self.datasets)])
            now = time.monotonic()
            if change != last_change:
                last_change, self.standing = change, 0.0
            else:  # a tick that took long: this process was stopped
                self.standing += min(now - last_look, 3 * tick)
            last_look = now
            if self.standing >= limit:
                if not self.is_running():
                    return
                self._end()

    def is_running(self) -> bool:
        """Whether the watched thread is still inside of the run."""
        frame = sys._current_frames().get(self.thread_id)
        return frame is not None and any(
            f.f_code in self.run_codes for f, _ in traceback.walk_stack(frame)
        )

    # ------------------------------------------------------------------ the words
    def _tell(self) -> None:
        told = 0.0
        wait = 0.0
        while not self._stop.wait(wait):
            wait = self.tell_every
            try:
                if self.board.world_size > 1:
                    self.board.write(self.words())
                standing = self.standing
                if self.heartbeat and standing >= told + self.heartbeat and self.is_running():
                    told = standing
                    text = f'No step was finished for {standing:.0f} s. {self.report()}'
                    self.logger.warning(text)
                elif standing < told:
                    told = 0.0
            except Exception as e:  # a connection that is gone, a drive that is full
                self.logger.debug(f'The heartbeat was not told: {e}')

    def words(self) -> dict:
        """How far this rank is.

        Returns:
            dict: ``marks`` (their number, the same in all ranks that are equally far), ``where``,
            ``standing`` (seconds), ``readers``, ``at`` (line of the code), ``host``, ``pid``.
        """
        return dict(
            marks=self.marks,
            where=self.where,
            standing=self.standing,
            readers=describe_readers(self.datasets),
            at=self.line_of_code(),
            host=socket.gethostname(),
            pid=os.getpid(),
        )

    def line_of_code(self) -> str:
        """Where in the code the watched thread is."""
        frame = sys._current_frames().get(self.thread_id)
        if frame is None:
            return 'no code'
        code = frame.f_code
        return f'{code.co_filename}:{frame.f_lineno}, {code.co_name}'

    def report(self) -> str:
        """Who stands still, and where each rank is.

        Returns:
            str: A sentence, then a line for each rank.
        """
        ranks = {self.board.rank: dict(self.words(), age=0.0)}
        if self.board.world_size > 1:
            ranks.update(in_time(self.board.read, PATIENCE, {}))
        for words in ranks.values():
            words['silent'] = words['age'] > SILENT * self.tell_every
        return describe_ranks(ranks, self.board.world_size)

    # ------------------------------------------------------------------ the end
    def _end(self) -> None:
        rank = f' (rank {self.board.rank})' if self.board.world_size > 1 else ''
        head = f'This run{rank} ends, because no step was finished for {self.standing:.0f} s.'
        advice = (
            'If it is only slow, allow it more with default_hooks.hang.timeout=SECONDS; 0 is no '
            'limit.'
        )
        text = f'{head} {in_time(self.report, 2 * PATIENCE, self.where)}\n{advice}'
        stacks = f'What the threads of the process do:\n{stacks_of_threads()}'
        in_time(lambda: os.write(2, f'\n{stacks}\n{text}\n'.encode()), PATIENCE)
        in_time(lambda: self._log(f'{stacks}\n{text}'), PATIENCE)
        for pid in child_pids():  # they would outlive this process
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os._exit(EXIT_CODE)

    def _log(self, text: str) -> None:
        """To the files of the log alone; the terminal has it."""
        record = self.logger.makeRecord('', logging.ERROR, __file__, 0, text, (), None)
        for handler in self.logger.handlers:
            if isinstance(handler, logging.FileHandler):
                handler.handle(record)


def describe_ranks(ranks: dict[int, dict], world_size: int) -> str:
    """Say who stands still.

    Ranks run through the same steps, so that those behind the others are waited for.

    Args:
        ranks (dict[int, dict]): By rank, what :meth:`Watchdog.words` gave, with ``age`` (seconds)
            and ``silent`` (whether that is long).
        world_size (int): Number of ranks.

    Returns:
        str: A sentence, then a line for each rank.
    """
    lines = []
    for rank in range(world_size):
        if rank not in ranks:
            lines.append(f'rank {rank}: nothing was heard of it')
            continue
        words = ranks[rank]
        silent = f'; silent for {words["age"]:.0f} s' if words['silent'] else ''
        reads = ''.join(f'; {clause}' for clause in words['readers'])
        lines.append(
            f'rank {rank} ({words["host"]}, pid {words["pid"]}): {words["where"]}, for '
            f'{words["standing"] + words["age"]:.0f} s{reads}; at {words["at"]}{silent}'
        )
    if world_size == 1:
        return 'It' + lines[0].partition(':')[2]
    late = late_ranks(ranks, world_size)
    who = (
        f'The others wait for rank {", ".join(map(str, late))}'
        if late
        else 'All ranks stand still at the same place'
    )
    return '\n  '.join([f'{who}.', *lines])


def late_ranks(ranks: dict[int, dict], world_size: int) -> list[int]:
    """The ranks that the others wait for.

    Args:
        ranks (dict[int, dict]): As in :func:`describe_ranks`.
        world_size (int): Number of ranks.

    Returns:
        list[int]: Those of which nothing was heard or that are behind; else those that read or
        are silent; [] if this is true of none, or of all.
    """
    unheard = [rank for rank in range(world_size) if rank not in ranks]
    furthest = max(words['marks'] for words in ranks.values())
    late = unheard + [rank for rank, words in ranks.items() if words['marks'] < furthest]
    if not late:
        late = [r for r, words in ranks.items() if words['readers'] or words['silent']]
    return sorted(late) if len(late) < world_size else []


def stacks_of_threads() -> str:
    """Where in the code each thread of this process is."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return '\n'.join(
        f'{names.get(ident, ident)}:\n{"".join(traceback.format_stack(frame))}'
        for ident, frame in sys._current_frames().items()
        if not str(names.get(ident, '')).startswith('s4d_mm')
    )


def in_time(function: Callable[[], Any], seconds: float, otherwise: Any = None) -> Any:
    """Call a function that may stand still.

    Args:
        function (callable): Without arguments.
        seconds (float): To wait for it.
        otherwise (Any): In place of what it returns, if it fails or takes longer.

    Returns:
        Any: What the function returned.
    """
    result = []

    def call() -> None:
        try:
            result.append(function())
        except Exception as e:
            logging.getLogger(__name__).debug('%s', e)

    thread = threading.Thread(target=call, name='s4d_mm words', daemon=True)
    thread.start()
    thread.join(seconds)
    return result[0] if result else otherwise
