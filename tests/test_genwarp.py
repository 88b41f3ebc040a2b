"""The refiner: it begins as the identity, learns, works as it was trained, and is never shown the answer."""

import copy
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

import GenWarp
from common import paths
from dancing.generators import GENERATORS
from learning import training as loop_module
from learning.checkpoint import SCHEMA, save_checkpoint
from learning.dataset import PoseDataset, normalise, to_image, to_tensor, training_frames
from learning.perception import unlikeness
from motion.body import body_height
from picture.parts import CHAINS
from VideoSkeleton import VideoSkeleton
from warping.limb_warp import LimbWarp
from warping.registration import registered
from warping.retrieval import UNDER


@pytest.fixture(autouse=True)
def one_thread():
    """What is computed here is small. Where other programs are running, several threads wait for each other longer."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def saved(network, target, path, image_size=64, unlikeness=0.8):
    """A checkpoint of a training that has brought the unlikeness of the held-out frames from 1 to `unlikeness`."""
    save_checkpoint({"schema": SCHEMA, "generator": "GenWarp", "target": target.identity,
                     "config": {"pose": "image", "image_size": image_size}, "model": network.state_dict(),
                     "held_out": {"unlikeness": unlikeness, "untrained": 1.0}}, path)
    return path


def test_untrained_it_changes_nothing(target, tmp_path):
    generator = GenWarp.GenWarp(target, saved(GenWarp.Refiner(), target, tmp_path / "w.pth"))
    plain = LimbWarp(target)
    for index in (0, 20):
        image, warped = (each.generate(target.skeleton(index)) for each in (generator, plain))
        assert np.array_equal(image, warped) and (generator.mask[plain.mask > 0] == 255).all()


@pytest.mark.parametrize("size", [64, 256])
def test_generate_does_what_training_did(target, tmp_path, size):
    """The same stack through the network as trained (torch, one size) and as used (OpenCV, drawn at any size); but in
    use the face stays as it was drawn."""
    torch.manual_seed(0)
    network = GenWarp.Refiner().eval()
    torch.nn.init.normal_(network.last.weight, std=0.02)
    network.last.bias.data[:2] = 0.5  # both directions of the flow
    path = saved(network, target, tmp_path / "w.pth", size)
    generator, plain, skeleton = GenWarp.GenWarp(target, path, size=size), LimbWarp(target, size), target.skeleton(9)
    picture, cover, _ = plain.draw(skeleton.joints, plain.frames_for(skeleton))
    cover = cv2.resize(cover, (size, size), interpolation=cv2.INTER_NEAREST)
    drawn = to_tensor(skeleton.draw(np.zeros((size, size, 3), np.uint8)))
    with torch.inference_mode():
        made = network(GenWarp.network_input(picture, cover, to_tensor(plain.plate), drawn)[None])[0]
    expected, image = to_image(made[:3]).astype(int), generator.generate(skeleton)
    place = (np.stack(np.meshgrid(*[np.arange(size)] * 2), -1) + 0.5) / size
    from_face = np.linalg.norm(place - skeleton.joints[[0, 7, 8], :2].mean(0), axis=2) / body_height(target.joints)
    beside, changed = from_face > 0.18, np.abs(expected - picture).max(2) > 2
    assert changed.mean() > 0.05 and np.abs(expected - image)[changed & beside].mean() < 1.5
    assert np.percentile(np.abs(expected - image)[beside], 99) <= 6  # OpenCV samples in steps of 1/32 of a pixel
    face = from_face < 0.05
    assert changed[face].any() and np.abs(image[face].astype(int) - picture[face]).max() <= 1


def test_training_never_draws_a_frame_from_itself_or_a_held_out_one(target):
    asked = {}
    dataset = GenWarp.WarpDataset(target, "image", 64)
    training, held_out = dataset.split()
    draw = dataset._warp.draw
    dataset._warp.draw = lambda joints, frames: asked.update(frames) or draw(joints, frames)
    for epoch in (0, 1):
        dataset.set_epoch(0, epoch)
        for index in range(len(dataset)):
            asked.clear()
            dataset[index]
            assert asked.keys() == {*CHAINS, UNDER} and max(asked.values()) < len(training)
            seconds = np.abs(target.seconds[list(asked.values())] - target.seconds[index])
            assert seconds.min() > GenWarp.BARRED_SECONDS[0]
    assert len(held_out) == 4


def test_pairs_depend_on_seed_epoch_and_index_alone(target):
    dataset = GenWarp.WarpDataset(target, "image", 64)

    def pictures(seed, epoch):
        dataset.set_epoch(seed, epoch)
        return torch.stack([dataset[index][0] for index in (3, 17)])

    first = pictures(1, 2)
    assert not torch.equal(first, pictures(1, 3)) and not torch.equal(first, pictures(2, 2))
    assert torch.equal(first, pictures(1, 2)) and first.shape == (2, GenWarp.PLANES, 64, 64) and first.abs().max() <= 1


@pytest.mark.parametrize("still", [True, False])
def test_the_real_person_stands_before_the_background_that_is_drawn_with_its_shadow(target, still):
    other = copy.copy(target)
    other.still = still
    dataset, (_, seen) = GenWarp.WarpDataset(other, "image", 64), PoseDataset(target, "image", 64)[5]
    asked = dataset[5][1]
    background = dataset._warp.background(target.joints[5])
    assert (background.astype(int) < dataset._warp.plate).any()  # the sample has a shadow
    mask = seen[3]
    assert torch.equal(asked[3], mask) and torch.equal(asked[:3, mask == 255], seen[:3, mask == 255])
    assert torch.equal(normalise(asked[:3, mask == 0]), to_tensor(background)[:, mask == 0])
    assert not torch.equal(asked[:3, mask == 0], seen[:3, mask == 0])


def test_joints_are_moved_in_training_as_far_as_told_and_never_in_held_out_frames(target):
    dataset, moves = GenWarp.WarpDataset(target, "image", 64), []
    draw = dataset._warp.draw
    dataset._warp.draw = lambda joints, frames: moves.append(joints) or draw(joints, frames)
    training, held_out = (part.indices for part in dataset.split())
    for index in training:
        dataset[index]
    away = np.array(moves) - target.joints[training]
    assert away[:, :, :2].std() == pytest.approx(GenWarp.JITTER * dataset._warp.height, rel=0.1)
    assert not away[:, :, 2].any()
    for index in held_out:
        dataset[index]
        assert np.array_equal(moves[-1], target.joints[index])


def test_it_learns_to_mend_the_pictures_it_is_trained_on(target, monkeypatch):
    """A small one: at first its picture is the warped one; after some steps it is nearer to the real one. The frames
    are not registered, so that there is more to mend."""
    torch.manual_seed(0)
    monkeypatch.setattr(GenWarp, "WIDTHS", (16, 24, 32, 32))
    monkeypatch.setattr(GenWarp, "registered", lambda target, count: target)
    dataset = GenWarp.WarpDataset(target, "image", 64)
    pictures, real = map(torch.stack, zip(*(dataset[index] for index in range(0, 32, 4)), strict=True))
    real = normalise(real)
    network = GenWarp.Refiner()
    optimizer = torch.optim.Adam(network.parameters(), GenWarp.LEARNING_RATE)
    fabric = SimpleNamespace(backward=lambda loss: loss.backward())
    first = sum(GenWarp.step(fabric, network, optimizer, pictures, real).values())
    for _ in range(60):
        last = sum(GenWarp.step(fabric, network, optimizer, pictures, real).values())
    assert last < 0.7 * first
    made = network.eval()(pictures)
    assert made.shape == (8, 4, 64, 64)
    assert (made[:, :3] - real[:, :3]).abs().mean() < 0.85 * (pictures[:, :3] - real[:, :3]).abs().mean()


@pytest.mark.parametrize("helps", [True, False])
def test_a_training_that_does_not_help_is_told_in_one_line_and_the_warp_is_kept(helps, target, training, capsys,
                                                                               monkeypatch):
    """In the place of what is learned: a flow that shifts everything aside is unlearned, or is all that is learned."""
    def begin(config=None):
        network = build()
        network.last.bias.data[0] = 0.5 if helps else 0.0
        return network

    def step(fabric, network, optimizer, pictures, real):
        network.module.last.bias.data[0] = 1e-3 if helps else 0.5
        return {"loss": real.mean()}

    build, training.epochs = GenWarp.build, 1
    with monkeypatch.context() as patch:
        patch.setattr(GenWarp, "step", step)
        patch.setattr(GenWarp, "build", begin)
        GenWarp.train(training)
    said = capsys.readouterr()
    assert said.out.count("did not help") == (not helps) and "% more like the real ones" in said.out
    generator = GENERATORS[5].make(target, training.checkpoint)
    plain = LimbWarp(registered(target, training_frames(target)))
    warned = capsys.readouterr().err
    assert warned.count("did not help") == warned.count("\n") == (not helps)
    image, warped = (each.generate(target.skeleton(9)) for each in (generator, plain))
    assert np.array_equal(image, warped) != helps
    assert helps or np.array_equal(generator.mask, plain.mask)


def test_a_training_that_gains_nothing_any_more_ends_and_says_so(training, capsys, monkeypatch):
    monkeypatch.setattr(loop_module, "EVALUATION_STEPS", 1)  # then each epoch is evaluated
    monkeypatch.setattr(GenWarp, "step", lambda fabric, network, optimizer, pictures, real: {"loss": real.mean()})
    training.epochs = 10 ** 6
    GenWarp.train(training)
    state = torch.load(training.checkpoint.with_name("weights-last.pth"), weights_only=True)
    assert state["epoch"] == 1 + loop_module.PATIENCE
    assert "ended before its time" in capsys.readouterr().out


def test_held_out_frames_are_always_drawn_from_the_same_frames(target):
    dataset, drawn = GenWarp.WarpDataset(target, "image", 64), []
    for epoch in (0, 3):
        dataset.set_epoch(1, epoch)
        drawn.append([dataset[index][0] for index in (5, len(target) - 1)])
    assert not torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])


def test_blur_and_rags_look_less_alike_than_a_shift(target):
    """All of them against the real picture, around the person."""
    image, mask = target.image(9), to_tensor(cv2.cvtColor(target.mask(9), cv2.COLOR_GRAY2BGR))[None, :1]
    real = to_tensor(image)[None]

    def made(change):
        return unlikeness(to_tensor(change)[None], real, mask)

    x, y = np.meshgrid(*(np.arange(length, dtype=np.float32) for length in image.shape[1::-1]))
    torn = cv2.remap(image, x + np.random.default_rng(0).normal(0, 2, x.shape).astype(np.float32), y, cv2.INTER_LINEAR)
    shifted, blurred = made(np.roll(image, 1, 1)), made(cv2.GaussianBlur(image, (0, 0), 1.5))
    assert made(image) < 1e-6 < shifted < min(blurred, made(torn))
    outside = image.copy()
    outside[cv2.dilate(target.mask(9), np.ones((31, 31), np.uint8)) == 0] = 0
    assert made(outside) < 1e-6


def test_without_weights_or_with_anothers_it_warps_and_says_so(target, tmp_path, monkeypatch, capsys):
    entry, weights = GENERATORS[5], saved(GenWarp.Refiner(), target, tmp_path / "mine.pth")
    monkeypatch.setattr(paths, "DANCE", tmp_path)
    monkeypatch.setattr(GenWarp, "CHECKPOINT", weights)
    assert type(entry.make(target)) is LimbWarp and "GenWarp.py" in capsys.readouterr().err
    assert type(entry.make(target, weights)) is GenWarp.GenWarp
    other = VideoSkeleton(target.path, target.folder)
    other.content = "another video"
    shutil.copy(weights, entry.weights)
    assert type(entry.make(other)) is LimbWarp and "another target" in capsys.readouterr().err
    assert type(entry.make(target)) is GenWarp.GenWarp and capsys.readouterr().err == ""
