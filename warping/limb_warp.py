"""Limb-wise warping: the body comes from the frames of the target where it looked most alike, carried to its place.

The body has six chains (torso, head, arms, legs) of twelve parts. retrieval.py chooses the frame for each chain, mostly
one for all. A frame may also be taken mirrored, because few targets turn to both sides. Each part of it is carried to
the pose that is asked for, on a mesh that follows the bones (skinning.py), and drawn, far to near, over the background.
Every pixel is a real one, so the picture is sharp; every limb goes where it is asked to go, so it moves smoothly. In
the line of Video-based Characters (Xu et al., SIGGRAPH 2011: coherent retrieval, then warping) and of Balakrishnan et
al. (CVPR 2018: a warp for each limb, over a background). Nothing is learned here: GenWarp.py refines the result.

Of a target with N frames, frame number i + N is frame number i in the mirror.
"""

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace

import cv2
import numpy as np
from scipy.ndimage import percentile_filter
from tqdm import tqdm

from motion.body import body_lengths, bone_maps, landmark_point, mirrored, similarity
from picture.canvas import Generator, Patch, crop
from picture.parts import ARMS, NUMBER, PARTS, PARTS_OF
from warping.part_colours import FRAMES, PartColours
from warping.rasterizing import inverse_maps
from warping.retrieval import UNDER, BodyChooser, asked, described
from warping.shadow import ShadowFinder
from warping.skinning import BEHIND_ARMS, LABELS, Part, Pieces, laid_out, skinned

