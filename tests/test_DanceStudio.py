"""The page in a browser, as a person uses it, on a copy of the project whose sample clips are short. Nothing of it
leaves the machine, and nothing is served that is not the page's own."""

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import av
import numpy as np
import pytest
from test_VideoReader import sound, tone

import DanceStudio
from CommandLine import ROOT
from VideoReader import VideoReader
from VideoWriter import VideoWriter

FRAMES = 60
pytest.importorskip("gradio", reason="pip install -r requirements-page.txt")


def shortened(video, path, audio_from=None):
    with VideoReader(video) as reader, VideoWriter(path, reader.fps, audio_from) as writer:
        for frame, _ in zip(reader, range(FRAMES), strict=False):
            writer.write(frame)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the scripts, with data of its own."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data" / "sample").mkdir(parents=True)
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    for name in ("target.mp4", "source.mp4"):
        shortened(ROOT / "data" / "sample" / name, folder / "data" / "sample" / name)
    return folder


@contextmanager
def serving(project, *flags):
    """The page at work: its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, project / "DanceStudio.py", "--port", str(port), *flags]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = server.stdout.readline()
    assert f"http://127.0.0.1:{port}" in said, said + server.communicate(timeout=10)[0]
    yield port
    server.send_signal(signal.SIGINT)
    said = server.communicate(timeout=60)[0]
    assert server.returncode == 130 and "Traceback" not in said, said


@pytest.fixture(scope="module")
def port(project):
    with serving(project) as port:
        yield port


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium; every request of every page is noted in browser.asked."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install -r requirements-dev.txt")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if not path:
        pytest.skip("there is no browser here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        browser.asked = []
        yield browser
        browser.close()


@pytest.fixture
def tab(browser, port):
    """tab() opens the page in a tab of its own."""
    contexts = []

    def opened(**look):
        contexts.append(browser.new_context(**look))
        contexts[-1].on("request", lambda request: browser.asked.append(request.url))
        page = contexts[-1].new_page()
        page.set_default_timeout(90000)
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_role("button", name="Use the sample target").wait_for()
        page.wait_for_timeout(1500)  # until it has been told what there is already
        return page

    yield opened
    for context in contexts:
        context.close()


def press(page, name):
    page.get_by_role("button", name=name, exact=True).click()


def step(page, number):
    """The card of a step, as it is on the page."""
    return page.locator(".step").nth(number - 1)


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
    """Steps 1 to 4 with GEN_TYPE 1 and 5, and a short training; then the same films in a new tab, on a phone."""
    page, source = tab(viewport={"width": 1280, "height": 900}), tmp_path / "a dance.mp4"
    shortened(project / "data" / "sample" / "source.mp4", source, tone(tmp_path / "tone.mp4", "aac", 3))
    press(page, "Dance")
    page.get_by_text("First a target and a source").wait_for()

    press(page, "Use the sample target")
    step(page, 1).get_by_text(f"{FRAMES} of {FRAMES} frames").wait_for()
    said = step(page, 1).inner_text()
    assert "arms up" in said and "Record longer: 2 seconds" in said
    assert "python VideoSkeleton.py data/sample/target.mp4" in said and step(page, 1).locator(".strip img").count() == 6

    page.locator("#source input[type=file]").set_input_files(source)
    step(page, 2).get_by_text("2.0 seconds, 512 x 512").wait_for()

    assert "not trained on this target yet" in step(page, 3).inner_text()
    page.get_by_label("Network, from 26 numbers").check()
    page.get_by_role("spinbutton").fill("0.05")
    press(page, "Train")
    step(page, 3).get_by_text("● trained on this target").wait_for()
    assert step(page, 3).locator(".job img").count() == 1 and "held-out psnr" in step(page, 3).inner_text()

    press(page, "Dance")  # without the word on who is in the videos nothing is made
    page.wait_for_timeout(1500)
    assert step(page, 4).locator(".job").count() == 0
    page.get_by_label(DanceStudio.CONSENT).check()
    for label, gen_type in (("Nearest frame", 1), ("Warp", 5)):
        page.get_by_label(label).first.check()
        press(page, "Dance")
        step(page, 4).locator("code", has_text=f"--gen-type {gen_type}").wait_for()
        step(page, 4).locator(".state", has_text="done").wait_for()
        name = DanceStudio.DanceDemo.GENERATORS[gen_type][0]
        page.wait_for_function("name => document.querySelector('#player video')?.src.includes(name)", arg=name)
        film = download(page, "Video (mp4)", tmp_path)
        assert name in film.name
        check_film(film, (512, 512))
        check_film(download(page, "Side by side (mp4)", tmp_path), (1024, 512))
        with np.load(download(page, "Motion (npz)", tmp_path)) as motion:
            assert motion["joints"].shape == (FRAMES, 33, 3) and motion["detected"].all()
    played = page.evaluate("""async () => {const film = document.querySelector('#player video');
                              await film.play(); await new Promise(done => setTimeout(done, 500));
                              return [film.videoWidth, film.duration, film.webkitAudioDecodedByteCount]}""")
    assert played[0] == 1024 and abs(played[1] - FRAMES / 30) < 0.1 and played[2] > 0

    phone = tab(viewport={"width": 390, "height": 844}, color_scheme="dark")
    phone.locator("#player video").wait_for()
    assert phone.evaluate("document.documentElement.scrollWidth") == 390  # nothing sticks out
    assert "arms up" in step(phone, 1).inner_text()
    phone.get_by_role("combobox").or_(phone.get_by_role("listbox")).first.click()
    assert phone.get_by_role("option").count() == 2
    elsewhere = [url for url in browser.asked if not url.startswith((f"http://127.0.0.1:{port}/", "data:", "blob:"))]
    assert len(browser.asked) > 50 and elsewhere == []


def test_jobs_queue_and_outlive_a_closed_tab_and_stop_keeps_the_best(tab, project):
    page = tab()
    press(page, "Use the sample target")
    press(page, "Use the sample source")
    page.get_by_label("Network, from a drawing").check()
    page.get_by_role("spinbutton").fill("30")
    press(page, "Train")
    page.get_by_label("Nearest frame").check()
    page.get_by_label(DanceStudio.CONSENT).check()
    press(page, "Dance")
    step(page, 4).get_by_text("waits for its turn").wait_for()
    step(page, 3).locator(".job", has_text="--minutes 30").locator("progress[value]").wait_for()
    page.context.close()

    page = tab()
    assert step(page, 3).locator(".state").inner_text() == "running"
    assert step(page, 4).locator(".state").inner_text() == "waits for its turn"
    page.locator("#stop3").click()
    step(page, 3).locator(".state", has_text="stopped").wait_for()
    step(page, 4).locator(".state", has_text="done").wait_for()
    step(page, 3).get_by_text("● trained on this target").nth(0).wait_for()
    assert list((project / "data" / "Dance" / "studio").glob("*/GenVanillaFromSkeim.pth"))
    assert not page.locator("#stop3").is_visible()


def test_a_wrong_file_is_told_as_the_scripts_tell_it(tab, tmp_path):
    wrong = tmp_path / "holiday.mp4"
    wrong.write_text("no video")
    page = tab()
    for role, number in (("target", 1), ("source", 2)):
        clear = page.locator(f"#{role} [aria-label=Clear]")
        if clear.count():
            clear.click()
        page.locator(f"#{role} input[type=file]").set_input_files(wrong)
        error = step(page, number).locator("p.error")
        error.wait_for()
        assert error.inner_text().startswith("error: ") and "\n" not in error.inner_text()
        assert "holiday.mp4' can't be opened as a video" in error.inner_text()


def ask(port, path, method="GET", body=None, **headers):
    """(status, body) of a request whose path nobody tidies up first."""
    asking = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    asking.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = asking.getresponse()
    return answer.status, answer.read()


def test_only_its_own_files_are_served(port, project):
    sample, studio = project / "data" / "sample" / "source.mp4", project / "data" / "Dance" / "studio"
    secret = studio / "weights of somebody.pth"
    secret.write_text("secret")
    assert ask(port, f"/gradio_api/file={sample}", Host=f"127.0.0.1:{port}") == (200, sample.read_bytes())
    dances, up = studio / "dances", "/.." * 12
    inside = [dances, f"{dances}/../../../../DanceStudio.py", f"{dances}/..%2f..%2f..%2f..%2fDanceStudio.py",
              f"{dances}{up}/etc/passwd", f"{dances}{up.replace('.', '%2e')}/etc/passwd",
              f"{studio}/uploads{up}/etc/passwd"]
    outside = ["/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "../../etc/passwd", "file:///etc/passwd",
               "/proc/self/environ", "DanceStudio.py", project / "DanceStudio.py", project / "data/cache",
               str(secret).replace(" ", "%20"), "http://example.com/", "https://127.0.0.1/"]
    roots = ["/gradio_api/file=", "/file=", "/static/", "/gradio_api/static/", "/assets/", "/theme.css/", "/"]
    for path in [*inside, *outside]:
        for root in roots:
            status, body = ask(port, f"{root}{path}")
            assert status in (400, 403, 404, 405, 422, 500, 502) and b"root:" not in body and b"import" not in body, \
                (root, path, status)
    assert ask(port, "/", Host="example.com")[0] == 400  # a name that another site has given this machine


def test_password_and_upload_limit(project):
    with serving(project, "--password", "mum's the word", "--upload-limit", "0.01") as port:
        sample = project / "data" / "sample" / "source.mp4"
        assert ask(port, f"/gradio_api/file={sample}")[0] == ask(port, "/config")[0] == 401
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        assert ask(port, "/login", "POST", "username=me&password=wrong", **form)[0] == 400
        asking = http.client.HTTPConnection("127.0.0.1", port)
        said = "username=me&password=mum%27s+the+word"
        asking.request("POST", "/login", said, {"Content-Type": form["Content_Type"]})
        answer = asking.getresponse()
        cookie = "; ".join(value.split(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie")
        assert answer.status == 200 and json.loads(answer.read())["success"]
        assert ask(port, f"/gradio_api/file={sample}", Cookie=cookie)[0] == 200
        for size, fits in ((1000, True), (20000, False)):
            head = "--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.mp4\"\r\n\r\n"
            body = f"{head}{'y' * size}\r\n--x--\r\n"
            status = ask(port, "/gradio_api/upload", "POST", body, Cookie=cookie,
                         Content_Type="multipart/form-data; boundary=x")[0]
            assert (status == 200) == fits and status in (200, 413)


@pytest.mark.parametrize("flags, told", [(["--host", "0.0.0.0"], "give a --password"), (["--port", "-1"], "--port"),
                                         (["--upload-limit", "none"], "--upload-limit")])
def test_one_line_errors(script, flags, told):
    status, _, error = script(DanceStudio.main, *flags)
    assert status == 2 and error.startswith("error: ") and told in error and error.count("\n") == 1


def test_a_port_that_is_taken(script, port):
    words = [sys.executable, ROOT / "DanceStudio.py", "--port", str(port)]
    run = subprocess.run(words, capture_output=True, text=True, timeout=60)
    told = f"error: can't listen on 127.0.0.1:{port}; name another --host or --port\n"
    assert (run.returncode, run.stderr) == (2, told)


def test_its_process_reaches_no_other_machine():
    code = "import socket, CommandLine; CommandLine.stay_here({'127.0.0.1'})\n" \
           "for name in ('127.0.0.1', '10.255.255.1', 'localhost.invalid'):\n" \
           "    try: socket.create_connection((name, 9), 1)\n" \
           "    except OSError as error: print(type(error).__name__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == ["ConnectionRefusedError", "PermissionError", "PermissionError"], run.stderr


def test_the_page_is_small():
    assert len((ROOT / "DanceStudio.py").read_text().splitlines()) < 350
