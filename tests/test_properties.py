"""What holds for any input that hypothesis can think of: skeletons, retargeting, tracks, files of strangers."""

import io
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import moved
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from common.command_line import UserError
from common.files import load_arrays
from learning.checkpoint import load_checkpoint
from motion import segments
from motion.body import body_height, bone_lengths
from motion.following import FoundPeople
from motion.mending import mend, smooth, steady
from motion.retargeting import LiveRetargeting, Retargeting, place
from motion.track import Track
from Skeleton import Skeleton
from video.clip import Clip
from VideoSkeleton import VideoSkeleton

# The examples are the same in each run: a test that fails, fails for everybody.
often = settings(max_examples=100, deadline=None, derandomize=True, database=None)
floats = st.floats(-1e6, 1e6, width=32)
skeletons = st.builds(Skeleton, arrays(np.float32, (33, 3), elements=floats),
                      arrays(np.float32, (33,), elements=st.floats(0, 1, width=32)))


def bodies(seed, count):
    """A track of `count` skeletons of one size, somewhere near the middle: (count, 33, 3)."""
    return (np.random.default_rng(seed).random((count, 33, 3)) * 0.5 + 0.25).astype(np.float32)


@often
@given(skeletons, skeletons, st.integers(1, 64), st.integers(1, 64))
def test_any_skeleton_can_be_drawn_moved_and_compared(a, b, height, width):
    image = np.zeros((height, width, 3), np.uint8)
    before = a.joints.copy()
    assert a.draw(image) is image and image.shape == (height, width, 3)
    assert np.array_equal(a.joints, before)
    for full in (False, True):
        assert a.distance(a, full) == 0 <= a.distance(b, full) == b.distance(a, full) < np.inf
    assert a.distance(b) <= a.distance(b, full=True) * (1 + 1e-9)
    there_and_back = moved(moved(a, 2, (3, -1)), 0.5, (-1.5, 0.5))
    assert np.allclose(there_and_back.joints, a.joints, rtol=1e-5, atol=1e-5)


def somebody(seed, count):
    """A target that has joints and a picture, and nothing else."""
    return SimpleNamespace(joints=bodies(seed, count), box=(0, 0, 1), frame_size=(1, 1), window=(0, 0, 1, 1))


def placed_on(target, joints):
    """The poses (N, 33, 3) of a source on the body of a target."""
    retargeting = Retargeting(target)
    retargeting.fit(joints)
    return retargeting.apply(joints)


@often
@given(st.integers(0, 10 ** 6), st.integers(1, 30), st.floats(0.05, 20), st.floats(-5, 5), st.floats(-5, 5))
def test_placing_does_not_depend_on_where_and_how_large_the_source_is(seed, count, scale, x, y):
    target, source = somebody(seed + 1, 20), bodies(seed, count)
    near, far = placed_on(target, source), placed_on(target, source * np.float32(scale) + np.float32([x, y, 0]))
    assert np.isfinite(near).all()
    assert np.allclose(near[:, :, :2], far[:, :, :2], atol=2e-3)


@often
@given(arrays(np.float32, st.tuples(st.integers(1, 12), st.just(33), st.just(3)), elements=floats))
def test_any_poses_can_be_measured_and_placed(joints):
    target = somebody(0, 10)
    assert np.isfinite(bone_lengths(joints)).all() and body_height(joints) >= 0
    if body_height(joints) > 1e-3:
        placed = placed_on(target, joints)
        assert placed.shape == joints.shape and not np.isnan(placed).any()
        live = LiveRetargeting(target)
        assert all(not np.isnan(live.place(Skeleton(pose, np.ones(33))).joints).any() for pose in joints
                   if body_height(pose[None]) > 1e-3)


@often
@given(st.integers(0, 10 ** 6), st.lists(st.booleans(), min_size=2, max_size=60), st.floats(5, 60))
def test_poses_with_any_absences_are_mended_and_smoothed(seed, seen, fps):
    joints = bodies(seed, len(seen))
    joints[~np.array(seen)] = np.nan
    seconds = np.arange(len(seen)) / fps
    whole, visibility = mend(joints, np.ones((len(seen), 33), np.float32), seconds, (1.0, 1.0))
    smoothed = smooth(whole, visibility, seconds)
    absent = np.isnan(whole[:, 0, 0])
    assert np.array_equal(np.isnan(smoothed).all((1, 2)), absent)
    assert np.array_equal(np.isnan(smoothed).any((1, 2)), absent)
    first, last = (np.flatnonzero(seen)[[0, -1]] if any(seen) else (0, -1))
    assert absent[:first].all() and absent[last + 1:].all()  # nobody is invented before and after


@often
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), arrays(
    st.sampled_from([np.float32, np.uint8, np.int64]), array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    max_size=3))
