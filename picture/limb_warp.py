"""Limb-wise warping: each limb comes from the frame of the target where it looked most alike, carried to its place.

The body has six chains (torso, head, arms, legs) of twelve parts. For each chain the frames are retrieved in which its
shape is most alike (retrieval.py). Each part is carried by an affine map from its bone in that frame to its bone in the
pose that is asked for, and drawn, far to near, over the background. Every pixel is a real one, so the picture is sharp;
every limb goes where it is asked to go, so it moves smoothly. In the line of Video-based Characters (Xu et al.,
SIGGRAPH 2011: coherent retrieval, then warping) and of Balakrishnan et al. (CVPR 2018: a warp for each limb, over a
background). Nothing is learned here: GenWarp.py, GEN_TYPE 5, refines the result.
"""

from collections import OrderedDict

import cv2
import numpy as np
from scipy.ndimage import percentile_filter
from tqdm import tqdm

from motion.body import body_height, body_lengths, landmark_point
from picture.canvas import crop, resize
from picture.generator import Generator
from picture.retrieval import CHAINS, FrameChooser, distance_to_segment, overlap, shapes
from Skeleton import HIPS, NOSE, SHOULDERS

# Each part's bone (a pair stands for the point between two landmarks) and its radius in body heights.
PARTS = {
    "torso": (SHOULDERS, HIPS, 0.13), "head": (SHOULDERS, NOSE, 0.10),
    "left upper arm": (11, 13, 0.055), "left forearm": (13, 15, 0.045),
    "right upper arm": (12, 14, 0.055), "right forearm": (14, 16, 0.045),
    "left thigh": (23, 25, 0.075), "left shin": (25, 27, 0.055), "left foot": (27, 31, 0.04),
    "right thigh": (24, 26, 0.075), "right shin": (26, 28, 0.055), "right foot": (28, 32, 0.04),
}
PARTS_OF = {
    "torso": ["torso"], "head": ["head"],
    "left arm": ["left upper arm", "left forearm"], "right arm": ["right upper arm", "right forearm"],
    "left leg": ["left thigh", "left shin", "left foot"], "right leg": ["right thigh", "right shin", "right foot"],
}
OVERLAP = 0.3  # cost, as a squared error of a shape, of one body height of overlap with other limbs
ZOOM = 80  # percentile of the body's lengths that tells its height in a frame: it grows as the camera zooms in
NEARBY = 2.0  # seconds before and after a frame over which that percentile is taken
LABELS = 128  # pixels of a part's mask, which is enlarged when it is drawn
SHARED = 0.35  # radii by which a part goes on below its neighbour
REACH = 2.4  # radii from the bone at which a part ends
SOLID = (0.35, 0.65)  # values of a mask between which a part goes from invisible to opaque
LENGTHEN = (0.6, 1.5)  # least and most stretch of a part along its bone, beside the change of the body's height
WIDEN = (0.9, 1.1)  # least and most stretch across the bone
SCALE = (0.8, 1.25)  # least and most scale of head and torso as a whole
MASK_MARGIN = 5  # pixels by which the person's mask is grown, so that it holds all soft edges
KEPT = 64  # frames whose parts stay in memory, 0.9 MB each at 512 pixels


