"""Chromium with its own sandbox, driven over a pipe: no port that others could reach."""

import fcntl
import json
import os
import pathlib
import select
import subprocess
import threading
import time

from capture import PULSE


class BrowserGone(Exception):
    """The page or the whole browser is no more."""


class Browser:
    """One window of one page, as large as the display."""

    def __init__(self, display, width, height, log_file):
        commands, self._commands = os.pipe()
        self._events, events = os.pipe()

        def wire():
            # Chromium reads commands from 3 and writes answers to 4, whatever
            # numbers the pipes have got here.
            here = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (commands, events)]
            for source, target in zip(here, (3, 4)):
                os.dup2(source, target)
                os.close(source)

        self._process = subprocess.Popen(
            [
                "chromium",
                "--remote-debugging-pipe",
                "--user-data-dir=/home/calls/profile",
                "--app=about:blank",
                "--kiosk",
                "--window-position=0,0",
                # A pixel more on either side: without a window manager an edge shows.
                f"--window-size={width + 1},{height + 1}",
                "--autoplay-policy=no-user-gesture-required",
                "--disable-dev-shm-usage",
                "--disable-gpu",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--no-default-browser-check",
                "--no-first-run",
                "--password-store=basic",
                *filter(None, os.environ.get("EXTRA_CHROMIUM_ARGS", "").split(",")),
            ],
            env={**os.environ, "DISPLAY": display, "PULSE_SERVER": PULSE},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(3, 4),
            preexec_fn=wire,
        )
        os.close(commands)
        os.close(events)
        threading.Thread(target=self._complaints, args=(log_file,), daemon=True).start()
        self._unread = b""
        self._last_id = 0
        self._session = None

    def _complaints(self, log_file):
        for line in self._process.stderr:
            # There is no desktop here, and no need to hear of it every second.
            if b":dbus/" not in line:
                log_file.write(line.decode("utf-8", "replace"))

    def attach(self):
        """Takes hold of the page; False while there is none yet."""
        for target in self._call("Target.getTargets")["targetInfos"]:
            if target["type"] == "page":
                how = {"targetId": target["targetId"], "flatten": True}
                self._session = self._call("Target.attachToTarget", how)["sessionId"]
                self._call("Inspector.enable")
                return True
        return False

    def open(self, url):
        """Loads a page, also when the same address is shown already."""
        self._call("Page.navigate", {"url": "about:blank"})
        return self._call("Page.navigate", {"url": url}).get("errorText")

    def evaluate(self, expression):
        """The value of a JavaScript expression in the page; None if it throws."""
        how = {"expression": expression, "returnByValue": True}
        return self._call("Runtime.evaluate", how)["result"].get("value")

    def close(self):
        """Ends the browser, if it has not ended by itself."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _call(self, method, params=None):
        self._last_id += 1
        request = {"id": self._last_id, "method": method, "params": params or {}}
        if self._session:
            request["sessionId"] = self._session
        try:
            os.write(self._commands, json.dumps(request).encode() + b"\0")
        except BrokenPipeError:
            raise BrowserGone("the browser has ended") from None
        deadline = time.monotonic() + 15
        while True:
            message = self._receive(deadline)
            if message.get("id") == self._last_id:
                if "error" in message:
                    raise BrowserGone(f"{method}: {message['error']['message']}")
                return message["result"]
            if message.get("method") in ("Inspector.targetCrashed", "Inspector.detached"):
                raise BrowserGone("the page has crashed")

    def _receive(self, deadline):
        while b"\0" not in self._unread:
            left = max(0, deadline - time.monotonic())
            if not select.select([self._events], [], [], left)[0]:
                raise BrowserGone("the browser does not answer")
            data = os.read(self._events, 1 << 16)
            if not data:
                raise BrowserGone("the browser has ended")
            self._unread += data
        message, self._unread = self._unread.split(b"\0", 1)
        return json.loads(message)


def sandbox_findings():
    """How each renderer is confined, against this process: a list of dicts.

    `filters` counts its seccomp filters beyond the container's own, `pids` the
    pid namespaces below the container's, `apart` names the kinds of namespaces
    that can be read and are not the container's.
    """
    own = _status("self")
    findings = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if b"--type=renderer" not in (process / "cmdline").read_bytes():
                continue
            status = _status(process.name)
        except OSError:
            continue
        findings.append(
            {
                "pid": int(process.name),
                "filters": int(status["Seccomp_filters"]) - int(own["Seccomp_filters"]),
                "pids": len(status["NSpid"].split()) - len(own["NSpid"].split()),
                "apart": [n for n in ("user", "pid", "net") if _apart(process, n)],
            }
        )
    return findings


def _status(pid):
    lines = pathlib.Path("/proc", pid, "status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _apart(process, namespace):
    try:
        return os.readlink(process / "ns" / namespace) != os.readlink(f"/proc/self/ns/{namespace}")
    except OSError:
        return False
