"""The batcher of the local backend: worker threads that gather the requests of all callers into common passes.

Each worker owns its share of the sequences and runs passes of up to ``max_rows`` rows: one row for each sequence that
is generating, and pieces of new prompts beside them, so that sequences enter and leave at any pass. By default there
is one worker a CPU core, each computing with one thread: a result then does not depend on the number of cores either.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Sequence

import torch

from agentkit.llm.errors import ModelError, OutOfMemory
from agentkit.llm.jobs import GenerateJob, Job, Sample
from agentkit.llm.packed import Net, Plan
from agentkit.llm.prefix import BLOCK, PrefixCache


class Engine:
    """Runs jobs on a `Net`. ``close`` ends its threads; jobs that were not finished then fail."""

    def __init__(self, net: Net, workers: int, threads: int, max_rows: int, max_samples: int, cache_bytes: int) -> None:
        self.net, self.max_rows, self.max_samples = net, max_rows, max_samples
        self.cache = PrefixCache(cache_bytes)
        self._queue: deque[Job] = deque()
        self._computing: set[bytes] = set()
        self._changed = threading.Condition()
        self._idle = 0
        self._closed = False
        ready = threading.Barrier(workers + 1)
        before = torch.get_num_threads()
        self._workers = [
            threading.Thread(
                target=_work, args=(weakref.ref(self), threads, ready), name=f"agentkit-llm-{i}", daemon=True
            )
            for i in range(workers)
        ]
        for worker in self._workers:
            worker.start()
        ready.wait()
        # The workers' set_num_threads holds for their own threads, and would hold for threads to come.
        torch.set_num_threads(before)

    def run(self, jobs: Sequence[Job]) -> None:
        """Compute ``jobs`` together with those of all other callers; raises the first failure after all have ended.

        Each failure is raised anew: one may end the jobs of several callers.
        """
        with self._changed:
            if self._closed:
                raise ModelError("the model was closed")
            self._queue.extend(jobs)
            self._changed.notify_all()
        failures = [error for job in jobs if (error := job.future.exception()) is not None]
        if failures:
            raise type(failures[0])(*failures[0].args) from failures[0]

    def forget(self) -> None:
        """Empty the prefix cache."""
        with self._changed:
            self.cache.clear()

    def close(self) -> None:
        """End the worker threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            if worker is not threading.current_thread():
                worker.join()
        for job in self._queue:
            job.future.set_exception(ModelError("the model was closed"))
        self._queue.clear()

    # What follows is called by workers, with the lock held where it says so.

    def wait(self) -> bool:
        """Sleep until there may be something to do. False when the engine is closed."""
        with self._changed:
            self._idle += 1
            if not self._closed and not self._admissible():
                self._changed.wait(timeout=1.0)
            self._idle -= 1
            return not self._closed

    def admit(self, rows: int, samples: int, beside: Job | None) -> list[Job]:
        """Take jobs from the queue, as many as fit beside ``rows`` rows and ``samples`` samples.

        All have the adapter of ``beside``, where that is given. A job whose next block somebody else is computing waits
        for it.
        """
        taken: list[Job] = []
        with self._changed:
            share = -(-len(self._queue) // (self._idle + 1))
            for job in list(self._queue):
                n = job.decoding.n if isinstance(job, GenerateJob) else 0
                if len(taken) >= share or rows >= self.max_rows or (samples and samples + n > self.max_samples):
                    break
                if (beside is not None and job.adapter is not beside.adapter) or self._blocked(job):
                    continue
                beside = beside or job
                self._queue.remove(job)
                self._start(job)
                rows += (len(job.keys) - job.blocks_done) * BLOCK + job.tail_rows()
                samples += n
                taken.append(job)
        return taken

    def _admissible(self) -> bool:
        return any(not self._blocked(job) for job in self._queue)

    def _blocked(self, job: Job) -> bool:
        missing = next((key for key in job.keys if self.cache.get(key) is None), None)
        return missing in self._computing

    def _start(self, job: Job) -> None:
        job.kv = self.net.buffer(job.places)
        for index, key in enumerate(job.keys):
            block = self.cache.get(key)
            if block is None:
                break
            job.kv[:, :, :, index * BLOCK : (index + 1) * BLOCK] = block
            job.blocks_done = index + 1
        job.cached_tokens = job.blocks_done * BLOCK
        self._computing.update(job.keys[job.blocks_done :])

    def store(self, job: Job, upto: int) -> None:
        """Publish the blocks of ``job`` before number ``upto``, now computed."""
        assert job.kv is not None
        with self._changed:
            for index in range(job.blocks_done, upto):
                at = index * BLOCK
                self.cache.put(job.keys[index], job.kv[:, :, :, at : at + BLOCK].clone())
                self._computing.discard(job.keys[index])
            job.blocks_done = upto
            self._changed.notify_all()

    def fail(self, job: Job, error: BaseException) -> None:
        """End a job that cannot be completed."""
        with self._changed:
            self._computing.difference_update(job.keys[job.blocks_done :])
            self._changed.notify_all()
        job.kv = None
        job.future.set_exception(error)


class _Worker:
    """The sequences of one worker thread."""

    def __init__(self) -> None:
        self.reading: list[Job] = []
        self.writing: list[tuple[GenerateJob, Sample]] = []
        self.budget: int | None = None  # rows of a pass, once a pass did not fit into memory

    def step(self, engine: Engine) -> bool:
        """One pass. False when there is nothing to do."""
        waiting_rows = sum(job.tail_rows() + (len(job.keys) - job.blocks_done) * BLOCK for job in self.reading)
        current = self.reading[0] if self.reading else self.writing[0][0] if self.writing else None
        self.reading += engine.admit(waiting_rows + len(self.writing), len(self.writing), current)
        if not self.reading and not self.writing:
            return False
        limit = self.budget or engine.max_rows
        plan = Plan(adapter=(self.reading[0] if self.reading else self.writing[0][0]).adapter)
        writing = self.writing[: max(1, limit)]
        for _, sample in writing:
            sample.add(plan)
        progress: list[tuple[Job, int, bool]] = []
        for job in self.reading:
            blocks = job.blocks_done
            while blocks < len(job.keys) and (not plan.ids or len(plan.ids) + BLOCK <= limit):
                job.add_block(plan, blocks)
                blocks += 1
            tail = blocks == len(job.keys) and (not plan.ids or len(plan.ids) + job.tail_rows() <= limit)
            if tail:
                job.add_tail(plan)
            if blocks > job.blocks_done or tail:
                progress.append((job, blocks, tail))
            if not tail:
                break
        try:
            logits = engine.net.forward(plan)
        except torch.OutOfMemoryError as error:
            self._shrink(engine, len(plan.ids), writing, progress, error)
            return True
        if self.budget is not None:  # what did not fit once may fit later: a row more each time
            self.budget = self.budget + 1 if self.budget < engine.max_rows else None
        self._collect(engine, logits, writing, progress)
        return True

    def _collect(
        self,
        engine: Engine,
        logits: torch.Tensor,
        writing: list[tuple[GenerateJob, Sample]],
        progress: list[tuple[Job, int, bool]],
    ) -> None:
        at = len(writing)
        for (_, sample), row in zip(writing, logits[:at], strict=True):
            sample.length += 1
            sample.take(row)
        for job, blocks, tail in progress:
            if blocks > job.blocks_done:
                engine.store(job, blocks)
            if not tail:
                continue
            n = self._wanted(job)
            complete = job.take(logits[at : at + n])
            at += n
            if complete:
                self.reading.remove(job)
                if isinstance(job, GenerateJob):
                    self.writing += [(job, sample) for sample in job.samples]
                else:
                    job.kv = None
                    job.future.set_result(None)
        touched = {id(job): job for job, sample in self.writing if sample.finish_reason}
        self.writing = [(job, sample) for job, sample in self.writing if not sample.finish_reason]
        for job in touched.values():
            if all(sample.finish_reason for sample in job.samples):
                job.kv = None
                job.future.set_result(None)

    @staticmethod
    def _wanted(job: Job) -> int:
        return 1 if isinstance(job, GenerateJob) else job.tail_rows() - len(job.tail) + 1

    def _shrink(
        self,
        engine: Engine,
        rows: int,
        writing: list[tuple[GenerateJob, Sample]],
        progress: list[tuple[Job, int, bool]],
        error: torch.OutOfMemoryError,
    ) -> None:
        """A pass did not fit: go on with half of it; give up on a job when a piece of it alone does not fit."""
        engine.forget()
        if engine.net.device.type == "cuda":
            torch.cuda.empty_cache()
        pieces = len(writing) + sum(blocks - job.blocks_done + tail for job, blocks, tail in progress)
        if pieces > 1:
            self.budget = max(1, rows // 2)
            return
        job = writing[0][0] if writing else progress[0][0]
        self.drop(job)
        engine.fail(job, OutOfMemory(f"one request of {job.places} tokens does not fit into memory: {error}"))

    def drop(self, job: Job) -> None:
        """Forget a job."""
        self.reading = [j for j in self.reading if j is not job]
        self.writing = [(j, s) for j, s in self.writing if j is not job]

    def fail_all(self, engine: Engine, error: BaseException) -> None:
        """End all jobs of this worker with ``error``."""
        jobs = {id(j): j for j in [*self.reading, *(j for j, _ in self.writing)]}
        self.reading, self.writing = [], []
        for job in jobs.values():
            engine.fail(job, error)


def _work(reference: weakref.ref[Engine], threads: int, ready: threading.Barrier) -> None:
    torch.set_num_threads(threads)
    torch.get_num_threads()  # a thread's first question fixes its number: it must come before the number is put back
    ready.wait()
    worker = _Worker()
    while (engine := reference()) is not None:
        try:
            busy = worker.step(engine)
        except Exception as error:  # the boundary of one pass: its jobs fail, the worker lives on
            failure = error if isinstance(error, ModelError) else ModelError(f"the local model failed: {error!r}")
            failure.__cause__ = None if failure is error else error
            worker.fail_all(engine, failure)
            busy = True
        if (not busy or engine._closed) and not engine.wait():
            worker.fail_all(engine, ModelError("the model was closed"))
            return
        del engine
