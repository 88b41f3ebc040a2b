"""The skeleton's numbers and drawing, the detector against true joints, and where its model comes from."""

import importlib.util
import io
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SAMPLE, random_skeleton

import Skeleton as module
from CommandLine import UserError
from Skeleton import LIMBS, REDUCED, Follow, PoseDetector, Skeleton, detect_all, download, find_model, sha256
from VideoReader import VideoReader


def test_values_and_distance():
    rng = np.random.default_rng(0)
    a, b = random_skeleton(rng), random_skeleton(rng)
    assert a.reduced.shape == (26,) and a.full.shape == (99,) and a.reduced.dtype == np.float32
    assert np.array_equal(a.reduced, [a.joints[j, k] for j in REDUCED for k in (0, 1)])
    for full, n in ((False, 26), (True, 99)):
        x, y = ((s.full if full else s.reduced).astype(float) for s in (a, b))
        assert a.distance(b, full) == pytest.approx(sum((x[i] - y[i]) ** 2 for i in range(n)) ** 0.5, rel=1e-6)
    moved = a.moved(2, (0.5, -1))
    assert np.allclose(moved.joints, a.joints * 2 + [0.5, -1, 0])
    with pytest.raises(ValueError, match="33 joints"):
        Skeleton(np.zeros((13, 2)), np.zeros(13))


def test_drawing_tells_left_from_right_and_covers_the_joints():
    skeleton = random_skeleton(np.random.default_rng(1))
    mirrored = skeleton.joints.copy()
    pairs = [(j, j + 1) for j in range(11, 33, 2)]
    for left, right in pairs:
        mirrored[[left, right]] = mirrored[[right, left]]
    assert len({colour for *_, colour in LIMBS}) == len(LIMBS)
    first = skeleton.draw(np.zeros((256, 256, 3), np.uint8))
    second = Skeleton(mirrored, skeleton.visibility).draw(np.zeros((256, 256, 3), np.uint8))
    assert (first != second).any()
    for joint in (13, 14, 25, 26):  # elbows and knees lie on two limbs
        x, y = (skeleton.joints[joint, :2] * 256).astype(int)
        assert first[y, x].any()


def test_drawing_moves_by_less_than_a_pixel_and_scales():
    skeleton = random_skeleton(np.random.default_rng(2))
    size = 64
    still = skeleton.draw(np.zeros((size, size, 3), np.uint8)).astype(float)
    shifted = skeleton.moved(1, (0.25 / size, 0)).draw(np.zeros((size, size, 3), np.uint8)).astype(float)
    assert 0 < np.abs(still - shifted).mean() < np.abs(still - np.roll(still, 1, 1)).mean()
    large = skeleton.draw(np.zeros((512, 512, 3), np.uint8))
    small = cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA).astype(float)
    assert np.corrcoef(small.ravel(), still.ravel())[0, 1] > 0.9


def test_drawing_survives_far_joints_and_leaves_out_hidden_ones():
    joints = np.full((33, 3), 1e9, np.float32)
    Skeleton(joints, np.ones(33)).draw(np.zeros((32, 32, 3), np.uint8))
    skeleton = random_skeleton(np.random.default_rng(3))
    assert not Skeleton(skeleton.joints, np.zeros(33)).draw(np.zeros((64, 64, 3), np.uint8)).any()


@pytest.mark.parametrize("name", ["source", "truth"])
def test_pose_against_the_true_joints(name):
    """Mean error of the 13 joints, over the whole clip, at most 6 px at 512."""
    with np.load(SAMPLE / "joints.npz") as joints:
        truth = joints[f"{name}_uv"]
    errors = []
    with VideoReader(SAMPLE / f"{name}.mp4") as reader, PoseDetector(fps=reader.fps) as detector:
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
    square, *others = (Skeleton.from_image(i).joints * max(i.shape) for i in (image, wide, tall))
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


def test_model_order_and_checksum(tmp_path, monkeypatch):
    packaged = find_model("full")
    assert sha256(packaged) == module.MODELS["full"][1] and module.MODEL_PACKAGE not in sys.modules
    monkeypatch.setattr(module, "MODEL_FOLDER", tmp_path)
    (tmp_path / "pose_landmarker_full.task").write_bytes(b"damaged")
    assert find_model("full") == packaged  # a wrong file in data/models is passed over
    (tmp_path / "pose_landmarker_full.task").write_bytes(packaged.read_bytes())
    assert find_model("full").parent == tmp_path
    assert find_model(str(packaged)) == packaged
    (tmp_path / "other.task").write_bytes(b"no model")
    for wrong in ("huge", str(tmp_path / "other.task")):
        with pytest.raises(UserError):
            find_model(wrong)


class Server:
    """A stand-in for urlopen: serves `content`, honours Range, and breaks off after `limit` bytes each time."""

    def __init__(self, content, limit):
        self.content, self.limit, self.ranges = content, limit, []

    def __call__(self, request, timeout):
        begin = int(request.get_header("Range", "bytes=0-")[6:-1])
        self.ranges.append(begin)
        answer = io.BytesIO(self.content[begin:begin + self.limit])
        answer.status = 206 if begin else 200
        return answer


def test_download_resumes_checks_and_gives_up_in_one_line(tmp_path):
    import hashlib

    content = bytes(range(256)) * 40
    sha, path, pauses = hashlib.sha256(content).hexdigest(), tmp_path / "model.task", []
    server = Server(content, 4096)
    assert download("https://x/y", path, len(content), sha, server, pauses.append) == path
    assert path.read_bytes() == content and server.ranges == [0, 4096, 8192] and pauses == [1, 2]
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    with pytest.raises(UserError, match="https://x/y"):  # another file of the same length
        download("https://x/y", path, len(content), "0" * 64, Server(content, 1 << 20), pauses.append)
    assert not list(tmp_path.iterdir())

    def offline(*_, **__):
        raise OSError("no route")

    with pytest.raises(UserError, match="no route"):
        download("https://x/y", path, len(content), sha, offline, pauses.append)
    with pytest.raises(AssertionError):
        download("http://x/y", path, len(content), sha, Server(content, 4096))


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


def test_of_several_people_the_same_one_is_followed(frames, capsys):
    """Two people side by side, whom MediaPipe gives in either order: the tall one is followed, also when she moves."""
    rng = np.random.default_rng(0)
    pictures = []
    for number, frame in enumerate(frames[::4]):
        small = cv2.copyMakeBorder(cv2.resize(frame, (432, 432)), 80, 0, 40, 40, cv2.BORDER_REPLICATE)
        pair = np.roll(np.hstack([small, frame]), 6 * number, 1)  # the tall one goes to the right
        pictures.append(pair)
    found = list(detect_all(pictures, mask=True))
    places = np.array([skeleton.joints[[23, 24], 0].mean() * 1024 for _, skeleton, _ in found])
    assert (places > 600).all()
    assert "2 people are seen; following one of them, now on the right" in capsys.readouterr().err
    inside = [mask[:, 540:].sum() / mask.sum() for _, _, mask in found]
    assert min(inside) > 0.9  # and it is her mask

    tall, short = (Skeleton(rng.random((33, 3)) * size, np.ones(33)) for size in (1.0, 0.7))
    follow = Follow()
    assert follow([]) == (None, None) and follow([(short, None), (tall, None)])[0] is tall
    assert follow([(short, None)])[0] is short  # nearer than a height: the detector may have lost a leg
    far = Skeleton(tall.joints + np.float32([3, 0, 0]), np.ones(33))
    assert follow([(far, None), (tall, None)])[0] is tall and follow([(far, None)])[0] is far
