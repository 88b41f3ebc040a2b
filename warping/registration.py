"""Registration of a target's frames with each other: it finds by how much the detector has put each joint aside.

In every frame the detector is some pixels wrong, and half a second later it is wrong in another way. Limbs that are
carried by such joints arrive aside of where they should, so the picture wobbles and frames don't fit together. The
pictures themselves know better. Frame number i is carried to the pose of frame number j, and the optical flow
(video/flow.py) tells how far the result lies from the real frame j. If error(j) is by how much the detector was wrong
in frame j, this is error(j) - error(i) at each joint. Each frame is compared with several others in which the person
has nearly the same pose, and the errors are what agrees best with all these differences: weighted least squares with a
penalty for long errors, as in the averaging of motions between many views (Govindu, CVPR 2001). Without the penalty,
poses would drift away from those that the detector finds in a source.

An error that all frames of a pose have in common can't be seen in this way. It does no harm, because the pose that is
asked for was found by the same detector. Where loose clothes or blur mislead the flow, the differences don't agree. So
a part of them is set aside, and a joint is only corrected if the errors that the others tell are right about that part.
"""

import copy

import cv2
import numpy as np
from scipy.sparse import coo_array, eye_array
from scipy.sparse.linalg import spsolve
from scipy.spatial import cKDTree
from tqdm import tqdm

from common.command_line import warn
from common.files import atomic_write, file_lock
from motion.body import body_lengths
from picture.parts import CHAINS
from video.flow import EXACT, flow_around
from warping.limb_warp import LimbWarp
from warping.retrieval import UNDER, shapes

# Landmarks that are moved together, because each of them alone shows too little.
GROUPS = ((*range(11),), (11,), (12,), (13,), (14,), (15, 17, 19, 21), (16, 18, 20, 22), (23,), (24,), (25,), (26,),
          (27, 29), (28, 30), (31,), (32,))
SIZE = 320  # pixels of the pictures that are compared
PARTNERS = 4  # frames with which each frame is compared
NEIGHBOURS = 64  # frames among which these are looked for, by how much their poses are alike
APART = 0.4  # seconds between two frames that are compared: nearer ones have the same errors
BETWEEN = 0.1  # seconds between two partners of a frame: nearer ones tell the same
MOST = 900  # frames that are compared: of a longer video, every second one, or every third...
REACH = 0.035  # body heights around a joint, as a standard deviation, in which the flow is averaged
REPEATS = 4  # of the least squares, each with less weight for moves that don't agree
OUTLIER = 0.008  # canvas units: a difference that is so far from what the others say counts half
CHECKED = 5  # every fifth difference is set aside for the check
LEAST_AGREEMENT = 0.1  # of 1: share of these differences that the errors must tell
PENALTY = 0.3  # weight of an error of length 0, where the flow at a well visible joint has about 1
GREY = 128  # level of the background behind both


def registered(target, count):
    """A copy of the `target` (a VideoSkeleton) in which the joints of the first `count` frames are corrected. These
    frames alone are compared; with no such frames, nothing is corrected. What is found is stored in the target's cache,
    so that it is found once. Raises UserError for a full disk."""
    if not count:
        return target
    corrected, errors = copy.copy(target), _stored(target, min(count, len(target)))
    corrected.joints = target.joints.copy()
    for number, group in enumerate(GROUPS):
        corrected.joints[:len(errors), group, :2] -= errors[:, None, number]
    return corrected


def _stored(target, count):
    """What `find_errors` tells of the first `count` frames of the target: read from its cache, or found now."""
    path, shape = target.folder / f"registration-{count}.npy", (count, len(GROUPS), 2)
    with file_lock(path, "registering", wait=True):
        if path.exists():
            try:
                errors = np.load(path, allow_pickle=False)
                if errors.shape != shape or not np.isfinite(errors).all():
                    raise ValueError
                return errors
            except (EOFError, OSError, TypeError, ValueError):  # numpy's, for a file that is cut off or something else
                warn(f"{path} is damaged; it is made anew")
        errors = find_errors(target.first(count))
        with atomic_write(path) as part:
            np.save(part, errors)
    return errors


