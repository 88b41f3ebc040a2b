"""The page without a browser: its command lines, what it serves and to whom, and its errors."""

import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlencode

import cv2
import numpy as np
import pytest
from test_video_kinds import encode, moving_disc

import DanceStudio
from common.command_line import UserError
from common.door import address_for_others, qr_code
from common.files import sha256
from common.paths import ROOT, SAMPLE_SOURCE, SAMPLE_TARGET
from dancing import studio_files, studio_videos, studio_work
from dancing.generators import GENERATORS
from dancing.studio_page import for_people, kept_panel, phone_panel
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


class ListedJobs:
    """A queue whose jobs are only listed: queue has (section, words, picture) of each one. used: the path that some
    job needs."""

    def __init__(self):
        self.queue, self.used = [], None

    def add(self, section, title, words, picture=None):
        self.queue.append((section, words, picture))

    def of(self, section):
        return []

    def clear(self, section):
        pass

    def stop(self, number):
        self.stopped = number

    def using(self, path):
        return "a dance" if path == self.used else None

    def words(self):
        """The command line of the last job, as it is decided when the job starts."""
        words = self.queue[-1][1]
        return words() if callable(words) else words


@pytest.fixture
def studio(monkeypatch):
    monkeypatch.setattr(studio_work, "Jobs", ListedJobs)
    return studio_work.Studio()


def refusal(wish, *arguments):
    with pytest.raises(UserError) as error:
        wish(*arguments)
    return str(error.value)


def test_command_lines(studio, monkeypatch, tmp_path):
    """Every generator is trained and danced with by the words of the table; GEN_TYPE 1 and 5 need no checkpoint.
    Whether there is one, or a training to go on with, is looked up when the job starts."""
    monkeypatch.setattr(studio_work, "checkpoint_path", lambda _, gen_type: tmp_path / f"{gen_type}.pth")
    (tmp_path / "3-last.pth").touch()
    assert "Choose a target" in refusal(studio.train, 5, 1)
    assert "Choose a target in step 1 and a source" in refusal(studio.dance, 5, True)
    studio.choose("target", Clip(SAMPLE_TARGET))
    studio.choose("source", Clip(SAMPLE_SOURCE))
    assert "learns nothing" in refusal(studio.train, 1, 1) and "have agreed" in refusal(studio.dance, 5, False)
    assert studio.jobs.queue == [(studio_work.LOOKING, ["VideoSkeleton.py", SAMPLE_TARGET], None)]
    assert sorted(DanceStudio.ORDER) == sorted(GENERATORS)
    for gen_type, entry in GENERATORS.items():
        path = tmp_path / f"{gen_type}.pth"
        if not entry.works_untrained:
            assert "press Train" in refusal(studio.dance, gen_type, True)
            studio.jobs.used = path  # a training into it waits or runs
        studio.dance(gen_type, True)
        words = studio.jobs.words()
        assert words[:8] == ["DanceDemo.py", "--no-window", "--gen-type", str(gen_type), "--source", SAMPLE_SOURCE,
                             "--target", SAMPLE_TARGET]
        assert ("--checkpoint" in words) == (gen_type in (2, 3, 4)) and "--canvas" not in words
        studio.dance(gen_type, True, faster=True)
        assert ("--canvas" in studio.jobs.words()) == (gen_type == 5)
        if entry.trainer:
            studio.train(gen_type, 0.5)
            assert studio.jobs.words() == []  # the training has failed, so there is nothing to compare
            path.touch()
            comparing = studio.jobs.words()
            assert comparing[:4] == ["-m", "dancing.before_after", "--gen-type", str(gen_type)] and path in comparing
            path.unlink()
            studio.jobs.queue.pop()
            words = studio.jobs.words()
            assert tuple(words[:len(entry.trainer)]) == entry.trainer and words[words.index("--minutes") + 1] == "0.5"
            assert words[words.index("--checkpoint") + 1] == path
            assert ("--resume" in words) == (gen_type == 3)
    studio.dance(5, True)
    (tmp_path / "5.pth").touch()  # an earlier job makes it while this one waits
    assert studio.jobs.words()[-2:] == ["--checkpoint", tmp_path / "5.pth"]


