"""Transcribes a call: transcriber.py, or transcriber.py resend to send in what is left.

Exit code 0: delivered, or nothing was said. 1: failed. Its files stay in any case.
"""

import os
import subprocess
import sys

import captions
from job import Job, NotPrepared
from speech import recognise
from stream import Track
from upload import Uploads, deliver, stem

JOIN_SECONDS = 30
# What the recognition of this image makes no use of, though it may be asked for.
UNUSED = ("TRANSCRIBE_API", "MODEL_SIZE", "NUM_THREADS", "LIVE_CAPTIONS_ON")


def main():
    job = Job("transcribing", "TRANSCRIPTION_ID", "transcriber.log")
    if sys.argv[1:] != ["resend"]:
        ignored = [f"{name}={os.environ[name]}" for name in UNUSED if os.environ.get(name)]
        job.log(f"recognition by PocketSphinx, not using {', '.join(ignored) or 'any option'}")
        try:
            track = join(job)
        except (NotPrepared, OSError) as error:
            job.failed(str(error))
            return 1
        follow(job, track)
    return send(job)


def join(job):
    """Joins the call, and begins once its recording has begun."""

    told = set()

    def tell_once(text):
        if text not in told:
            told.add(text)
            job.log(text)

    def listen():
        try:
            return Track(job, job.folder / "track-1.ogg")
        except OSError as error:
            tell_once(f"not in the call yet: {error}")
            return None

    def recording():
        try:
            job.site.call("GET", f"bot/calls/{job.call}/recording-started")
            return True
        except OSError as error:
            if getattr(error, "status", None) != 404:
                tell_once(f"no news of the recording: {error}")
            return False

    track = job.wait_until(listen, JOIN_SECONDS, "live sound of the call", pause=1)
    job.log("joined the call")
    try:
        job.wait_until(recording, JOIN_SECONDS, "recording of the call", pause=0.5)
        track.keep()
        job.started()
    except (NotPrepared, OSError):
        track.close()
        raise
    return track


def follow(job, track):
    """Keeps the sound until the call ends or the job is asked to stop."""
    while not track.ended.is_set() and not job.stop.wait(0.1):
        pass
    job.log("asked to stop" if job.stop.is_set() else "the call has ended")
    track.close()


def send(job):
    """Transcribes the sound, unless that has been done, and delivers the texts."""
    vtt, txt = job.folder / f"{job.id}.vtt", job.folder / f"{job.id}.txt"
    if not vtt.exists():
        try:
            said = []
            for track in sorted(job.folder.glob("*.ogg")):
                said += recognise(track, job.log_file)
        except (OSError, subprocess.CalledProcessError) as error:
            job.log(f"recognition failed: {error}")
            return 1
        job.log(f"recognised {sum(map(len, said))} words")
        if not said:
            return 0
        txt.write_text(captions.plain_text(said), encoding="utf-8")
        vtt.write_text(captions.webvtt(said), encoding="utf-8")
    uploads = Uploads(job)

    def attempt():
        title = stem(job)
        ids = [uploads.file(path, f"{title}{path.suffix}") for path in (vtt, txt)]
        body = {
            "job_id": job.id,
            "transcriptions": [{"title": title, "language": "en", "file_ids": ids}],
        }
        job.site.call("POST", f"bot/calls/{job.call}/transcriptions", body)

    return 0 if deliver(job, attempt) else 1


if __name__ == "__main__":
    sys.exit(main())
