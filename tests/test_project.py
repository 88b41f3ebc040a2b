"""The project as a whole: imports without side effects, one list of dependencies, a README that tells the truth."""

import re
import subprocess
import sys

import pytest
import yaml

from CommandLine import ROOT

MODULES = sorted(path.stem for path in ROOT.glob("*.py"))
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", MODULES)
def test_importing_has_no_side_effect(name, tmp_path):
    code = f"import sys, threading; sys.path.insert(0, {str(ROOT)!r}); sys.dont_write_bytecode = True; " \
           f"import {name}; " \
           "print(threading.active_count(), 'mediapipe' in sys.modules, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    threads, mediapipe, torch = run.stdout.split()
    assert (run.returncode, run.stderr, threads, mediapipe) == (0, "", "1", "False")
    assert list(tmp_path.iterdir()) == []
    if name in ("DanceDemo", "GenNearest", "PoseTrack", "Retarget", "Scene", "Skeleton", "VideoReader", "LimbWarp",
                "VideoSkeleton", "Runtime"):
        assert torch == "False"  # GEN_TYPE 1 starts without it


def test_only_the_detector_and_its_reference_import_mediapipe():
    imports = re.compile(r"^\s*(import|from) mediapipe", re.M)
    assert [name for name in MODULES if imports.search((ROOT / f"{name}.py").read_text())] == ["Benchmark", "Skeleton"]


def test_one_list_of_dependencies():
    environment = yaml.safe_load((ROOT / "tp_ml.yml").read_text())
    assert environment["name"] == "tp_ml"
    conda = [d for d in environment["dependencies"] if isinstance(d, str)]
    assert {d.split("=")[0] for d in conda} == {"python", "pip"} and not any(d.count("=") > 1 for d in conda)
    assert environment["dependencies"][-1] == {"pip": ["-r requirements.txt"]}
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    for line in lines:
        assert re.fullmatch(r"[a-z-]+(==[\d.]+|>=[\d.]+,<[\d.]+)", line), line


def test_readme_lists_every_file_and_prints_both_commands():
    for path in ROOT.glob("*.py"):
        assert f"`{path.name}`" in README, path.name
    demo, tests = re.findall(r"^python3 -m venv .*$", README, re.M)[:2]
    assert demo.endswith(".venv/bin/python DanceDemo.py") and "-r requirements.txt" in demo
    assert tests.endswith("pytest") and "-r requirements-dev.txt" in tests
    for image in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / image).is_file()


def test_every_command_in_the_readme_parses():
    """Each `python X.py --flag` of the README names a script and flags that exist."""
    commands = {}
    for script, words in re.findall(r"python (\w+\.py)([^\n`#|]*)", README):
        commands.setdefault(script, set()).update(re.findall(r"--[a-z-]+", words))
    for script, flags in commands.items():
        helped = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, timeout=120)
        assert helped.returncode == 0, script
        for flag in flags:
            assert flag in helped.stdout, (script, flag)
