"""What `boki new --py` makes, and the code in the guide."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import boki
from boki._function import registered
from boki._server_process import find_binary
from boki.testing import Server

GUIDE = Path(__file__).parents[3] / "docs/python.md"


def test_the_test_of_a_new_project_passes(tmp_path: Path) -> None:
    subprocess.run([find_binary(), "new", "shop", "--py"], cwd=tmp_path, check=True)
    shop = tmp_path / "shop"
    requirements = (shop / "requirements.txt").read_text()
    assert str(Path(__file__).resolve().parents[1]) in requirements.splitlines()
    env = {**os.environ, "PYTHONPATH": str(Path(boki.__file__).parents[1])}
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=shop,
        env=env,
        check=True,
    )


def guide_code(marker: str) -> str:
    """The guide's piece of code that has `marker` in it."""
    pieces = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (piece,) = [piece for piece in pieces if marker in piece]
    return str(piece)


def guide_functions(marker: str) -> dict[str, Any]:
    space: dict[str, Any] = {}
    head = "import boki, boki.sync\nfrom collections.abc import AsyncIterator\n"
    exec(head + guide_code(marker), space)
    registered.clear()
    return space


def test_the_functions_of_the_guide_do_what_it_says() -> None:
    orders = guide_functions("class Order")
    once = guide_functions("async def sell")
    plain = guide_functions("def stock(")
    streams = guide_functions("async def upload")
    functions = [orders["order"], once["sell"], plain["stock"], streams["count"], streams["upload"]]
    with Server(*functions) as server:
        assert server.call("order", {"sku": "tea"})["order"] > 0
        with pytest.raises(boki.FunctionFailed, match="qty: a whole number is expected, not"):
            server.call("order", {"sku": "tea", "qty": "2"})
        server.book().append(1, tags=["stock/tea"])
        assert server.call("stock", "tea") == 1
        assert server.call("sell", "tea") == 0
        with pytest.raises(boki.FunctionFailed) as failed:
            server.call("sell", "tea")
        assert failed.value.failure == "sold_out"
        server.restart()
        assert server.call("stock", "tea") == 0
        assert server.client.call_output("count", 2).data == b'{"n":0}\n{"n":1}\n'
        assert server.call("upload", bytes(100_000)) == 100_000