class LimbWarp(Generator):
    """Draws a target (a VideoSkeleton) limb by limb.

    size: pixels of the image, by default those of the canvas. kept: how many frames of the target stay in memory.
    `prepare` plans whole shots. A skeleton that was not announced goes on from the one that was drawn before it.
    """

    def __init__(self, target, size=None, kept=KEPT):
        self._target, self.size, self._most = target, size or target.size, kept
        self.plate = resize(crop(target.plate, target.box, target.size), self.size)
        self._height = body_height(target.joints)  # of the skeletons that are asked for
        # The body's height in each frame of the target, which changes as the person comes closer or the camera zooms.
        self._heights = percentile_filter(body_lengths(target.joints), ZOOM, int(2 * NEARBY * target.fps) + 1,
                                          mode="nearest")
        self._known = {}
        for chain in CHAINS:
            cost = np.sqrt(OVERLAP * overlap(target.joints, chain, self._heights))  # the wanted shapes have none
            self._known[chain] = np.column_stack([shapes(target.joints, chain, self._heights), cost])
        self._choosers = {chain: FrameChooser(known) for chain, known in self._known.items()}
        self._planned = {}  # of each announced pose, as bytes: {chain: frame}
        self._grid = (np.mgrid[:LABELS, :LABELS][::-1].transpose(1, 2, 0) + 0.5).astype(np.float32) / LABELS
        self._kept = OrderedDict()

    def prepare(self, placed):
        present = placed.present
        self._planned = {placed.joints[number].tobytes(): {} for number in np.flatnonzero(present)}
        for chain in tqdm(CHAINS, desc="choosing frames", unit="chain", leave=False):
            for shot in placed.shot_slices:
                joints = placed.joints[shot][present[shot]]
                frames = self._choosers[chain].plan(self._wanted(chain, joints)) if len(joints) else []
                for pose, frame in zip(joints, frames, strict=True):
                    self._planned[pose.tobytes()][chain] = int(frame)

    def generate(self, skeleton):
        picture, cover = self.draw(skeleton.joints, self.frames_for(skeleton))
        # The picture's soft edges are blended with the background already, so the mask must hold all of them.
        self.mask = cv2.dilate((cover > 0).astype(np.uint8) * 255, np.ones((MASK_MARGIN, MASK_MARGIN), np.uint8))
        return picture

    def frames_for(self, skeleton):
        """{chain: number of the target's frame} for a Skeleton: as planned, or going on from the last one."""
        planned = self._planned.get(skeleton.joints.tobytes())
        if planned is not None:
            return planned
        return {chain: chooser.choose(self._wanted(chain, skeleton.joints[None])[0])
                for chain, chooser in self._choosers.items()}

    def alike(self, chain, joints):
        """int (frames,): all frames of the target, those whose chain is most like that of `joints` (33, 3) first."""
        return ((self._known[chain] - self._wanted(chain, joints[None])) ** 2).sum(1).argsort()

    def draw(self, joints, frames):
        """(picture, cover) of the frames {chain: frame} carried to `joints` (33, 3): uint8 S x S x 3 BGR over the
        plate, and float32 S x S, how far each pixel belongs to the person, in [0, 1]."""
        drawn = []
        for chain, parts in PARTS_OF.items():
            image, masks = self._parts(frames[chain])
            for part in parts:
                drawn.append((self._depth(part, joints), image, masks[part], self._map(part, frames[chain], joints)))
        picture, cover = self.plate.copy(), np.zeros((self.size, self.size), np.float32)
        for _, image, mask, matrix in sorted(drawn, key=lambda item: -item[0]):
            self._draw(picture, cover, image, *mask, matrix)
        return picture, cover

    def _wanted(self, chain, joints):
        """float (N, D): what is looked for: the shapes of a chain in poses (N, 33, 3), without overlap."""
        return np.column_stack([shapes(joints, chain, self._height), np.zeros(len(joints))])

    def _parts(self, index):
        """(image, {part: (mask, left, top)}) of a frame: uint8 S x S x 3 BGR; masks float32 in [0, 1], in LABELS
        pixels."""
        if index not in self._kept:
            joints = self._target.joints[index]
            person = cv2.resize(self._target.mask(index), (LABELS, LABELS), interpolation=cv2.INTER_AREA)
            person = person.astype(np.float32) / 255
            left, top, width, height = cv2.boundingRect((person > SOLID[0]).astype(np.uint8))
            person, grid = (x[top:top + height, left:left + width] for x in (person, self._grid))
            away = {part: distance_to_segment(grid, *_bone(joints, part)) / (radius * self._heights[index])
                    for part, (_, _, radius) in PARTS.items()}
            nearest = np.min(list(away.values()), 0)
            masks = {}
            for part, own in away.items():
                mask = person * np.clip((nearest + SHARED - own) / SHARED, 0, 1) * np.clip((REACH - own) * 2, 0, 1)
                x, y, width, height = cv2.boundingRect((mask > SOLID[0]).astype(np.uint8))
                x, y = max(x - 1, 0), max(y - 1, 0)  # one more pixel on each side, so that the mask ends softly
                mask = mask[y:y + height + 2, x:x + width + 2].copy() if width else mask[:0]
                masks[part] = mask, left + x, top + y
            self._kept[index] = resize(self._target.image(index), self.size), masks
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]

    def _depth(self, part, joints):
        """The order of drawing: a larger depth is farther away. The detector's depth of the legs is unreliable, so they
        stay close to the depth of the torso."""
        if part in ("torso", "head"):
            return 0.0 if part == "torso" else -0.08
        z = (landmark_point(joints, PARTS[part][0])[2] + landmark_point(joints, PARTS[part][1])[2]) / 2
        return float(z if "arm" in part else 0.3 * z + 0.02)

    def _map(self, part, index, joints):
        """2 x 3 affine map, in pixels, that carries a part from frame number `index` to the pose `joints`."""
        there, here = self._target.joints[index], joints
        size = self._height / self._heights[index]
        if part in ("torso", "head"):
            some = [11, 12, 23, 24] if part == "torso" else [0, 7, 8, 11, 12]
            return similarity(there[some, :2] * self.size, here[some, :2] * self.size, size)
        (a, b), (c, d) = ([landmark_point(j, end)[:2] * self.size for end in PARTS[part][:2]] for j in (there, here))
        return bone_map(a, b, c, d, size)

    def _draw(self, picture, cover, image, mask, left, top, matrix):
        """Draw a part, in place, onto picture and cover, in the box that holds it. left, top: of the mask."""
        if not mask.size:
            return
        scale = self.size / LABELS
        x, y = np.array([left, left + mask.shape[1]]) * scale, np.array([top, top + mask.shape[0]]) * scale
        corners = np.array([[x[i], y[j], 1] for i in (0, 1) for j in (0, 1)]) @ matrix.T
        west, north = np.clip(np.floor(corners.min(0)) - 1, 0, self.size).astype(int)
        east, south = np.clip(np.ceil(corners.max(0)) + 1, 0, self.size).astype(int)
        if east <= west or south <= north:
            return
        size, inside = (east - west, south - north), np.s_[north:south, west:east]
        matrix = matrix - np.array([[0, 0, west], [0, 0, north]])
        grown = matrix @ np.array([[scale, 0, x[0] + scale / 2 - 0.5], [0, scale, y[0] + scale / 2 - 0.5], [0, 0, 1]])
        colours = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        share = (cv2.warpAffine(mask, grown, size, flags=cv2.INTER_LINEAR) - SOLID[0]) / (SOLID[1] - SOLID[0])
        share = np.clip(share, 0, 1)
        picture[inside] = cv2.blendLinear(colours, np.ascontiguousarray(picture[inside]), share, 1 - share)
        cover[inside] = np.maximum(cover[inside], share)


