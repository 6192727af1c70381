"""The cells of phalanx.ipynb: set-up, training with a progress bar, report and dashboard. Nothing but IPython and pyte is needed."""

import html
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

from IPython.display import HTML, display

ROOT = Path(__file__).resolve().parents[2]


def set_up():
    """Runs `set-up` and shows what it says as it says it."""
    os.chdir(ROOT)
    # For the dashboard, before the long build: an installation that is refused is refused at once.
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "pyte"], check=True)
    process = subprocess.Popen(
        ["bash", "examples/colab/set-up"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    compiled = 0
    for line in process.stdout:
        # Hundreds of lines, of which only the number says how far the build is.
        if line.lstrip().startswith(("Compiling ", "Downloaded ", "Downloading ")):
            compiled += "Compiling" in line
            print(f"\r{compiled} crates", end="", flush=True)
        else:
            print(line, end="", flush=True)
    if process.wait() != 0:
        raise SystemExit(f"set-up failed with status {process.returncode}: its last lines say why")


def trainer():
    return (ROOT / "target/colab/trainer").read_text().strip()


def train(data, out, config, iterations=None):
    """Trains, with a progress bar. Without `iterations` those of the settings file count."""
    command = [trainer(), "train", "--data", data, "--out", out, "--config", config, "--force", "--jsonl"]
    if iterations is None:
        settings = (line.split("=") for line in Path(config).read_text().splitlines() if "=" in line)
        iterations = next(int(value) for key, value in settings if key.strip() == "iterations")
    command += ["--iterations", str(iterations)]
    bar = display(HTML("compiling kernels"), display_id=True)
    log = open(ROOT / "target/colab/training.log", "w+")
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    for line in process.stdout:
        row = json.loads(line)
        done, seconds = row["iteration"], time.monotonic() - begun
        shown = row.get("running_return")
        shown = "" if shown is None else f", return {shown:.3f}"
        bar.update(HTML(
            f'<progress value="{done}" max="{iterations}" style="width:24em"></progress> '
            f"iteration {done} of {iterations}, {seconds:.0f} s{shown}"
        ))
    if process.wait() != 0:
        log.seek(0)
        raise SystemExit(log.read())


def backtest(data, out):
    """Trades the held-out candles and shows the report."""
    subprocess.run([trainer(), "backtest", "--run", out, "--data", data], check=True)
    page = (Path(out) / "report.html").read_text()
    # A document of its own: its styles and the notebook's do not meet. (HTML() would warn of a frame.)
    frame = f'<iframe srcdoc="{html.escape(page)}" style="width:100%;height:900px;border:0"></iframe>'
    display({"text/html": frame, "text/plain": f"{out}/report.html"}, raw=True)


def screen(command, columns=110, rows=32, seconds=3.0):
    """The screen of a program in a terminal, as a pyte screen, after it has drawn for so long."""
    import fcntl
    import termios

    import pyte

    child, terminal = pty.fork()
    if child == 0:
        # Whatever happens, this copy of the notebook's process ends here.
        try:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            # The parent sets the size first.
            time.sleep(0.2)
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    shown = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(shown)
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            try:
                stream.feed(os.read(terminal, 65536))
            except OSError:
                break
    lines = [[shown.buffer[row][column] for column in range(columns)] for row in range(rows)]
    try:
        os.write(terminal, b"q")
        # Leaving, the program restores the screen; it would wait for its last words to be read.
        while select.select([terminal], [], [], 5.0)[0] and os.read(terminal, 65536):
            pass
    except OSError:
        pass
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.close(terminal)
    os.waitpid(child, 0)
    return lines


# Colours of xterm by the names that pyte gives them.
NAMES = {
    "black": "#3b4252", "red": "#e06c75", "green": "#98c379", "brown": "#e5c07b", "blue": "#61afef",
    "magenta": "#c678dd", "cyan": "#56b6c2", "white": "#d8dee9", "default": "#d8dee9",
}


def colour(name):
    bright = name.removeprefix("bright")
    return NAMES.get(bright) or f"#{name}"


def dashboard(out):
    """Shows the dashboard of the training, as `trainer watch` draws it in a terminal."""
    rows = []
    for line in screen([trainer(), "watch", "--run", out]):
        row, run, style = "", "", None
        for character in [*line, None]:
            now = character and (colour(character.fg), character.bold)
            if now != style and run:
                weight = ";font-weight:bold" if style[1] else ""
                row += f'<span style="color:{style[0]}{weight}">{html.escape(run)}</span>'
                run = ""
            style = now
            run += character.data if character else ""
        rows.append(row)
    style = "background:#1e222a;color:#d8dee9;line-height:1.2;padding:8px;overflow-x:auto;font-family:monospace"
    display(HTML(f'<pre style="{style}">' + "\n".join(rows) + "</pre>"))
