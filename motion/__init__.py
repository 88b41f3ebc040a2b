"""From a video to the motion of one person: poses are detected, cached, followed, mended and retargeted."""
