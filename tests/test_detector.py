"""The pose detector against true joints, its masks, its silence, and where its model comes from."""

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from common import paths
from common.command_line import UserError
from common.files import sha256
from common.paths import SAMPLE_JOINTS
from motion import detector
from motion.detector import POSE_MODEL, PoseDetector, detect_skeleton
from Skeleton import REDUCED
from VideoReader import VideoReader


@pytest.mark.parametrize("name", ["source", "truth"])
def test_pose_against_the_true_joints(name):
    """Mean error of the 13 joints, over the whole clip, at most 6 px at 512."""
    with np.load(SAMPLE_JOINTS) as joints:
        truth = joints[f"{name}_uv"]
    errors = []
    with VideoReader(SAMPLE_JOINTS.with_name(f"{name}.mp4")) as reader, PoseDetector(fps=reader.fps) as detector:
        for frame, uv in zip(reader, truth, strict=True):
            skeleton, mask = detector.detect(frame)
            assert mask is None
            errors.append(np.linalg.norm(skeleton.joints[REDUCED, :2] * 512 - uv, axis=1).mean())
    assert np.mean(errors) <= 6


def test_units_are_the_longer_side_in_any_frame_shape(frames):
    """The same picture with black beside it or below it gives the same joints in pixels, x, y and z."""
    image = frames[20]
    wide = cv2.copyMakeBorder(image, 0, 0, 0, 256, cv2.BORDER_CONSTANT)
    tall = cv2.copyMakeBorder(image, 0, 256, 0, 0, cv2.BORDER_CONSTANT)
    square, *others = (detect_skeleton(i).joints * max(i.shape) for i in (image, wide, tall))
    for other in others:
        assert np.abs(other - square)[:, :2].mean() < 3
        assert np.corrcoef(other[:, 2], square[:, 2])[0, 1] > 0.98
        assert np.abs(other[:, 2]).mean() == pytest.approx(np.abs(square[:, 2]).mean(), rel=0.3)  # 1.5 in wrong units


def test_mask_covers_the_person(frames):
    with PoseDetector(mode="image", mask=True) as detector:
        skeleton, mask = detector.detect(frames[0])
        assert detector.detect(np.zeros((64, 64, 3), np.uint8)) == (None, None)
    assert mask.shape == (512, 512) and mask.dtype == np.float32 and 0 <= mask.min() <= mask.max() <= 1
    hips = (skeleton.joints[[23, 24], :2].mean(0) * 512).astype(int)
    assert mask[hips[1], hips[0]] > 0.9 and mask[:50, :50].max() < 0.1


def test_the_detector_is_silent(frames, capfd):
    with PoseDetector(mode="image") as detector:
        assert detector.detect(np.zeros_like(frames[0]))[0] is None
        assert detector.detect(frames[0])[0] is not None
    assert capfd.readouterr().err == ""


def test_the_model_is_checked_and_looked_for_in_order(tmp_path, monkeypatch):
    packaged = POSE_MODEL.find()
    assert sha256(packaged) == POSE_MODEL.sha256 and detector.MODEL_PACKAGE not in sys.modules
    monkeypatch.setattr(paths, "MODELS", tmp_path)
    (tmp_path / POSE_MODEL.file).write_bytes(b"damaged")
    assert POSE_MODEL.find() == packaged  # a wrong file in data/models is passed over
    (tmp_path / POSE_MODEL.file).write_bytes(packaged.read_bytes())
    assert POSE_MODEL.find().parent == tmp_path
    (tmp_path / POSE_MODEL.file).unlink()
    monkeypatch.setattr(detector, "MODEL_PACKAGE", "no_such_package")
    with pytest.raises(UserError, match="pip install -r"):
        POSE_MODEL.find()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads an ELF library")
def test_mediapipe_library_makes_no_socket_call():
    from elftools.elf.elffile import ELFFile

    folder = Path(importlib.util.find_spec("mediapipe").submodule_search_locations[0])
    library, = folder.rglob("libmediapipe.so")
    with library.open("rb") as file:
        symbols = {s.name.split("@")[0] for s in ELFFile(file).get_section_by_name(".dynsym").iter_symbols()
                   if s["st_shndx"] == "SHN_UNDEF"}
    assert "malloc" in symbols  # it is the right table
    assert not symbols & {"socket", "connect", "bind", "sendto", "sendmsg", "getaddrinfo", "gethostbyname"}


@pytest.mark.parametrize("width", [637, 638, 639, 854])
def test_masks_of_any_width(width, frames):
    """MediaPipe aborts the process over masks whose width is no multiple of 4; the pose must not depend on that."""
    with PoseDetector("image", mask=True) as detector:
        skeleton, mask = detector.detect(cv2.resize(frames[0], (width, 480)))
        expected, other = detector.detect(cv2.resize(frames[0], (width + -width % 4, 480)))
    assert mask.shape == (480, width) and abs(mask.mean() / other.mean() - 1) < 0.02
    assert np.abs(skeleton.joints - expected.joints)[:, :2].mean() < 0.01
