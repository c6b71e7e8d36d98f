import http.server
import json
import os
import pathlib
import tempfile
import threading
import types
import unittest

from site_api import Site, SiteError
from upload import Uploads, deliver


class UploadSite(http.server.BaseHTTPRequestHandler):
    """Takes uploads in chunks of at most 4 bytes; answers 503 as often as told."""

    refuse = 0
    forget = False
    files = {}
    begun = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        upload = self.path.rpartition("/")[2]
        if UploadSite.refuse:
            UploadSite.refuse -= 1
            return self.answer(503)
        if upload == "uploads":
            name = f"u{len(self.begun)}"
            self.begun.append(json.loads(body))
            self.files[name] = b""
            return self.answer(201, {"id": name, "file_offset": 0}, {"X-Max-Chunk-Bytes": "4"})
        self.files[upload] += body
        if len(body) > 4:
            return self.answer(413)
        if len(self.files[upload]) < self.begun[int(upload[1:])]["file_size"]:
            return self.answer(204)
        return self.answer(200, {"id": f"file-{upload}"})

    def do_GET(self):
        upload = self.path.rpartition("/")[2]
        if self.forget:
            return self.answer(404)
        return self.answer(200, {"id": upload, "file_offset": len(self.files[upload])})

    def answer(self, status, body=None, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_):
        pass


class Uploading(unittest.TestCase):
    def setUp(self):
        UploadSite.refuse, UploadSite.forget = 0, False
        UploadSite.files, UploadSite.begun = {}, []
        self.server = http.server.HTTPServer(("127.0.0.1", 0), UploadSite)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.lines = []
        self.job = types.SimpleNamespace(
            site=Site(f"http://127.0.0.1:{self.server.server_port}/", "t" * 26),
            call="c" * 26,
            log=self.lines.append,
        )
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name, "call.mp4")
        self.path.write_bytes(b"0123456789")
        os.environ["UPLOAD_RETRY_UNIT_MS"] = "1"
        self.addCleanup(os.environ.pop, "UPLOAD_RETRY_UNIT_MS")

    def test_a_file_goes_up_in_chunks_of_the_size_the_site_allows(self):
        self.assertEqual(Uploads(self.job).file(self.path, "Town.mp4"), "file-u0")
        self.assertEqual(UploadSite.files, {"u0": b"0123456789"})
        self.assertEqual(UploadSite.begun[0]["filename"], "Town.mp4")
        self.assertEqual(UploadSite.begun[0]["channel_id"], "c" * 26)

    def test_a_retry_goes_on_where_the_site_stopped(self):
        uploads = Uploads(self.job)
        uploads.file(self.path, "Town.mp4")
        uploads._file_ids.clear()
        UploadSite.files["u0"] = b"0123"
        self.assertEqual(uploads.file(self.path, "Town.mp4"), "file-u0")
        self.assertEqual(UploadSite.files, {"u0": b"0123456789"})

    def test_an_upload_that_the_site_has_forgotten_begins_anew(self):
        uploads = Uploads(self.job)
        uploads.file(self.path, "Town.mp4")
        uploads._file_ids.clear()
        UploadSite.forget = True
        self.assertTrue(deliver(self.job, lambda: uploads.file(self.path, "Town.mp4")))
        self.assertEqual(uploads.file(self.path, "Town.mp4"), "file-u1")

    def test_twenty_refusals_are_outlasted(self):
        UploadSite.refuse = 20
        uploads = Uploads(self.job)
        self.assertTrue(deliver(self.job, lambda: uploads.file(self.path, "Town.mp4")))
        self.assertEqual(UploadSite.files, {"u0": b"0123456789"})

    def test_after_twenty_retries_it_gives_up(self):
        UploadSite.refuse = 1000
        uploads = Uploads(self.job)
        self.assertFalse(deliver(self.job, lambda: uploads.file(self.path, "Town.mp4")))
        self.assertEqual(UploadSite.refuse, 1000 - 21)

    def test_the_token_is_in_no_line_of_the_log(self):
        UploadSite.refuse = 1
        uploads = Uploads(self.job)
        deliver(self.job, lambda: uploads.file(self.path, "Town.mp4"))
        self.assertFalse([line for line in self.lines if "ttt" in line])
        with self.assertRaises(SiteError) as refused:
            UploadSite.refuse = 1
            Uploads(self.job).file(self.path, "Town.mp4")
        self.assertNotIn("ttt", str(refused.exception))


if __name__ == "__main__":
    unittest.main()
