"""Whether the program can be installed elsewhere: wheels of everything, for the systems that README names."""

import os
import re
import subprocess
import sys

import pytest

from common.paths import ROOT

UNREACHABLE = re.compile("(?i)failed to fetch|error sending request|timed out|client error")
TRIES = 4
SYSTEMS = ["x86_64-unknown-linux-gnu", "x86_64-pc-windows-msvc", "aarch64-apple-darwin"]


def resolve(system, python, *more):
    """What uv says of the requirements on another system, without building or installing anything."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--only-binary", ":all:", "--python-platform", system,
               "--python-version", python, "--no-python-downloads", "--no-header", "--no-annotate", *more]
    for _ in range(TRIES):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300,
                              env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0"})
        if not done.returncode or "No solution found" in done.stderr or not UNREACHABLE.search(done.stderr):
            return done
    return pytest.skip(f"the package index can't be reached: {done.stderr[-300:]}")


@pytest.mark.journey
@pytest.mark.parametrize("python", ["3.11", "3.13"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_there_are_wheels_of_everything(system, python):
    """Of the tested versions, and of what the requirements allow today."""
    tested = resolve(system, python, "-c", "constraints.txt", "requirements.txt", "requirements-page.txt")
    assert tested.returncode == 0, tested.stderr
    pinned = dict(re.findall(r"^([\w-]+)==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.M))
    found = dict(re.findall(r"^([\w-]+)==([^\s;]+)", tested.stdout, re.M))
    assert {"torch", "mediapipe", "av", "gradio"} <= found.keys() and found.items() <= pinned.items()
    newest = resolve(system, python, "requirements.txt")
    assert newest.returncode == 0, newest.stderr


@pytest.mark.journey
@pytest.mark.parametrize("system, missing", [("x86_64-apple-darwin", "torch"),
                                             ("aarch64-unknown-linux-gnu", "mediapipe")])
def test_where_there_are_none_readme_says_so(system, missing):
    done = resolve(system, "3.12", "requirements.txt")
    assert done.returncode and missing in done.stderr, "README says that it can't be installed there"
