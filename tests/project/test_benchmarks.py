"The benchmarks run, in tiny sizes, and say what they measured; how fast anything is, no test asks."
import json
import math
import subprocess
import sys
from pathlib import Path
import numpy as np
import pytest

HERE = Path(__file__).resolve().parents[2]/'benchmarks'
EXTRA = dict(encode={'ms', 'gflop', 'cosine', 'utterances', 'seconds', 'dtype', 'batch'}, head={'rates'},
    epochs={'loop_ms'}, memory={'points', 'growth'},
             start={'parts', 'first', 'all'}, scale={'points'}, folds={'one'}, latency={'all'})
# the last starts seven
GROUPS = ['logmel encode', 'head epochs', 'memory', 'start', 'scale', 'folds', 'latency',
    pytest.param('processes', marks=pytest.mark.slow)]


def bench(*flags, code=0, start=None):
    "Run the command; what it printed."
    command = [str(HERE/'run.py')] if start is None else ['-c', start]
    done = subprocess.run([sys.executable, *command, *map(str, flags)], capture_output=True, text=True, cwd=HERE)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def numbers(x):
    "All numbers in a result."
    if isinstance(x, dict): return [n for v in x.values() for n in numbers(v)]
    if isinstance(x, list): return [n for v in x for n in numbers(v)]
    return [x] if isinstance(x, (int, float)) and not isinstance(x, bool) else []


@pytest.mark.parametrize('names', GROUPS)
def test_measures(tmp_path, names):
    out = tmp_path/'results.json'
    out.write_text('{"kept": {"rows": []}}')
    told = bench(*names.split(), '--quick', '--threads', '1', '--out', out)
    results = json.loads(out.read_text())
    assert set(results) == {'kept', *names.split()}
    for name in names.split():
        r = results[name]
        assert {'rows', 'quick', 'took', 'machine'} | EXTRA.get(name, set()) <= set(r) and r['quick']
        assert {'cpu', 'cores', 'threads', 'torch', 'peak_fp32_gflops', 'peak_bf16_gflops', 'load_at_start',
            'date'} <= set(r['machine'])
        assert r['rows'] and all(math.isfinite(n) for n in numbers(r))
        for row in r['rows']:
            assert row['measure'] in told and row['reached'] is None
            assert row['ours'] > 0 or 'memory' in row['measure']
            assert (row['theirs'] is None) == (row['ratio'] is None) == (row['versus'] == '')


def test_all_have_a_test_and_help():
    shown = bench('--help')
    tested = ' '.join(g if isinstance(g, str) else g.values[0] for g in GROUPS).split()
    assert sorted(tested) == sorted(line.split()[0]
        for line in shown.split('benchmarks:\n')[1].split('\n\n')[0].splitlines())
    assert 'no benchmark named heads; there are logmel, encode' in bench('heads', code=2)


def test_goes_on_after_a_failure(tmp_path):
    broken = ("import sys; sys.path.insert(0, '.'); import run, encoding; encoding.encode = lambda made, peak: 1/0; "
              "sys.exit(run.main(sys.argv[1:]))")
    told = bench('encode', 'logmel', '--quick', '--threads', '1', '--out', tmp_path/'r.json', code=1, start=broken)
    assert 'ZeroDivisionError' in told and 'without encode, which failed' in told
    assert list(json.loads((tmp_path/'r.json').read_text())) == ['logmel']


@pytest.fixture
def here(monkeypatch): monkeypatch.syspath_prepend(HERE)


def test_row_judges(here):
    from measure import row, tell
    less, more = row('a', 2., 6., unit='s', versus='b', wants={'ratio >=': 3, 'ours <=': 1}), row('a', 2., 1.,
        unit='steps/s', versus='b', more=True, wants={'ratio >=': 2})
    assert (less['ratio'], less['reached'], more['ratio'], more['reached']) == (3, False, 2, True)
    assert less['target'] == 'ratio >= 3, ours <= 1' and row('a', 2., unit='s')['reached'] is None
    assert 'NOT reached' in tell('x', less) and tell('x', more).endswith('target ratio >= 2: reached')


def test_lengths_are_those_of_meld(here):
    from made import durations, speech
    for n in (64, 256):
        s = durations(n)
        assert abs(np.median(s) - 2.5) < 0.05 and abs(s.mean() - 3.1) < 0.1 and 7 < np.quantile(s, 0.95) < 7.9
    assert sum(s < 0.5) > 0 and 1 < sum(s > 10.24) < 10
    texts, waves = zip(*speech(6))
    assert [len(w) for w in waves] == [round(16_000 * x) for x in durations(6)] and len(set(texts)) == 6
    assert all(np.abs(w).max() > 0.01 for w in waves)


def test_loop_and_encoders_agree(here, tmp_path):
    "At full length and in float32 the comparison computes what TAMERS computes."
    import soundfile
    import torch
    from made import save_encoders, speech
    from plain import Loop
    from tamers.encoders.encoder import make_encoders
    names, made = save_encoders(tmp_path, tiny=True), speech(5)
    for i, (_, wave) in enumerate(made): soundfile.write(tmp_path/f'{i}.wav', wave, 16_000, subtype='FLOAT')
    loop, ours = Loop(*names), make_encoders(*names, amp=False)
    for kind, theirs, inputs in (('audio', loop.audio([tmp_path/f'{i}.wav' for i in range(5)]), [w for _, w in made]),
        ('text', loop.text([t for t, _ in made]), [t for t, _ in made])):
        torch.testing.assert_close(ours[kind].encode(ours[kind].prepare(inputs)), theirs, atol=1e-5, rtol=1e-4)


def test_attention_on_a_cpu_is_counted(here):
    "2 rows, 3 heads, 50 tokens of 16 numbers: two products, of a multiplication and an addition each."
    import torch
    from measure import flops
    q = torch.randn(2, 3, 50, 16)
    assert flops(torch.nn.functional.scaled_dot_product_attention, q, q, q) == 2 * 2 * 2 * 3 * 50 * 50 * 16


def test_layers_laid_out_anew_are_counted(here):
    import torch
    from measure import flops
    from tamers.encoders.precision import lay_out, native_bfloat16
    if not native_bfloat16(): pytest.skip('this processor has no products of bfloat16')
    layer, x = torch.nn.Linear(24, 8).bfloat16().requires_grad_(False), torch.randn(3, 5, 24).bfloat16()
    before = flops(layer, x)
    lay_out(layer)
    assert flops(layer, x) == before == 2 * 3 * 5 * 24 * 8
