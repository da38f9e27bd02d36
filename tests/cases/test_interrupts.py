"""Ctrl-C while the command line is imported, and in a program that imports torchlasso."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = "import sys; sys.argv[0] = 'torchlasso'; import torchlasso; torchlasso.L1"


@pytest.mark.parametrize("program", [["-m", "torchlasso"], ["-c", PROGRAM]])
def test_control_c_while_the_command_line_is_imported(program: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *program, "report", "nowhere"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and "libtorch" not in maps.read_text():  # the import of torch has begun
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


def test_a_program_of_the_users_keeps_control_c() -> None:
    program = "import signal, torchlasso; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert (done.returncode, done.stderr) == (0, "")
