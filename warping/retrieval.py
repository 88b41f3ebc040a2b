"""Retrieval for limb warping: for each part of the body, which frame of the target shows it most alike.

The body is divided into six chains. All of them come from one frame, except where a chain fits so much better in
another one that it is worth its price: parts of one frame have one light and belong together. The frames change little
in time, in the line of Video-based Characters (Xu et al., SIGGRAPH 2011).
"""

import numpy as np
from scipy.spatial import cKDTree

from motion.body import landmark_point
from picture.parts import CHAINS, distance_to_segment
from Skeleton import HIPS, NOSE, SHOULDERS

OTHER_SIDE = {"left arm": "right arm", "right arm": "left arm", "left leg": "right leg", "right leg": "left leg"}
# The shape of a chain: vectors (to landmark, from landmark, weight). A pair stands for the point between two landmarks.
SHAPES = {
    "torso": [(11, HIPS, 1), (12, HIPS, 1), (23, HIPS, 1), (24, HIPS, 1)],
    "head": [(NOSE, SHOULDERS, 0.7), (7, NOSE, 1.4), (8, NOSE, 1.4), (7, 8, 1.4), (11, 12, 0.35)],
    "left arm": [(13, 11, 1), (15, 13, 1), (19, 15, 1), (11, SHOULDERS, 0.7)],
    "right arm": [(14, 12, 1), (16, 14, 1), (20, 16, 1), (12, SHOULDERS, 0.7)],
    "left leg": [(25, 23, 1), (27, 25, 1), (31, 27, 1), (23, HIPS, 0.7)],
    "right leg": [(26, 24, 1), (28, 26, 1), (32, 28, 1), (24, HIPS, 0.7)],
}
DEPTH = 0.35  # weight of z in a shape, because the detector is less sure of it
CANDIDATES = 64  # frames that are considered for a chain in each pose
ALIKE = 6  # in training, frames are taken from this many most similar ones, at random
# Cost of a chain that comes from another frame than the torso. Hems, skirts and trousers cover parts of both the torso
# and the legs, so a seam between them is easily seen. Arms and head have narrow joints, and their poses vary most.
UNDER = "under"  # beside the chains: what torso and legs look like behind the arms
PRICE = {"head": 0.001, "left arm": 0.001, "right arm": 0.001, "left leg": 0.015, "right leg": 0.015}
CONTINUITY = 0.3  # cost of a change of the shape's error from one pose to the next
SWITCH = 0.006  # cost of going on with another frame than the one that follows in the video
OVERLAP = 0.05  # cost, as a squared error of a shape, of one body height of overlap with other limbs
# Cost of a chain that comes from a mirrored frame. Clothes differ from left to right, so beside a torso that is not
# mirrored, a mirrored arm shows the wrong sleeve.
MIRROR = dict.fromkeys(CHAINS, 0.002) | {"left arm": 0.006, "right arm": 0.006}
UNDER_CHAINS = ("torso", "left leg", "right leg")  # their shapes are compared to find the frame UNDER
UNDER_OVERLAP = 1.0  # cost as OVERLAP, for the frame UNDER, whose arms should be away from the body
DOUBT = 0.1  # cost of a joint of a chain that the detector did not see at all
SURE = 0.9  # visibility from which a joint is not in doubt
# Joints of which the detector must be sure. The torso's picture shows an arm that was found elsewhere by error.
DOUBTED = {"torso": (13, 14, 15, 16), "head": (), "left arm": (13, 15), "right arm": (14, 16), "left leg": (25, 27),
           "right leg": (26, 28)}
BLUR = dict.fromkeys(CHAINS, 0.003) | {"head": 0.006}  # cost of a chain that shows nothing but blur; faces matter most
# Cost of a chain that is wholly transparent, as a hand that the matte has lost. A head never is; its bone ends at the
# nose, which lies at the matte's edge in a profile.
GHOST = dict.fromkeys(CHAINS, 0.1) | {"head": 0}
COMPARED = 40  # frames with which a frame's sharpness and opacity are compared
BEST = 80  # percentile of theirs that counts as sharp and opaque
NEAR = 0.13  # body heights: limbs that are nearer to each other than this overlap in the picture
ARM_JOINTS = (13, 14, 15, 16, 19, 20)  # elbows, wrists and index fingers


