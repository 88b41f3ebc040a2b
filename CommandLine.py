"""What every script's command line shares: a parser, and errors and warnings that speak in one line.

A mistake that the user can mend is a UserError: `run` prints it as one line on standard error and exits with
status 2, without a traceback. A traceback is therefore always a bug of ours.
"""

import argparse
import contextlib
import errno
import importlib.util
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parent  # every default path starts here, so that the scripts run from any folder

ALONE = 15  # seconds after which an error that no other process of a training has told is one's own


class UserError(Exception):
    """Something the user can mend; the message says what is wrong and what to do, in one line."""


class Parser(argparse.ArgumentParser):
    """argparse with the script's docstring as help, defaults shown, and one-line errors."""

    def __init__(self, doc):
        super().__init__(description=doc, formatter_class=_Formatter, allow_abbrev=False)

    def error(self, message):
        _let_the_first_speak()
        self.exit(2, f"error: {message} (see --help)\n")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the docstring's lines as they are and shows each default."""


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


def _is_first():
    """Whether this is the only process, or of those that torchrun started the first on its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _let_the_first_speak():
    """Before an error is told: a mistake is mostly everyone's. When the first process has told it and left, torchrun
    ends the others, still asleep here; an error that is ours alone is told after all."""
    if not _is_first():
        time.sleep(ALONE)


def need(*packages, file="requirements-dev.txt"):
    """UserError where one of the `packages` (names to import) that only `file` brings is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"this needs {', '.join(missing)}; run: pip install -r {file}")


def writable_folder(folder):
    """Make `folder` (a Path) where it is missing; UserError when that, or writing into it, can't be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"can't write into {folder}: {error.strerror}; choose another folder") from None
    return folder


_warned = set()


def warn(text):
    """A line of warning on standard error, above the progress bars; the same one once only."""
    if text not in _warned:
        _warned.add(text)
        tqdm.write(f"warning: {text}", file=sys.stderr)


def stay_here(names):
    """From now on this process reaches no machine but the named ones, whatever the packages in it try."""

    def refuse(event, about):
        if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(about[1], tuple)):
            name = about[0] if event == "socket.getaddrinfo" else about[1][0]
            if name is not None and name not in names:
                raise PermissionError(f"no connection to {name}: nothing leaves this machine")

    sys.addaudithook(refuse)


_quiet_lock, _quiet = threading.Lock(), []  # how many are quiet now: the file descriptors that the first one kept


@contextlib.contextmanager
def quiet_stderr():
    """Send file descriptor 2 nowhere: native libraries greet and complain there, and offer no other way to stop it.

    Threads may overlap in it: the last one to leave puts the descriptor back. What Python itself says in a script is
    still heard: see `run`.
    """
    with _quiet_lock:
        if not _quiet:
            saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        else:
            saved = _quiet[-1]
        _quiet.append(saved)
    try:
        yield
    finally:
        with _quiet_lock:
            saved = _quiet.pop()
            if not _quiet:
                os.dup2(saved, 2)
                os.close(saved)


def _own_descriptor():
    """Let Python's stderr go through a copy of descriptor 2, which quiet_stderr leaves alone, from now on."""
    try:
        if sys.stderr.fileno() == 2:
            sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    except (AttributeError, OSError):  # no stderr, or one that is not a file, as under a test
        pass


def _thread_failed(failure):
    """A thread that can't write (TensorBoard has one) raises that again in whoever waits for it: once is enough."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def run(main):
    """Call `main()` as a script does: exit status 0, 2 (UserError, one line), or 130 (Ctrl-C)."""
    _own_descriptor()
    threading.excepthook = _thread_failed
    try:
        main()
    except UserError as error:
        _let_the_first_speak()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
                               errno.ENAMETOOLONG):
            raise  # not for the user to mend
        what = f"{error.filename or 'a file'}: {error.strerror}"
        print(f"error: {what}; give it rights, room or a shorter name", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if _is_first():
            print("interrupted", file=sys.stderr)
        sys.exit(130)
