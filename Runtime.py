"""A generator's network in ONNX Runtime instead of PyTorch: on a CPU the same image, sooner.

    pip install -r requirements-onnx.txt               # then it is used where it is faster
    python DanceDemo.py --gen-type 4 --runtime torch   # or onnx; auto by default

A network is exported once, to X.onnx beside its checkpoint X.pth. The file carries a key made of the weights and of the
code around them, so another training is another export. A file that has another key, is damaged, points to other files
or computes something else than the network is not used but made anew; where it can't be written, the export stays in
memory. The weights come from the checkpoint, with all of Checkpoint.load_network's checks, in either case.
"""

import contextlib
import hashlib
import importlib.util
import inspect
import math
import os
import warnings
from pathlib import Path

from CommandLine import UserError, need, quiet_stderr, warn
from Storage import alone, whole

RUNTIMES = ("auto", "torch", "onnx")
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
LEVEL = 1 / 127.5  # of 255, in [-1, 1]: an export may differ by so much
LARGEST = 2 ** 28  # bytes of a file that can be ours


def threads():
    """How many compute a network. One core is left to the pose detector: with all of them taken, both wait for each
    other, twice as long."""
    return max(1, (os.cpu_count() or 2) - 1)


def wanted(runtime, device):
    """Whether ONNX Runtime is to be used on a device ("cpu", "cuda", "mps"): where asked for with "onnx", UserError if
    it isn't there; with "auto" where it is installed, on a CPU."""
    if runtime == "onnx":
        need(*PACKAGES, file="requirements-onnx.txt")
    return runtime == "onnx" or (runtime == "auto" and device == "cpu"
                                 and all(importlib.util.find_spec(name) for name in PACKAGES))


def ready(network, shape, checkpoint, runtime, device):
    """(forward, the device of its tensors): forward maps a float32 tensor of `shape` as `network` (in float32, on the
    CPU, for evaluation) does, in what `runtime` says of a torch.device."""
    import torch

    if wanted(runtime, device.type):
        try:
            return exported(network, shape, Path(checkpoint)), torch.device("cpu")
        except Exception as error:  # exporter and runtime are others' code, in versions that are not known yet
            told = (str(error).splitlines() or [type(error).__name__])[0]
            if runtime == "onnx":
                raise UserError(f"ONNX Runtime can't take this network ({told}); use --runtime torch") from None
            warn(f"ONNX Runtime can't take this network ({told}); going on in PyTorch")
    return network.to(device), device


def exported(network, shape, checkpoint):
    """The forward function of a network in ONNX Runtime, from X.onnx beside its checkpoint, made where it must be."""
    import torch

    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # from 1.29 on it reports home, unless this is set before its import
    path = checkpoint.with_name(checkpoint.name.removesuffix(".pth") + ".onnx")
    key, probe = _key(network, shape), torch.linspace(-1, 1, math.prod(shape)).reshape(shape)
    with torch.inference_mode():
        truth = network(probe)
    forward = _kept(path, key, probe, truth)
    if forward is None:
        model = _export(network, probe, key)
        _keep(model, path)
        forward = _forward(model)
    return forward


def _key(network, shape):
    """A checksum of all that an export depends on: weights, the code that uses them and exports them, versions."""
    import torch

    digest = hashlib.sha256(f"{torch.__version__} {tuple(shape)}".encode())
    for source in (inspect.getfile(type(network)), __file__):
        digest.update(Path(source).read_bytes())
    for name, values in network.state_dict().items():
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _kept(path, key, probe, truth):
    """The forward function of the export at `path`, or None where that isn't what `network` says of the probe."""
    import onnx

    try:
        if path.stat().st_size > LARGEST:
            return None
        content = path.read_bytes()
        model = onnx.load_model_from_string(content)
        if [p.value for p in model.metadata_props if p.key == "key"] != [key] or _elsewhere(model):
            return None
        forward = _forward(content)
        made = forward(probe)
        return forward if made.shape == truth.shape and (made - truth).abs().max() <= LEVEL else None
    except Exception:  # whatever a file that is none can cause: none there, parsing, an unknown operator, other inputs
        return None


def _elsewhere(message):
    """Whether a part of a protobuf message takes its values from another file."""
    from google.protobuf.message import Message

    for field, value in message.ListFields():
        if field.name == "external_data" or (field.name == "data_location" and value):
            return True
        if field.message_type and any(map(_elsewhere, [value] if isinstance(value, Message) else value)):
            return True
    return False


def _export(network, probe, key):
    """The ONNX model, as bytes."""
    import torch

    with warnings.catch_warnings(), quiet_stderr():
        warnings.simplefilter("ignore")  # the exporter speaks of its own future
        model = torch.onnx.export(network, (probe,), dynamo=True, verbose=False).model_proto
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.initializer):
        del part.metadata_props[:]  # lines and paths of this code
    model.metadata_props.add(key="key", value=key)
    return model.SerializeToString()


def _keep(model, path):
    """Write the export, whole or not at all: it can always be made again."""
    # not in a read-only folder, on a full disk, or while another run does it
    with contextlib.suppress(UserError), alone(path, "writing"), whole(path) as part:
        part.write_bytes(model)


def _forward(model):
    """Tensor -> tensor, of a model as bytes."""
    with quiet_stderr():  # it complains of graphics cards that it doesn't find
        import onnxruntime
        import torch

        onnxruntime.disable_telemetry_events()  # on Windows the older ones do too
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # that core is the pose detector's
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name, = (each.name for each in session.get_inputs())
    return lambda values: torch.from_numpy(session.run(None, {name: values.numpy()})[0])
