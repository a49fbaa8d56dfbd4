"""A certificate of a test's own making, for 127.0.0.1 and localhost."""

import subprocess
from pathlib import Path


def make_certificate(path: Path) -> Path:
    """Writes it, and its key beside it with the ending `.key`; it is its own authority. Needs openssl."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*command, *names, "-keyout", str(path.with_suffix(".key")), "-out", str(path)], check=True, capture_output=True)
    return path
