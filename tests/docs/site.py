"""The site, built once for the tests that look at it."""

import os
import pathlib
import subprocess
import sys

from tests.docs.pages import ROOT


def built_site(folder: pathlib.Path) -> pathlib.Path:
    """Builds the site into `folder`; a warning of mkdocs is an error, told as it tells it."""
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stdout + process.stderr
    return folder
