"""One rank: its share of the weights, its cache, its runner.

Owns start-up in order (weights, budget, cache, warm-up) and the facts told to the API (`info`).
Created by `main` or `offline`; `execute` is called once a step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from tgi import hardware
from tgi.engine.fallback import FallbackModel
from tgi.engine.family import FamilyModel
from tgi.engine.grammar.masks import Constraints
from tgi.engine.grammar.store import Grammars
from tgi.engine.plan import EncoderInput, Plan, Sampled, probe
from tgi.engine.runner import Runner
from tgi.engine.sampler import Sampler
from tgi.errors import ModelError, StartupError
from tgi.kernels.host_memory import give_back
from tgi.kernels.outline import Outline
from tgi.kernels.program import Program
from tgi.kernels.types import Backend, KVCache, cache_dtype
from tgi.memory import budget
from tgi.memory.cost import ModelCost
from tgi.messages import EngineInfo
from tgi.models.config_reader import RopeOverride
from tgi.models.decoder_start import not_done
from tgi.models.families.registry import UnknownFamilyError, read_spec
from tgi.models.loader import LoadedModel
from tgi.models.weights import Progress
from tgi.settings.config import EngineConfig
from tgi.settings.flags import ROUNDINGS
from tgi.shorten import size
from tgi.untrusted import printable

logger = logging.getLogger("tgi.engine")

WARM_UP_TOKENS = 16
NOTICEABLY = 1.1
"""Ratio of loaded to expected weight bytes from which limits are computed anew (bfloat16 that does not fit 12 bits)."""


class Worker:
    """Loads on construction; then `execute` runs plans."""

    def __init__(
        self,
        config: EngineConfig,
        enter_phase: Callable[[str], None] = lambda name: None,
        progress: Progress | None = None,
    ) -> None:
        """Raises `StartupError` for whatever the user can mend; `enter_phase` hears load, allocate, warmup.

        `progress` hears how many bytes of the weights are read; None: the log says it.
        """
        self.config = config
        self.device = find_device(config.device)
        threads = config.threads or hardware.cpu_count()
        if self.device.type == "cpu":
            torch.set_num_threads(threads)
        model = self._find_model(threads)
        backend = model.backend
        self.footprint = backend.footprint
        self._decoder_ids = model.decoder_ids
        self._tell(backend, model.dtype)
        available = config.memory_bytes or self._available_bytes()
        expected = model.cost
        limits = self._limits(expected, available, backend)  # before loading: what cannot fit is said in a second

        enter_phase("load")
        began = time.monotonic()
        loaded = model.load(limits.max_total_tokens, progress or LoadProgress())
        load_s = time.monotonic() - began
        weight_bytes = loaded.step.weight_bytes
        logger.info("Loaded %s of weights in %.1f s", size(weight_bytes), load_s)
        cost = model.cost
        if weight_bytes > cost.weight_bytes * NOTICEABLY:
            logger.info("That is more than the %s expected: limits are computed anew", size(cost.weight_bytes))
            cost = replace(cost, weight_bytes=weight_bytes)
        if cost != expected:
            limits = self._limits(cost, available, backend)
        enter_phase("allocate")
        cache = self._allocate(backend, loaded, limits)
        backend.settle()
        vocab_size = loaded.step.program.vocab_size
        sampler = Sampler(vocab_size, self.device, config.watermark_gamma, config.watermark_delta, backend.vocabulary)
        self.grammars = Grammars(vocab_size)
        constraints = Constraints(self.grammars)
        self.runner = Runner(loaded.step, cache, sampler, backend.block_size, self.device, constraints)
        enter_phase("warmup")
        began = time.monotonic()
        self._warm_up(limits)
        self.info = self._describe(loaded, backend, limits, load_s, time.monotonic() - began)

    def execute(self, plan: Plan) -> Sampled:
        """Run one step; see `runner`."""
        return self.runner.execute(plan)

    def _find_model(self, threads: int) -> FamilyModel | FallbackModel:
        """The model of the config's directory, not loaded. Raises ModelError."""
        config = self.config
        try:
            spec = read_spec(Path(config.model_path), RopeOverride(config.rope_scaling, config.rope_factor))
        except UnknownFamilyError:
            return FallbackModel(config, self.device)
        return FamilyModel(config, self.device, threads, spec)

    def _tell(self, backend: Backend, dtype: torch.dtype) -> None:
        """Log what will compute, in TGI's lines and one of ours."""
        encodes = bool(self._decoder_ids)
        logger.info("Using prefix caching = %s", self.config.prefix_caching and not encodes)
        if self.config.prefix_caching and encodes:
            logger.info("An encoder reads whole inputs, so that prefixes of them cannot be shared")
        if encodes and (asked := not_done(Path(self.config.model_path))):
            logger.warning(
                "The checkpoint's generation config asks for what this server does not do: %s. Answers are greedy or "
                "sampled, as requests say",
                printable(", ".join(asked), 200),
            )
        logger.info("Using Attention = paged")
        logger.info("Using prefill chunking = True")
        logger.info("Kernels: %s", kernel_names(backend))
        if self.config.quantize and not backend.packs_codes:
            logger.warning(
                "--quantize %s rounds the weights, but these kernels keep them in %s: no memory is saved",
                self.config.quantize,
                str(dtype).removeprefix("torch."),
            )

    def _limits(self, cost: ModelCost, available: int, backend: Backend) -> budget.Limits:
        limits = budget.compute(
            cost,
            budget.wanted_of(self.config),
            available_bytes=available,
            device=str(self.device),
            block_size=backend.block_size,
        )
        for sentence in limits.memory.lowered:
            logger.warning(sentence)
        return limits

    def _available_bytes(self) -> int:
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return free
        return hardware.available_memory_bytes()

    def _allocate(self, backend: Backend, loaded: LoadedModel, limits: budget.Limits) -> KVCache:
        wanted = self.config.kv_cache_dtype
        shape = loaded.cache_shape(None if wanted is None else cache_dtype(wanted))
        try:
            return backend.allocate_cache(shape, limits.num_blocks, limits.num_states)
        except RuntimeError as error:  # torch's out-of-memory errors are RuntimeErrors
            raise StartupError(
                f"the KV cache of {limits.memory.cache_tokens} tokens "
                f"({size(backend.cache_bytes(shape, limits.num_blocks))}) could not be allocated. "
                f"Lower --max-batch-total-tokens"
            ) from error

    def _warm_up(self, limits: budget.Limits) -> None:
        """One step and one decode: lazy initialisation happens now, not in a request, and damaged weights show.

        On a GPU the step is a full one, so that memory peaks now; on a CPU it would hold up the start for seconds.
        """
        most = limits.max_batch_prefill_tokens if self.device.type == "cuda" else WARM_UP_TOKENS
        count = min(most, limits.max_batch_prefill_tokens, limits.max_input_tokens)
        size = self.runner.step.program.input_vocab_size
        ids = [number * 7919 % size for number in range(count + 1)]
        table = list(range(-(-(count + 1) // self.runner.block_size)))
        first, second = (0, 1) if limits.num_states else (-1, -1)
        try:
            if self.runner.step.program.encoder is None:
                steps = [
                    self.execute(Plan([probe(ids[:count], 0, table, state_to=first)])),
                    self.execute(Plan([probe(ids[count:], count, table, state_from=first, state_to=second)])),
                ]
            else:
                given, after = EncoderInput(ids[:count], count, table), [len(table)]
                steps = [
                    self.execute(Plan([probe([0], 0, after, given)])),
                    self.execute(Plan([probe([0], 1, after, replace(given, token_ids=[]))])),
                ]
        except torch.OutOfMemoryError as error:
            raise StartupError(
                f"a step of {count} tokens does not fit the memory. Lower --max-batch-prefill-tokens"
            ) from error
        if all(step.errors for step in steps) and not any(map(self._computes, ids)):
            raise ModelError(
                "the model computes no numbers (NaN or infinite logits): its weights are damaged, or --dtype is too "
                "narrow for them. Fetch the checkpoint again, or try --dtype float32"
            )
        give_back([*self.runner.cache.keys, *self.runner.cache.values, *self.runner.cache.states])

    def _computes(self, token_id: int) -> bool:
        """Whether the model has logits for a token alone: one that was never trained may be damaged by itself."""
        encoder = self.runner.step.program.encoder and EncoderInput([token_id], 1, [1])
        known = token_id % self.runner.step.program.vocab_size
        state = 0 if self.runner.cache.states else -1
        return not self.execute(Plan([probe([known], 0, [0], encoder, state_to=state)])).errors

    def _describe(
        self, loaded: LoadedModel, backend: Backend, limits: budget.Limits, load_s: float, warmup_s: float
    ) -> EngineInfo:
        program, shares = loaded.step.program, loaded.shares_blocks
        return EngineInfo(
            model_type=loaded.model_type,
            dtype=str(loaded.dtype).removeprefix("torch."),
            device=str(self.device),
            quantize=self.config.quantize or loaded.stored,
            vocab_size=program.vocab_size,
            input_vocab_size=program.input_vocab_size,
            parameters=program.parameters,
            weight_bytes=loaded.step.weight_bytes,
            block_size=backend.block_size,
            num_blocks=limits.num_blocks,
            num_states=limits.num_states,
            max_input_tokens=limits.max_input_tokens,
            max_total_tokens=limits.max_total_tokens,
            max_batch_prefill_tokens=limits.max_batch_prefill_tokens,
            max_batch_total_tokens=limits.num_blocks * backend.block_size,
            max_batch_size=limits.max_batch_size,
            prefix_caching=self.config.prefix_caching and shares and program.encoder is None,
            shares_blocks=shares,
            hidden_size=0 if program.encoder else loaded.step.hidden_size,
            decoder_ids=self._decoder_ids,
            max_new_tokens=_decoder_positions(program),
            kernels=dict(backend.kernels),
            memory=limits.memory,
            load_s=load_s,
            warmup_s=warmup_s,
            activation_dtype=self._activations(loaded, backend),
        )

    def _activations(self, loaded: LoadedModel, backend: Backend) -> str | None:
        """What layers in codes round activations to; None: there are none that do."""
        codes = self.config.quantize or loaded.stored
        kept = backend.packs_codes and loaded.dtype != torch.float32 and codes not in (None, "fp8")
        return self.config.activations if self.config.quantize in ROUNDINGS or kept else None


def _decoder_positions(program: Program | Outline) -> int | None:
    """Longest answer of a decoder that begins with up to two tokens; see `EngineInfo.max_new_tokens`."""
    return None if program.encoder is None or program.positions_go_on else program.max_positions - 1


def find_device(wanted: str | None) -> torch.device:
    """The device to serve on: as wanted, else a GPU where there is one. Raises `StartupError` if it is not there."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = torch.device(wanted or ("cuda" if count else "cpu"))
    if device.type == "cuda" and (device.index or 0) >= count:
        found = f"{count} CUDA device{'s' if count > 1 else ''}" if count else "no CUDA device"
        why = "" if torch.version.cuda else ", and this PyTorch is built without CUDA"
        raise StartupError(f"--device {wanted}: PyTorch finds {found} here{why}. Add --device cpu, or leave it out")
    return device


def kernel_names(backend: Backend) -> str:
    """Each implementation with the operations it serves, for the log."""
    chosen: dict[str, list[str]] = {}
    for operation, implementation in backend.kernels.items():
        chosen.setdefault(implementation, []).append(operation)
    return "; ".join(f"{implementation} ({', '.join(operations)})" for implementation, operations in chosen.items())


class LoadProgress:
    """Passes on how far loading is: to the API process twice a second, to the log every five seconds."""

    REPORT_S = 0.5
    LOG_S = 5.0

    def __init__(self, report: Progress = lambda done, total: None) -> None:
        self._report = report
        self._reported = self._logged = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """done, total: bytes of weights."""
        now = time.monotonic()
        if now - self._reported >= self.REPORT_S:
            self._reported = now
            self._report(done, total)
        if now - self._logged >= self.LOG_S:
            self._logged = now
            logger.info("Loading weights: %s of %s", size(done), size(total))
