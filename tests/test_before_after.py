"""dancing/before_after.py: the picture of what a training has brought shows the frames that it should."""

import cv2
import numpy as np
import pytest

from dancing import before_after
from learning.checkpoint import load_checkpoint
from learning.dataset import training_frames
from picture.canvas import resize


@pytest.mark.parametrize("gen_type", [2, 5])
def test_before_after_and_the_real_frame(script, clip, target, weights, tmp_path, gen_type):
    status, _, error = script(before_after.main, "--gen-type", gen_type, "--target", clip, "--checkpoint",
                              weights[gen_type], "--output", tmp_path / "picture.png")
    assert status == 0, error
    picture = cv2.imread(str(tmp_path / "picture.png")).astype(float)
    width = (picture.shape[1] - 2 * before_after.GAP) // 3
    before, after, real = np.split(picture, [width, width + 2, 2 * width + 2, 2 * width + 4], axis=1)[::2]
    # The frames 36 to 39 of 40 are held out; of four, those in the middle are shown.
    assert training_frames(target) == 36
    left, top, right, bottom = (round(share * 64) for share in before_after.window(target, [37, 38]))
    shown = [resize(target.image(index), 64)[top:bottom, left:right] for index in (37, 38)]
    height = bottom - top
    assert np.abs(real[:height] - shown[0]).max() == 0 and np.abs(real[-height:] - shown[1]).max() == 0
    assert np.abs(before - after).max() > 0 and np.abs(after - real).mean() > 1
    if gen_type == 5:  # before its training the network leaves the warp as it is, which is close to the real frame
        assert np.abs(before - real).mean() < 15


def test_before_is_the_training_before_this_one(clip, target, weights, tmp_path):
    """Where the weights before are the same as those after, both look alike."""
    path = tmp_path / "weights.pth"
    for copy in (path, tmp_path / "weights-previous.pth"):
        copy.write_bytes(weights[3].read_bytes())
    entry = before_after.GENERATORS[3]
    picture = before_after.before_and_after(target, entry, path)
    width = (picture.shape[1] - 2 * before_after.GAP) // 3
    assert np.array_equal(picture[:, :width], picture[:, width + 2:2 * width + 2])
    assert load_checkpoint(path, entry.network, "")["step"] == 3


def test_weights_of_something_else(refused, clip, weights, tmp_path):
    line = refused("a checkpoint of another generator", before_after.main, "--gen-type", 3, "--target", clip,
                   "--checkpoint", weights[5], "--output", tmp_path / "other.png")
    assert "is of GenWarp" in line and not (tmp_path / "other.png").exists()
    line = refused("no checkpoint", before_after.main, "--gen-type", 3, "--target", clip, "--checkpoint",
                   tmp_path / "none.pth", "--output", tmp_path / "other.png")
    assert "no trained weights" in line
    line = refused("writing over the video", before_after.main, "--gen-type", 3, "--target", clip, "--checkpoint",
                   weights[3], "--output", clip)
    assert "one of the inputs" in line


def test_the_window_stays_inside_the_video(target):
    left, top, right, bottom = before_after.window(target, [0, 1])
    assert 0 <= left < right <= 1 and 0 <= top < bottom <= 1
    places = target.joints[[0, 1], :, :2].reshape(-1, 2)
    inside = np.clip(places, 0, 1)
    assert (inside >= np.array([left, top]) - 1e-6).all() and (inside <= np.array([right, bottom]) + 1e-6).all()
