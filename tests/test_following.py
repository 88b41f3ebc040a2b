"""Of several people, the same one is followed: past misses, doubles, crossings and cuts."""

import cv2
import numpy as np
import pytest
from conftest import random_skeleton

from common.command_line import UserError
from common.files import EncodedImages
from motion.extraction import cache_folder, load_people
from motion.following import identify
from motion.segments import small_size
from motion.track import frame_rate
from video.clip import Clip

RED, BLUE = [50, 60, 40, 30, 0, 0], [30, 20, -60, 60, 0, 0]  # clothes in CIELAB, above and below the hips


@pytest.mark.parametrize("person, left", [("left", True), ("right", False), ("largest", False), ("0.2,0.5", True),
                                          ("0.9,0.1", False)])
def test_the_person_who_was_asked_for_is_followed(duo, person, left, capsys):
    people = load_people(Clip(duo, person=person))
    assert people.track.found.all() and (people.counts >= 2).all() and people.track.person == person
    assert ((people.track.joints[:, [23, 24], 0].mean(1) < 0.5) == left).all()
    said = capsys.readouterr().err.split("\r")[-1]  # the same is said once in a run only
    assert f"2 people; following the one who is {'left' if left else 'right'}" in said or not said
    masks = EncodedImages(people.folder / "masks.bin", people.mask_spans[people.chosen])
    for number in range(len(people.track)):  # and it is this person's mask
        mask = masks.read(number, cv2.IMREAD_GRAYSCALE, small_size(people.size))
        assert (mask[:, :256].sum() / mask.sum() > 0.9) == left


def test_the_points_of_the_first_people_choose_them(duo):
    cast = load_people(duo).cast
    assert len(cast.points) == 2 and (np.diff(cast.points[:, 0]) > 0.3).all()
    for number, (x, y) in enumerate(cast.points):
        assert cast.choose(f"{x:.3f},{y:.3f}") == number
        left, top, right, bottom = cast.boxes[number]
        assert left < x < right and top < y < bottom


def test_a_part_is_the_same_on_its_own_and_cut_from_the_whole(duo, cache):
    clip = Clip(duo, 0.25, 0.8, "left")
    alone = load_people(clip)
    alone_track, folder = alone.track, alone.folder
    assert folder == cache_folder(clip) != cache_folder(duo) and len(alone_track) == 5
    whole = load_people(Clip(duo, person="left"))
    for name in folder.iterdir():
        name.unlink()
    folder.rmdir()
    cut = load_people(clip)
    assert cut.folder == whole.folder and np.array_equal(cut.track.joints, alone_track.joints)
    assert np.allclose(cut.track.seconds, alone_track.seconds) and cut.track.fps == alone_track.fps == 10
    with pytest.raises(UserError, match="no frame from 5"):
        load_people(Clip(duo, 5, 6))


def follow(people, seconds=None, shots=(0,)):
    """identify() of frames given as lists of (pose (33, 3), clothes), as a list of lists."""
    counts = np.array([len(frame) for frame in people])
    everybody = [person for frame in people for person in frame]
    seconds = np.arange(len(people)) / 30 if seconds is None else np.array(seconds)
    found = identify(counts, np.array([pose for pose, _ in everybody]), np.float32([look for _, look in everybody]),
                     seconds, np.array(shots))
    return [part.tolist() for part in np.split(found, np.cumsum(counts)[:-1])]


def pose(x, scale=1.0):
    return random_skeleton(np.random.default_rng(0)).joints * scale + np.float32([x, 0, 0])


def test_who_is_missed_is_waited_for():
    """The neighbour is not taken, even where the two are dressed alike."""
    both = [(pose(0), RED), (pose(1.2), RED)]
    frames = [both, both[::-1], both[1:], both[1:], both, both[:1], both]
    assert follow(frames) == [[0, 1], [1, 0], [1], [1], [0, 1], [0], [0, 1]]


def test_two_who_cross_are_told_apart_by_their_way_and_their_clothes():
    frames, turn = [], np.random.default_rng(1)
    for number in range(60):
        two = [(pose(number / 30), RED), (pose(2 - number / 30), BLUE)]
        shown = two if abs(number - 30) > 3 else two[:1]  # one hides the other
        frames.append(shown if number == 0 or turn.random() < 0.5 else shown[::-1])
    for frame, found in zip(frames, follow(frames), strict=True):
        assert all((who == 0) == (look is RED) for (_, look), who in zip(frame, found, strict=True))


def test_after_an_absence_or_a_cut_it_is_who_fits_best():
    alone, moved = [(pose(0), RED)], [(pose(3, 0.8), RED)]
    assert follow([alone, alone, [], moved], [0, 0.03, 0.06, 3]) == [[0], [0], [], [0]]
    assert follow([alone, alone, moved], shots=(0, 2)) == [[0], [0], [0]]
    both = [(pose(0), RED), (pose(1.2), BLUE)]
    elsewhere = [(pose(0.2), BLUE), (pose(1.4), RED)]  # another camera: they have changed sides
    assert follow([both, both, elsewhere], shots=(0, 2)) == [[0, 1], [0, 1], [1, 0]]
    assert follow([both, both, elsewhere[:1]], shots=(0, 2))[2] == [1]


def test_a_flash_of_the_detector_is_somebody_else():
    alone = [(pose(0), RED)]
    assert follow([alone, alone, [(pose(2, 0.3), BLUE)], alone]) == [[0], [0], [1], [0]]


def test_somebody_who_is_found_twice_for_a_moment_stays_the_same():
    once, twice = [(pose(0), RED)], [(pose(0.01), RED), (pose(0), RED)]
    found = follow([once] * 20 + [twice] + [[(pose(0.01), RED)]] * 5)
    assert found[:20] == [[0]] * 20 and sorted(found[20]) == [0, 1] and found[21:] == [[0]] * 5


def test_the_rate_is_that_of_the_frames_times():
    at = np.arange(100)
    assert frame_rate(at / 30, 22.5) == 30 and frame_rate((at / 29.97).round(3), 1000.0) == 30000 / 1001
    assert frame_rate(at / 30000 * 1001, 30000 / 1001) == 30000 / 1001
    assert frame_rate(at / 17.0, 17.0) == 17 and frame_rate(at[:1] / 30, 22.5) == 22.5
    gap = np.concatenate([at[:30], at[60:]]) / 30
    assert frame_rate(gap, 30.0) == pytest.approx(69 / gap[-1])


def test_a_dancer_who_has_jumped_too_far_is_found_again():
    """There was a cut that nobody noticed. A neighbour who was there before is not taken for the dancer."""
    near, far, neighbour = (pose(0), RED), (pose(9, 0.3), BLUE), (pose(1.2), BLUE)
    assert follow([[near]] * 3 + [[far]] * 40) == [[0]] * 43
    assert follow([[near, neighbour]] * 3 + [[neighbour]] * 40) == [[0, 1]] * 3 + [[1]] * 40
