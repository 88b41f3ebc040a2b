"""Work ahead: a thread makes the next items while the last ones are used, so that two stages of a task overlap."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor

END = object()


def ahead(items, most=4):
    """Yield the items of an iterator in their order, while a thread goes on with it, up to `most` items ahead.

    An error of the iterator is raised here, where its item would come. When this generator is closed, the thread has
    stopped, so that what the iterator reads from may be closed next. It helps where the work is done outside the
    interpreter: OpenCV, PyAV and PyTorch let other threads run meanwhile.
    """
    items, pool = iter(items), ThreadPoolExecutor(1, "ahead")
    try:
        waiting = deque(pool.submit(next, items, END) for _ in range(most))
        while (item := waiting.popleft().result()) is not END:
            waiting.append(pool.submit(next, items, END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
