"""Bringing files to the site in chunks, with patience."""

import time

from job import number

RETRIES = 20
CHUNK_SECONDS = 300
DEFAULT_CHUNK_BYTES = 1 << 20


class Uploads:
    """The uploads of one job. Remembers what the site has got, so that a retry resumes."""

    def __init__(self, job):
        self.job = job
        self._sessions = {}
        self._file_ids = {}

    def file(self, path, name):
        """Uploads a file under a name; the id that the site gave it."""
        if path not in self._file_ids:
            self._file_ids[path] = self._upload(path, name)
            self.job.log(f"uploaded {path.name} as {name}")
        return self._file_ids[path]

    def _upload(self, path, name):
        session, chunk_bytes, offset = self._resume(path) or self._begin(path, name)
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(chunk_bytes):
                status, _, answer = self.job.site.call(
                    "POST",
                    f"bot/uploads/{session}",
                    chunk,
                    {"Content-Type": "application/octet-stream"},
                    CHUNK_SECONDS,
                )
                if status == 200:
                    return answer["id"]
        # All was sent and the site has not said so: begin anew at the next try.
        del self._sessions[path]
        raise OSError(f"the site did not take all of {name}")

    def _begin(self, path, name):
        body = {
            "type": "attachment",
            "channel_id": self.job.call,
            "filename": name,
            "file_size": path.stat().st_size,
        }
        _, headers, answer = self.job.site.call("POST", "bot/uploads", body)
        limit = int(headers.get("X-Max-Chunk-Bytes") or DEFAULT_CHUNK_BYTES)
        self._sessions[path] = (answer["id"], limit)
        return answer["id"], limit, answer.get("file_offset", 0)

    def _resume(self, path):
        if path not in self._sessions:
            return None
        session, limit = self._sessions[path]
        try:
            _, _, answer = self.job.site.call("GET", f"bot/uploads/{session}")
        except OSError as error:
            if getattr(error, "status", None) == 404:
                del self._sessions[path]
            raise
        return session, limit, answer["file_offset"]


def deliver(job, attempt):
    """Calls `attempt` until it succeeds: 21 tries, 5 s to 100 s apart. False: given up.

    UPLOAD_RETRY_UNIT_MS (default 5000) scales the pauses, for tests.
    """
    unit = number("UPLOAD_RETRY_UNIT_MS", 5000) / 1000
    for pause in [*range(1, RETRIES + 1), None]:
        try:
            attempt()
            job.log("delivered")
            return True
        except (OSError, KeyError, TypeError) as error:
            job.log(f"not delivered: {error}")
        if pause is not None:
            # Being asked to stop is no reason to lose what was recorded.
            time.sleep(pause * unit)
    job.log("given up; the files stay")
    return False


def stem(job):
    """The name that the site wants its files to have, without extension."""
    _, _, answer = job.site.call("GET", f"bot/calls/{job.call}/filename")
    name = answer["filename"].replace("/", "_").strip(". \t\r\n")
    return name or job.id
