"How a command starts: help and errors of what was typed come at once, before torch is read."
import subprocess, sys
import pytest

BAN = """
import sys
class Ban:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('torch', 'transformers', 'accelerate'): raise AssertionError(f'{name} was imported')
sys.meta_path.insert(0, Ban())
from tamers import commands
getattr(commands, sys.argv[1])(sys.argv[2:])
"""

COMMANDS = ('train', 'analyze', 'compare', 'check', 'search', 'predict', 'app')


def light(command, *flags, cwd=None):
    "Run a command where torch, transformers and accelerate cannot be imported; its exit code, output and errors."
    p = subprocess.run([sys.executable, '-c', BAN, f'tamers_{command}', *map(str, flags)], capture_output=True,
                       text=True, cwd=cwd)
    assert 'AssertionError' not in p.stderr, p.stderr
    return p.returncode, p.stdout, p.stderr


@pytest.mark.parametrize('command', COMMANDS)
def test_help_needs_no_torch(command):
    code, out, _ = light(command, '--help')
    assert code == 0 and f'usage: tamers-{command}' in out


@pytest.mark.parametrize('command, flags, words', [
    ('train', ['--batch-size', '0'], '--batch-size 0: must be at least 2'),
    ('train', ['--learning-rate', '1'], '--learning-rate: no such flag. Did you mean --lr?'),
    ('train', ['--bach-size', '1'], '--bach-size: no such flag. Did you mean --batch-size?'),
    ('train', ['--root', 'gone'], 'gone: no such file or folder'),
    ('train', ['--load-checkpoint', 'gone.pt'], 'gone.pt: no such checkpoint'),
    ('analyze', ['--checkpoint', 'gone'], 'gone: no such checkpoint'),
    ('analyze', ['--checkpoint', 'mini', '--root', 'gone'], 'gone: no such file or folder'),
    ('analyze', ['--splt', 'dev'], 'Did you mean --split?'),
    ('compare', ['gone', 'gone'], 'gone: no such checkpoint'),
    ('compare', ['mini', 'mini', '--resamples', '1'], '--resamples 1: must be at least 100'),
    ('check', ['gone'], 'gone: no such file or folder'),
    ('check', ['--aftr', 'x'], '--aftr: no such flag. Did you mean --after?'),
    ('search', ['hello', '--checkpoint', 'gone.pt'], 'gone.pt: no such checkpoint'),
    ('search', ['hello', '--top', '0'], '--top 0: must be at least 1'),
    ('predict', ['--txt', 'hi'], '--txt: no such flag. Did you mean --text?'),
    ('predict', ['gone.wav'], 'gone.wav: no such file'),
    ('predict', ['gone.wav', 'far.wav'], 'gone.wav, far.wav: no such file'),
    ('predict', ['sub'], 'sub: a folder without recordings'),
    ('predict', ['--manifest', 'gone.csv'], 'gone.csv: no such file'),
    ('predict', ['--text', 'a', '--text', 'b'], '--text: given twice'),
    ('predict', ['--text', 'a', '--checkpoint', 'typo'], "typo: no such file or folder, nor 'owner/name' on the hub"),
    ('predict', ['--text', 'a', '--checkpoint', 'gone/best.pt'], 'gone/best.pt: no such file or folder'),
    ('app', ['--checkpoint', './typo/x'], './typo/x: no such file or folder'),
])
def test_a_slip_is_told_before_torch_is_read(command, flags, words, tmp_path):
    (tmp_path/'sub').mkdir()
    code, out, err = light(command, *flags, cwd=tmp_path)
    assert code == 2 and words in err and not out, err
