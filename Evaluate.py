"""Quality, measured: the source drives the target through the demo's own path, judged against the truth.

    python Evaluate.py                                # every generator that has its weights, on the shipped clips
    python Evaluate.py --gen-types 1,3 --source a.mp4 --target b.mp4

The shipped truth clip shows the target's body doing the source's exact motion, frame by frame. Prints a Markdown
table of L1 (mean absolute error in levels of 0 to 255) and PSNR (of the mean squared error over all pixels of all
frames, float64), over the whole canvas, and writes a contact sheet [source | skeleton | each generator | truth].
With another source or target, for which there is no truth, it writes the sheet alone.
"""

import argparse
import math
from contextlib import ExitStack, closing
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from CommandLine import ROOT, Parser, UserError, run, writable_folder
from DanceDemo import GENERATORS, SOURCE, dance
from VideoReader import VideoReader
from VideoSkeleton import TARGET, VideoSkeleton, crop

TRUTH = ROOT / "data" / "sample" / "truth.mp4"
SHEET = ROOT / "data" / "Dance" / "Evaluate.png"
ROWS = 4  # frames on the sheet
CELL = 200  # pixels


def gen_types(text):
    """argparse type: "1,3" -> [1, 3]."""
    numbers = [int(word) if word.isdigit() else 0 for word in text.split(",")]
    if not set(numbers) <= set(GENERATORS):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of {', '.join(map(str, GENERATORS))}")
    return numbers


def judge(source, target, generator, truth, shown):
    """Drive `generator`; returns ({l1, psnr} against the truth frames or None, the steps numbered in `shown`)."""
    absolute = squared = count = 0
    steps = {}
    with VideoReader(source) as reader, ExitStack() as stack:
        true = stack.enter_context(VideoReader(truth)) if truth else repeat(None)
        dancing = stack.enter_context(closing(dance(reader, target, generator)))
        both = zip(dancing, true, strict=bool(truth))
        for number, (step, real) in enumerate(tqdm(both, total=reader.frame_count, unit="frame")):
            if number in shown:
                steps[number] = step
            if truth:
                difference = step["image"].astype(np.float64) - crop(real, target.box, target.size)
                absolute += np.abs(difference).sum()
                squared += (difference ** 2).sum()
                count += difference.size
    return {"l1": absolute / count, "psnr": 10 * math.log10(255 ** 2 * count / squared)} if truth else None, steps


def sheet(columns, truth, target, shown, path):
    """Write the PNG. columns: {name: steps by frame number}, all of the same frames."""
    some = next(iter(columns.values()))
    shown = sorted(some)
    true = {}
    if truth:
        with VideoReader(truth) as reader:
            true = {n: crop(frame, target.box, target.size) for n, frame in enumerate(reader) if n in shown}
    rows = []
    for number in shown:
        step = some[number]
        black = np.zeros((CELL, CELL, 3), np.uint8)
        cells = [step["frame"], black if step["placed"] is None else step["placed"].draw(black)]
        cells += [steps[number]["image"] for steps in columns.values()] + ([true[number]] if truth else [])
        rows.append(np.hstack([_fit(cell) for cell in cells]))
    names = ["source", "skeleton", *columns, *(["truth"] if truth else [])]
    head = np.full((26, rows[0].shape[1], 3), 255, np.uint8)
    for i, name in enumerate(names):
        cv2.putText(head, name, (i * CELL + 4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), np.vstack([head, *rows]))


def _fit(image):
    """The image inside a CELL x CELL square, its shape kept."""
    scale = CELL / max(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height, width = image.shape[:2]
    top, left = (CELL - height) // 2, (CELL - width) // 2
    return cv2.copyMakeBorder(image, top, CELL - height - top, left, CELL - width - left, cv2.BORDER_CONSTANT)


def main():
    parser = Parser(__doc__)
    parser.add_argument("--gen-types", type=gen_types, default=list(GENERATORS), help="which, with commas between")
    parser.add_argument("--source", default=SOURCE, type=Path, help="motion: a video or a folder of images")
    parser.add_argument("--target", default=TARGET, type=Path, help="appearance: video of the person")
    parser.add_argument("--truth", type=Path, help="the target doing the source's motion; default: the shipped one "
                                                   "for the shipped pair")
    parser.add_argument("--sheet", default=SHEET, type=Path, help="contact sheet to write")
    args = parser.parse_args()
    shipped = (args.source, args.target) == (SOURCE, TARGET)
    truth = args.truth or (TRUTH if shipped else None)
    with VideoReader(args.source) as reader:
        count = reader.frame_count or 1
    shown = [round(x) for x in np.linspace(0, count - 1, ROWS + 2)[1:-1]]
    target = VideoSkeleton.load(args.target)
    columns, lines = {}, []
    for gen_type in args.gen_types:
        name, make = GENERATORS[gen_type]
        try:
            generator = make(target, None)
        except UserError as missing:
            lines.append(f"| {gen_type} {name} | left out: {missing} | |")
            continue
        try:
            errors, columns[name] = judge(args.source, target, generator, truth, shown)
        except ValueError:  # of zip's strict
            raise UserError(f"{truth} has not as many frames as {args.source}; it can't be its truth") from None
        if errors:
            lines.append(f"| {gen_type} {name} | {errors['l1']:.2f} | {errors['psnr']:.2f} |")
    writable_folder(args.sheet.parent)
    if columns:
        sheet(columns, truth, target, shown, args.sheet)
        print(f"contact sheet {args.sheet}")
    if lines:
        print("\n".join(["", "| generator | L1 | PSNR dB |", "|---|---|---|", *lines]))


if __name__ == "__main__":
    run(main)
