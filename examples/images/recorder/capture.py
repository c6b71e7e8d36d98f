"""The display, and ffmpeg writing down what is on it and what is heard."""

import os
import subprocess
import threading
import time

from job import number

PULSE = "unix:/run/pulse/native"


class Display:
    """An X server without a screen; `name` is its DISPLAY."""

    def __init__(self, width, height, log_file):
        ready, tell = os.pipe()
        self._process = subprocess.Popen(
            [
                "Xvfb",
                *("-displayfd", str(tell)),
                *("-screen", "0", f"{width}x{height}x24"),
                *("-nolisten", "tcp", "-extension", "GLX", "-noreset"),
            ],
            stdout=log_file,
            stderr=log_file,
            pass_fds=(tell,),
        )
        os.close(tell)
        with os.fdopen(ready) as answer:
            screen = answer.readline().strip()
        if not screen:
            raise OSError("Xvfb does not start")
        self.name = f":{screen}"

    def close(self):
        self._process.terminate()
        self._process.wait()


class Capture:
    """A recording under way. What is on disk can be played even if the end is sudden:
    the file grows in fragments of two seconds, and gets its usual shape when closed."""

    def __init__(self, display, width, height, path, log_file):
        self.path = path
        self._log_file = log_file
        rate = number("FRAME_RATE", 30)
        # Both inputs carry the time of day, and are opened one after the other:
        # counted from one moment they stay in step.
        moment = ("-itsoffset", f"-{time.time():.6f}", "-thread_queue_size", "512")
        at_once = ("-probesize", "32", "-analyzeduration", "0")
        self._process = subprocess.Popen(
            [
                *("ffmpeg", "-hide_banner", "-loglevel", "warning", "-y"),
                *("-progress", "pipe:1", "-stats_period", "0.2", "-copyts"),
                *(*moment, *at_once, "-f", "pulse", "-channels", "2", "-i", "call.monitor"),
                *(*moment, *at_once, "-f", "x11grab", "-draw_mouse", "0"),
                *("-framerate", str(rate), "-video_size", f"{width}x{height}", "-i", display),
                *("-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", str(2 * rate)),
                *("-preset", os.environ.get("VIDEO_PRESET") or "fast"),
                # An encoder that looks ahead holds the sound back by seconds, and
                # what is held back at the end is lost.
                *("-tune", "zerolatency"),
                *("-b:v", f"{number('VIDEO_RATE', 1500)}k"),
                *("-c:a", "aac", "-b:a", f"{number('AUDIO_RATE', 64)}k"),
                *("-movflags", "+frag_keyframe+empty_moov+default_base_moof"),
                *("-f", "mp4", str(path)),
            ],
            env={**os.environ, "PULSE_SERVER": PULSE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
        )
        self._frames = 0
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self):
        for line in self._process.stdout:
            if line.startswith("frame="):
                self._frames = int(line[len("frame=") :])

    def running(self):
        return self._process.poll() is None

    def has_picture(self):
        """Whether a frame has been recorded."""
        if not self.running():
            raise OSError("ffmpeg does not record")
        return self._frames > 0

    def close(self):
        """Ends the recording; the file is complete after it."""
        try:
            self._process.stdin.write("q")
            self._process.stdin.close()
            self._process.wait(60)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._finish()

    def _finish(self):
        finished = self.path.with_suffix(".finished")
        remux = subprocess.run(
            [
                *("ffmpeg", "-hide_banner", "-loglevel", "error", "-y", "-i", str(self.path)),
                *("-c", "copy", "-movflags", "+faststart", "-f", "mp4", str(finished)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log_file,
            stderr=self._log_file,
            check=False,
        )
        if remux.returncode == 0:
            finished.replace(self.path)
        else:
            finished.unlink(missing_ok=True)
