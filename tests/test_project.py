"""The project as a whole: which file may import which, imports without side effects, one list of dependencies, and a
README that tells the truth."""

import ast
import graphlib
import importlib
import re
import subprocess
import sys

import pytest
import yaml

from common.paths import ROOT

# From the bottom to the top: a file imports only from the levels below its own, and from its own package.
LEVELS = [("common",), ("video",), ("VideoReader", "Skeleton"), ("motion",), ("picture",), ("VideoSkeleton",),
          ("warping", "learning"), ("GenNearest", "GenVanillaNN"), ("GenGAN", "GenWarp"), ("dancing",), ("measuring",),
          ("DanceDemo",), ("Evaluate", "Benchmark", "DanceStudio")]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py")
               if path.relative_to(ROOT).parts[0] in LEVEL or path.parent == ROOT)
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES if path.stem != "__init__")
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PACKAGES = ["mediapipe", "torch", "tensorboard", "lightning_fabric", "gradio", "matplotlib"]  # slow to import
WITHOUT_TORCH = ["DanceDemo", "VideoSkeleton", "GenNearest", "dancing.generators", "warping.limb_warp",
                 "motion.extraction"]
WITHOUT_TRAINING = ["GenVanillaNN", "GenGAN", "GenWarp", "learning.checkpoint", "learning.dataset"]


def imported(name):
    """The project's modules that a module imports anywhere in its file."""
    path = ROOT.joinpath(*name.split(".")).with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module]
        else:
            continue
        yield from (module for module in found if module in MODULES)


def test_imports_run_downwards_only():
    for name in MODULES:
        own = name.split(".")[0]
        for other in imported(name):
            below = other.split(".")[0]
            assert LEVEL[below] < LEVEL[own] or below == own, f"{name} imports {other}"
    graphlib.TopologicalSorter({name: set(imported(name)) for name in MODULES}).prepare()  # no circle
    assert "motion.extraction" in set(imported("DanceDemo"))  # the check can see imports


def test_the_house_is_small():
    assert len(list(ROOT.glob("*.py"))) == 11
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 300, path
    for package in {path.parent for path in FILES} - {ROOT}:
        assert len(list(package.glob("*.py"))) <= 9, package
    assert len(README.splitlines()) <= 130


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_importing_has_no_side_effect(tmp_path):
    """Each module is imported alone in a fork of a fresh process, so that packages are read from the disk once. Two
    forks run at a time, on two cores."""
    code = f"""
import os, sys, threading
sys.path.insert(0, {str(ROOT)!r})
sys.dont_write_bytecode = True
children = []
def wait():
    assert os.waitpid(children.pop(0), 0)[1] == 0
for name in {MODULES!r}:
    if len(children) == 2:
        wait()
    child = os.fork()
    if not child:
        __import__(name)
        loaded = [package for package in {PACKAGES!r} if package in sys.modules]
        line = " ".join([name, str(threading.active_count()), *loaded])
        os.write(1, (line + "\\n").encode())  # at once, so that two forks do not mix their lines
        os._exit(0)
    children.append(child)
while children:
    wait()
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stderr) == (0, ""), run.stderr
    loaded = {name: (threads, packages) for name, threads, *packages in map(str.split, run.stdout.splitlines())}
    assert sorted(loaded) == MODULES and list(tmp_path.iterdir()) == []
    for name, (threads, packages) in loaded.items():
        # Lightning Fabric imports matplotlib where it is installed.
        unwanted = {"mediapipe", "gradio"} | ({"matplotlib"} if "lightning_fabric" not in packages else set())
        assert threads == "1" and not unwanted & set(packages), name
        assert name not in WITHOUT_TORCH or "torch" not in packages, name
        assert name not in WITHOUT_TRAINING or not {"tensorboard", "lightning_fabric"} & set(packages), name


def test_only_the_detector_and_what_measures_import_mediapipe():
    imports = re.compile(r"^\s*(import|from) mediapipe", re.M)
    assert [name for name in MODULES if imports.search(ROOT.joinpath(*name.split(".")).with_suffix(".py").read_text())
            ] == ["measuring.faces", "measuring.references", "motion.detector"]


def test_one_list_of_dependencies():
    environment = yaml.safe_load((ROOT / "tp_ml.yml").read_text())
    assert environment["name"] == "tp_ml"
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    assert {d.split("=")[0] for d in conda} == {"python", "pip"} and not any(d.count("=") > 1 for d in conda)
    assert environment["dependencies"][-1] == {"pip": ["-r requirements.txt"]}
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    for line in lines:
        assert re.fullmatch(r"[a-z-]+(==[\d.]+|>=[\d.]+,<[\d.]+)", line), line


def test_readme_and_docs_list_every_file_and_print_both_commands():
    for path in FILES:
        name = path.relative_to(ROOT).as_posix()
        if path.stem != "__init__":
            assert f"`{name}`" in (README if path.parent == ROOT else DOCS["architecture.md"]), name
    demo, tests = re.findall(r"^python3 -m venv .*$", README, re.M)[:2]
    assert demo.endswith(".venv/bin/python DanceDemo.py") and "-r requirements.txt" in demo
    assert tests.endswith("pytest") and "-r requirements-dev.txt" in tests
    for folder, text in [(ROOT, README), *((ROOT / "docs", text) for text in DOCS.values())]:
        for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", text):
            assert (folder / link).exists(), link


def test_every_command_in_the_docs_parses(script):
    """Each `python X.py --flag` of README and docs names a script and flags that exist."""
    commands = {}
    for name, words in re.findall(r"python (\w+)\.py([^\n`#|]*)", "\n".join([README, *DOCS.values()])):
        commands.setdefault(name, set()).update(re.findall(r"--[a-z-]+", words))
    for name, flags in commands.items():
        status, said, _ = script(importlib.import_module(name).main, "--help")
        assert status == 0 and not {flag for flag in flags if flag not in said}, name
