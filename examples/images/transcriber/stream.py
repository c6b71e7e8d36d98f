"""The call's sound, as it comes, into an Ogg file."""

import http.client
import subprocess
import threading

RATE_HZ = 16000
BLOCK_BYTES = RATE_HZ // 10 * 2


class Track:
    """The live sound of a call. Listens from the start, and keeps from `keep` on."""

    def __init__(self, job, path):
        self._response, self._connection = job.site.open("GET", f"bot/calls/{job.call}/audio")
        self.ended = threading.Event()
        self._keeping = threading.Event()
        self._closing = threading.Event()
        self._log = job.log
        self._encoder = subprocess.Popen(
            [
                *("ffmpeg", "-hide_banner", "-loglevel", "warning", "-y"),
                *("-f", "s16le", "-ar", str(RATE_HZ), "-ac", "1", "-i", "pipe:0"),
                *("-c:a", "libopus", "-b:a", "32k", "-application", "voip"),
                *("-flush_packets", "1", "-f", "ogg", str(path)),
            ],
            stdin=subprocess.PIPE,
            stdout=job.log_file,
            stderr=job.log_file,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def keep(self):
        """From now on what is heard is written down: time 0 of the transcript."""
        self._keeping.set()

    def close(self):
        """Ends the track; the file is complete after it."""
        # The sound comes in real time: the reader sees this within a block's length.
        self._closing.set()
        self._reader.join(5)
        self._keeping.clear()
        self._connection.close()
        self._encoder.stdin.close()
        self._encoder.wait(60)

    def _read(self):
        try:
            while not self._closing.is_set():
                block = self._response.read(BLOCK_BYTES)
                if not block:
                    break
                if self._keeping.is_set():
                    self._encoder.stdin.write(block)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self._log(f"the sound broke off: {error!r}")
        self.ended.set()
