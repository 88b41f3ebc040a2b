"""ONNX Runtime: the same images as PyTorch, an export that is kept and never believed, and none where there is none."""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import DanceDemo
import Distributed
import GenVanillaNN
import GenWarp
import Runtime
from CommandLine import ROOT, UserError
from DanceDemo import GENERATORS

installed = pytest.mark.skipif(not Runtime.wanted("auto", "cpu"), reason="requirements-onnx.txt is not installed")


@pytest.fixture
def checkpoint(weights, tmp_path):
    """A copy of the weights of GEN_TYPE 3, in a folder of its own."""
    return Path(shutil.copy(weights[3], tmp_path / "w.pth"))


def images(make, target, path, runtime):
    generator = make(target, path, runtime=runtime)
    return np.array([generator.generate(target.skeleton(index)) for index in range(0, 40, 5)]).astype(int)


def refuse(*_):
    raise AssertionError("it exports")


@installed
@pytest.mark.parametrize("gen_type", [2, 3, 4, 5])
def test_the_same_images_within_one_level_of_255(gen_type, target, weights, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(Distributed, "pick_precision", lambda device: "32-true")  # GEN_TYPE 5 in PyTorch has two
    path = Path(shutil.copy(weights[gen_type], tmp_path / "w.pth"))
    make = GENERATORS[gen_type][1]
    plain = images(make, target, path, "torch")
    assert [each.name for each in tmp_path.iterdir()] == ["w.pth"]
    first = images(make, target, path, "onnx")
    assert {each.name for each in tmp_path.iterdir()} == {"w.pth", "w.onnx"}
    assert np.abs(plain - first).max() <= 1 and len(np.unique(plain)) > 10
    monkeypatch.setattr(Runtime, "_export", refuse)
    assert np.array_equal(images(make, target, path, "auto"), first)  # from the file, and the default where it is there
    assert capfd.readouterr() == ("", "")


@installed
@pytest.mark.parametrize("pose, size", [("reduced", 128), ("full", 64), ("image", 128), ("image", 256), (None, 128)])
def test_networks_that_say_much_say_the_same(pose, size, tmp_path):
    """With large random weights, as training of hours may give: of each size, and of GEN_TYPE 5 (None)."""
    torch.manual_seed(0)
    network = GenVanillaNN.build({"pose": pose, "image_size": size}) if pose else GenWarp.build()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.02, 0.2)
    if pose is None:
        torch.nn.init.normal_(network.last.weight, std=0.05)
        network.forward = network.change
    shape = {"reduced": (26,), "full": (99,), "image": (3, size, size), None: (GenWarp.PLANES, size, size)}[pose]
    values = torch.rand(1, *shape) * 2 - 1
    with torch.inference_mode():
        truth, made = network.eval()(values), Runtime.exported(network, values.shape, tmp_path / "w.pth")(values)
    assert truth.std() > 0.02 and (made - truth).abs().max() < Runtime.LEVEL / 20


@installed
def test_where_bfloat16_is_fast_the_refiner_stays_in_pytorch(target, weights, tmp_path, monkeypatch):
    path = Path(shutil.copy(weights[5], tmp_path / "w.pth"))
    monkeypatch.setattr(Runtime, "_export", refuse)
    monkeypatch.setattr(Distributed, "pick_precision", lambda device: "bf16-mixed")
    GENERATORS[5][1](target, path)
    monkeypatch.setattr(Distributed, "pick_precision", lambda device: "32-true")
    with pytest.raises(UserError, match="it exports"):
        GENERATORS[5][1](target, path, "onnx")


@installed
def test_other_weights_are_another_export(target, checkpoint):
    make, kept = GENERATORS[3][1], checkpoint.with_suffix(".onnx")
    before = images(make, target, checkpoint, "onnx")
    old = kept.read_bytes()
    state = torch.load(checkpoint, weights_only=True)
    state["model"]["last.bias"] += 0.3
    torch.save(state, checkpoint)
    after = images(make, target, checkpoint, "onnx")
    assert kept.read_bytes() != old and np.abs(after - before).mean() > 5
    assert np.abs(after - images(make, target, checkpoint, "torch")).max() <= 1


def altered(content, change):
    import onnx

    model = onnx.load_model_from_string(content)
    change(model)
    return model.SerializeToString()


def points_elsewhere(model):
    values = model.graph.initializer[0]
    values.ClearField("raw_data")
    values.data_location = values.EXTERNAL
    values.external_data.add(key="location", value="secret.bin")


def computes_something_else(model):
    bias = next(each for each in model.graph.initializer if each.name == "last.bias")
    bias.raw_data = (np.frombuffer(bias.raw_data, np.float32) + 0.3).tobytes()


