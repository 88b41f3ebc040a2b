"""What a training has brought, as a picture: before | after | the real frame, for the same held-out frames.

    python -m dancing.before_after --gen-type 5 --target me.mp4 --checkpoint weights.pth --output picture.png

Before is what the network draws with the weights that it had before this training (X-previous.pth) or, without those,
before any training. That of GEN_TYPE 5 then changes nothing, so before is the warp of the registered frames. The page
(DanceStudio.py) runs this after each training."""

import importlib
from pathlib import Path

import cv2
import numpy as np
import torch

from common.command_line import Parser, check_output, run
from common.files import write_png
from dancing.generators import GENERATORS
from learning.checkpoint import NetworkConfig, load_checkpoint, load_network
from learning.dataset import to_image
from video.clip import add_clip_flags, clip_of
from VideoSkeleton import VideoSkeleton

FRAMES = 2  # held-out frames that are shown, one in each row
AROUND = 0.12  # of the person's size: so much of the picture is shown around the person
GAP = 2  # pixels between two pictures
GREY = 128
TRAINED = [number for number, entry in GENERATORS.items() if entry.trainer]


def window(target, indices):
    """(left, top, right, bottom) in shares of the target's canvas: what is shown of its frames at `indices`, the person
    in all of them with something around, but nothing that is outside the video."""
    places = np.concatenate([target.joints[index, :, :2] for index in indices])
    around = AROUND * np.ptp(places, axis=0).max()
    origin, video = np.array(target.box[:2]), np.array(target.frame_size)
    first = np.maximum(places.min(0) - around, np.maximum(0, -origin / target.box[2]))
    last = np.minimum(places.max(0) + around, np.minimum(1, (video - origin) / target.box[2]))
    return (*first.tolist(), *last.tolist())


@torch.inference_mode()
def before_and_after(target, entry, checkpoint):
    """The picture (uint8 H x W x 3 BGR) for a target (VideoSkeleton), an entry of GENERATORS and a checkpoint's Path.
    Raises UserError where the checkpoint is not one of this target."""
    train = f"python {' '.join(entry.trainer)}"
    state = load_checkpoint(checkpoint, entry.network, train, target)
    module = importlib.import_module(entry.module)
    after, config, _ = load_network(module.build, checkpoint, entry.network, train, target)
    previous = checkpoint.with_name(f"{checkpoint.stem}-previous.pth")
    if entry.untrained or not previous.exists():
        torch.manual_seed(state["seed"])
        before = module.build(NetworkConfig(config.pose, config.image_size)).eval()
    else:
        before, _, _ = load_network(module.build, previous, entry.network, train, target)
    pairs = getattr(importlib.import_module(entry.dataset[0]), entry.dataset[1])
    data = pairs(target, config.pose, config.image_size)
    held_out = data.split()[1]
    chosen = np.linspace(0, len(held_out) - 1, FRAMES + 2).round().astype(int)[1:-1]
    left, top, right, bottom = (round(share * config.image_size) for share in window(
        target, [held_out.indices[number] for number in chosen]))
    rows = []
    for number in chosen:
        pose, _ = held_out[number]
        pictures = [to_image(network(pose[None])[0, :3]) for network in (before, after)]
        pictures.append(data.images[held_out.indices[number], 2::-1].transpose(1, 2, 0))  # BGR
        rows.append([cv2.copyMakeBorder(picture[top:bottom, left:right], 0, GAP, 0, GAP, cv2.BORDER_CONSTANT,
                                        value=(GREY,) * 3) for picture in pictures])
    return np.vstack([np.hstack(row) for row in rows])[:-GAP, :-GAP]


def main():
    parser = Parser(__doc__)
    parser.add_argument("--gen-type", type=int, choices=TRAINED, required=True, help="the generator")
    parser.add_argument("--target", required=True, help="the video that it was trained on")
    add_clip_flags(parser, "the target", "target-")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the trained weights")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT.png", help="the picture to write")
    args = parser.parse_args()
    check_output(args.output, [args.target, args.checkpoint])
    target = VideoSkeleton.load(clip_of(args, args.target, "target-"))
    write_png(args.output, before_and_after(target, GENERATORS[args.gen_type], args.checkpoint))


if __name__ == "__main__":
    run(main)
