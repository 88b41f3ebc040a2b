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
        page.set_default_timeout(60000)
        page.goto(f"http://127.0.0.1:{port}/")
        page.locator("#target .own > *").first.wait_for(state="attached")
        page.wait_for_timeout(1500)  # the first refresh of the tab takes so long
        return page

    yield open_tab
    for context in contexts:
        context.close()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def give(page, role, *paths):
    """Upload videos in the step of that role, and wait until the last one is chosen and can be cut."""
    if role == "target":  # there is one target only
        remove_all(page, role)
    more = page.locator(f"#{role} details.more:not([open]) summary")
    if more.is_visible():
        more.click()
    page.locator(f"#{role} input[type=file]").set_input_files(paths)
    page.locator(f"#{role} .pick", has_text=paths[-1].name).wait_for()


def remove_all(page, role):
    while page.locator(f"#{role} .drop-it").count():
        page.locator(f"#{role} .drop-it").first.click()
        page.wait_for_timeout(700)


def job(page, title):
    """The panel of the job whose title has this text."""
    return page.locator(".job", has_text=title)


def choose(page, gen_type):
    drawing = page.get_by_role("radio", name=re.compile(f"^{re.escape(GENERATORS[gen_type].title)}"))
    if not drawing.is_visible():
        page.get_by_role("button", name="Ways of drawing").click()
    drawing.check()


def card(page, number):
    return page.locator(".card").nth(number - 1)


def download(page, name, folder):
    with page.expect_download() as coming:
        page.get_by_role("link", name=name, exact=True).click()
    path = folder / coming.value.suggested_filename
    coming.value.save_as(path)
    return path


def check_film(path, size, frames):
    with av.open(str(path)) as film:
        assert film.metadata["comment"] == "synthetic"
        pictures = list(film.decode(video=0))
        assert len(pictures) == frames and (pictures[0].width, pictures[0].height) == size
    _, heard, rate = sound(path)
    assert abs(len(heard) / rate - frames / 30) < 0.1 and np.abs(heard).max() > 0.1