def takes_something_else(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5


FOREIGN = {
    "empty": lambda content: b"", "noise": lambda content: bytes(range(256)) * 40,
    "cut": lambda content: content[:-999],
    "another key": lambda content: altered(content, lambda model: model.metadata_props.pop()),
    "external data": lambda content: altered(content, points_elsewhere),
    "other values": lambda content: altered(content, computes_something_else),
    "other input": lambda content: altered(content, takes_something_else),
}


@installed
def test_a_file_that_is_not_ours_is_made_anew(target, checkpoint, monkeypatch, capfd):
    import onnx

    make, kept = GENERATORS[3][1], checkpoint.with_suffix(".onnx")
    expected = images(make, target, checkpoint, "onnx")
    good = kept.read_bytes()
    monkeypatch.setattr(Runtime, "_export", lambda *_: good)  # an export takes a second
    monkeypatch.chdir(checkpoint.parent)
    Path("secret.bin").write_bytes(bytes(6144))
    for name, spoil in FOREIGN.items():
        kept.write_bytes(spoil(good))
        assert np.array_equal(images(make, target, checkpoint, "onnx"), expected), name
        assert kept.read_bytes() == good, name
    assert not Runtime._elsewhere(onnx.load_model_from_string(good))
    assert Runtime._elsewhere(onnx.load_model_from_string(FOREIGN["external data"](good)))  # before it is loaded
    with kept.open("wb") as file:
        file.truncate(Runtime.LARGEST + 1)  # without reading it
    assert np.array_equal(images(make, target, checkpoint, "onnx"), expected) and kept.read_bytes() == good
    assert capfd.readouterr().err == ""


@installed
def test_in_a_folder_that_takes_nothing_the_export_stays_in_memory(target, checkpoint, monkeypatch):
    def full(*_):
        raise OSError("read-only")

    monkeypatch.setattr(Path, "write_bytes", full)
    plain, made = (images(GENERATORS[3][1], target, checkpoint, runtime) for runtime in ("torch", "onnx"))
    assert np.abs(plain - made).max() <= 1 and [each.name for each in checkpoint.parent.iterdir()] == ["w.pth"]
    monkeypatch.undo()
    checkpoint.with_suffix(".onnx").mkdir()
    assert np.array_equal(images(GENERATORS[3][1], target, checkpoint, "onnx"), made)
    assert {each.name for each in checkpoint.parent.iterdir()} == {"w.pth", "w.onnx"}


@installed
def test_an_export_that_fails_is_an_error_where_asked_for_and_a_warning_else(target, checkpoint, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr(Runtime, "_export", fail)
    make = GENERATORS[3][1]
    with pytest.raises(UserError, match=r"\(no such operator\); use --runtime torch"):
        make(target, checkpoint, "onnx")
    assert np.array_equal(images(make, target, checkpoint, "auto"), images(make, target, checkpoint, "torch"))
    assert capsys.readouterr().err == \
        "warning: ONNX Runtime can't take this network (no such operator); going on in PyTorch\n"


@installed
def test_the_demo_dances_with_it(clip, checkpoint, tmp_path, script):
    status, out, error = script(DanceDemo.main, "--gen-type", 3, "--runtime", "onnx", "--checkpoint", checkpoint,
                                "--target", clip, "--output", tmp_path / "out.mp4", "--no-window", "--max-frames", 3)
    assert status == 0 and "3 frames" in out and "warning" not in error
    assert checkpoint.with_suffix(".onnx").exists() and (tmp_path / "out.mp4").stat().st_size > 1000


def test_without_the_package_pytorch_is_the_default_and_asking_is_an_error(monkeypatch, script):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    assert not Runtime.wanted("auto", "cpu") and not Runtime.wanted("torch", "cpu")
    status, _, error = script(DanceDemo.main, "--runtime", "onnx")
    assert (status, error) == (2, "error: this needs onnxruntime; run: pip install -r requirements-onnx.txt\n")


def test_it_is_for_networks_on_a_cpu(script):
    assert not Runtime.wanted("auto", "cuda") and not Runtime.wanted("auto", "mps")
    status, _, error = script(DanceDemo.main, "--gen-type", 1, "--runtime", "torch")
    assert status == 2 and "GEN_TYPE 2 to 5" in error


def test_only_runtime_imports_it_and_only_when_used():
    imports = re.compile(r"^( *)(?:import|from) onnx", re.M)
    found = {path.name: imports.findall(path.read_text()) for path in ROOT.glob("*.py")}
    assert [name for name, indents in found.items() if indents] == ["Runtime.py"] and all(found["Runtime.py"])


@installed
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads an ELF library")
def test_its_library_makes_no_socket_call():
    """From 1.29 on it has a reporter of usage built in: requirements-onnx.txt stays before it."""
    from elftools.elf.elffile import ELFFile

    folder = Path(importlib.util.find_spec("onnxruntime").submodule_search_locations[0]) / "capi"
    symbols = set()
    for library in folder.glob("*.so*"):
        with library.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".dynsym")
            symbols |= {s.name.split("@")[0] for s in table.iter_symbols() if s["st_shndx"] == "SHN_UNDEF"}
    assert "malloc" in symbols  # it is the right table
    assert not symbols & {"socket", "connect", "bind", "sendto", "sendmsg", "getaddrinfo", "gethostbyname"}