def test_each_source_is_danced_into_files_of_its_own(studio, tmp_path):
    paths = [tmp_path / name / "dance.mp4" for name in "ab"]  # two phones may give their videos one name
    for path in paths:
        path.parent.mkdir()
        shutil.copy(SAMPLE_SOURCE, path)
    studio.choose("target", Clip(SAMPLE_TARGET))
    for path in (*paths, paths[0]):  # the third one is there already
        studio.choose("source", Clip(path))
    studio.dance(5, True)
    studio.dance(1, True)
    dances = [words() for section, words, _ in studio.jobs.queue if section == studio_work.DANCING]
    assert [words[words.index("--source") + 1] for words in dances] == paths * 2
    assert len({words[words.index("--output") + 1] for words in dances}) == 4
    studio.remove("source-1")
    studio.dance(1, True)
    assert len(studio.jobs.queue) == 1 + 4 + 1


def test_a_part_and_a_person_reach_every_command_line(studio):
    studio.choose("target", Clip(SAMPLE_TARGET))
    studio.choose("source", Clip(SAMPLE_SOURCE))
    plain = studio_work.checkpoint_path(studio.target, 5)
    for key, begin, end in (("target", "1", "0:08"), ("source-1", "", " 1:02.5 ")):
        studio.obey({"do": "trim", "key": key, "begin": begin, "end": end})
        studio.obey({"do": "follow", "key": key, "point": "0.250,0.500"})
    assert len(studio.jobs.queue) == 3  # the target is looked at anew each time
    part = ["--from", "1", "--to", "8", "--person", "0.250,0.500"]
    assert studio.jobs.words() == ["VideoSkeleton.py", SAMPLE_TARGET, *part]
    target_part = [word.replace("--", "--target-") for word in part]
    studio.train(5, 1)
    assert studio.jobs.queue[-2][1]()[1:9] == ["--target", SAMPLE_TARGET, *target_part]
    studio.dance(1, True)
    assert studio.jobs.words()[4:18] == ["--source", SAMPLE_SOURCE, "--to", "62.5", "--person", "0.250,0.500",
                                         "--target", SAMPLE_TARGET, *target_part]
    assert studio_work.checkpoint_path(studio.target, 5) != plain
    before = dict(studio.videos)
    for begin, end in (("soon", ""), ("5", "4"), ("-1", "")):
        refusal(studio.trim, "source-1", begin, end)
    assert "is nobody" in refusal(studio.follow, "source-1", "--help") and studio.videos == before


def test_a_wish_that_the_page_does_not_know_changes_nothing(studio):
    for message in ({}, None, "stop", {"do": "run", "words": ["rm"]}, {"do": "trim", "key": "source-7"},
                    {"do": "trim", "key": "source-7", "begin": "1", "end": ""}, {"do": "sample", "role": "nobody"}):
        assert "Load it again" in refusal(studio.obey, message), message
    assert studio.videos == {} and studio.jobs.queue == []
    studio.obey({"do": "stop", "number": 3})
    assert studio.jobs.stopped == 3


@pytest.fixture
def kept(monkeypatch, tmp_path, cache):
    """A folder with an upload, its preview and its poses, a training and a dance; {name: path}."""
    studio = tmp_path / "studio"
    for name, folder in (("STUDIO", "."), ("UPLOADS", "uploads"), ("DANCES", "dances"), ("PREVIEWS", "previews")):
        for module in (studio_files, studio_work, studio_videos):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, studio / folder)
    upload = studio / "uploads" / "abc" / "IMG_1.mp4"
    film = studio / "dances" / "GenWarp-me-like-you-20261127-120000.mp4"
    preview = studio / "previews" / f"IMG_1-{sha256(SAMPLE_SOURCE)[:16]}.mp4"
    weights = studio / "me-0123456789abcdef" / "GenWarp.pth"
    found = [cache / f"IMG_1-{number}" for number in (1, 2)]
    for path in (upload, film, preview, weights, *(folder / "poses.npz" for folder in found)):
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLE_SOURCE, path)
    for folder, content in zip(found, (sha256(SAMPLE_SOURCE), "of another video of that name"), strict=True):
        np.savez(folder / "poses.npz", about=json.dumps({"content": content}))
    for path in (*studio_files.dance_files(film)[1:], studio_videos.moving_path(studio_files.dance_files(film)[1])):
        path.write_text("film")
    return {"upload": upload, "film": film, "preview": preview, "weights": weights, "found": found[0],
            "other": found[1]}


