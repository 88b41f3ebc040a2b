"""Where things are. Every default path starts at the project's folder, so the scripts run from any directory."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

CACHE = ROOT / "data" / "cache"  # what was found in videos; it is safe to delete it at any time
LOCKS = ROOT / "data" / "locks"  # empty files; it is safe to delete them while nothing runs
MODELS = ROOT / "data" / "models"  # pose models that were downloaded
DANCE = ROOT / "data" / "Dance"  # weights, films and tables

# The clips that come with the project. They are not for editing: the constants of DanceDemo.py are.
SAMPLE_SOURCE = ROOT / "data" / "sample" / "source.mp4"
SAMPLE_TARGET = ROOT / "data" / "sample" / "target.mp4"
SAMPLE_TRUTH = ROOT / "data" / "sample" / "truth.mp4"
SAMPLE_JOINTS = ROOT / "data" / "sample" / "joints.npz"