# Where an arm covers a part and comes from another frame, the part has a gap. The frame UNDER is drawn there and, below
# it, where it shows nothing either, the part with the arm.
UNDER_REACH = 2.0  # radii from its bone up to which a part of the frame UNDER is drawn
COVERED_REACH = 1.2  # the same for the part with the arm: farther away, the arm would be seen beside the body
BELOW = 0.001  # by so much each of the two lies deeper than what is before it, in canvas units
ZOOM = 80  # percentile of the body's lengths that tells its height in a frame: it grows as the camera zooms in
NEARBY = 2.0  # seconds before and after a frame over which that percentile is taken
FINE = 640  # pixels: in a larger picture, how opaque it is changes so slowly that every second pixel is enough
LARGEST = 1920  # pixels: a larger canvas is drawn at the size of the stored pictures
MAPS = 160  # pixels, at most, of the maps that say where the picture's pixels come from, before they are enlarged
KEPT = 64  # frames whose parts stay in memory, about 1 MB each for a person of 300 x 1000 pixels


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of the target. image: uint8 h x w x 3 BGR, the box around the person; matte: uint8 h x w, how opaque she
    is; scale: (x, y), its pixels in one canvas unit; corner: (x, y), where it begins, in canvas units; person: float32
    LABELS x LABELS in [0, 1], the matte on the whole canvas; pieces: the parts of the person."""

    image: np.ndarray
    matte: np.ndarray
    scale: np.ndarray
    corner: np.ndarray
    person: np.ndarray
    pieces: Pieces


@dataclass(frozen=True, eq=False)
class Layer:
    """A part that is drawn. depth: in canvas units, larger is farther away; frame: the Frame of the Part; cover: the
    part's, or less; maps: (12, 2, 3), see LimbWarp._maps; filled: of a layer that is only drawn where another one lacks
    something, that Layer, and missing: what it lacks, see Part.missing; else None."""

    depth: float
    frame: Frame
    part: Part
    cover: np.ndarray
    maps: np.ndarray
    filled: "Layer | None" = None
    missing: np.ndarray | None = None


class LimbWarp(Generator):
    """Draws a target (a VideoSkeleton) limb by limb.

    size: pixels of the image; by default, up to LARGEST, those of the canvas in the video, so that nothing is enlarged
    later. kept: how many frames of the target stay in memory.
    `prepare` plans whole shots. A skeleton that was not announced goes on from the one that was drawn before it.
    """

    def __init__(self, target, size=None, kept=KEPT):
        self._target, self._most, side = target, kept, target.box[2]
        self.size = size or (side if side <= LARGEST else target.size)
        self._step = -(-self.size // MAPS)  # pixels of the picture for one of the maps and of the cover
        self._coarse = 1 if self.size <= FINE else 2  # pixels of the picture for one of what tells how opaque it is
        self.plate = crop(target.plate, target.box, self.size)
        # Each frame counts twice: as it is, and mirrored.
        self._joints = np.concatenate([target.joints, mirrored(target.joints)])
        # The body's height in each frame of the target, which changes as the person comes closer or the camera zooms.
        heights = percentile_filter(body_lengths(target.joints), ZOOM, int(2 * NEARBY * target.fps) + 1, mode="nearest")
        self._heights = np.tile(heights, 2)
        self.height = float(np.median(heights))  # of the skeletons that are asked for
        self._chooser = BodyChooser(described(target, self._joints, self._heights))
        finder = ShadowFinder(target, self.plate, self.height)
        self._colours = PartColours(self._looked_at(finder))
        self._shadow = finder.shadow()
        self._planned = {}  # of each announced pose, as bytes: {chain: frame}
        self._kept, self._lock = OrderedDict(), threading.Lock()  # a training draws in two threads

    def _looked_at(self, finder):
        """Yield what PartColours learn from some frames, while the ShadowFinder `finder` learns from them."""
        count = len(self._target)
        for index in np.linspace(0, count - 1, min(FRAMES, count)).round().astype(int).tolist():
            person = self._person(index)
            finder.look(index, *person)
            yield *self._small(*person), self._joints[index], self._heights[index]

    def prepare(self, placed):
        present = placed.present
        self._planned = {placed.joints[number].tobytes(): {} for number in np.flatnonzero(present)}
        for shot in tqdm(placed.shot_slices, desc="choosing frames", unit="shot", leave=False):
            joints = placed.joints[shot][present[shot]]
            if len(joints):
                frames = self._chooser.plan(asked(joints, self.height))
                for number, pose in enumerate(joints):
                    self._planned[pose.tobytes()] = {chain: int(found[number]) for chain, found in frames.items()}
        self._chooser.forget()

    def generate(self, skeleton):
        # The picture's soft edges are blended with the background already, so the mask holds all of them.
        picture, _, self.mask = self.draw(skeleton.joints, self.frames_for(skeleton))
        return picture

    def frames_for(self, skeleton):
        """{chain or UNDER: number of the target's frame} for a Skeleton: as planned, or going on from the last one."""
        planned = self._planned.get(skeleton.joints.tobytes())
        if planned is not None:
            return planned
        return self._chooser.choose(self._asked(skeleton.joints))

    def some_frames(self, joints, allowed, rng):
        """{chain: number of the target's frame} for `joints` (33, 3), chosen as for one pose alone, but at random
        among the best ones, none of them mirrored. allowed: bool (frames,), which frames may be chosen; rng: a numpy
        Generator."""
        return self._chooser.some(self._asked(joints), np.append(allowed, np.zeros_like(allowed)), rng)

    def patch(self, skeleton):
        return self._for_scene(self._drawn(skeleton.joints, self.frames_for(skeleton))[0])

    def _for_scene(self, patch):
        """The Patch without its mask at the scene's own resolution, where what was not drawn is the scene already."""
        return replace(patch, mask=None) if self.size == self._target.box[2] else patch

    def _asked(self, joints):
        """{chain or UNDER: float (D,)}: what is looked for, for one pose (33, 3)."""
        return {chain: rows[0] for chain, rows in asked(joints[None], self.height).items()}

    def draw(self, joints, frames):
        """(picture, cover, mask) of the frames {chain: frame} carried to `joints` (33, 3). Where an arm comes from
        another frame than torso or legs, UNDER is among them. picture: uint8 S x S x 3 BGR over the plate; cover:
        float32 s x s, at most MAPS pixels, how far each place belongs to the person, in [0, 1]; mask: uint8 S x S, 255
        wherever anything was drawn."""
        patch, cover = self._drawn(joints, frames)
        picture, mask = self.plate.copy(), np.zeros((self.size, self.size), np.uint8)
        picture[patch.place], mask[patch.place] = patch.image, patch.mask
        return picture, cover, mask

    def _drawn(self, joints, frames):
        """(Patch, cover) of what `draw` gives: the part of the picture in which something is drawn."""
        layers, small = self._layers(joints, frames), -(-self.size // self._step)
        cover = np.zeros((small, small), np.float32)
        parts, places = [layer.part for layer in layers], []
        if layers:
            goals = skinned(parts, np.stack([layer.maps for layer in layers]))
            places = inverse_maps(parts, [goal * (self.size / self._step) - 0.5 for goal in goals], small)
        where = dict(zip(layers, places, strict=True))
        squares = self._shadow.squares(joints, self.size) if self._shadow else []
        boxes = [np.multiply((left, top, left + own.shape[1], top + len(own)), self._step)
                 for left, top, own in places if own.size] + [(x, y, x + side, y + side) for x, y, side, _ in squares]
        boxes = np.clip(boxes or [(0, 0, 0, 0)], 0, self.size)
        left, top, right, bottom = *boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()
        image = self.plate[top:bottom, left:right].copy()
        patch = Patch(image, np.zeros(image.shape[:2], np.uint8), self.size, (left, top))
        if squares:
            self._shadow.draw(squares, patch.image, patch.mask, (left, top))
        for layer, (left, top, own) in where.items():
            wanted = laid_out(layer.missing, layer.filled.part, where[layer.filled], small) if layer.filled else None
            if own.size:
                self._draw(patch, cover, layer, own, left, top, wanted)
        return patch, cover

    def background(self, joints):
        """uint8 S x S x 3 BGR: the plate with the shadow of a person in the pose `joints` (33, 3)."""
        picture = self.plate.copy()
        if self._shadow and (squares := self._shadow.squares(joints, self.size)):
            self._shadow.draw(squares, picture, np.zeros(picture.shape[:2], np.uint8), (0, 0))
        return picture

    def _layers(self, joints, frames):
        """[Layer], far ones first, of the frames {chain: frame} carried to `joints` (33, 3)."""
        numbers = list(set(frames.values()))
        layers, gaps, maps = [], [], dict(zip(numbers, self._maps(numbers, joints), strict=True))
        for chain, parts in PARTS_OF.items():
            frame, number = self._frame(frames[chain]), frames[chain]
            # An arm that comes from another frame must not be seen in this one, too.
            elsewhere = [arm for arm in ARMS if frames[arm] != number]
            for name in parts:
                part, depth = frame.pieces.get(name), self._depth(name, joints)
                if part is None:
                    continue
                cover = part.without(elsewhere) if name in BEHIND_ARMS else part.cover
                layers.append(layer := Layer(depth, frame, part, cover, maps[number]))
                missing = part.missing(cover)
                if missing is not None:
                    gaps.append((name, layer, missing))
                    layers.append(Layer(depth + 2 * BELOW, frame, part, part.within(COVERED_REACH), maps[number], layer,
                                        missing))
        if gaps:
            number = frames[UNDER]
            frame = self._frame(number)
            layers += [Layer(layer.depth + BELOW, frame, part, part.within(UNDER_REACH, ARMS), maps[number], layer,
                             missing) for name, layer, missing in gaps if (part := frame.pieces.get(name))]
        return sorted(layers, key=lambda layer: -layer.depth)

    def _frame(self, index):
        """The Frame of the target's frame number `index`."""
        with self._lock:
            return self._kept_frame(index)

    def _kept_frame(self, index):
        if index not in self._kept:
            image, matte, corner = self._person(index)
            full, (small, person) = np.array(image.shape[1::-1]), self._small(image, matte, corner)
            if self.size < self._target.size:
                shrunk = np.maximum(np.round(full * self.size / self._target.size), 1).astype(int).tolist()
                image, matte = (cv2.resize(each, shrunk, interpolation=cv2.INTER_AREA) for each in (image, matte))
            scale = self._target.size * np.array(image.shape[1::-1]) / full
            pieces = Pieces(person, self._joints[index], self._heights[index], small, self._colours)
            self._kept[index] = Frame(image, matte, scale, np.array(corner) / self._target.size, person, pieces)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(index)
        return self._kept[index]

    def _small(self, image, matte, corner):
        """(uint8 LABELS x LABELS x 3 BGR, float32 LABELS x LABELS in [0, 1]): what `_person` gives, on the canvas."""
        person = self._target.on_canvas(matte, corner, LABELS).astype(np.float32) / 255
        return self._target.on_canvas(image, corner, LABELS, averaged=False), person

    def _person(self, index):
        """(image, matte, (left, top)) of frame number `index`, as VideoSkeleton.person gives them."""
        mirror, number = divmod(index, len(self._target))
        image, matte, (left, top) = self._target.person(number)
        if not mirror:
            return image, matte, (left, top)
        return cv2.flip(image, 1), cv2.flip(matte, 1), (self._target.size - left - image.shape[1], top)

    def _depth(self, part, joints):
        """The order of drawing: a larger depth is farther away. The detector's depth of the legs is unreliable, so they
        stay close to the depth of the torso."""
        if part in ("torso", "head"):
            return 0.0 if part == "torso" else -0.08
        z = (landmark_point(joints, PARTS[part][0])[2] + landmark_point(joints, PARTS[part][1])[2]) / 2
        return float(z if "arm" in part else 0.3 * z + 0.02)

    def _maps(self, numbers, joints):
        """(K, 12, 2, 3): the affine maps, in canvas units, that carry PARTS from K frames of these numbers to the pose
        `joints` (33, 3)."""
        there, size = self._joints[numbers], self.height / self._heights[numbers]
        starts, goals = (np.stack([np.stack([landmark_point(poses, end)[..., :2] for end in part[:2]], -2)
                                   for part in PARTS.values()], -3) for poses in (there, joints))
        maps = bone_maps(starts, goals, size[:, None])
        for part, some in (("torso", [11, 12, 23, 24]), ("head", [0, 7, 8, 11, 12])):
            maps[:, NUMBER[part]] = similarity(there[:, some, :2], joints[some, :2], size)
        return maps

    def _draw(self, patch, cover, layer, places, left, top, wanted):
        """Draw a Layer, in place, onto a Patch and the cover. places: float32 h x w x 2, where in its Frame the pixels
        of the cover come from, in canvas units; left, top: where these pixels begin in the cover; wanted: float32
        s x s in [0, 1], how much of the layer is to be seen at each pixel of the cover, None: all."""
        frame, shown, corner = layer.frame, layer.cover, layer.part.corner
        into_mask = places * LABELS - np.float32([corner[0] + 0.5, corner[1] + 0.5])
        coarse = cv2.remap(shown, into_mask, None, cv2.INTER_LINEAR, borderValue=-1)
        if wanted is not None:
            wanted = wanted[top:top + len(coarse), left:left + coarse.shape[1]]
            coarse[wanted == 0] = -1
        x, y, width, height = cv2.boundingRect((coarse > -0.5).astype(np.uint8))
        if not width:
            return
        x, y = max(x - 1, 0), max(y - 1, 0)  # a margin, since only some pixels were looked at
        box = np.s_[y:y + height + 2, x:x + width + 2]
        places, into_mask, coarse, left, top = places[box], into_mask[box], coarse[box], left + x, top + y
        wanted = None if wanted is None else wanted[box]
        covered = cover[top:top + len(coarse), left:left + coarse.shape[1]]
        person = cv2.remap(frame.person, places * LABELS - np.float32(0.5), None, cv2.INTER_LINEAR)
        np.maximum(covered, coarse.clip(0, 1) * person, out=covered)
        left, top, size = (np.multiply(each, self._step) for each in (left, top, places.shape[1::-1]))
        (x, y), picture, mask = patch.corner, patch.image, patch.mask
        inside = np.s_[top - y:min(top + size[1], self.size) - y, left - x:min(left + size[0], self.size) - x]
        into_image = (places - frame.corner.astype(np.float32)) * frame.scale.astype(np.float32) - np.float32(0.5)
        share = cv2.remap(shown, cv2.resize(into_mask, -(-size // self._coarse)), None, cv2.INTER_LINEAR,
                          borderValue=-1)
        share = share.clip(0, 1) if wanted is None else share.clip(0, 1) * cv2.resize(wanted, share.shape[::-1])
        share = cv2.resize(share, size)[:self.size - top, :self.size - left]
        into_image = cv2.resize(into_image, size)[:self.size - top, :self.size - left]
        opaque = cv2.remap(frame.matte, into_image, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        share = cv2.multiply(share, opaque, scale=1 / 255, dtype=cv2.CV_32F)
        mask[inside] |= cv2.compare(share, 0, cv2.CMP_GT)
        colours = cv2.remap(frame.image, into_image, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        picture[inside] = cv2.blendLinear(colours, np.ascontiguousarray(picture[inside]), share, 1 - share)
