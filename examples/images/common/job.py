"""What a job is told by its environment, its log, and being asked to stop."""

import os
import pathlib
import signal
import sys
import threading
import time

from site_api import Site


class NotPrepared(Exception):
    """The job cannot begin; its text is for the host of the call."""


class Job:
    """One recording or transcription: `kind` is the word the site uses for it."""

    def __init__(self, kind, id_variable, log_name):
        self.kind = kind
        self.id = os.environ[id_variable]
        self.call = required("CALL_ID")
        self.site = Site(required("SITE_URL"), required("AUTH_TOKEN"))
        self.folder = pathlib.Path("/data", self.id)
        self.stop = threading.Event()
        self._log = open(self.folder / log_name, "a", encoding="utf-8", buffering=1)
        signal.signal(signal.SIGTERM, lambda *_: self.stop.set())
        signal.signal(signal.SIGINT, lambda *_: self.stop.set())

    @property
    def log_file(self):
        """The open log, for programs that write into it themselves."""
        return self._log

    def log(self, text):
        """One line to the container's output and to the log in the volume."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
        line = f"{stamp}.{int(now % 1 * 1000):03}Z {text}\n"
        sys.stdout.write(line)
        sys.stdout.flush()
        self._log.write(line)

    def started(self):
        """Tells the site that the bot has joined; a refusal ends the job."""
        self._status("started")
        self.log("started")

    def failed(self, reason):
        """Tells the site that the job could not begin, as far as it listens."""
        self.log(f"failed: {reason}")
        try:
            self._status("failed", reason)
        except OSError as error:
            self.log(f"the site was not told: {error}")

    def wait_until(self, ready, seconds, what, pause=0.25):
        """Calls `ready` until it answers something true, which is returned."""
        deadline = time.monotonic() + seconds
        while True:
            if self.stop.is_set():
                raise NotPrepared(f"asked to stop while waiting for {what}")
            answer = ready()
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise NotPrepared(f"no {what} within {seconds} s")
            self.stop.wait(pause)

    def _status(self, status, error=""):
        body = {"JobType": self.kind, "Status": status, "Error": error}
        self.site.call("POST", f"bot/calls/{self.call}/jobs/{self.id}/status", body)


def required(name):
    """A variable that no job can do without."""
    value = os.environ.get(name, "")
    if not value:
        raise SystemExit(f"{name} is missing")
    return value


def number(name, default):
    """A whole number of the environment; absent, empty and 0 mean the default."""
    return int(os.environ.get(name) or 0) or default
