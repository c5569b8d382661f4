#!/usr/bin/env python3
"""Measure how fast TAMERS is, each figure beside its comparison in the same run, and keep the figures in a file."""
from __future__ import annotations
import argparse, os, sys, tempfile, time, traceback
from pathlib import Path

WHAT = dict(
    logmel='log-mel pictures of 256 clips, against ASTFeatureExtractor in a loop',
    encode='AST base and GPT-2 small sizes, full length and in buckets, against a loop with transformers in fp32; '
    'share of the peak',
    head='steps a second of the head at batch 64 and 1024, against a bare loop and against transformers\' Trainer',
    epochs='20 epochs from the store, against encoding in every step (extrapolated from the loop of `encode`)',
    memory='growth of the memory of encoding from 5,000 to 50,000 utterances',
    start='a second tamers-train on 13,708 rows: seconds until the first step, and where they go',
    processes='encoding in 2 processes against 1; gradients of 2 and 4 processes against 1 (needs pytest)',
    scale='time and memory of an epoch on 1,000 to 100,000 utterances',
    folds='twenty folds from a complete store, against twenty runs of tamers-train',
    latency='seconds to import and load the model that ships, and its first answer, in 20 fresh processes of one '
            'thread')
HELP = dict(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    epilog='benchmarks:\n' + '\n'.join(f'  {k:10} {v}' for k, v in WHAT.items()) + """

Everything is made here, with random weights at the published sizes: nothing is downloaded, nothing of yours is
read, and what is made is removed at the end (about 3 GB for a while; TMPDIR says where). Ratios carry over to
other machines of the kind, seconds do not. Let the machine rest meanwhile: the load at the start is kept with
each figure. All benchmarks take 15 to 20 minutes on 4 cores. nbs/speed.ipynb shows the file.

examples:
  python benchmarks/run.py                    all of them, into benchmarks/results.json
  python benchmarks/run.py head start         these two; the others in the file stay as they are
  python benchmarks/run.py --quick --out /tmp/try.json    does it run at all? tiny sizes, whose figures mean nothing""")


def parse(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog='python benchmarks/run.py', allow_abbrev=False, **HELP)
    p.add_argument('names', nargs='*', metavar='NAME', help='benchmarks to run, see below (default: all)')
    p.add_argument('--quick', action='store_true', help='tiny sizes: to see that it runs, not to measure')
    p.add_argument('--out', type=Path, default=Path(__file__).parent/'results.json',
        help='file that the figures are merged into (default: %(default)s)')
    p.add_argument('--threads', type=int, help='threads of torch (default: as many as there are cores)')
    args = p.parse_args(argv)
    if unknown := [n for n in args.names if n not in WHAT]:
        p.error(f"no benchmark named {', '.join(unknown)}; there are {', '.join(WHAT)}")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    os.environ['HF_HUB_OFFLINE'] = '1'
    # of processes that are started without a number; the threads of this one are set below
    os.environ['OMP_NUM_THREADS'] = '1'
    import torch, transformers
    import encoding, heads, latency, measure, whole
    from made import Made
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(args.threads or measure.CORES)
    facts = measure.machine(args.quick)
    print(', '.join(f'{k} {v}' for k, v in facts.items()), flush=True)
    peak, failed = {k: facts[f'peak_{k}_gflops'] for k in ('fp32', 'bf16')}, []
    calls = dict(logmel=encoding.logmel, encode=lambda made: encoding.encode(made, peak), processes=encoding.processes,
        head=heads.head, epochs=heads.epochs,
                 scale=heads.scale, memory=whole.memory, start=whole.start, folds=whole.folds,
                 latency=latency.latency)
    with tempfile.TemporaryDirectory(prefix='tamers-benchmarks-') as folder:
        os.environ['TAMERS_CACHE'] = f'{folder}/cache'
        made = Made(Path(folder), args.quick)
        for name in args.names or WHAT:
            start = time.perf_counter()
            print(f'{name:10} {calls[name].__doc__ or encoding.encode.__doc__}', flush=True)
            try: result = calls[name](made)
            except Exception:
                failed.append(name)
                print(f'{name:10} FAILED\n{traceback.format_exc()}', flush=True)
                continue
            # tiny sizes reach and miss nothing
            if args.quick: result['rows'] = [dict(r, reached=None) for r in result['rows']]
            measure.keep(args.out, name, dict(result, quick=args.quick, took=round(time.perf_counter() - start, 1),
                machine=facts))
            for r in result['rows']: print(measure.tell(name, r))
            if 'skipped' in result: print(f"{name:10} skipped: {result['skipped']}")
    kept = f"kept, without {', '.join(failed)}, which failed: see above" if failed else 'all kept'
    print(f'{args.out}: {kept}')
    return bool(failed)


if __name__ == '__main__': sys.exit(main())
