"""How long a user waits: for the model to load, and for its first answer."""
from __future__ import annotations
import statistics
from made import Made
from measure import child, row


def latency(made: Made) -> dict:
    """A clip of 3 s with its transcript, one thread, in fresh processes, by the model that ships.

    Measured: seconds of `import tamers` and `tamers.load()` (files in the cache of the system), milliseconds of the
    first `predict` after it and of the next ten, and the floating point operations of one."""
    once = lambda: child('predict', cache=made.cache, threads=1, seconds=3.)
    first, *runs = [once() for _ in range(3 if made.quick else 21)]   # the first fills the caches
    middle = {k: statistics.median(r[k] for r in runs) for k in ('load', 'first_ms', 'next_ms')}
    return dict(rows=[row('import and load', middle['load'], first['load'], unit='s', versus='the first time',
        wants={'ours <=': 3}),
                      row('first answer after load(): 3 s of speech with text, one thread', middle['first_ms'],
                          unit='ms', wants={'ours <=': 50}),
                      row('further answers', middle['next_ms'], unit='ms'),
                      row('operations of an answer', first['gflop'], unit='GFLOP', wants={'ours <=': 2})],
                all=[{k: r[k] for k in ('load', 'first_ms', 'next_ms', 'peak_mb')} for r in runs])