def test_what_is_stored_comes_back(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "stored.npz"
    np.savez(path, **content)
    back = load_arrays(path)
    assert back.keys() == content.keys()
    assert all((back[name].dtype, back[name].shape, back[name].tobytes()) ==
               (content[name].dtype, content[name].shape, content[name].tobytes()) for name in back)


frame_numbers = st.integers(0, 19)
numbers = st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, 1e30])  # NaN and infinity, too
changes = st.lists(st.one_of(
    st.tuples(st.just("absent"), frame_numbers), st.tuples(st.just("one joint"), frame_numbers, numbers),
    st.tuples(st.just("all joints"), frame_numbers, numbers), st.tuples(st.just("visibility"), frame_numbers, numbers),
    st.tuples(st.just("a wait"), frame_numbers, st.floats()), st.tuples(st.just("one time"), st.floats()),
    st.tuples(st.just("fps"), st.floats()),
    st.tuples(st.just("size"), st.integers(-5, 10 ** 12), st.integers(-5, 10 ** 12)),
    st.tuples(st.just("shots"), st.lists(st.integers(-2, 25), max_size=4))), max_size=3)


def strange_track(count, changes):
    """A track of `count` frames in which a few things were changed, so that it may be that of no person."""
    joints, visibility, seconds = bodies(0, count), np.ones((count, 33), np.float32), np.arange(count) / 25
    fps, size, shots = 25.0, (640, 480), np.zeros(1, int)
    for what, first, *more in changes:
        frame = min(first, count - 1) if isinstance(first, int) else 0
        if what == "absent":
            joints[frame] = np.nan
        elif what == "one joint":
            joints[frame, 5, 1] = more[0]
        elif what == "all joints":
            joints[frame] = more[0]
        elif what == "visibility":
            visibility[frame] = more[0]
        elif what == "a wait":
            seconds[frame:] += more[0]
        elif what == "one time":
            seconds[:] = first
        elif what == "fps":
            fps = first
        elif what == "size":
            size = (first, *more)
        else:
            shots = np.array(first, int)
    return Track(joints, visibility, seconds, shots, size, fps, np.ones(count, bool))


@pytest.mark.filterwarnings("error")
@settings(often, max_examples=300)
@given(st.integers(1, 20), changes)
def test_any_motion_file_is_refused_or_dances(tmp_path_factory, count, changes):
    """What is taken gives finite poses, and times that a film can hold. No warning of numpy tells of an overflow."""
    path = tmp_path_factory.getbasetemp() / "motion.npz"
    target = SimpleNamespace(joints=bodies(0, 10), box=(0, 0, 512), frame_size=(512, 512),
                             window=(0, 0, 512, 512))
    strange_track(count, changes).save(path)
    try:
        track = Track.load(path)
    except UserError as error:
        assert "is no motion file" in str(error)
        return
    placed = place(steady(track), target)
    assert len(placed) == count and placed.variable in (True, False)
    assert np.isfinite(placed.joints[placed.present]).all() and np.isnan(placed.joints[~placed.present]).all()
    assert 0 <= track.seconds[0] <= track.seconds[-1] < 1e9 and 0.01 < track.fps < 1e4
    assert track.shots[0] == 0 and all(shot.stop > shot.start for shot in track.shot_slices)


def npz(shape, kind, data):
    """The bytes of an .npz with one array, whose header says `shape` and `kind` whatever the data are."""
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode().ljust(117) + b"\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("joints.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data)
    return file.getvalue()


strangers = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=60).map(lambda data: b"PK\x03\x04" + data),  # as a zip begins
    st.builds(npz, st.lists(st.integers(-5, 10 ** 12), max_size=4).map(tuple),
              st.sampled_from(["<f4", "|O", "|V8", "<U9", "nonsense"]), st.binary(max_size=100)))


@often
@given(strangers)
def test_no_file_of_a_stranger_is_more_than_refused(target, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "strange"
    (folder / "target").mkdir(parents=True, exist_ok=True)
    for name in ("poses.npz", "masks.bin", "segment-000000.npz", "w.pth", "motion.npz", "target/skeletons.npz",
                 "target/frames.bin", "target/plate.png"):
        (folder / name).write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        FoundPeople(folder, Clip(folder))
    with pytest.raises(UserError, match="is damaged"):
        VideoSkeleton(target.path, folder / "target")
    with pytest.raises(UserError, match="is no checkpoint"):
        load_checkpoint(folder / "w.pth", "GenGAN", "a command")
    with pytest.raises(UserError, match="is no motion file"):
        Track.load(folder / "motion.npz")
    assert segments.read_segment(folder, 0) is None


@often
@given(st.sampled_from(["poses.npz", "masks.bin", "target/skeletons.npz", "target/frames.bin", "target/plate.png"]),
       st.integers(0, 10 ** 6))
def test_no_cut_off_cache_is_more_than_refused(target, tmp_path_factory, cut, place):
    folder = tmp_path_factory.getbasetemp() / "cut off"
    (folder / "target").mkdir(parents=True, exist_ok=True)
    for name in ("poses.npz", "masks.bin", "target/skeletons.npz", "target/frames.bin", "target/plate.png"):
        original, copied = target.folder.parent / name.replace("target", target.folder.name), folder / name
        size = original.stat().st_size
        if name == cut:
            copied.write_bytes(original.read_bytes()[:place % size])
        elif not copied.exists() or copied.stat().st_size != size:  # it is whole again
            copied.write_bytes(original.read_bytes())
    with pytest.raises(UserError, match=r"damaged.*delete"):
        FoundPeople(folder, Clip(folder))
        broken = VideoSkeleton(target.path, folder / "target")
        for index in range(len(broken)):
            broken.image(index), broken.mask(index)