def test_what_is_kept_is_listed_with_its_size_and_deleted_with_all_that_belongs_to_it(studio, kept):
    sizes = {entry.kind: (entry.name, entry.size) for entry in studio_files.everything()}
    assert len(sizes) == len(studio_files.everything())
    size = SAMPLE_SOURCE.stat().st_size
    assert sizes == {"upload": ("IMG_1.mp4", size), "training": ("training on me", size),
                     "dance": ("me like you", size + 12)}
    panel = kept_panel()
    assert studio_files.size_text(3 * size + 12) in panel and "IMG_1.mp4" in panel and "1 dance<" in panel
    studio.obey({"do": "upload", "role": "source", "paths": [str(kept["upload"])]})
    studio.delete("uploads/abc/IMG_1.mp4")
    assert not any(kept[name].exists() for name in ("upload", "preview", "found")) and studio.videos == {}
    assert not kept["upload"].parent.exists() and kept["other"].exists() and kept["film"].exists()
    studio.delete(f"dances/{kept['film'].name}")
    assert list(kept["film"].parent.iterdir()) == list(kept["preview"].parent.iterdir()) == []
    assert kept["weights"].exists()
    studio.clear()
    assert studio_files.everything() == [] and not kept["weights"].exists() and kept_panel() == ""
    assert SAMPLE_SOURCE.exists()


def test_what_a_job_needs_is_kept_and_the_page_says_why(studio, kept):
    studio.jobs.used = kept["upload"]
    answer = "“IMG_1.mp4” is kept, because “a dance” needs it. Stop that first."
    assert refusal(studio.delete, "uploads/abc/IMG_1.mp4") == refusal(studio.clear) == answer
    assert kept["upload"].exists() and kept["found"].exists() and not kept["film"].exists()


def test_nothing_else_can_be_deleted_or_taken(studio, kept, tmp_path):
    outside = tmp_path / "studio" / "holiday.mp4"
    shutil.copy(SAMPLE_SOURCE, outside)
    for key in ("holiday.mp4", "uploads/../holiday.mp4", str(outside), "uploads/abc", "dances", "..", "",
                f"dances/{kept['film'].stem}-result.mp4", "../../data/sample/source.mp4"):
        studio.delete(key)
    assert outside.exists() and all(path.exists() for path in kept.values()) and SAMPLE_SOURCE.exists()
    (kept["upload"].parent / "link.mp4").symlink_to(outside)
    for path in (outside, tmp_path / "studio" / "uploads" / ".." / "holiday.mp4", kept["upload"].parent / "link.mp4",
                 SAMPLE_SOURCE, "/etc/passwd"):
        assert "is gone" in refusal(studio.obey, {"do": "upload", "role": "source", "paths": [str(path)]})
    assert studio.videos == {}


def test_scripts_speak_of_flags_and_the_page_of_buttons():
    """What scripts really say, in the words of the page."""
    said = {"warning: 'data/Dance/studio/uploads/0c4a/two.mp4' shows 2 people; following the one who is left at its "
            "beginning (another one: --person; of the demo's target: --target-person)":
            "“two.mp4” shows 2 people; following the one who is left (choose another one in the picture)",
            "error: nobody is seen in that part of 'a/two.mp4'; choose another --from and --to":
            "Nobody is seen in that part of “two.mp4”; choose another part",
            "error: there are no trained weights at /a/data/Dance/studio/me-1/GenGAN.pth; train them with: python x.py":
            "There are no trained weights at GenGAN.pth; press Train",
            "warning: \"/a/data/Dance/studio/uploads/0c/mum's dance.mov\" is damaged in places; going on":
            "“mum's dance.mov” is damaged in places; going on",
            "error: can't write /a/data/Dance/studio/dances/a b.mp4: No space left on device; name another file":
            "Can't write a b.mp4: No space left on device; name another file",
            "error: GEN_TYPE 4 learns nothing": "“GAN” learns nothing"}
    for line, words in said.items():
        assert for_people(line) == words


def test_long_names_in_any_script_are_cut_to_what_a_disk_takes(studio, tmp_path):
    paths = [tmp_path / f"{letter * 60}.mp4" for letter in "踊舞"]
    for role, path in zip(("target", "source"), paths, strict=True):
        shutil.copy(SAMPLE_SOURCE, path)
        studio.choose(role, Clip(path))
    studio.dance(5, True)
    _, words, part = studio.jobs.queue[-1]
    written = [word for word in words() if str(word).startswith(str(studio_files.DANCES))] + [part]
    written += [path.with_name(f"{path.stem}-unfinished123.mp4") for path in written if path.suffix == ".mp4"]
    assert len(written) == 6 and all(len(os.fsencode(path.name)) <= 255 for path in written)
    assert len(os.fsencode(studio_work.checkpoint_path(Clip(paths[0]), 5).parent.name)) <= 255


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


