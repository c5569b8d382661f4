"What does damage on purpose, in a process of its own."
import json, subprocess, sys
from pathlib import Path


def last_line(module: str, *words, limit=3600) -> dict:
    "Run `python -m MODULE WORDS` in the root of the repository; the figures in its last line."
    done = subprocess.run([sys.executable, '-m', module, *map(str, words)], cwd=Path(__file__).resolve().parents[2],
        capture_output=True, text=True, timeout=limit)
    if done.returncode: raise RuntimeError(done.stdout + done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])
