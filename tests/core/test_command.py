"""The door of the command: signals, closed pipes, encodings, no home."""

import os
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

HEARD = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
STUB = "import os, signal, sys, time\nfrom sixfold.core import cli, command\n"


def start(body: str, **settings) -> subprocess.Popen:
    """Start the command with another body than cli's."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    code = f"{STUB}def main():\n{lines}\ncli.main = main\ncommand.main()"
    # what runs in the background ignores signals from the start
    heard = {"preexec_fn": lambda: [signal.signal(one, signal.SIG_DFL) for one in HEARD]}
    pipes: Any = heard | {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    return subprocess.Popen([sys.executable, "-c", code], text=True, errors="replace", **pipes)


def ended(body: str, **settings) -> tuple[int, str, str]:
    process = start(body, **settings)
    out, error = process.communicate(timeout=120)
    return process.returncode, out, error


TWICE = "os.kill(os.getpid(), signal.{0})\n" * 2
ONCE = "try: os.kill(os.getpid(), signal.{0}); time.sleep(9)\nfinally: print('tidy')"


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_unwinds_and_says_so(name, status):
    assert ended(ONCE.format(name)) == (status, "tidy\n", "sixfold: stopped\n")


def test_the_second_ctrl_c_ends_it_at_once():
    body = ONCE.format("SIGINT").replace("print('tidy')", TWICE.format("SIGINT").splitlines()[0])
    assert ended(f"{body}; time.sleep(9); print('late')") == (130, "", "sixfold: stopped\n")


def test_an_interrupted_import_leaves_neither_traceback_nor_files(tmp_path):
    (tmp_path / "slow.py").write_text(
        ONCE.format("SIGINT").replace("try:", "import os, signal, time\ntry:")
    )
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    body = "from pathlib import Path\nfrom sixfold.core.data.atomic import scratch_folder\n"
    body += f"with scratch_folder(Path({str(tmp_path / 'work')!r})): import slow"
    assert ended(body, env=env) == (130, "", "sixfold: stopped\n")
    assert list((tmp_path / "work").iterdir()) == []


def test_whatever_an_interruption_becomes_it_leaves_no_traceback():
    body = "try: os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\n"
    body += "except KeyboardInterrupt: raise ImportError('half a module')"
    assert ended(body) == (130, "", "sixfold: stopped\n")


def test_a_ctrl_c_that_a_finaliser_swallows_comes_again():
    body = "class A:\n    def __del__(self): os.kill(os.getpid(), signal.SIGINT); time.sleep(9)\n"
    body += "a = A()\ndel a\ntime.sleep(9)"
    assert ended(body) == (130, "", "sixfold: stopped\n")


def test_an_ignored_signal_stays_ignored():
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731  as nohup does
    body = "os.kill(os.getpid(), signal.SIGHUP); time.sleep(0.1); print('on')"
    assert ended(body, preexec_fn=ignore) == (0, "on\n", "")


def test_a_closed_pipe_ends_it_quietly():
    process = start("while True: print('x' * 1000)")
    process.stdout.close()  # type: ignore[union-attr]
    assert process.stderr.read() == ""  # type: ignore[union-attr]
    assert process.wait(60) == 141


def test_a_full_or_closed_output_is_one_line_or_none():
    with open("/dev/full", "w") as full:
        status, _, error = ended("print('x')", stdout=full)
    assert (status, error) == (2, "sixfold: standard output: No space left on device\n")
    body = "print('x', sys.stdout.isatty()); open({0!r}, 'w').write('mine')"
    assert ended(body.format(os.devnull), stdout=None, preexec_fn=lambda: os.close(1))[0] == 0


def test_any_name_can_be_printed_in_any_encoding():
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    assert ended(r"print('\udcff ü')", env=env) == (0, "\\udcff \\xfc\n", "")
    env = os.environ | {"PYTHONIOENCODING": "utf-8"}
    assert ended(r"print('\udcff')", env=env)[:2] == (0, "\\udcff\n")


def test_without_a_home_libraries_get_a_folder_that_goes_again(tmp_path):
    env = os.environ | {"HOME": str(tmp_path / "nowhere"), "TMPDIR": str(tmp_path)}
    env = {k: v for k, v in env.items() if k not in ("NUMBA_CACHE_DIR", "SIXFOLD_CACHE")}
    body = "print(os.path.isdir(os.environ['NUMBA_CACHE_DIR']))"
    assert ended(body, env=env) == (0, "True\n", "")
    assert list(tmp_path.iterdir()) == []


def test_an_error_shows_control_characters_instead_of_obeying_them(tmp_path, monkeypatch, capsys):
    from sixfold.core import UserError, cli

    def fail(*_, **__):
        raise UserError("no file a\x1b[2J\udcff\rb ü")

    monkeypatch.setattr(cli, "build_app", lambda: fail)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "sixfold: no file a\\x1b[2J\\udcff\\rb ü\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["repro", "speech", "--budget", "x"], 'Invalid value for --budget: .* "x"'),
        (["repro", "speech", "--budge", "1"], "Unknown option: --budge. Did you mean --budget"),
        (["show"], "Command .* requires an argument"),
        (["\x1b[2J"], "Unknown command"),
        (["run", "speech/frcrn", "", "out.wav"], "an argument is empty .that after speech/frcrn.:"),
        (
            ["run", "vision/cfsr", "a.png", "b.png", "--weights", ""],
            "an .* .that after --weights.:",
        ),
        (["train", "pde/fno", "--data="], "an argument is empty .--data=.:"),
        ([""], "an argument is empty .the first.:"),
        (["score", "vision", "a", "b", "--border", "2.7"], "--border '2.7': give a whole number"),
        (
            ["run", "pde/sinenet", "a.h5", "b.h5", "--weights=w", f"--steps={10**23}"],
            "--steps '10*': give a smaller number",
        ),
        (
            ["train", "speech/frcrn", "--data=a", "--out=b", "--seconds=1e20"],
            "seconds: Input should be less than or equal to 86400 .got '1e20'.. Add",
        ),
        (["score", "recsys", "x" * 5000, "b"], ".*File name too long"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(words, said, monkeypatch, capsys):
    from sixfold.core import cli

    monkeypatch.setattr("sys.argv", ["sixfold", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    text = capsys.readouterr().err
    assert ended.value.code == 2
    assert re.fullmatch(rf"sixfold: {said}.*\n", text), text
    assert text[:-1].isprintable()
    assert len(text) < 620