def test_the_boxes_around_people_are_those_of_whom_is_followed(duo):
    look = studio_videos.first_look(duo, 0.0)
    assert cv2.imdecode(np.frombuffer(look.picture, np.uint8), cv2.IMREAD_COLOR).shape == (360, 720, 3)
    people = look.people("largest")
    assert [person["chosen"] for person in people] == [False, True]
    assert [person["chosen"] for person in look.people("left")] == [True, False]
    for person, left in zip(people, (True, False), strict=True):
        hips = load_people(Clip(duo, person=person["point"])).track.joints[:, [23, 24], 0].mean(1)
        assert ((hips < 0.5) == left).all()
        begin, top, width, height = person["box"]
        assert (begin + width / 2 < 50) == left and 0 <= top < 60 and height > 30
    nothing = studio_videos.first_look(Path("none.mp4"), 0.0)
    assert nothing.picture == b"" and nothing.people("largest") == []


def test_a_thumbnail_shows_the_person(duo, tmp_path, monkeypatch):
    monkeypatch.setattr(studio_videos, "PREVIEWS", tmp_path)
    picture, (x, y), moving = studio_videos.thumbnail(duo)
    with VideoReader(moving) as reader:
        frames = list(reader)
        assert frames[0].shape == (180, 360, 3) and len(frames) == 10 and moving.parent == tmp_path
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).shape == (180, 360, 3)
    assert x > 55 and 20 < y < 90  # the taller one of the two stands on the right
    assert studio_videos.thumbnail(Path("none.mp4")) == (b"", (50, 50), None)


def ask(port, path, method="GET", body=None, **headers):
    """(status, body) of a request whose path is sent exactly as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read()


FORM = {"Content_Type": "application/x-www-form-urlencoded"}


def say_password(port, password):
    """(status, the cookie that the page gives to a browser that has said this password, with its attributes)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("POST", "/login", urlencode({"password": password}), {"Content-Type": FORM["Content_Type"]})
    answer = connection.getresponse()
    return answer.status, answer.getheader("set-cookie") or ""


@pytest.fixture(scope="module")
def cookie(locked_port):
    return say_password(locked_port, PASSWORD)[1].split(";")[0]


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
    for path in (f"/gradio_api/file={sample}", "/config", "/gradio_api/queue/data", "/theme.css", "/static/a.js"):
        assert ask(locked_port, path)[0] == 401, path
        assert ask(locked_port, path, Cookie="dance-studio=guess")[0] == 401
    for path in ("/gradio_api/component_server", "/gradio_api/upload", "/gradio_api/queue/join"):
        assert ask(locked_port, path, "POST", "{}")[0] == 401, path
    status, form = ask(locked_port, "/")
    assert status == 401 and b'name="password"' in form and b"gradio" not in form
    assert ask(locked_port, "/login", "POST", "password=" + "x" * 10 ** 5, **FORM)[0] == 401
    begin = time.monotonic()
    assert say_password(locked_port, "wrong") == (401, "") and time.monotonic() - begin > 0.9  # guesses are slow
    status, given = say_password(locked_port, PASSWORD)
    assert status == 303 and "HttpOnly" in given and "Max-Age=7776000" in given and PASSWORD not in given
    for size, fits in ((1000, True), (20000, False)):
        head = "--x\r\nContent-Disposition: form-data; name=\"files\"; filename=\"../../a.mp4\"\r\n\r\n"
        body = f"{head}{'y' * size}\r\n--x--\r\n"
        status, answer = ask(locked_port, "/gradio_api/upload", "POST", body, Cookie=cookie,
                             Content_Type="multipart/form-data; boundary=x")
        assert (status == 200) == fits and status in (200, 413)
        if fits:
            assert Path(json.loads(answer)[0]).is_relative_to(project / "data" / "Dance" / "studio" / "uploads")


def test_the_address_and_the_code_for_a_phone():
    assert address_for_others("192.0.2.7") == "192.0.2.7" and address_for_others("0.0.0.0") != "0.0.0.0"
    panel = phone_panel("http://192.0.2.7:7860", qr_code("http://192.0.2.7:7860"))
    assert "<svg" in panel and "http://192.0.2.7:7860" in panel and "http" not in phone_panel(None, None)
    picture = io.BytesIO()
    qr_code("http://192.0.2.7:7860").save(picture, kind="png", scale=6, border=4)
    pixels = cv2.imdecode(np.frombuffer(picture.getvalue(), np.uint8), cv2.IMREAD_COLOR)
    assert cv2.QRCodeDetector().detectAndDecode(pixels)[0] == "http://192.0.2.7:7860"


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
