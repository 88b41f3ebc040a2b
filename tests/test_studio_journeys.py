"""The page in a browser, as a person uses it: journeys from two videos to a dance.

The page runs on a copy of the project whose sample clips are short.
"""

import re
import shutil

import av
import numpy as np
import pytest
import test_DanceStudio
from test_DanceStudio import copy_project, serving
from test_VideoReader import sound, tone

from common.paths import SAMPLE_SOURCE, SAMPLE_TARGET
from dancing.generators import GENERATORS
from video.film import VideoWriter
from VideoReader import VideoReader

FRAMES = 60  # of each sample clip in the copy
CONSENT = "The people in both videos are me, or have agreed to this."
pytestmark = [pytest.mark.journey, test_DanceStudio.pytestmark]


def shorten(video, path, audio_from=None):
    with VideoReader(video) as reader, VideoWriter(path, reader.fps, audio_from) as writer:
        for frame, _ in zip(reader, range(FRAMES), strict=False):
            writer.write(frame)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = copy_project(tmp_path_factory.mktemp("project"))
    for path in (SAMPLE_TARGET, SAMPLE_SOURCE):
        shorten(path, folder / "data" / "sample" / path.name)
    return folder


@pytest.fixture(scope="module")
def port(project):
    with serving(project) as port:
        yield port


