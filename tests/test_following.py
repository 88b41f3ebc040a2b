"""Of several people, the same one is followed."""

import cv2
import numpy as np
import pytest

from common.files import EncodedImages
from motion.extraction import load_people, mask_size
from motion.following import PersonFollower
from video.film import VideoWriter


def test_the_tall_one_of_two_people_is_followed_while_she_moves(frames, tmp_path, capsys):
    """MediaPipe gives the two in either order."""
    path = tmp_path / "two.mp4"
    with VideoWriter(path, 10) as writer:
        for number, frame in enumerate(frames[::4]):
            small = cv2.copyMakeBorder(cv2.resize(frame, (432, 432)), 80, 0, 40, 40, cv2.BORDER_REPLICATE)
            writer.write(np.roll(np.hstack([small, frame]), 6 * number, 1))  # the tall one goes to the right
    people = load_people(path)
    assert people.track.found.all() and people.counts.max() == 2
    assert (people.track.joints[:, [23, 24], 0].mean(1) * 1024 > 600).all()
    assert "2 people are seen; following one of them, now on the right" in capsys.readouterr().err
    masks = EncodedImages(people.folder / "masks.bin", people.mask_spans[people.chosen])
    for number in range(len(people.track)):  # and it is her mask
        mask = masks.read(number, cv2.IMREAD_GRAYSCALE, mask_size(people.size))
        assert mask[:, 270:].sum() / mask.sum() > 0.9


def test_who_is_near_or_else_tall_is_followed():
    rng = np.random.default_rng(0)
    tall, short = (rng.random((33, 3)) * size for size in (1.0, 0.7))
    follow = PersonFollower()
    assert follow(np.zeros((0, 33, 3))) is None and follow(np.stack([short, tall])) == 1
    assert follow(short[None]) == 0  # nearer than a height: the detector may have lost a leg
    far = tall + np.float32([3, 0, 0])
    assert follow(np.stack([far, tall])) == 1 and follow(far[None]) == 0


@pytest.mark.parametrize("count", [1, 3])
def test_nobody_is_warned_about_a_single_person(count, capsys):
    follow = PersonFollower()
    for _ in range(3):
        follow(np.random.default_rng(0).random((count, 33, 3)))
    assert (capsys.readouterr().err == "") == (count == 1)
