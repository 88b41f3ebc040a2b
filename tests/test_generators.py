"""The generators: exact nearest neighbour, one contract for all, and networks that learn."""

import importlib
import itertools

import numpy as np
import pytest
import torch
from conftest import random_skeleton, track_of

import GenGAN
import GenVanillaNN
from common.command_line import UserError
from dancing.generators import GENERATORS
from GenNearest import GenNearest, NearestSkeleton, plan_sequence
from learning.checkpoint import NetworkConfig
from learning.dataset import PoseDataset, normalise, pose_input, to_image, to_tensor
from picture.canvas import Generator, resize
from Skeleton import Skeleton
from VideoSkeleton import VideoSkeleton


def brute_force(vectors, query):
    return int(((vectors.astype(np.float64) - query.astype(np.float64)) ** 2).sum(1).argmin())


@pytest.mark.parametrize("values", [26, 99])
def test_nearest_equals_brute_force(values):
    rng = np.random.default_rng(values)
    for spread in (1, 3, 1e6):  # few distinct values give many ties
        vectors = rng.integers(0, 1 + spread, (3000, values)).astype(np.float32)
        vectors = np.concatenate([vectors, vectors[::-1]])  # every vector twice: the lower index must win
        nearest = NearestSkeleton(vectors)
        for query in [*vectors[::997], *rng.integers(0, 1 + spread, (60, values)).astype(np.float32)]:
            assert nearest.query(query) == brute_force(vectors, query)


def test_nearest_on_real_poses_returns_the_frame(target):
    generator = GenNearest(target)
    rng = np.random.default_rng(0)
    for index in range(0, len(target), 5):
        noisy = Skeleton(target.joints[index] + rng.normal(0, 0.02, (33, 3)), target.visibility[index])
        expected = brute_force(target.reduced, noisy.reduced)
        assert np.array_equal(generator.generate(noisy), target.image(expected))
        assert np.array_equal(generator.generate(target.skeleton(index)), target.image(index))


def test_planned_sequences_are_the_best_of_all():
    """Against every sequence, tried one by one."""
    rng = np.random.default_rng(0)
    vectors, wanted = rng.normal(size=(5, 4)), rng.normal(size=(6, 4))
    candidates = np.tile(np.arange(5), (6, 1))
    for continuity in (0.0, 0.3, 3.0, 100.0):
        def cost(path, continuity=continuity):
            errors = vectors[list(path)] - wanted
            return (errors ** 2).sum() + continuity * (np.diff(errors, axis=0) ** 2).sum()

        best = min(itertools.product(range(5), repeat=6), key=cost)
        assert tuple(plan_sequence(vectors, wanted, candidates, continuity)) == best


def test_continuity_calms_the_nearest_frames_and_none_changes_nothing(target):
    share = np.linspace(0, 1, 30)[:, None, None]
    line = [Skeleton(joints, np.ones(33)) for joints in target.joints[5] * (1 - share) + target.joints[35] * share]
    images = [target.image(index) for index in range(len(target))]

    def find(shown):
        return next(index for index, image in enumerate(images) if np.array_equal(image, shown))

    errors = []
    for continuity in (0.0, 1e-12, 20.0):
        generator = GenNearest(target, continuity=continuity)
        generator.prepare(track_of([*line, None], cuts=[10] if continuity < 1 else []))
        shown = [find(generator.generate(skeleton)) for skeleton in line]
        errors.append(target.reduced[shown] - np.stack([s.reduced for s in line]))
        assert np.array_equal(generator.generate(target.skeleton(3)), images[3])  # it was not announced
    changes = [(np.diff(error, axis=0) ** 2).sum() for error in errors]
    assert changes[0] == changes[1] > 1.2 * changes[2]