@pytest.fixture(scope="module")
def browser():
    """Chromium; the addresses that its pages ask for are in browser.requests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r requirements-dev.txt")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("there is no browser here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        browser.requests = []
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, port):
    """A function that opens the page in a new tab."""
    contexts = []

    def open_tab(**options):
        contexts.append(browser.new_context(**options))
        contexts[-1].on("request", lambda request: browser.requests.append(request.url))
        page = contexts[-1].new_page()
        page.set_default_timeout(90000)
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_role("button", name="Use the sample target").wait_for()
        page.wait_for_timeout(1500)  # the first refresh of the tab takes so long
        return page

    yield open_tab
    for context in contexts:
        context.close()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def choose(page, gen_type):
    page.get_by_role("radio", name=re.compile(f"^{re.escape(GENERATORS[gen_type].title)}")).check()


def card(page, number):
    return page.locator(".card").nth(number - 1)


def download(page, name, folder):
    with page.expect_download() as coming:
        press(page, name)
    path = folder / coming.value.suggested_filename
    coming.value.save_as(path)
    return path


def check_film(path, size):
    with av.open(str(path)) as film:
        assert film.metadata["comment"] == "synthetic"
        pictures = list(film.decode(video=0))
        assert len(pictures) == FRAMES and (pictures[0].width, pictures[0].height) == size
    _, heard, rate = sound(path)
    assert abs(len(heard) / rate - FRAMES / 30) < 0.1 and np.abs(heard).max() > 0.1


def test_a_person_goes_from_two_videos_to_a_dance(tab, port, browser, project, tmp_path):
    """Steps 1 to 4 with GEN_TYPE 1 and 5 and a short training, then the same films in a new tab on a phone."""
    page, source = tab(viewport={"width": 1280, "height": 900}), tmp_path / "a dance.mp4"
    shorten(project / "data" / "sample" / "source.mp4", source, tone(tmp_path / "tone.mp4", "aac", 3))
    press(page, "Dance")
    page.get_by_text("Choose a target and a source").wait_for()

    press(page, "Use the sample target")
    card(page, 1).get_by_text(f"{FRAMES} of {FRAMES} frames").wait_for()
    text = card(page, 1).inner_text()
    assert "arms up" in text and "Record longer: 2 seconds" in text
    assert "python VideoSkeleton.py data/sample/target.mp4" in text and card(page, 1).locator(".strip img").count() == 6

    page.locator("#source input[type=file]").set_input_files(source)
    card(page, 2).get_by_text("2.0 seconds, 512 x 512").wait_for()

    assert "not trained on this target yet" in card(page, 3).inner_text()
    choose(page, 2)
    page.get_by_role("spinbutton").fill("0.05")
    press(page, "Train")
    card(page, 3).locator(".state", has_text="done").wait_for()
    card(page, 3).get_by_text("● trained on this target").wait_for()
    assert card(page, 3).locator(".job img").count() == 1 and "held-out psnr" in card(page, 3).inner_text()

    press(page, "Dance")  # without the consent of the people in the videos nothing is made
    page.wait_for_timeout(1500)
    assert card(page, 4).locator(".job").count() == 0
    page.get_by_label(CONSENT).check()
    for gen_type in (1, 5):
        choose(page, gen_type)
        press(page, "Dance")
        card(page, 4).locator("code", has_text=f"--gen-type {gen_type}").wait_for()
        card(page, 4).locator(".state", has_text="done").wait_for()
        name = GENERATORS[gen_type].name
        page.wait_for_function("name => document.querySelector('#player video')?.src.includes(name)", arg=name)
        film = download(page, "Video (mp4)", tmp_path)
        assert name in film.name
        check_film(film, (512, 512))
        check_film(download(page, "Side by side (mp4)", tmp_path), (1024, 512))
        motion = download(page, "Motion (BVH, for Blender)", tmp_path).read_text()
        assert motion.startswith("HIERARCHY\nROOT hips") and f"\nFrames: {FRAMES}\n" in motion
    played = page.evaluate("""async () => {const film = document.querySelector('#player video');
                              await film.play(); await new Promise(done => setTimeout(done, 500));
                              return [film.videoWidth, film.duration, film.webkitAudioDecodedByteCount]}""")
    assert played[0] == 1024 and abs(played[1] - FRAMES / 30) < 0.1 and played[2] > 0

    phone = tab(viewport={"width": 390, "height": 844}, color_scheme="dark")
    phone.locator("#player video").wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") == 390  # nothing is wider than the screen
    assert "arms up" in card(phone, 1).inner_text()
    phone.get_by_role("combobox").or_(phone.get_by_role("listbox")).first.click()
    assert phone.get_by_role("option").count() == 2
    elsewhere = [url for url in browser.requests if not url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:"))]
    assert len(browser.requests) > 50 and elsewhere == []


def test_jobs_queue_and_outlive_a_closed_tab_and_stop_keeps_the_best(tab, project):
    page = tab()
    press(page, "Use the sample target")
    press(page, "Use the sample source")
    choose(page, 3)
    page.get_by_role("spinbutton").fill("30")
    press(page, "Train")
    choose(page, 1)
    page.get_by_label(CONSENT).check()
    press(page, "Dance")
    card(page, 4).get_by_text("waits for its turn").wait_for()
    card(page, 3).locator(".job", has_text="--minutes 30").locator("progress[value]").wait_for()
    page.context.close()

    page = tab()
    assert card(page, 3).locator(".state").inner_text() == "running"
    assert card(page, 4).locator(".state").inner_text() == "waits for its turn"
    page.locator("#stop3").click()
    card(page, 3).locator(".state", has_text="stopped").wait_for()
    card(page, 4).locator(".state", has_text="done").wait_for()
    card(page, 3).get_by_text("● trained on this target").nth(0).wait_for()
    assert list((project / "data" / "Dance" / "studio").glob(f"*/{GENERATORS[3].name}.pth"))
    assert not page.locator("#stop3").is_visible()


def test_the_page_shows_the_error_of_the_script_for_a_file_that_is_no_video(tab, tmp_path):
    wrong = tmp_path / "holiday.mp4"
    wrong.write_text("no video")
    page = tab()
    for role, number in (("target", 1), ("source", 2)):
        clear = page.locator(f"#{role} [aria-label=Clear]")
        if clear.count():
            clear.click()
        page.locator(f"#{role} input[type=file]").set_input_files(wrong)
        error = card(page, number).locator("p.error")
        error.wait_for()
        assert error.inner_text().startswith("error: ") and "\n" not in error.inner_text()
        assert "holiday.mp4' can't be opened as a video" in error.inner_text()
