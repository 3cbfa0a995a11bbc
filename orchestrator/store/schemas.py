"""The layout of a store: the place of each file, and the columns of the Parquet files.

    STORE/                               a folder on a path, or a prefix on object storage
      store.json                         marks the folder as a store, with its version; has a checksum
      sweeps/NAME.json                   a sweep's manifest: the trials it requests, under its own names; has a checksum
      sweeps/NAME.behind                 exists while MLflow may be behind on the sweep
      trials/ID/attempts.json            while a trial is unfinished: its attempts, with the last one's error if it
                                         failed; has a checksum
      trials/ID/resume.safetensors       while a trial is unfinished: its resume point
      trials/ID/tasks.parquet            one row per test of a task; while a trial is unfinished, up to its resume point
      trials/ID/system.parquet           one row per sample of system usage, likewise
      trials/ID/contexts.safetensors     every task's learned tensors
      trials/ID/trial.parquet            one row; written last: a trial is finished if and only if it exists
      report/                            tables; can be deleted
      index/                             all finished trials in one file (`index.py`); can be deleted
      repairs/                           a store in which trials with damaged records or different code are recomputed,
                                         until they are complete
      accepted.json                      code of a method accepted as equivalent (`accepted.py`), if any; has a checksum
      leases/                            on object storage: who is working on the store
      .driver                            the last run's nonce, which identifies the store on any machine

Fields that may differ between two equal runs are marked `volatile`.
"""

from __future__ import annotations

import pyarrow as pa

from orchestrator.store.parquet_files import STORE_VERSION, VOLATILE

MARK_FILE, WORD_FILE = "store.json", ".driver"
SWEEPS_FOLDER, TRIALS_FOLDER, REPORT_FOLDER, INDEX_FOLDER = "sweeps", "trials", "report", "index"
REPAIRS_FOLDER = "repairs"
ACCEPTED_FILE = "accepted.json"
TRIAL_FILE, TASKS_FILE, SYSTEM_FILE = "trial.parquet", "tasks.parquet", "system.parquet"
CONTEXTS_FILE = "contexts.safetensors"
RESUME_FILE = "resume.safetensors"
ATTEMPTS_FILE = "attempts.json"


def of_trial(trial_id: str, file: str) -> str:
    """The name in the store of one of a trial's files."""
    return f"{TRIALS_FOLDER}/{trial_id}/{file}"


def _field(name: str, kind: pa.DataType, *, volatile: bool = False) -> pa.Field:
    return pa.field(name, kind, metadata=VOLATILE if volatile else None)


_CURVE_POINT = pa.struct([("step", pa.int64()), ("loss", pa.float64()), ("accuracy", pa.float64())])

_VERSION_METADATA = {b"crwn.version": "{}.{}".format(*STORE_VERSION).encode()}

_IDENTITY = [
    _field("trial_id", pa.string()),
    _field("method", pa.string()),
    _field("variant", pa.string()),
    _field("benchmark", pa.string()),
    _field("scale", pa.string()),
    _field("seed", pa.int64()),
]

TASKS_SCHEMA = pa.schema(
    [
        *_IDENTITY,
        _field("task", pa.int64()),
        _field("tasks_learned", pa.int64()),
        _field("update", pa.int64()),
        _field("accuracy", pa.float64()),
        _field("accuracy_told", pa.float64()),
        _field("answered", pa.list_(pa.int64())),
        _field("loss", pa.float64()),
        _field("num_test", pa.int64()),
        _field("train_seconds", pa.float64(), volatile=True),
        _field("eval_seconds", pa.float64(), volatile=True),
        _field("curve", pa.list_(_CURVE_POINT)),
        _field("tested", pa.float64(), volatile=True),
        _field("curve_times", pa.list_(pa.float64()), volatile=True),
    ],
    metadata={
        **_VERSION_METADATA,
        b"crwn.record": b"tasks",
        b"crwn.matrix": b"the diagonal of the accuracy matrix (tasks_learned = task + 1) and its last row; for methods "
        b"whose tasks do not interfere an accuracy stays what it was when its task was learned; the lower triangle "
        b"where learning a task can change another; the last row alone where all tasks are learned at once; with "
        b"`tests_ahead` besides each task after those before it, and every task after none; of a "
        b"stream every test after every `update` at which it was tested, and tasks_learned the segments seen whole",
    },
)

TRIALS_SCHEMA = pa.schema(
    [
        *_IDENTITY,
        _field("accuracy", pa.float64()),
        _field("accuracy_told", pa.float64()),
        _field("forgetting", pa.float64()),
        _field("backward_transfer", pa.float64()),
        _field("params_per_task", pa.float64()),
        _field("trained_per_task", pa.int64()),
        _field("stored_per_task", pa.int64()),
        _field("examples_kept", pa.int64()),
        _field("stored_memory", pa.int64()),
        _field("grouping", pa.string()),
        _field("independent", pa.bool_()),
        _field("fingerprint", pa.string()),
        _field("spec", pa.string()),
        _field("numerics", pa.string()),
        _field("seconds", pa.float64(), volatile=True),
        _field("provenance", pa.string(), volatile=True),
    ],
    metadata={**_VERSION_METADATA, b"crwn.record": b"trials"},
)

SYSTEM_SCHEMA = pa.schema(
    [
        _field("trial_id", pa.string()),
        *(
            _field(name, pa.float64(), volatile=True)
            for name in (
                "time",
                "process_cpu_percent",
                "process_memory_bytes",
                "machine_cpu_percent",
                "machine_memory_bytes",
                "gpu_percent",
                "gpu_memory_bytes",
                "gpu_power_watts",
            )
        ),
    ],
    metadata={**_VERSION_METADATA, b"crwn.record": b"system"},
)
"""Times are seconds since 1970; 100 % is one core for a process, all cores for a machine; null without a GPU."""

TESTS_SCHEMA = pa.schema(
    [TASKS_SCHEMA.field(name) for name in ("trial_id", "task", "tasks_learned", "update", "accuracy", "accuracy_told")]
)
"""The columns of `tasks` from which accuracies are computed."""

ANSWERS_SCHEMA = pa.schema([*TESTS_SCHEMA, TASKS_SCHEMA.field("answered")])
"""The same, and that from which it is computed whether a task is recalled better than by chance."""
