"""What holds for any input that hypothesis can think of: skeletons, retargeting, tracks, files of strangers."""

import io
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import PoseScan
from Checkpoint import load_checkpoint
from CommandLine import UserError
from PoseTrack import mend, smooth
from Retarget import Retarget, body_height, bone_lengths
from Skeleton import Skeleton
from Storage import stored_arrays
from VideoSkeleton import VideoSkeleton

# the same examples in each run: a test that fails, fails for everybody
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
    there_and_back = a.moved(2, (3, -1)).moved(0.5, (-1.5, 0.5))
    assert np.allclose(there_and_back.joints, a.joints, rtol=1e-5, atol=1e-5)


@often
@given(st.integers(0, 10 ** 6), st.integers(1, 30), st.floats(0.05, 20), st.floats(-5, 5), st.floats(-5, 5))
def test_placing_does_not_depend_on_where_and_how_large_the_source_is(seed, count, scale, x, y):
    target = SimpleNamespace(joints=bodies(seed + 1, 20))
    source = bodies(seed, count)
    moved = source * np.float32(scale) + np.float32([x, y, 0])
    near, far = (Retarget(target, joints) for joints in (source, moved))
    for one, other in zip(source, moved, strict=True):
        placed, again = (retarget.place(Skeleton(joints, np.ones(33)))
                         for retarget, joints in ((near, one), (far, other)))
        assert np.isfinite(placed.joints).all()
        assert np.allclose(placed.joints[:, :2], again.joints[:, :2], atol=2e-3)


@often
@given(arrays(np.float32, st.tuples(st.integers(1, 12), st.just(33), st.just(3)), elements=floats))
def test_any_track_can_be_measured_and_placed(joints):
    target = SimpleNamespace(joints=bodies(0, 10))
    assert np.isfinite(bone_lengths(joints)).all() and body_height(joints) >= 0
    if body_height(joints) > 1e-3:
        placed = Retarget(target, joints).place(Skeleton(joints[0], np.ones(33)))
        assert placed.joints.shape == (33, 3) and not np.isnan(placed.joints).any()


@often
@given(st.integers(0, 10 ** 6), st.lists(st.booleans(), min_size=2, max_size=60), st.floats(5, 60))
def test_a_track_with_any_absences_is_mended_and_smoothed(seed, seen, fps):
    joints = bodies(seed, len(seen))
    joints[~np.array(seen)] = np.nan
    seconds = np.arange(len(seen)) / fps
    whole, visibility = mend(joints, np.ones((len(seen), 33), np.float32), seconds, (1.0, 1.0))
    steady = smooth(whole, visibility, seconds)
    absent = np.isnan(whole[:, 0, 0])
    assert np.array_equal(np.isnan(steady).all((1, 2)), absent) and np.array_equal(np.isnan(steady).any((1, 2)), absent)
    first, last = (np.flatnonzero(seen)[[0, -1]] if any(seen) else (0, -1))
    assert absent[:first].all() and absent[last + 1:].all()  # nobody is invented before and after


@often
@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), arrays(
    st.sampled_from([np.float32, np.uint8, np.int64]), array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)),
    max_size=3))
def test_what_is_stored_comes_back(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "stored.npz"
    np.savez(path, **content)
    back = stored_arrays(path)
    assert back.keys() == content.keys()
    assert all((back[name].dtype, back[name].shape, back[name].tobytes()) ==
               (content[name].dtype, content[name].shape, content[name].tobytes()) for name in back)


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
    folder.mkdir(exist_ok=True)
    for name in ("skeletons.npz", "segment-000000.npz", "w.pth", "frames.bin", "masks.bin", "plate.png"):
        (folder / name).write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        VideoSkeleton(target.path, folder)
    with pytest.raises(UserError, match="is no checkpoint"):
        load_checkpoint(folder / "w.pth", "GenGAN", "a command")
    assert PoseScan._read(folder, 0) is None


@often
@given(st.integers(0, 3), st.integers(0, 10 ** 6))
def test_no_cut_off_cache_is_more_than_refused(target, tmp_path_factory, which, place):
    folder = tmp_path_factory.getbasetemp() / "cut off"
    folder.mkdir(exist_ok=True)
    names = ["skeletons.npz", "frames.bin", "masks.bin", "plate.png"]
    for name in names:
        (folder / name).write_bytes((target.folder / name).read_bytes())
    whole = (folder / names[which]).read_bytes()
    (folder / names[which]).write_bytes(whole[:place % len(whole)])
    with pytest.raises(UserError, match=r"damaged.*delete"):
        broken = VideoSkeleton(target.path, folder)
        for index in range(len(broken)):
            broken.image(index), broken.mask(index)