def _bone(joints, part):
    """The segment (start, end), x and y, around which a part's pixels lie: its bone, which is longer at hands, feet and
    head, where the body goes on beyond the landmark."""
    start, end = (landmark_point(joints, landmark)[:2] for landmark in PARTS[part][:2])
    along = end - start
    if "forearm" in part:  # as far as the fingers
        return start, end + 0.55 * along
    if part == "head":
        return start + 0.1 * along, end + 0.9 * along
    if "foot" in part:
        return start - 0.2 * along, end + 0.35 * along
    return start, end


def similarity(start, end, size=1.0):
    """2 x 3: the rotation, scale and shift that lay points (N, 2) on others with the least squared error (Umeyama 1991,
    in the plane). The scale stays within SCALE times `size`."""
    middle, goal = start.mean(0), end.mean(0)
    a, b = start - middle, end - goal
    spread = max((a * a).sum(), 1e-9)
    turn = np.array([(a * b).sum(), (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sum()]) / spread
    scale = max(np.linalg.norm(turn), 1e-9)
    cosine, sine = turn / scale * np.clip(scale, SCALE[0] * size, SCALE[1] * size)
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([turn, goal - turn @ middle])


def bone_map(a, b, c, d, size=1.0):
    """2 x 3: the map that lays the middle of the bone a-b on that of c-d and turns it in its direction. It stretches
    along the bone within LENGTHEN and across it within WIDEN, both times `size`."""
    old, new = b - a, d - c
    length = max(np.linalg.norm(old), 1e-6)
    stretch, angle = np.linalg.norm(new) / length / size, np.arctan2(new[1], new[0]) - np.arctan2(old[1], old[0])
    along = old / length
    across = np.array([-along[1], along[0]])
    scale = np.clip(stretch, *LENGTHEN) * np.outer(along, along) + np.clip(stretch, *WIDEN) * np.outer(across, across)
    turn = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ scale
    return np.column_stack([turn, (c + d) / 2 - turn @ (a + b) / 2])
