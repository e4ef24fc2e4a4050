"""Starts the `boki` binary as a server: on a free port, with a data directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._errors import Error

_PATIENCE = 20.0


class ServerProcess:
    """A server that runs, until it is stopped. It may be killed and started again on its data."""

    def __init__(
        self,
        binary: str | None = None,
        config: str = "",
        settings: Mapping[str, str] | None = None,
        virtual_time: bool | str = False,
    ) -> None:
        self._binary = binary or find_binary()
        self._config = config
        self._settings = dict(settings or {})
        self._time = "now" if virtual_time is True else virtual_time or None
        self._folder = tempfile.TemporaryDirectory(prefix="boki-")
        self._process: subprocess.Popen[str] | None = None
        self._port = 0
        self.url = ""
        """Of its HTTP side and its native protocol alike."""

    @property
    def data(self) -> Path:
        """Its data directory."""
        return Path(self._folder.name) / "data"

    @property
    def log(self) -> str:
        """What it has said so far."""
        path = Path(self._folder.name) / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Starts it, and waits until it listens. Started again, it has the same address."""
        settings = {f"BOKI_{key.upper()}": value for key, value in self._settings.items()}
        env = {key: value for key, value in os.environ.items() if not key.startswith("BOKI_")}
        config = Path(self._folder.name) / "boki.toml"
        config.write_text(self._config)
        with open(Path(self._folder.name) / "log", "a") as log:
            process = subprocess.Popen(
                [
                    self._binary,
                    "server",
                    "--json",
                    f"--config={config}",
                    f"--data={self.data}",
                    f"--listen=127.0.0.1:{self._port}",
                    *([f"--virtual-time={self._time}"] if self._time else []),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**env, **settings},
                text=True,
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait()
            raise RuntimeError(f"the server did not start:\n{self.log}")
        self.url = json.loads(line)["url"]
        self._port = int(self.url.rpartition(":")[2])
        self._process = process

    def time(self) -> float:
        """What its clock shows, in seconds since 1970."""
        return float(self._ask("GET", "/v1/time")["time_us"]) / 1e6

    def advance(self, by: str, once_pausing: int) -> None:
        """Moves its clock on."""
        self._ask("POST", "/v1/time/advance", {"by": by, "once_pausing": once_pausing})

    def kill(self) -> None:
        """Ends it as a crash would. Virtual time goes on from there when it is started again."""
        if self._time:
            self._time = str(self._ask("GET", "/v1/time")["time"])
        if self._process is not None:
            self._process.kill()
            self._reap()

    def stop(self) -> None:
        """Ends it in good order."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._reap()

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        from http.client import HTTPConnection

        connection = HTTPConnection("127.0.0.1", self._port)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status >= 400:
            raise Error(answer["detail"], code=answer["code"])
        return answer

    def remove(self) -> None:
        """Removes its data."""
        self._folder.cleanup()

    def _reap(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def find_binary() -> str:
    """The binary: that of `BOKI_BIN`, else `boki` on the path."""
    binary = os.environ.get("BOKI_BIN") or shutil.which("boki")
    if binary is None:
        raise RuntimeError(
            "there is no boki on the PATH: put it there, or say BOKI_BIN=/path/to/boki"
        )
    return binary
