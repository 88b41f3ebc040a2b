"""The page without a browser: its command lines, what it serves and to whom, and its errors."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import numpy as np
import pytest
from test_video_kinds import encode, moving_disc

import DanceStudio
from common.paths import ROOT, SAMPLE_SOURCE, SAMPLE_TARGET
from dancing import studio_videos
from dancing.generators import GENERATORS
from motion.extraction import load_people
from video.clip import Clip
from VideoReader import VideoReader

PASSWORD = "mum's the word"
PROXIES = {"http_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "all_proxy": "socks5://127.0.0.1:9"}
pytestmark = pytest.mark.skipif(find_spec("gradio") is None, reason="pip install -r requirements-page.txt")


def copy_project(folder):
    """Copy the scripts, the packages and the sample clips; the page writes its data there and not into this project."""
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    for path in ROOT.glob("*/__init__.py"):
        shutil.copytree(path.parent, folder / path.parent.name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data" / "sample").mkdir(parents=True)
    for path in (SAMPLE_TARGET, SAMPLE_SOURCE):
        shutil.copy(path, folder / "data" / "sample")
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("project"))


@contextmanager
def serving(project, *flags):
    """Runs the page where proxies are set up, which don't answer, and yields its port; at the end, Ctrl-C must end it
    without a traceback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, project / "DanceStudio.py", "--port", str(port), *flags]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env=os.environ | PROXIES)
    output = server.stdout.readline()
    assert f"http://127.0.0.1:{port}" in output, output + server.communicate(timeout=10)[0]
    yield port
    server.send_signal(signal.SIGINT)
    output = server.communicate(timeout=60)[0]
    assert server.returncode == 130 and "Traceback" not in output, output


