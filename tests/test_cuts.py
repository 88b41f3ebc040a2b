"""Cuts: edits are found, and movement, light and empty frames are no cuts."""

import cv2
import numpy as np

from common.paths import SAMPLE_SOURCE
from motion.segments import small_size
from video.camera import CutDetector, small_picture, thumbnail
from VideoReader import VideoReader


def small(frame):
    """What the pose pass keeps of a frame."""
    return thumbnail(small_picture(frame, small_size(frame.shape[1::-1])))


def test_cuts_are_found_and_movement_light_and_blank_frames_are_none():
    with VideoReader(SAMPLE_SOURCE) as reader:
        dance = list(reader)[:120]
    cuts = CutDetector()
    assert not any([cuts(small(frame)) for frame in dance[::4]])  # four times as fast
    brighter = cv2.convertScaleAbs(dance[116], beta=40)
    closer = cv2.resize(dance[117][60:450, 60:450], (512, 512))
    edit = (brighter, np.zeros_like(closer), dance[117], closer, closer, dance[118][:, ::-1])
    wide = cv2.resize(dance[0], (1600, 1600))[:, :, ::-1].copy()
    pan = [wide[400:1000, 60 * number:60 * number + 900] for number in range(11)]  # a fifteenth of the width a frame
    cuts_of_a_pan = CutDetector()
    assert not any([cuts_of_a_pan(small(frame)) for frame in pan])
    assert [cuts(small(frame)) for frame in edit] == [False, False, False, True, False, True]
