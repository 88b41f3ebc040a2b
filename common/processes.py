"""Function calls shared out to worker processes, which end with the process that started them."""

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partialmethod

from tqdm import tqdm

from common.command_line import UserError, warn

MOST_PROCESSES = 61  # Windows can't wait for more
ATTEMPTS = 3  # how often worker processes may be killed by somebody else before this gives up


def run_in_processes(calls, workers, progress):
    """Run the calls, each a tuple (function, *arguments), in `workers` processes; returns their results in order.

    progress: a tqdm bar that counts the calls. The calls of a process that somebody else kills are done again by a new
    process; after ATTEMPTS of these, UserError.
    """
    results = {}
    for _ in range(ATTEMPTS):
        rest = [number for number in range(len(calls)) if number not in results]
        before = set(multiprocessing.active_children())
        pool = ProcessPoolExecutor(min(workers, MOST_PROCESSES), multiprocessing.get_context("spawn"), _start_worker)
        try:
            futures = {pool.submit(*calls[number]): number for number in rest}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
                progress.update()
            progress.close()
            pool.shutdown()
            return [results[number] for number in range(len(calls))]
        except BrokenProcessPool:
            warn("a worker process was killed by another program; its part of the work is done again")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            own = set(multiprocessing.active_children()) - before  # a caller may have processes of its own
            for process in own:
                process.terminate()
            for process in own:
                process.join()
            raise
    raise UserError(f"worker processes were killed {ATTEMPTS} times, perhaps because memory was short; "
                    "use fewer --workers")


def _start_worker():
    """Prepare a worker process: it shows no progress bar, and leaves Ctrl-C to the process that started it.

    It ends when that process ends, however that ends, so that no lock and no file stays in use.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=lambda: (multiprocessing.parent_process().join(), os._exit(1)), daemon=True).start()
    tqdm.__init__ = partialmethod(tqdm.__init__, disable=True)