@pytest.fixture(scope="module")
def refused(project):
    """(port, process) of a page that is told to use a port that is taken."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = [sys.executable, project / "DanceStudio.py", "--port", str(port)]
        yield port, subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def locked_port(project, refused):
    """The port of a page with a password and a small limit of uploads. Both pages start at once, to save seconds."""
    with serving(project, "--password", PASSWORD, "--upload-limit", "0.01") as port:
        yield port


def test_command_lines(monkeypatch, tmp_path):
    """Every generator is trained and danced with by the words of the table; GEN_TYPE 1 and 5 need no checkpoint.
    Whether there is one, or a training to go on with, is looked up when the job starts."""
    queue, warnings = [], []
    recorder = SimpleNamespace(add=lambda section, title, words, picture=None: queue.append(words))
    monkeypatch.setattr(DanceStudio, "Jobs", lambda: recorder)
    monkeypatch.setattr(DanceStudio, "checkpoint_path", lambda _, gen_type: tmp_path / f"{gen_type}.pth")
    (tmp_path / "3-last.pth").touch()
    studio = DanceStudio.Studio(warnings.append)
    studio.train(5, 1)
    studio.dance(5, True)
    studio.choose("target", Clip(SAMPLE_TARGET))
    studio.choose("source", Clip(SAMPLE_SOURCE))
    studio.train(1, 1)
    studio.dance(5, False)
    assert [text.split(" in step")[0] for text in warnings] == ["Choose a target", "Choose a target and a source"] * 2
    assert queue == [["VideoSkeleton.py", SAMPLE_TARGET]] and sorted(DanceStudio.ORDER) == sorted(GENERATORS)
    for gen_type, entry in GENERATORS.items():
        studio.dance(gen_type, True)
        words = queue.pop()()
        assert words[:8] == ["DanceDemo.py", "--no-window", "--gen-type", str(gen_type), "--source", SAMPLE_SOURCE,
                             "--target", SAMPLE_TARGET]
        assert ("--checkpoint" in words) == (gen_type in (2, 3, 4))
        if entry.trainer:
            studio.train(gen_type, 0.5)
            words = queue.pop()()
            assert tuple(words[:len(entry.trainer)]) == entry.trainer and words[words.index("--minutes") + 1] == "0.5"
            assert words[words.index("--checkpoint") + 1] == tmp_path / f"{gen_type}.pth"
            assert ("--resume" in words) == (gen_type == 3)
    studio.train(5, None)
    studio.dance(5, True)
    for name in ("5.pth", "5-last.pth"):  # an earlier job makes them while these two wait
        (tmp_path / name).touch()
    assert queue.pop()()[-2:] == ["--checkpoint", tmp_path / "5.pth"] and queue.pop()()[-1] == "--resume"


@pytest.fixture
def studio(monkeypatch):
    """A Studio whose jobs are only listed, in studio.queue; what it tells a person is in studio.told."""
    queue, told = [], []
    recorder = SimpleNamespace(add=lambda section, title, words, picture=None: queue.append((words, picture)))
    monkeypatch.setattr(DanceStudio, "Jobs", lambda: recorder)
    studio = DanceStudio.Studio(told.append)
    studio.queue, studio.told = queue, told
    return studio


def test_a_part_and_a_person_reach_every_command_line(studio):
    studio.choose("target", Clip(SAMPLE_TARGET))
    studio.choose("source", Clip(SAMPLE_SOURCE))
    plain = DanceStudio.checkpoint_path(studio.videos["target"], 5)
    for role, begin, end in (("target", "1", "0:08"), ("source", "", " 1:02.5 ")):
        studio.trim(role, begin, end)
        studio.follow(role, "0.250,0.500")
    assert len(studio.queue) == 3  # the target is looked at anew each time
    part = ["--from", "1", "--to", "8", "--person", "0.250,0.500"]
    assert studio.queue[-1][0] == ["VideoSkeleton.py", SAMPLE_TARGET, *part]
    target_part = [word.replace("--", "--target-") for word in part]
    studio.train(5, 1)
    assert studio.queue[-1][0]()[1:9] == ["--target", SAMPLE_TARGET, *target_part]
    studio.dance(1, True)
    words = studio.queue[-1][0]()
    assert words[4:18] == ["--source", SAMPLE_SOURCE, "--to", "62.5", "--person", "0.250,0.500", "--target",
                           SAMPLE_TARGET, *target_part]
    assert DanceStudio.checkpoint_path(studio.videos["target"], 5) != plain
    before = dict(studio.videos)
    for begin, end in (("soon", ""), ("5", "4"), ("-1", "")):
        studio.trim("source", begin, end)
    assert len(studio.told) == 3 and studio.videos == before


def test_long_names_in_any_script_are_cut_to_what_a_disk_takes(studio, tmp_path):
    paths = [tmp_path / f"{letter * 60}.mp4" for letter in "踊舞"]
    for role, path in zip(("target", "source"), paths, strict=True):
        shutil.copy(SAMPLE_SOURCE, path)
        studio.choose(role, Clip(path))
    studio.dance(5, True)
    words, part = studio.queue[-1]
    written = [word for word in words() if str(word).startswith(str(DanceStudio.DANCES))] + [part]
    written += [path.with_name(f"{path.stem}-unfinished123.mp4") for path in written if path.suffix == ".mp4"]
    assert len(written) == 6 and all(len(os.fsencode(path.name)) <= 255 for path in written)
    assert len(os.fsencode(DanceStudio.checkpoint_path(Clip(paths[0]), 5).parent.name)) <= 255


def test_a_video_that_browsers_can_not_play_is_converted_once(tmp_path, monkeypatch):
    monkeypatch.setattr(studio_videos, "PREVIEWS", tmp_path / "previews")
    strange = tmp_path / "phone.mov"
    encode(strange, [moving_disc(number, 640) for number in range(6)], "mpeg4", [0, 1, 2, 5, 6, 7])
    copy, = {studio_videos.playable(strange) for _ in range(3)}
    assert list((tmp_path / "previews").iterdir()) == [Path(copy)]
    with VideoReader(copy) as reader:
        seconds, pictures = zip(*reader.timed(), strict=True)
    assert pictures[0].shape == (480, 480, 3) and np.allclose(seconds, np.array([0, 1, 2, 5, 6, 7]) / 30, atol=1e-3)
    assert studio_videos.playable(SAMPLE_SOURCE) == str(SAMPLE_SOURCE)
    (tmp_path / "no.mp4").write_text("no video")
    assert studio_videos.playable(tmp_path / "no.mp4") == str(tmp_path / "no.mp4")


def test_the_numbered_people_of_a_video_are_those_who_are_followed(duo):
    picture, points = studio_videos.first_people(Clip(duo))
    assert len(points) == 2 and picture.shape == (512, 1024, 3)
    for point, left in zip(points, (True, False), strict=True):
        hips = load_people(Clip(duo, person=point)).track.joints[:, [23, 24], 0].mean(1)
        assert ((hips < 0.5) == left).all()
    assert studio_videos.first_people(Clip(Path("none.mp4"))) == (None, [])


def ask(port, path, method="GET", body=None, **headers):
    """(status, body) of a request whose path is sent exactly as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read()


