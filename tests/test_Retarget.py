"""The placement: exact on known geometry, and against the truth clip, which shows the target in the source's motion."""

import numpy as np
import pytest
from conftest import SAMPLE

from Retarget import BONES, Retarget, bone_lengths, look, point
from Skeleton import REDUCED, PoseDetector, Skeleton
from VideoReader import VideoReader


def other_body(target):
    """The target's poses on a body with short arms, long shins and a big head, half the size and elsewhere."""
    joints = target.joints.copy()
    for side in (0, 1):
        upper, elbow, wrist = 11 + side, 13 + side, 15 + side
        joints[:, wrist] = joints[:, elbow] + 0.6 * (joints[:, wrist] - joints[:, elbow])
        joints[:, [elbow, wrist]] -= 0.3 * (joints[:, elbow] - joints[:, upper])[:, None]
        joints[:, 27 + side] += 0.2 * (joints[:, 27 + side] - joints[:, 25 + side])
    joints[:, :11] += 0.5 * (joints[:, :1] - point(joints, (11, 12))[:, None])
    return (joints * 0.5 + np.float32([0.3, 0.1, 0])).astype(np.float32)


def test_a_smaller_source_elsewhere_is_put_back(target):
    moved = [target.skeleton(i).moved(0.5, (0.3, 0.1)) for i in range(len(target))]
    fixed, live = Retarget(target, np.stack([s.joints for s in moved])), Retarget(target)
    for index, skeleton in enumerate(moved):
        placed = live.place(skeleton)
        assert np.allclose(fixed.place(skeleton).joints, target.joints[index], atol=1e-4)
    assert np.allclose(placed.joints, target.joints[-1], atol=1e-4)  # by then it has seen the same track


def test_bones_keep_the_sources_direction_and_take_the_targets_length(target):
    source = other_body(target)
    retarget = Retarget(target, source)
    placed = np.stack([retarget.place(Skeleton(s, np.ones(33))).joints for s in source])
    assert np.allclose(bone_lengths(placed), bone_lengths(target.joints), rtol=1e-3)
    for child, parent, _ in BONES:
        ours, theirs = (point(track, child) - point(track, parent) for track in (placed, source))
        cosine = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        assert cosine.min() > 0.999
    assert np.linalg.norm((placed - target.joints)[:, REDUCED, :2], axis=2).mean() < 0.01  # 5 px at 512


def test_feet_stay_on_the_ground_when_the_sources_do(target):
    source = other_body(target)
    feet = source[:, [27, 28], 1].max(1)
    standing = np.abs(feet - np.median(feet)) < 0.002
    retarget = Retarget(target, source)
    placed = np.stack([retarget.place(Skeleton(s, np.ones(33))).joints for s in source])[:, [27, 28], 1].max(1)
    assert standing.sum() > 5 and np.ptp(placed[standing]) < 0.01


def test_against_the_truth():
    """13 joints at 512 px: as they come at most 20, after one constant shift of the clip at most 8.5 (here 14.9, 7.8;
    one scale for the whole body gives 23.4 and 8.9)."""
    from VideoSkeleton import VideoSkeleton

    target, source = VideoSkeleton.load(SAMPLE / "target.mp4"), SAMPLE / "source.mp4"
    retarget, placed = Retarget(target, look(source)), []
    with VideoReader(source) as reader, PoseDetector(fps=reader.fps) as detector:
        for frame in reader:
            placed.append(retarget.place(detector.detect(frame)[0]).joints[REDUCED, :2])
    with np.load(SAMPLE / "joints.npz") as joints:
        away = np.array(placed) * target.box[2] + target.box[:2] - joints["truth_uv"]
    assert np.linalg.norm(away, axis=2).mean() <= 20
    assert np.linalg.norm(away - away.mean((0, 1)), axis=2).mean() == pytest.approx(7.8, abs=0.7)
