"""The bot's side of the Calls plugin, spoken over plain HTTP."""

import http.client
import json
from urllib.parse import urlsplit

BASE = "/plugins/com.mattermost.calls/"


class SiteError(OSError):
    """The site has answered, and refused."""

    def __init__(self, status, text):
        super().__init__(f"the site answered {status}: {text}")
        self.status = status


class Site:
    """A site and the bot's token. Redirects are not followed: they would carry it away."""

    def __init__(self, url, token):
        self.url = url.rstrip("/")
        self.token = token
        self._address = urlsplit(self.url)

    def open(self, method, path, body=None, headers=None, timeout=30):
        """Sends a request; (response, connection), with the body not yet read.

        Raises SiteError for anything but 2xx, and OSError when there is no site.
        """
        headers = {"Authorization": f"Bearer {self.token}", **(headers or {})}
        if isinstance(body, dict):
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        secure = self._address.scheme == "https"
        connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = connect(self._address.hostname, self._address.port, timeout=timeout)
        try:
            connection.request(method, BASE + path, body, headers)
            response = connection.getresponse()
            if response.status // 100 == 2:
                return response, connection
            text = response.read(300).decode("utf-8", "replace").strip()
            raise SiteError(response.status, text)
        except http.client.HTTPException as error:
            connection.close()
            raise OSError(f"the site broke off: {error!r}") from error
        except OSError:
            connection.close()
            raise

    def call(self, method, path, body=None, headers=None, timeout=30):
        """A request and its whole answer: (status, headers, its JSON or None)."""
        response, connection = self.open(method, path, body, headers, timeout)
        try:
            data = response.read()
        except http.client.HTTPException as error:
            raise OSError(f"the site broke off: {error!r}") from error
        finally:
            connection.close()
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        return response.status, response.headers, answer
