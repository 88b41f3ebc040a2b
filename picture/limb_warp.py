"""Limb-wise warping: each limb comes from the frame of the target where it looked most alike, carried to its place.

The body has six chains (torso, head, arms, legs) of twelve parts. For each chain the frames are retrieved in which its
shape is most alike (retrieval.py). Each part is carried by an affine map from its bone in that frame to its bone in the
pose that is asked for, and drawn, far to near, over the background. Every pixel is a real one, so the picture is sharp;
every limb goes where it is asked to go, so it moves smoothly. In the line of Video-based Characters (Xu et al.,
SIGGRAPH 2011: coherent retrieval, then warping) and of Balakrishnan et al. (CVPR 2018: a warp for each limb, over a
background). Nothing is learned here: GenWarp.py, GEN_TYPE 5, refines the result.
"""

from collections import OrderedDict
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import percentile_filter
from tqdm import tqdm

from motion.body import body_height, body_lengths, landmark_point
from picture.canvas import resize
from picture.generator import Generator
from picture.retrieval import CHAINS, FrameChooser, overlap, shapes
from picture.skinning import LABELS, PARTS, cut, inverse_map, skinned

PARTS_OF = {
    "torso": ["torso"], "head": ["head"],
    "left arm": ["left upper arm", "left forearm"], "right arm": ["right upper arm", "right forearm"],
    "left leg": ["left thigh", "left shin", "left foot"], "right leg": ["right thigh", "right shin", "right foot"],
}
OVERLAP = 0.3  # cost, as a squared error of a shape, of one body height of overlap with other limbs
ZOOM = 80  # percentile of the body's lengths that tells its height in a frame: it grows as the camera zooms in
NEARBY = 2.0  # seconds before and after a frame over which that percentile is taken
SOLID = (0.35, 0.65)  # values of a mask between which a part goes from invisible to opaque
STEP = 4  # pixels of the picture for one of the maps that say where its pixels come from
LENGTHEN = (0.6, 1.5)  # least and most stretch of a part along its bone, beside the change of the body's height
WIDEN = (0.9, 1.1)  # least and most stretch across the bone
SCALE = (0.8, 1.25)  # least and most scale of head and torso as a whole
MASK_MARGIN = 5  # pixels by which the person's mask is grown, so that it holds all soft edges
KEPT = 64  # frames whose parts stay in memory, about 1 MB each for a person of 300 x 1000 pixels


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of the target, cut into parts. image: uint8 h x w x 3 BGR, the box around the person; scale: (x, y), its
    pixels in one canvas unit; corner: (x, y), where it begins, in canvas units; parts: {part: skinning.Part}."""

    image: np.ndarray
    scale: np.ndarray
    corner: np.ndarray
    parts: dict


class LimbWarp(Generator):
    """Draws a target (a VideoSkeleton) limb by limb.

    size: pixels of the image, by default those of the canvas. kept: how many frames of the target stay in memory.
    `prepare` plans whole shots. A skeleton that was not announced goes on from the one that was drawn before it.
    """

    def __init__(self, target, size=None, kept=KEPT):
        self._target, self.size, self._most = target, size or target.size, kept
        self.plate = resize(target.canvas_plate, self.size)
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
            frame = self._frame(frames[chain])
            maps = self._maps(frames[chain], joints)
            drawn += [(self._depth(part, joints), part, frame, maps) for part in parts if part in frame.parts]
        picture, cover = self.plate.copy(), np.zeros((self.size, self.size), np.float32)
        for _, part, frame, maps in sorted(drawn, key=lambda item: -item[0]):
            self._draw(picture, cover, frame, frame.parts[part], skinned(frame.parts[part], maps))
        return picture, cover

    def _wanted(self, chain, joints):
        """float (N, D): what is looked for: the shapes of a chain in poses (N, 33, 3), without overlap."""
        return np.column_stack([shapes(joints, chain, self._height), np.zeros(len(joints))])

    def _frame(self, index):
        """The Frame of the target's frame number `index`."""
        if index not in self._kept:
            image, corner = self._target.person(index)
            full = np.array(image.shape[1::-1])
            if self.size < self._target.size:
                shrunk = np.maximum(np.round(full * self.size / self._target.size), 1).astype(int)
                image = cv2.resize(image, shrunk.tolist(), interpolation=cv2.INTER_AREA)
            mask = self._target.mask(index, LABELS).astype(np.float32) / 255
            scale = self._target.size * np.array(image.shape[1::-1]) / full
            parts = cut(mask, self._target.joints[index], self._heights[index])
            self._kept[index] = Frame(image, scale, np.array(corner) / self._target.size, parts)
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

    def _maps(self, index, joints):
        """(12, 2, 3): the affine maps, in canvas units, that carry PARTS from frame number `index` to the pose
        `joints`."""
        there, size, maps = self._target.joints[index], self._height / self._heights[index], []
        for part, (start, end, _) in PARTS.items():
            if part in ("torso", "head"):
                some = [11, 12, 23, 24] if part == "torso" else [0, 7, 8, 11, 12]
                maps.append(similarity(there[some, :2], joints[some, :2], size))
            else:
                maps.append(bone_map(*(landmark_point(pose, point)[:2] for pose in (there, joints)
                                       for point in (start, end)), size))
        return np.array(maps)

    def _draw(self, picture, cover, frame, part, goals):
        """Draw a Part of a Frame, in place, onto picture and cover, in the box that holds it. goals: (V, 2), where the
        vertices of its mesh go, in canvas units."""
        small = -(-self.size // STEP)  # pixels of the map: one for STEP x STEP of the picture
        found = inverse_map(part.places, goals * (self.size / STEP) - 0.5, part.triangles, small)
        if found is None:
            return
        places, left, top = found
        size = (places.shape[1] * STEP, places.shape[0] * STEP)
        left, top = left * STEP, top * STEP
        inside = np.s_[top:min(top + size[1], self.size), left:min(left + size[0], self.size)]
        places = cv2.resize(places, size)[:self.size - top, :self.size - left]
        mask = cv2.remap(part.mask, places * LABELS - np.float32([part.corner[0] + 0.5, part.corner[1] + 0.5]), None,
                         cv2.INTER_LINEAR)
        share = np.clip((mask - SOLID[0]) / (SOLID[1] - SOLID[0]), 0, 1)
        places = (places - frame.corner.astype(np.float32)) * frame.scale.astype(np.float32) - np.float32(0.5)
        colours = cv2.remap(frame.image, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        picture[inside] = cv2.blendLinear(colours, np.ascontiguousarray(picture[inside]), share, 1 - share)
        cover[inside] = np.maximum(cover[inside], share)


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
