"""MediaMTX: the real server, whose streams browsers publish (WHIP) and read (WHEP)."""

import contextlib
import http.client
import json
from pathlib import Path

from hosts import eventually
from livekit import TOOLS, Program, request, yaml

WEB, MEDIA, API = 8889, 8189, 9997


class MediaMTX(Program):
    """A MediaMTX server; `changes` are keys of its configuration, which is in `file`. A file that exists is used as it is."""

    def __init__(self, host, folder, **changes):
        self.file = Path(folder) / "mediamtx.yml"
        super().__init__(host, folder, TOOLS / "mediamtx", self.file)
        if not self.file.exists():
            off = {name: False for name in ("rtsp", "rtmp", "hls", "srt")}
            config = {
                **off,
                "api": True,
                "apiAddress": f"127.0.0.1:{API}",
                "webrtcAddress": f":{WEB}",
                "webrtcLocalUDPAddress": f":{MEDIA}",
                "webrtcIPsFromInterfaces": False,
                "webrtcAdditionalHosts": [host.v4],
                **changes,
                "paths": {"all_others": {}},
            }
            self.file.write_text(yaml(config))

    def start(self):
        """Starts it and waits until it serves."""
        super().start()
        return self.answers(("127.0.0.1", API), "/v3/config/global/get")

    @property
    def url(self):
        """The stream of the tests, as browsers know it."""
        return f"http://{self.host.v4}:{WEB}/camera"

    @property
    def settings(self):
        """Its global configuration as it is now."""

        def answer():
            """MediaMTX's API answers"""
            # The API is away for a moment after a change.
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _, body = request(self.host, ("127.0.0.1", API), "GET", "/v3/config/global/get")
                return status == 200 and body

        return json.loads(eventually(answer))


def ice_servers(*urls, secret):
    """The section for a relay in its configuration."""
    who = {"username": "AUTH_SECRET", "password": secret, "clientOnly": True}
    return [{"url": url, **who} for url in urls]
