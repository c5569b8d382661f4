"""Time things side by side, say on what machine, and keep what came out."""
from __future__ import annotations
import datetime, json, math, operator, os, platform, subprocess, sys, time
from pathlib import Path
import torch
from torch.utils.flop_counter import flop_registry, FlopCounterMode, register_flop_formula, sdpa_flop
from tamers.core import atomic_path
from tamers.encoders.precision import linear

# torch counts the attention of GPUs alone
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
if FLASH not in flop_registry: register_flop_formula(FLASH, get_raw=True)(sdpa_flop)


def packed_linear_flop(x_shape, weight_shape, *_, **__) -> int:
    "A linear layer that goes to oneDNN directly, which torch leaves out: 2 x rows x inputs x outputs."
    return 2 * math.prod(x_shape) * weight_shape[0]


if torch.backends.mkldnn.is_available(): register_flop_formula(torch.ops.mkldnn._linear_pointwise)(packed_linear_flop)


HERE = Path(__file__).parent
CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


def alternate(rounds: int, **calls) -> dict[str, list[float]]:
    "Seconds of each call, taken in turn `rounds` times: what else the machine does falls on all alike."
    seconds = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def flops(call, *args) -> float:
    "Floating point operations of the matrix products, convolutions and attention of a call."
    with FlopCounterMode(display=False) as counter: call(*args)
    return float(counter.get_total_flops())


def matmul_peak(dtype: torch.dtype, sizes: tuple) -> float:
    "GFLOP/s of a large matrix product, the best of several, by torch and by `linear`: what no encoder can exceed."
    best = 0.
    for n in sizes:
        x = torch.randn(n, n).to(dtype)
        for product in (lambda: x @ x, lambda: linear(x, x)):
            product()
            best = max(best, 2 * n**3 / min(alternate(5, product=product)['product']) / 1e9)
    return best


def matmul_peaks(quick: bool) -> dict:
    "GFLOP/s by precision."
    return {name: matmul_peak(dtype, (512,) if quick else (2048, 4096)) for name,
        dtype in (('fp32', torch.float32), ('bf16', torch.bfloat16))}


def cpu_model() -> str:
    "The name of the processor."
    try: lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError: return platform.processor() or platform.machine()
    return next((line.split(': ')[1] for line in lines if line.startswith('model name')), platform.machine())


def machine(quick: bool) -> dict:
    "What a figure depends on beside the code."
    load = os.getloadavg()[0]
    products = {f'peak_{name}_gflops': round(v) for name, v in matmul_peaks(quick).items()}
    return dict(cpu=cpu_model(), cores=CORES, threads=torch.get_num_threads(), python=platform.python_version(),
        torch=torch.__version__,
                **products, load_at_start=round(load, 2), date=datetime.datetime.now().isoformat(timespec='minutes'))


COMPARE = {'>=': operator.ge, '<=': operator.le}


def row(measure: str, ours: float, theirs: float | None = None, *, unit: str, versus: str = '', wants: dict = {},
    more: bool = False, **values) -> dict:
    """One line of the table. `more`: larger is better. `wants` are the targets, such as {'ratio >=': 3}: each names
    a value of the row."""
    ratio = None if theirs is None else (ours / theirs if more else theirs / ours)
    found = dict(measure=measure, ours=ours, theirs=theirs, unit=unit, versus=versus, ratio=ratio, **values)
    checks = [COMPARE[want.split()[1]](found[want.split()[0]], goal) for want, goal in wants.items()]
    target = ', '.join(f'{want} {goal:,g}' for want, goal in wants.items())
    return dict(found, target=target, reached=all(checks) if checks else None)


def tell(name: str, r: dict) -> str:
    "A row in one line."
    theirs = '' if r['theirs'] is None else f"; {r['versus']} {r['theirs']:.4g}; ratio {r['ratio']:,.2f}"
    verdict = '' if r['reached'] is None else f"; target {r['target']}: {'reached' if r['reached'] else 'NOT reached'}"
    return f"{name:10} {r['measure']}: {r['ours']:.4g} {r['unit']}{theirs}{verdict}"


def keep(out: Path, name: str, result: dict) -> None:
    "Put one benchmark's result into the file of all, which is whole at any time."
    known = json.loads(out.read_text()) if out.exists() else {}
    with atomic_path(out) as tmp: tmp.write_text(json.dumps(known | {name: result}, indent=1) + '\n')


def child(what: str, *, launcher: tuple = (), threads: int | None = None, cache: Path, **args) -> dict:
    "Run a function of child.py in a fresh process (`launcher`: by torchrun, in several); what it measured."
    env = dict(os.environ, TAMERS_CACHE=str(cache), HF_HUB_OFFLINE='1',
        OMP_NUM_THREADS=str(threads or torch.get_num_threads()))
    started = time.time()
    done = subprocess.run([sys.executable, *launcher, str(HERE/'child.py'), what, json.dumps(args)], env=env,
        capture_output=True, text=True)
    if done.returncode: raise RuntimeError(f'{what} {args} ended with {done.returncode}:\n' + done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1]) | dict(started=started)