@pytest.fixture(scope="module")
def cookie(locked_port):
    """What the page with a password gives to a browser that has said the password."""
    connection = http.client.HTTPConnection("127.0.0.1", locked_port, timeout=30)
    connection.request("POST", "/login", urlencode({"username": "me", "password": PASSWORD}),
                       {"Content-Type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    assert answer.status == 200 and json.loads(answer.read())["success"]
    return "; ".join(value.split(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie")


def test_only_its_own_files_are_served(locked_port, cookie, project):
    sample, studio = project / "data" / "sample" / "source.mp4", project / "data" / "Dance" / "studio"
    secret = studio / "weights of somebody.pth"
    secret.write_text("secret")
    own_name = {"Host": f"127.0.0.1:{locked_port}", "Cookie": cookie}
    assert ask(locked_port, f"/gradio_api/file={sample}", **own_name) == (200, sample.read_bytes())
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
            status, body = ask(locked_port, f"{root}{path}", Cookie=cookie)
            assert status in (400, 403, 404, 405, 422, 500, 502) and b"root:" not in body and b"import" not in body, \
                (root, path, status)
    other_name = {"Host": "example.com", "Cookie": cookie}
    assert ask(locked_port, "/", **own_name)[0] == 200 and ask(locked_port, "/", **other_name)[0] == 400


def test_password_and_upload_limit(locked_port, cookie, project):
    sample = project / "data" / "sample" / "source.mp4"
    assert ask(locked_port, f"/gradio_api/file={sample}")[0] == ask(locked_port, "/config")[0] == 401
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert ask(locked_port, "/login", "POST", "username=me&password=wrong", **form)[0] == 400
    for size, fits in ((1000, True), (20000, False)):
        head = "--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"a.mp4\"\r\n\r\n"
        body = f"{head}{'y' * size}\r\n--x--\r\n"
        status = ask(locked_port, "/gradio_api/upload", "POST", body, Cookie=cookie,
                     Content_Type="multipart/form-data; boundary=x")[0]
        assert (status == 200) == fits and status in (200, 413)


def test_a_port_that_is_taken(refused):
    port, page = refused
    error = page.communicate(timeout=60)[1]
    assert error == f"error: can't listen on 127.0.0.1:{port}; name another --host or --port\n" and page.returncode == 2


@pytest.mark.parametrize("flags, text", [(["--host", "0.0.0.0"], "give a --password"), (["--port", "-1"], "--port"),
                                         (["--upload-limit", "none"], "--upload-limit")])
def test_one_line_errors(script, flags, text):
    status, _, error = script(DanceStudio.main, *flags)
    assert status == 2 and error.startswith("error: ") and text in error and error.count("\n") == 1


def test_its_process_reaches_no_other_machine():
    code = "import socket; from common.command_line import refuse_other_hosts; refuse_other_hosts({'127.0.0.1'})\n" \
           "for name in ('127.0.0.1', '10.255.255.1', 'localhost.invalid'):\n" \
           "    try: socket.create_connection((name, 9), 1)\n" \
           "    except OSError as error: print(type(error).__name__)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == ["ConnectionRefusedError", "PermissionError", "PermissionError"], run.stderr