def find_errors(target):
    """float32 (N, len(GROUPS), 2): by how much the detector was wrong in each frame of a target (VideoSkeleton), in
    canvas units, x to the right and y down; 0 where nothing is known."""
    chosen = np.arange(0, len(target), -(-len(target) // MOST))
    pairs = partners(target.joints, target.seconds, chosen)
    if not len(pairs):
        return np.zeros((len(target), len(GROUPS), 2), np.float32)
    warp = LimbWarp(target, SIZE, MOST)
    measured = [_compare(target, warp, *pair) for pair in tqdm(pairs, desc="registering frames", unit="pair")]
    moves, weights = (np.array(each) for each in zip(*measured, strict=True))
    errors = np.zeros((len(target), len(GROUPS), 2), np.float32)
    for group in range(len(GROUPS)):
        known = pairs, moves[:, group], weights[:, group], len(target)
        if agreement(*known) >= LEAST_AGREEMENT:
            errors[:, group] = agree(*known)
    return errors


def partners(joints, seconds, chosen):
    """int (P, 2): pairs (i, j) of the frames `chosen` (numbers of poses (N, 33, 3), at these seconds (N,)) that are
    compared, PARTNERS for each j where there are so many."""
    heights = np.maximum(body_lengths(joints), 1e-6)
    known = np.concatenate([shapes(joints, chain, heights) for chain in CHAINS], 1)[chosen]
    alike = cKDTree(known).query(known, np.arange(1, min(NEIGHBOURS, len(chosen)) + 1))[1]
    pairs = []
    for frame, others in zip(chosen, chosen[alike], strict=True):
        taken = []
        for other in others[np.abs(seconds[others] - seconds[frame]) >= APART]:
            if all(abs(seconds[other] - seconds[one]) >= BETWEEN for one in taken):
                taken.append(other)
        pairs += [(other, frame) for other in taken[:PARTNERS]]
    return np.array(pairs).reshape(-1, 2)


def _compare(target, warp, start, goal):
    """(moves (G, 2) in canvas units, weights (G,)) for the G GROUPS: how far frame `start`, carried to the pose of
    frame `goal` by the LimbWarp, lies from the real frame, and how sure this is."""
    joints, (image, matte, corner) = target.joints[goal], target.person(goal)
    mask = target.on_canvas(matte, corner, SIZE)
    real = _on_grey(target.on_canvas(image, corner, SIZE), mask)
    picture, cover, _ = warp.draw(joints, dict.fromkeys((*CHAINS, UNDER), int(start)))
    cover = (cv2.resize(cover, (SIZE, SIZE)) * 255).astype(np.uint8)
    made = _on_grey(picture, cover)
    points = [joints[group, :2].mean(0) * SIZE for group in GROUPS]
    share = np.maximum(mask, cover) / np.float32(255)
    moves, sure = flow_around(real, made, share, points, REACH * warp.height * SIZE, EXACT)
    return moves / SIZE, sure


def _on_grey(image, mask):
    """uint8 S x S: the person of an image (uint8 S x S x 3 BGR) and her mask (uint8 S x S), grey, before GREY."""
    share = mask.astype(np.float32) / 255
    return cv2.cvtColor(cv2.blendLinear(image, np.full_like(image, GREY), share, 1 - share), cv2.COLOR_BGR2GRAY)


def agreement(pairs, moves, weights, count):
    """float, at most 1: which share of the moves that are set aside is told by the errors that the others give; 0 or
    less where they tell nothing. The arguments are those of `agree`."""
    aside = np.arange(len(pairs)) % CHECKED == 0
    errors = agree(pairs[~aside], moves[~aside], weights[~aside], count)
    start, goal = pairs[aside].T
    left, all_of_it = ((weights[aside] * (each ** 2).sum(1)).sum() for each in (
        moves[aside] - errors[goal] + errors[start], moves[aside]))
    return 1 - left / max(all_of_it, 1e-12)


def agree(pairs, moves, weights, count):
    """float (count, 2): the errors whose differences, error(j) - error(i), agree best with the moves (P, 2) of the
    pairs (i, j), int (P, 2), with these weights (P,). A few moves that are far away hardly count. A frame without a
    pair has no error."""
    start, goal = pairs.T
    rows, columns = np.concatenate([start, goal, start, goal]), np.concatenate([start, goal, goal, start])
    errors, trust = np.zeros((count, 2)), np.ones(len(pairs))
    for _ in range(REPEATS):
        weight = weights * trust
        matrix = coo_array((np.concatenate([weight, weight, -weight, -weight]), (rows, columns)), (count, count))
        pulled = np.zeros_like(errors)
        np.add.at(pulled, goal, weight[:, None] * moves)
        np.subtract.at(pulled, start, weight[:, None] * moves)
        errors = spsolve((matrix + PENALTY * eye_array(count)).tocsc(), pulled)
        trust = 1 / (1 + (np.linalg.norm(moves - errors[goal] + errors[start], axis=1) / OUTLIER) ** 2)
    return errors
