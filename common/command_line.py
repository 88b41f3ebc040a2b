"""What the command lines of all scripts share: a parser, and errors and warnings of one line each.

A mistake that the user can mend is a UserError: `run` prints it as one line on standard error and ends the script with
status 2, without a traceback. A traceback is therefore always a bug of the program.
"""

import argparse
import contextlib
import errno
import importlib.util
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from tqdm import tqdm

# Seconds that the later processes of a training under torchrun wait before they print an error. Most errors occur in
# every process: the first process prints it at once, and torchrun then ends the others while they still wait.
LATER_PROCESSES_WAIT = 15
# Errors of the operating system that the user can mend: rights, a full disk, a name that is too long.
USERS_ERRORS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG)


class UserError(Exception):
    """Something that the user can mend. The message says in one line what is wrong and what to do."""


class Parser(argparse.ArgumentParser):
    """An argparse parser that shows the script's docstring and the defaults, and whose errors are one line."""

    def __init__(self, doc):
        super().__init__(description=doc, formatter_class=_Formatter, allow_abbrev=False)

    def error(self, message):
        _wait_for_first_process()
        self.exit(2, f"error: {message} (see --help)\n")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the docstring and shows the default of each flag."""


def positive(kind):
    """An argparse type: a finite number of `kind` (int or float) above zero."""

    def parse(text):
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a positive {'whole ' if kind is int else ''}number")
        return value

    return parse


def _is_first_process():
    """True for a process alone, and for the first one that torchrun has started on this machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _wait_for_first_process():
    """Let the first process of several print an error before this one does; see LATER_PROCESSES_WAIT."""
    if not _is_first_process():
        time.sleep(LATER_PROCESSES_WAIT)


def require_packages(*packages, file="requirements-dev.txt"):
    """Raise UserError where one of the `packages` (names to import), which are listed in `file`, is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}; run: pip install -r {file}")


def writable_folder(folder):
    """Make `folder` (a Path) where it is missing, and return it. Raises UserError where that or writing fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"can't write into {folder}: {error.strerror}; choose another folder") from None
    return folder


def check_output(path, inputs):
    """Raise UserError where `path` (a Path) can't be written, or where writing it would overwrite one of the `inputs`
    (paths, or the numbers of webcams)."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the file to write")
    if any(Path(str(name)).exists() and path.exists() and path.samefile(str(name)) for name in inputs):
        raise UserError(f"{path} is one of the inputs; name another file to write")
    writable_folder(path.parent)


_warned = set()


def warn(text):
    """Print a warning of one line on standard error, above the progress bars. The same text is printed only once."""
    if text not in _warned:
        _warned.add(text)
        tqdm.write(f"warning: {text}", file=sys.stderr)


def refuse_other_hosts(names):
    """From now on this process connects to no machine but the named ones, whatever its packages try to do."""

    def refuse(event, arguments):
        if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(arguments[1], tuple)):
            name = arguments[0] if event == "socket.getaddrinfo" else arguments[1][0]
            if name is not None and name not in names:
                raise PermissionError(f"no connection to {name}: nothing leaves this machine")

    sys.addaudithook(refuse)


_quiet_lock = threading.Lock()
_saved_descriptors = []  # one entry for each `quiet_stderr` that is active: the real standard error


@contextlib.contextmanager
def quiet_stderr():
    """Discard what native libraries write to file descriptor 2. They greet and complain there and can't be told not to.

    Several threads may be inside at once: the last one that leaves restores the descriptor. What Python itself prints
    in a script is still shown, because `run` gives Python a descriptor of its own.
    """
    with _quiet_lock:
        if not _saved_descriptors:
            saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        else:
            saved = _saved_descriptors[-1]
        _saved_descriptors.append(saved)
    try:
        yield
    finally:
        with _quiet_lock:
            saved = _saved_descriptors.pop()
            if not _saved_descriptors:
                os.dup2(saved, 2)
                os.close(saved)


def _print_anything():
    """Let what a terminal or a file can't show be printed as an escape, instead of ending the script, such as a name in
    Japanese under a Western code page."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError):  # there is no such stream, or it is not a file, as in a test
            stream.reconfigure(errors="backslashreplace")


def _copy_stderr():
    """Let Python's standard error use a copy of descriptor 2, which `quiet_stderr` leaves alone."""
    try:
        if sys.stderr.fileno() == 2:
            sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    except (AttributeError, OSError):  # there is no standard error, or it is not a file, as in a test
        pass


def _thread_failed(failure):
    """Print no traceback for an OSError in a thread: TensorBoard's thread raises it again in the main thread."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def run(main):
    """Call `main()` as a script does. The exit status is 0, or 2 after an error of one line, or 130 after Ctrl-C.

    Ctrl-C also works in a script that was started with SIGINT ignored, as a shell does with `command &`.
    """
    _print_anything()
    _copy_stderr()
    threading.excepthook = _thread_failed
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except UserError as error:
        _wait_for_first_process()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in USERS_ERRORS:
            raise
        what = f"{error.filename or 'a file'}: {error.strerror}"
        print(f"error: {what}; give it rights, room or a shorter name", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if _is_first_process():
            print("interrupted", file=sys.stderr)
        sys.exit(130)
