"""Records a call: recorder.py, or recorder.py resend to send in what is left.

Exit code 0: delivered, or there was nothing to record. 1: the file is still here.
"""

import base64
import contextlib
import json
import sys
import time

from browser import Browser, BrowserGone, sandbox_findings
from capture import Capture, Display
from job import Job, NotPrepared, number
from upload import Uploads, deliver, stem

JOIN_SECONDS = 20
REOPEN_SECONDS = 5
STATE = """(client => !client ? "absent"
    : client.closed ? "closed"
    : client.connected ? "connected" : "joining")(window.callsClient)"""


def main():
    job = Job("recording", "RECORDING_ID", "recorder.log")
    if sys.argv[1:] == ["resend"]:
        return send(job)
    with contextlib.ExitStack() as opened:
        try:
            browser, capture = prepare(job, opened)
        except (NotPrepared, BrowserGone, OSError, ValueError) as error:
            opened.close()
            recording(job).unlink(missing_ok=True)
            job.failed(str(error))
            return 0
        job.log(f"recording ends: {follow(job, browser, capture)}")
    return send(job)


def recording(job):
    """The file that the call is recorded to."""
    return job.folder / f"{job.id}.mp4"


def prepare(job, opened):
    """Joins the call and begins to record; all that it starts, `opened` ends."""
    # H.264 wants even numbers.
    width, height = number("WIDTH", 1920) & ~1, number("HEIGHT", 1080) & ~1
    display = Display(width, height, job.log_file)
    opened.callback(display.close)
    browser = Browser(display.name, width, height, job.log_file)
    opened.callback(browser.close)
    job.wait_until(browser.attach, JOIN_SECONDS, "page in the browser")
    join(job, browser)
    check_sandbox(job)
    capture = Capture(display.name, width, height, recording(job), job.log_file)
    opened.callback(capture.close)
    job.wait_until(capture.has_picture, JOIN_SECONDS, "first frame")
    job.started()
    return browser, capture


def join(job, browser):
    """Opens the recording page, until its client is connected."""
    token = json.dumps({"token": job.site.token}).encode()
    fragment = base64.urlsafe_b64encode(token).decode().rstrip("=")
    page = f"{job.site.url}/plugins/com.mattermost.calls/standalone/recording.html"
    url = f"{page}?call_id={job.call}&job_id={job.id}#{fragment}"
    opened_at = None

    def connected():
        nonlocal opened_at
        state = browser.evaluate(STATE) if opened_at else "absent"
        if state == "closed":
            raise NotPrepared("the call's client has closed")
        if state == "absent" and (not opened_at or time.monotonic() > opened_at + REOPEN_SECONDS):
            error = browser.open(url)
            opened_at = time.monotonic()
            job.log(f"opened the recording page{': ' + error if error else ''}")
        return state == "connected"

    job.wait_until(connected, JOIN_SECONDS, "connected client in the recording page")
    job.log("the page is connected")


def check_sandbox(job):
    """Records what confines the renderers, and refuses to go on without."""
    findings = sandbox_findings()
    confined = [f for f in findings if f["filters"] >= 1 and f["pids"] >= 1]
    job.log(f"renderer sandbox: {json.dumps(findings)}")
    if not findings or len(confined) < len(findings):
        raise NotPrepared("the browser's renderers are not sandboxed")
    job.log(f"renderer sandbox: on, {len(confined)} of {len(findings)} renderers confined")


def follow(job, browser, capture):
    """Waits for the end of the recording, and tells what ended it."""
    while not job.stop.wait(0.25):
        if not capture.running():
            return "ffmpeg has ended"
        try:
            state = browser.evaluate(STATE)
        except BrowserGone as error:
            return str(error)
        if state in ("closed", "absent"):
            return f"the call's client is {state}"
    return "asked to stop"


def send(job):
    """Uploads and attaches what is in the folder, then removes it."""
    uploads = Uploads(job)
    recordings = sorted(job.folder.glob("*.mp4"))

    def attempt():
        name = stem(job)
        ids = [uploads.file(path, f"{name}.mp4") for path in recordings]
        body = {"job_id": job.id, "file_ids": ids}
        job.site.call("POST", f"bot/calls/{job.call}/recordings", body)

    if not recordings:
        job.log("there is nothing to send")
        return 0
    if not deliver(job, attempt):
        return 1
    for path in recordings:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
