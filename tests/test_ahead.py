"""Work ahead in a thread: nothing is lost, reordered or left running, and the dance is the same picture by picture."""

import threading
import time

import numpy as np
import pytest

from common.ahead import ahead
from dancing.dance import HIGHEST_SOURCE, Moment, compose, dance, draw_source, moments
from dancing.generators import GENERATORS
from motion.extraction import load_track
from motion.mending import steady
from motion.retargeting import place
from VideoReader import VideoReader


def counting(stop, made):
    for number in range(stop):
        made.append((number, threading.current_thread()))
        yield number


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 100])
def test_all_items_come_in_their_order(count):
    assert list(ahead(counting(count, []))) == list(range(count)) and not threads()


def test_another_thread_is_at_most_so_far_ahead():
    made = []
    items = ahead(counting(100, made), most=3)
    assert next(items) == 0
    time.sleep(0.2)
    assert 3 <= len(made) <= 4 and all(thread is not threading.current_thread() for _, thread in made)
    items.close()
    assert not threads() and len(made) <= 4


def test_an_error_comes_where_its_item_would_come():
    def failing():
        yield 1
        raise OSError("gone")

    items = ahead(failing())
    assert next(items) == 1
    with pytest.raises(OSError, match="gone"):
        next(items)
    assert not threads()


@pytest.mark.parametrize("with_source", [True, False])
def test_moments_show_the_same_pictures_as_the_dance_without_threads(clip, target, with_source):
    motion = steady(load_track(clip)).first(12)
    placed, generator = place(motion, target), GENERATORS[5].make_untrained(target)
    alone = list(dance(placed, target, generator))
    with VideoReader(clip) as reader:
        shown = list(moments(motion, placed, target, generator, reader if with_source else None))
        frames = list(VideoReader(clip))[:12]
    assert len(shown) == 12 and all(np.array_equal(one.image, other) for one, other in zip(shown, alone, strict=True))
    for number, moment in enumerate(shown):
        sources = draw_source(frames[number], motion.skeleton(number), 512) if with_source else None
        assert np.array_equal(moment.source, sources) and moment.seconds == motion.seconds[number]


def test_a_dance_that_is_closed_early_leaves_no_thread(clip, target):
    motion = steady(load_track(clip))
    with VideoReader(clip) as reader:
        shown = moments(motion, place(motion, target), target, GENERATORS[1].make(target), reader)
        next(shown)
        shown.close()
        assert not threads()


@pytest.mark.parametrize("height, shown", [(400, 400), (720, 720), (1281, 720)])
def test_beside_a_high_result_the_source_stands_in_the_middle(height, shown):
    frame, image = np.full((90, 160, 3), 200, np.uint8), np.full((height, 300, 3), 50, np.uint8)
    source = draw_source(frame, None, min(height, HIGHEST_SOURCE))
    picture = compose(Moment(0.0, source, False, None, None, image, 0.0, 0.0, 0.0), "side-by-side")
    assert source.shape == (shown, round(160 * shown / 90), 3) and picture.shape == (height, source.shape[1] + 300, 3)
    top, bottom = (height - shown) // 2, (height + shown) // 2
    assert (picture[:, -300:] == 50).all() and (picture[top:bottom, :-300] == 200).all()
    assert not picture[:top, :-300].any() and not picture[bottom:, :-300].any()
    assert compose(Moment(0.0, None, False, None, None, image, 0.0, 0.0, 0.0), "side-by-side") is image