def test_image_and_tensor_are_exact_inverses():
    image = np.arange(256, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(3, 2)
    image[:, :, 1] = image[::-1, :, 1]
    image[:, :, 2] //= 3
    tensor = to_tensor(image)
    assert tensor.shape == (3, 256, 4) and tensor.min() == -1 and tensor.max() == 1
    assert torch.equal(tensor[0], normalise(torch.from_numpy(image[:, :, 2].copy())))  # RGB from BGR
    assert np.array_equal(to_image(tensor), image)
    assert to_image(torch.full((3, 1, 1), 7.0)).tolist() == [[[255] * 3]]  # clipped, not wrapped


def test_dataset_and_generate_see_the_same_input_and_the_split_is_in_time(target):
    for kind, shape in (("reduced", (26,)), ("full", (99,)), ("image", (3, 64, 64))):
        dataset = PoseDataset(target, kind, 64)
        pose, image = dataset[7]
        assert pose.shape == shape and pose.dtype == torch.float32 and pose.abs().max() <= 4
        assert torch.equal(pose, pose_input(target.skeleton(7), kind, 64))
        assert image.shape == (4, 64, 64) and image.dtype == torch.uint8
        assert np.array_equal(image[3].numpy(), resize(target.mask(7), 64))
    training, held_out = dataset.split()
    assert [*training.indices, *held_out.indices] == list(range(40)) and len(held_out) == 4


@pytest.mark.parametrize("gen_type", [1, 2, 3, 4, 5])
def test_contract(gen_type, target, weights):
    """uint8 BGR images of the canvas's size; the same calls give the same images; the input is left as it was."""
    make = GENERATORS[gen_type].make
    rng = np.random.default_rng(gen_type)
    skeletons = [target.skeleton(3), random_skeleton(rng), target.skeleton(3)]
    before = [s.joints.copy() for s in skeletons]
    runs = []
    for _ in range(2):
        generator = make(target, weights.get(gen_type))
        runs.append([generator.generate(s) for s in skeletons])
    generator.prepare(track_of([skeletons[1], None, skeletons[0]]))
    image, mask = generator.generate(skeletons[0]), generator.mask
    assert np.array_equal(image, runs[0][0]) or gen_type == 5  # the plan of a whole shot may choose other frames
    assert mask is None if gen_type == 1 else mask.shape == image.shape[:2] and mask.dtype == np.uint8
    for image in runs[0]:
        assert image.shape == (target.size, target.size, 3) and image.dtype == np.uint8
    assert all(np.array_equal(a, b) for a, b in zip(*runs, strict=True))
    if gen_type < 5:  # it goes on from what it showed last
        assert np.array_equal(runs[0][0], runs[0][2])
    assert not np.array_equal(runs[0][0], runs[0][1])
    assert all(np.array_equal(s.joints, b) for s, b in zip(skeletons, before, strict=True))


@pytest.mark.parametrize("gen_type, script", [(2, "GenVanillaNN.py --input ske"), (3, "GenVanillaNN.py"),
                                              (4, "GenGAN.py"), (5, "GenWarp.py")])
def test_missing_foreign_and_mistaken_weights_are_refused_with_the_command(gen_type, script, target, weights, tmp_path):
    make = GENERATORS[gen_type].make
    command = rf"python {script} --checkpoint .*\.pth --target '.*a person\.mp4'"
    with pytest.raises(UserError, match=f"no trained weights.*{command}"):
        make(target, tmp_path / "none.pth")
    other = VideoSkeleton(target.path, target.folder)
    other.content = "another video"
    with pytest.raises(UserError, match=f"another target.*{command}"):
        make(other, weights[gen_type])
    with pytest.raises(UserError, match="train"):
        make(target, weights[{2: 3, 3: 4, 4: 5, 5: 2}[gen_type]])


@pytest.mark.parametrize("gen_type", list(GENERATORS))
def test_the_table_agrees_with_the_modules(gen_type):
    entry = GENERATORS[gen_type]
    module = importlib.import_module(entry.module)
    assert issubclass(getattr(module, entry.class_name), Generator) and entry.number == gen_type
    assert entry.works_untrained == (gen_type in (1, 5))
    if entry.trainer:
        defaults = {"ske": "GenVanillaFromSke", "skeim": "GenVanillaFromSkeim"}
        checkpoint = module.CHECKPOINTS[entry.arguments[0]] if entry.arguments else module.CHECKPOINT
        assert entry.weights == checkpoint and (not entry.arguments or defaults[entry.arguments[0]] == entry.name)
        assert entry.trainer[0] == f"{entry.module}.py" and getattr(module, entry.class_name).name == entry.network


@pytest.mark.parametrize("pose, shape, size", [("reduced", (26,), 64), ("full", (99,), 128), ("image", (3, 64, 64), 64),
                                               ("image", (3, 256, 256), 256)])
def test_networks_give_images_in_range(pose, shape, size):
    network = GenVanillaNN.build(NetworkConfig(pose, size))
    image = network(torch.randn(2, *shape))
    assert image.shape == (2, GenVanillaNN.PLANES, size, size) and image.abs().max() <= 1


@pytest.mark.parametrize("kind", ["reduced", "image"])
def test_a_network_overfits_one_pair(target, kind):
    torch.manual_seed(0)
    network = GenVanillaNN.build(NetworkConfig(kind, 64))
    pose, image = PoseDataset(target, kind, 64)[0]
    poses, images = torch.stack([pose, pose]), normalise(torch.stack([image, image]))
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(150):
        loss = GenVanillaNN.image_loss(network(poses), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.01 < ((images - images.mean()) ** 2).mean()


def test_discriminator_sees_the_skeleton_and_the_image():
    discriminator = GenGAN.Discriminator(64)
    pose, image = torch.randn(2, 3, 64, 64, requires_grad=True), torch.randn(2, 3, 64, 64, requires_grad=True)
    logits = discriminator(pose, image)
    assert logits.shape[1] == 1 and logits[0].numel() > 9  # patches, not one verdict
    logits[0, 0, 0, 0].backward()
    for seen in (pose.grad, image.grad):
        assert seen[0, :, :8, :8].abs().sum() > 0
    assert discriminator.eval()(pose, image)[0, 0, 0, 0] != discriminator(pose + 1, image)[0, 0, 0, 0]


def test_losses_have_known_values():
    unsure, sure = torch.zeros(2, 1, 5, 5), torch.full((2, 1, 5, 5), 20.0)
    assert GenGAN.discriminator_loss(unsure, unsure) == pytest.approx(np.log(2), rel=1e-6)
    assert GenGAN.discriminator_loss(sure, -sure) < 1e-6 < 10 < GenGAN.discriminator_loss(-sure, sure)
    assert GenGAN.adversarial_loss(sure) < 1e-6 and GenGAN.adversarial_loss(-sure) == pytest.approx(20, rel=1e-3)
    a, b = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    assert GenGAN.image_loss(a, b) == 0.5 and GenVanillaNN.image_loss(a, b) == 0.25