def test_a_person_goes_from_two_videos_to_a_dance(tab, port, browser, project, tmp_path):
    """A target and a source of which a part is taken, a short training, two dances, and the same on a phone."""
    page, source = tab(viewport={"width": 1280, "height": 900}), tmp_path / "a dance.mp4"
    shorten(project / "data" / "sample" / "source.mp4", source, tone(tmp_path / "tone.mp4", "aac", 3))
    press(page, "Dance")
    page.get_by_text("Choose a target in step 1").wait_for()

    press(page, "Use the sample target")
    card(page, 1).get_by_text(f"{FRAMES} of {FRAMES} frames").wait_for()
    card(page, 1).get_by_text("What was found").click()
    page.wait_for_timeout(1500)  # the page is updated, and what is open stays open
    text = card(page, 1).inner_text()
    assert "arms up" in text and "Record longer: 2 seconds" in text and card(page, 1).locator(".strip img").count() == 6

    give(page, "source", source)
    card(page, 2).get_by_text("2.0 seconds, 512 x 512").wait_for()
    player = page.locator("#source video")
    player.evaluate("async film => {film.currentTime = 0.5; await new Promise(done => film.onseeked = done)}")
    press(card(page, 2), "Start here")
    page.wait_for_function("document.querySelectorAll('#source .limits input')[0].value === '0:00.5'")
    end = card(page, 2).get_by_label("End", exact=True)
    end.fill("soon")
    end.press("Enter")
    page.locator(".told", has_text="is no time").wait_for()
    end.fill("1.5")
    end.press("Enter")
    card(page, 2).get_by_label("End of the part").focus()
    page.wait_for_function("document.querySelectorAll('#source .part input')[1].value === '1.5'")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("document.querySelectorAll('#source .limits input')[1].value === '0:01.4'")

    choose(page, 2)
    assert "not trained on this target yet" in card(page, 3).inner_text()
    page.get_by_role("spinbutton").fill("0.05")
    press(page, "Train")
    page.locator("figure.comparison img").wait_for()
    assert "Trained on this target" in card(page, 3).inner_text()
    details = job(page, "Training “Network, from 26 numbers”")
    details.locator("summary").click()
    assert "GenVanillaNN.py --input ske" in details.inner_text() and "held-out psnr" in details.inner_text()

    press(page, "Dance")  # without the consent of the people in the videos nothing is made
    page.get_by_text("Confirm that the people in the videos have agreed.").wait_for()
    assert job(page, "dances like").count() == 0
    page.get_by_label(CONSENT).check()
    for number, gen_type in enumerate((1, 5), 1):
        choose(page, gen_type)
        press(page, "Dance")
        page.wait_for_function("number => document.querySelectorAll('.tile').length === number", arg=number)
        page.get_by_role("link", name="Motion (BVH, for Blender)").wait_for()
        name = GENERATORS[gen_type].name
        film = download(page, "Video (mp4)", tmp_path)
        assert name in film.name
        check_film(film, (512, 512), 27)  # from 0.5 to 1.4 seconds
        check_film(download(page, "Side by side (mp4)", tmp_path), (1024, 512), 27)
        motion = download(page, "Motion (BVH, for Blender)", tmp_path).read_text()
        assert motion.startswith("HIERARCHY\nROOT hips") and "\nFrames: 27\n" in motion
    played = page.evaluate("""async () => {const film = document.querySelector('#player');
                              await film.play(); await new Promise(done => setTimeout(done, 500));
                              return [film.videoWidth, film.duration, film.webkitAudioDecodedByteCount]}""")
    assert played[0] == 1024 and abs(played[1] - 0.9) < 0.1 and played[2] > 0

    phone = tab(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)
    phone.locator(".tile").nth(1).wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") == 390  # nothing is wider than the screen
    assert not phone.get_by_text("arms up").is_visible() and phone.locator("code:visible").count() == 0
    small = phone.evaluate("""() => [...document.querySelectorAll('.own button, .own .button, summary, button.small')]
        .filter(element => element.checkVisibility() && element.getBoundingClientRect().height < 43)
        .map(element => element.textContent)""")
    assert small == []  # a finger needs so many pixels
    elsewhere = [url for url in browser.requests if not url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:"))]
    assert len(browser.requests) > 50 and elsewhere == []


def test_several_sources_one_of_two_people_and_the_gallery(tab, project, duo, tmp_path):
    """Two sources at once: of one, a person is chosen by the keyboard and by touch. Both are danced, compared in step
    and deleted."""
    page, other = tab(viewport={"width": 390, "height": 844}, has_touch=True), tmp_path / "other.mp4"
    shutil.copy(project / "data" / "sample" / "source.mp4", other)
    remove_all(page, "source")
    if not page.locator("#target .pick").count():
        press(page, "Use the sample target")
    give(page, "source", duo, other)
    page.locator("#source .pick", has_text=duo.name).click()
    people = page.locator("#source .people label")
    people.nth(1).wait_for()
    assert [person.locator("input").is_checked() for person in people.all()] == [False, True]  # the largest one
    people.nth(0).tap()
    page.wait_for_timeout(1500)
    assert people.nth(0).locator("input").is_checked()
    people.nth(0).locator("input").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(1500)
    assert people.nth(1).locator("input").is_checked()
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(1500)
    assert people.nth(0).locator("input").is_checked()

    before = page.locator(".tile").count()
    choose(page, 1)
    page.get_by_label(CONSENT).check()
    press(page, "Dance")
    waiting = job(page, "target dances like other")
    waiting.get_by_text("waits for its turn").wait_for()
    page.locator("#kept summary").click()
    upload = page.locator("#kept li", has_text="other.mp4")
    upload.get_by_role("button").click()
    upload.get_by_role("button", name="Really delete?").click()
    page.locator(".told", has_text="is kept, because “target dances like other” needs it").wait_for()
    page.wait_for_function("count => document.querySelectorAll('.tile').length === count", arg=before + 2)
    details = job(page, "target dances like two")
    details.locator("summary").click()
    assert "--person 0.2" in details.locator("code").inner_text()

    tiles = page.locator(".tile")
    assert ["like other" in tiles.nth(0).inner_text(), "like two" in tiles.nth(1).inner_text()] == [True, True]
    tiles.nth(0).scroll_into_view_if_needed()
    page.wait_for_function("!document.querySelector('.tile video').paused")  # it moves while it is seen
    for number in range(2):
        press(tiles.nth(number), "Compare")
    page.wait_for_function("[...document.querySelectorAll('.films video')].every(film => film.readyState > 1)")
    press(page, "Play")
    page.wait_for_timeout(700)
    times = "[...document.querySelectorAll('.films video')].map(film => film.currentTime)"
    first, second = page.evaluate(times)
    assert first > 0.1 and abs(first - second) < 0.2
    page.get_by_label("time of both films").evaluate(
        "bar => {bar.value = 0.6; bar.dispatchEvent(new Event('input'))}")
    page.wait_for_timeout(300)
    assert page.evaluate(times) == [0.6, 0.6]

    films = sorted((project / "data" / "Dance" / "studio" / "dances").glob("*"))
    remove = tiles.nth(0).get_by_role("button", name=re.compile("^Delete"))
    remove.click()
    page.wait_for_timeout(1200)
    assert page.locator(".tile").count() == before + 2 and remove.inner_text() == "Really?"
    remove.click()
    page.wait_for_function("count => document.querySelectorAll('.tile').length === count", arg=before + 1)
    left = sorted((project / "data" / "Dance" / "studio" / "dances").glob("*"))
    assert len(left) == len(films) - 3 and all("like-other" in path.name for path in set(films) - set(left))
    upload.get_by_role("button").click()
    upload.get_by_role("button", name="Really delete?").click()
    page.locator("#source .pick", has_text="other").wait_for(state="detached")
    assert not list((project / "data" / "Dance" / "studio" / "uploads").glob("*/other.mp4"))
    assert not list((project / "data" / "cache").glob("other-*"))


def test_jobs_queue_and_outlive_a_closed_tab_and_stop_keeps_the_best(tab, project):
    page = tab()
    remove_all(page, "source")
    remove_all(page, "target")
    press(page, "Use the sample target")
    press(page, "Use the sample source")
    choose(page, 3)
    page.get_by_role("spinbutton").fill("30")
    press(page, "Train")
    choose(page, 1)
    page.get_by_label(CONSENT).check()
    press(page, "Dance")
    job(page, "dances like").get_by_text("waits for its turn").wait_for()
    job(page, "Training").locator("progress[value]").wait_for()
    page.context.close()

    page = tab()
    training = job(page, "Training “Network, from a drawing”")
    assert training.locator(".state").inner_text() == "running"
    assert job(page, "dances like").locator(".state").inner_text() == "waits for its turn"
    press(training, "Stop")
    training.get_by_text("stopped").wait_for()
    job(page, "dances like").get_by_text("done").wait_for()
    page.get_by_text("What the training of “Network, from a drawing” has brought").wait_for()
    assert list((project / "data" / "Dance" / "studio").glob(f"*/{GENERATORS[3].name}.pth"))
    assert not training.get_by_role("button", name="Stop").count()


def test_the_page_says_in_plain_words_that_a_file_is_no_video(tab, tmp_path):
    wrong = tmp_path / "holiday.mp4"
    wrong.write_text("no video")
    page = tab()
    for role, number in (("target", 1), ("source", 2)):
        give(page, role, wrong)
        error = card(page, number).locator("p.error", has_text="holiday")
        error.wait_for()
        assert error.inner_text().startswith("“holiday.mp4” can't be opened as a video")
        assert "uploads" not in card(page, number).inner_text() and "error:" not in card(page, number).inner_text()