def described(target, joints, heights):
    """{chain or UNDER: float (2 N, D)}: by what the frames of `target` (a VideoSkeleton of N frames) are chosen.
    joints: (2 N, 33, 3), its poses and the same mirrored; heights: (2 N,), of the body there. Beside its shape, a chain
    is known by how much other limbs overlap it, by how unclear it is, by doubt, and by whether it is mirrored."""
    known = {}
    for chain in CHAINS:
        own, overlaps = shapes(joints, chain, heights), np.sqrt(OVERLAP * overlap(joints, chain, heights))
        known[chain] = np.column_stack([own, overlaps, _unclear(target, chain, own), _doubt(target, chain),
                                        np.repeat([0, np.sqrt(MIRROR[chain])], len(target))])
    overlaps = np.sqrt(UNDER_OVERLAP * overlap(joints, "torso", heights))
    under = [known[chain][:, :-4] for chain in UNDER_CHAINS]
    return known | {UNDER: np.column_stack([*under, overlaps, known["torso"][:, -3:]])}


def asked(joints, height):
    """{chain or UNDER: float (M, D)}: the same of what is looked for, poses (M, 33, 3) of a body of this height. No
    blur, no doubt and no mirror are wanted, and nothing that overlaps the frame UNDER."""
    shown, nothing = {chain: shapes(joints, chain, height) for chain in CHAINS}, np.zeros((len(joints), 4))
    return {chain: np.column_stack([own, np.sqrt(OVERLAP * overlap(joints, chain, height)), nothing[:, 1:]])
            for chain, own in shown.items()} | {
                UNDER: np.column_stack([*(shown[chain] for chain in UNDER_CHAINS), nothing])}


def _both_sides(values, chain, numbers):
    """Columns of values of a target's frames, and below them those of the frames in the mirror, where the left arm is
    the right arm of the frame. numbers: {chain: which columns}."""
    return np.concatenate([values[:, numbers[name]] for name in (chain, OTHER_SIDE.get(chain, chain))])


def _unclear(target, chain, own):
    """(2 N,): the square root of what a chain's blur and transparency cost in each frame of the target. A frame is
    compared with those in which the chain's shape (2 N, D) is alike, because cloth is not as sharp as a face, and some
    hands always leave the picture; a head is compared with all, because in a quick turn all frames are blurred."""
    cost, columns = 0, {name: number for number, name in enumerate(CHAINS)}
    _, alike = cKDTree(own).query(own, np.arange(1, min(COMPARED, len(own)) + 1))
    for measured, most in ((target.sharpness, BLUR[chain]), (target.opacity, GHOST[chain])):
        values = _both_sides(measured, chain, columns)
        best = np.percentile(values, BEST) if chain == "head" else np.percentile(values[alike], BEST, axis=1)
        cost = cost + most * np.clip(1 - values / np.maximum(best, 1e-6), 0, 1) ** 2
    return np.sqrt(cost)


def _doubt(target, chain):
    """(2 N,): the square root of what the detector's doubt about a chain costs in each frame of the target."""
    seen = _both_sides(target.visibility, chain, DOUBTED)
    return np.sqrt(DOUBT * (np.clip(SURE - seen, 0, 1) ** 2).sum(1))


def shapes(joints, chain, height):
    """float (N, D): the shape of a chain in each pose of a track (N, 33, 3), in body heights; where the chain is in the
    picture does not change it. height: of the body, a number or (N,)."""
    parts = [(landmark_point(joints, tip) - landmark_point(joints, root)) * np.float32([1, 1, DEPTH]) * weight
             for tip, root, weight in SHAPES[chain]]
    return np.concatenate(parts, -1) / np.reshape(height, (-1, 1))


