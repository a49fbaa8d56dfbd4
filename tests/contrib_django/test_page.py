"""The Django part of docs/integrations.md, from the settings to the last command, on a real broker."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from mqueue.paths import Endpoint
from tests import ROOT
from tests.waiting import wait_until

PAGE = (ROOT / "docs" / "integrations.md").read_text()


def test_the_site_of_the_page(tmp_path: Path, mqueue_endpoint: Endpoint) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").touch()
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        name, _, code = block.partition("\n")
        (tmp_path / name.removeprefix("# ")).write_text(code)
    [block] = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    export, worker, buy = [line.partition(" #")[0].split() for line in block.splitlines()]
    name, _, value = export[1].partition("=")
    environment = {
        **os.environ, name: value, "MQUEUE_URL": mqueue_endpoint.url, "MQUEUE_TOKEN": mqueue_endpoint.token or "", "SECRET_KEY": "test",
        "SHOP_DATABASE": str(tmp_path / "db"), "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]), "PYTHONUNBUFFERED": "1",
    }  # fmt: skip
    assert (worker[0], buy[0]) == ("mqueue", "python")
    out = tmp_path / "worker.out"
    with out.open("wb") as file:
        command = [sys.executable, "-m", "mqueue.cli", *worker[1:]]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=file, stderr=subprocess.DEVNULL)
    try:
        said = subprocess.run([sys.executable, *buy[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert said.stdout == "enqueued True\nSUCCESSFUL order 7\n", said.stderr

        def printed() -> str:
            assert process.poll() is None
            return out.read_text()

        wait_until(printed, "the worker has run it", 40, enough=lambda text: text == "confirmed 7\n")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