def overlap(joints, chain, height):
    """(N,): how much other limbs overlap a chain in each pose of a track (N, 33, 3), from 0 up. Where they do, not all
    pixels there belong to the chain."""
    top, bottom = landmark_point(joints, SHOULDERS)[:, :2], landmark_point(joints, HIPS)[:, :2]

    def nearness(distance):
        return np.clip(NEAR - distance / height, 0, None)

    def apart(one, other):
        return np.linalg.norm(joints[:, one, :2] - joints[:, other, :2], axis=1)

    on_torso = {joint: nearness(distance_to_segment(joints[:, joint, :2], top, bottom)) for joint in ARM_JOINTS}
    if chain == "torso":  # fingers often lie on the hips
        return sum(on_torso.values()) + sum(nearness(apart(finger, hip)) for finger in (19, 20) for hip in HIPS)
    if chain == "head":
        return sum(nearness(apart(joint, NOSE)) for joint in ARM_JOINTS)
    if "arm" in chain:
        elbow, wrist = (13, 15) if chain == "left arm" else (14, 16)
        return on_torso[elbow] + on_torso[wrist] + nearness(apart(wrist, NOSE)) + nearness(apart(15, 16))
    return np.zeros(len(joints))


class FrameChooser:
    """Chooses the frames for one chain. known: float (frames, D), the shape of the chain in each frame of the target.

    The cost of a sequence of frames is the sum of its squared errors, of CONTINUITY times the squared changes of the
    error, of SWITCH for each jump to another frame, and of what else a frame may cost. Only some candidate frames of
    each pose, and the ones that go on from the pose before, are considered.
    """

    def __init__(self, known):
        self.known, self._tree = known, cKDTree(known)
        self.forget()

    def forget(self):
        """The next pose need not go on from the one before."""
        # Of the last pose: its candidate frames (K,), their errors (K, D), and the costs of the paths to them (K,).
        self._last = None

    def nearest(self, wanted):
        """(squared errors, frames), each (K,): the CANDIDATES frames that are most like a shape (D,)."""
        away, frames = self._tree.query(wanted, np.arange(1, min(CANDIDATES, len(self.known)) + 1))
        return away ** 2, frames

    def path(self, steps):
        """int (M,): the cheapest sequence of frames for a whole shot (Viterbi 1967). steps: of each pose its shape
        (D,), its candidates and the function of their cost, as `step` takes them."""
        self.forget()
        rows = []  # for each pose: the candidates (K,), and for each of them which candidate came before it (K,)
        for step in steps:
            before = self.step(*step)
            rows.append((self._last[0].astype(np.int32), before.astype(np.int16)))
        best, frames = int(self._last[2].argmin()), []
        for candidates, before in reversed(rows):
            frames.append(candidates[best])
            best = before[best]
        self.forget()
        return np.array(frames[::-1])

    def choose(self, wanted, candidates, cost):
        """The frame for one more pose, without knowing what comes: it goes on from what was chosen before."""
        self.step(wanted, candidates, cost)
        frames, errors, costs = self._last
        best = int(costs.argmin())
        self._last = frames[[best]], errors[[best]], costs[[best]]
        return int(frames[best])

    def step(self, wanted, candidates, cost):
        """Go on to the next shape (D,). candidates: int (K,) frames; cost: a function from frames (K,) to what they
        cost beside their error (K,). Returns for each candidate the number of the candidate before it."""
        if self._last is None:
            near, before = candidates, np.zeros(len(candidates), int)
            errors = self.known[near] - wanted
            costs = (errors ** 2).sum(1) + cost(near)
        else:
            frames, old, old_cost = self._last
            best = frames[old_cost.argmin()]
            near = np.append(candidates, [best, min(best + 1, len(self.known) - 1)])
            errors = self.known[near] - wanted
            own = (errors ** 2).sum(1)
            change = own[:, None] + (old ** 2).sum(1) - 2 * errors @ old.T  # |a - b|^2 of every pair
            switched = (near[:, None] != frames) & (near[:, None] != frames + 1)
            total = old_cost + CONTINUITY * change + SWITCH * switched
            before = total.argmin(1)
            costs = total.min(1) + own + cost(near)
        self._last = near, errors, costs - costs.min()  # only differences count, the sum must not grow without end
        return before


class BodyChooser:
    """Chooses the frames of all chains, and of UNDER. known: {chain: float (frames, D)}, as FrameChooser takes them.

    The body is a tree whose root is the torso. First the torso's frames are chosen; each other chain adds to a frame's
    cost its own error there or, if this is less, its least error in any frame and its PRICE. Then the frames of each
    other chain are chosen, where a frame that is not the torso's costs its PRICE. Each of these choices is the cheapest
    one for the whole shot among its candidates. The frames of UNDER have no price.
    """

    def __init__(self, known):
        self._choosers = {chain: FrameChooser(values) for chain, values in known.items()}
        # To find frames of bodies that are alike.
        self._whole = cKDTree(np.concatenate([known[chain] for chain in CHAINS], 1))

    def forget(self):
        """The next pose need not go on from the one before."""
        for chooser in self._choosers.values():
            chooser.forget()

    def plan(self, wanted):
        """{chain: int (M,)}: frames for a whole shot. wanted: {chain: float (M, D)}, the shapes of its poses."""
        poses = [dict(zip(wanted, shapes, strict=True)) for shapes in zip(*wanted.values(), strict=True)]
        nearest = [self._nearest(pose) for pose in poses]
        chosen = {"torso": self._choosers["torso"].path(self._root_step(*each) for each in zip(poses, nearest,
                                                                                              strict=True))}
        for chain in CHAINS[1:]:
            steps = (_limb_step(chain, pose[chain], near[chain], root)
                     for pose, near, root in zip(poses, nearest, chosen["torso"], strict=True))
            chosen[chain] = self._choosers[chain].path(steps)
        steps = ((pose[UNDER], near[UNDER][1], _free) for pose, near in zip(poses, nearest, strict=True))
        return chosen | {UNDER: self._choosers[UNDER].path(steps)}

    def choose(self, wanted):
        """{chain: frame} for one more pose, whose shapes are {chain: (D,)}."""
        nearest = self._nearest(wanted)
        chosen = {"torso": self._choosers["torso"].choose(*self._root_step(wanted, nearest))}
        for chain in CHAINS[1:]:
            step = _limb_step(chain, wanted[chain], nearest[chain], chosen["torso"])
            chosen[chain] = self._choosers[chain].choose(*step)
        return chosen | {UNDER: self._choosers[UNDER].choose(wanted[UNDER], nearest[UNDER][1], _free)}

    def some(self, wanted, allowed, rng):
        """{chain: frame} for one pose by the same costs, at random among the ALIKE cheapest frames. allowed: bool
        (frames,), which frames may be chosen; rng: a numpy Generator."""
        errors = {chain: np.where(allowed, ((chooser.known - wanted[chain]) ** 2).sum(1), np.inf)
                  for chain, chooser in self._choosers.items()}
        elsewhere = {chain: PRICE[chain] + errors[chain].min() for chain in CHAINS[1:]}

        def pick(costs):
            return int(costs.argsort()[rng.integers(min(ALIKE, allowed.sum()))])

        torso = pick(errors["torso"] + sum(np.minimum(errors[chain], elsewhere[chain]) for chain in CHAINS[1:]))
        return {"torso": torso, UNDER: pick(errors[UNDER])} | {
            chain: torso if errors[chain][torso] <= elsewhere[chain] else pick(errors[chain]) for chain in CHAINS[1:]}

    def _nearest(self, wanted):
        """{chain: (squared errors, frames)} of a pose, as FrameChooser.nearest gives them."""
        return {chain: chooser.nearest(wanted[chain]) for chain, chooser in self._choosers.items()}

    def _root_step(self, wanted, nearest):
        """The step (see FrameChooser.path) of the torso for a pose, by what `_nearest` gives."""
        whole = np.concatenate([wanted[chain] for chain in CHAINS])
        alike = self._whole.query(whole, np.arange(1, min(CANDIDATES, self._whole.n) + 1))[1]

        def cost(frames):
            return sum(np.minimum(((self._choosers[chain].known[frames] - wanted[chain]) ** 2).sum(1),
                                  PRICE[chain] + nearest[chain][0][0]) for chain in CHAINS[1:])

        return wanted["torso"], np.concatenate([nearest["torso"][1], alike]), cost


def _free(frames):
    """No cost for any of the frames (K,)."""
    return np.zeros(len(frames))


def _limb_step(chain, wanted, nearest, root):
    """The step of another `chain`: its shape (D,), what FrameChooser.nearest gives for it, and the torso's frame."""
    return wanted, np.append(nearest[1], root), lambda frames: PRICE[chain] * (frames != root)
