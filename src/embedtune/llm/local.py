"""A transformers causal language model in this process, for closed networks and free answers.

Requests that wait at the same time are answered together, those of like length first. Sampling
draws from a generator of each request's own, seeded by what is asked, so that an answer depends
neither on its neighbours nor on the order.
"""

import asyncio
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedtune.endpoint import read_variable
from embedtune.errors import ConfigError, IntegrityError, ResourceError, ServiceError
from embedtune.files import clean_text, sha256_of, visible
from embedtune.llm import ChatAnswer, ChatFault, ChatRequest, asked, without_thoughts
from embedtune.store import content_key

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

HUB_SECONDS = 5.0  # that asking the hub may take
WEIGHTS = (".safetensors", ".bin")
EDGE = 1_000_000  # bytes of weights, at either end, that a folder's revision is made from
ROOM = 16  # tokens an answer needs at least


class LocalChat:
    """A causal language model from a folder, the Hugging Face or ModelScope cache, or the hub.

    The prompt goes through the tokenizer's chat template, or plainly where it has none. Without
    a temperature the likeliest token is taken. The model is fetched and loaded with the first
    question.

    Raises:
        ConfigError: No such model, or no causal language model.
        ServiceError: It is not here and the hub cannot be reached.
    """

    unhurried = True  # no deadline: an answer takes what this machine needs

    def __init__(
        self,
        model: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        together: int = 8,
    ) -> None:
        name = model or read_variable("LLM_MODEL").value
        if not name:
            raise ConfigError("llm.model: not given; name a model or its folder, or set LLM_MODEL")
        self.found = find_model(name)
        exact = "" if dtype == "auto" else f" {dtype}"
        self.name = f"local:{self.found.name}@{self.found.revision[:16]}{exact}"
        self.notes: tuple[str, ...] = ()
        self._device, self._dtype, self._threads, self._together = device, dtype, threads, together
        self._loaded: _Loaded | None = None
        self._pending: list[_Waiting] = []
        self._working: asyncio.Task[None] | None = None

    async def ask(self, request: ChatRequest) -> ChatAnswer:
        waiting = _Waiting(request, asyncio.get_running_loop().create_future())
        self._pending.append(waiting)
        if self._working is None or self._working.done():
            self._working = asyncio.ensure_future(self._work())
        try:
            return await waiting.answer
        except asyncio.CancelledError:
            waiting.cancelled = True
            raise

    async def close(self) -> None:
        """Ends what is being answered; the weights stay loaded."""
        for waiting in self._pending:
            waiting.cancelled = True
        if self._working is not None:
            await self._working
            self._working = None

    async def _work(self) -> None:
        """Answer what waits, some at a time, until nothing does."""
        await asyncio.sleep(0)  # others may be about to ask
        while self._pending:
            part: list[_Waiting] = []
            try:
                if self._loaded is None:
                    self._loaded = await _in_thread(self._load)
                part = self._next(self._loaded)
                answers = await _in_thread(partial(self._answers, part))
            except Exception as error:  # each who waits for it gets it
                answers = [error] * len(part or self._pending)
                part = part or self._pending
            self._pending = [
                waiting
                for waiting in self._pending
                if waiting not in part and not waiting.cancelled
            ]
            for waiting, answer in zip(part, answers, strict=True):
                if waiting.answer.done():
                    continue
                if isinstance(answer, Exception):
                    waiting.answer.set_exception(answer)
                else:
                    waiting.answer.set_result(answer)

    def _next(self, loaded: "_Loaded") -> list["_Waiting"]:
        """The first who waits, with those whose prompts are most like it in length."""
        for waiting in self._pending:
            if not waiting.prompt:
                waiting.prompt = loaded.prompt(waiting.request)
        first = self._pending[0]
        ranked = sorted(self._pending, key=lambda one: abs(len(one.prompt) - len(first.prompt)))
        return ranked[: self._together]

    def _answers(self, part: Sequence["_Waiting"]) -> list[ChatAnswer | Exception]:
        loaded = self._loaded
        if loaded is None:
            raise RuntimeError("answers before the model was loaded")
        rows = []
        found: dict[int, ChatAnswer | Exception] = {}
        for index, waiting in enumerate(part):
            room = loaded.window - len(waiting.prompt)
            if room < ROOM:
                found[index] = ChatFault(
                    "request", "passage-too-long",
                    f"{self.name}: {len(waiting.prompt):,} tokens do not fit the model's "
                    f"{loaded.window:,}")  # fmt: skip
            else:
                rows.append(_Row(index, waiting, min(waiting.request.max_tokens, room),
                                 _seed(self.name, waiting.request)))  # fmt: skip
        for row, answer in zip(rows, loaded.generate(rows), strict=True):
            found[row.index] = answer
        return [found[index] for index in range(len(part))]

    def _load(self) -> "_Loaded":
        """The model and its tokenizer.

        Raises:
            ServiceError: It cannot be fetched.
            IntegrityError: The files are damaged, or of no causal language model.
            ResourceError: It does not fit into memory.
        """
        folder = fetched(self.found)
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if self._threads:
            torch.set_num_threads(self._threads)
        device = self._device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype: Any = getattr(torch, self._dtype, "auto")
        if dtype == "auto" and device == "cpu":
            fast = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
            dtype = torch.bfloat16 if fast else torch.float32
        logger.info("loading %s in %s on %s", folder, dtype, device)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
            model.to(device).eval()
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise ResourceError(f"llm.model: {folder}: too large for this memory") from error
        except Exception as error:  # what the libraries below raise at files of another kind
            raise IntegrityError(
                f"llm.model: {folder}: cannot be loaded as a causal language model "
                f"({type(error).__name__}: {visible(error, 200)})"
            ) from error
        return _Loaded(tokenizer, model, torch.device(device))


@dataclass(slots=True, eq=False)
class _Waiting:
    """A request whose answer is still to come."""

    request: ChatRequest
    answer: asyncio.Future[ChatAnswer]
    prompt: Sequence[int] = ()  # token ids
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    """A request within a batch: how many tokens its answer may have, and what it draws from."""

    index: int
    waiting: _Waiting
    most: int
    seed: int


class _Loaded:
    """Tokenizer and model, on their device."""

    def __init__(self, tokenizer: Any, model: Any, device: "torch.device") -> None:
        self._tokenizer, self._model, self._device = tokenizer, model, device
        config = model.config.get_text_config()
        # some tokenizers give a number beyond all reason where they do not know
        known = (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
        self.window = min(int(size) for size in known if size)
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends, tokenizer.eos_token_id]
        self._ends = sorted({end for end in ends if end is not None})
        self._padding = next(
            (end for end in (tokenizer.pad_token_id, *self._ends) if end is not None), 0
        )

    def prompt(self, request: ChatRequest) -> Sequence[int]:
        """Token ids of a request."""
        tokenizer, user = self._tokenizer, asked(request)
        if not tokenizer.chat_template:
            return tokenizer(f"{request.system}\n\n{user}\n\n")["input_ids"]
        system = {"role": "system", "content": request.system}
        both = {"role": "user", "content": f"{request.system}\n\n{user}"}
        for messages in ([system, {"role": "user", "content": user}], [both]):
            try:
                # thinking aloud would be paid for in time and thrown away
                text = tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
                )
                return tokenizer(text, add_special_tokens=False)["input_ids"]
            except Exception as error:  # a template may raise what it likes, mostly: no system role
                reason = error
        raise ConfigError(f"llm.model: its chat template fails: {visible(reason, 200)}")

    def generate(self, rows: Sequence[_Row]) -> list[ChatAnswer | Exception]:
        """An answer a row. In halves where all do not fit into memory."""
        import torch

        if not rows:
            return []
        try:
            return self._generate(rows)
        except (torch.OutOfMemoryError, MemoryError) as error:
            if len(rows) == 1:
                raise ResourceError("llm.local: out of memory with a single request") from error
            half = len(rows) // 2
            return [*self.generate(rows[:half]), *self.generate(rows[half:])]

    def _generate(self, rows: Sequence[_Row]) -> list[ChatAnswer | Exception]:
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        width = max(len(row.waiting.prompt) for row in rows)
        tokens = torch.full((len(rows), width), self._padding)
        mask = torch.zeros_like(tokens)
        for number, row in enumerate(rows):  # from the left: an answer begins where its prompt ends
            prompt = torch.tensor(list(row.waiting.prompt))
            tokens[number, width - len(prompt) :] = prompt
            mask[number, width - len(prompt) :] = 1

        def finished(written: "torch.Tensor", *_: Any, **__: Any) -> "torch.Tensor":
            count = written.shape[1] - width
            done = [row.waiting.cancelled or count >= row.most for row in rows]
            return torch.tensor(done, device=written.device)

        with torch.inference_mode():
            written = self._model.generate(
                input_ids=tokens.to(self._device),
                attention_mask=mask.to(self._device),
                max_new_tokens=max(row.most for row in rows),
                do_sample=False,
                # what the model's own generation_config says about sampling is not asked for
                temperature=None, top_p=None, top_k=None, repetition_penalty=None,
                eos_token_id=self._ends or None,
                pad_token_id=self._padding,
                logits_processor=LogitsProcessorList([_sampler(rows)]),
                stopping_criteria=StoppingCriteriaList([finished]),
            )[:, width:].tolist()  # fmt: skip
        return [self._answer(row, new) for row, new in zip(rows, written, strict=True)]

    def _answer(self, row: _Row, new: list[int]) -> ChatAnswer:
        new = new[: row.most]
        end = next((place for place, token in enumerate(new) if token in self._ends), None)
        body = new if end is None else new[:end]
        text = self._tokenizer.decode(body, skip_special_tokens=True)
        return ChatAnswer(
            text=clean_text(without_thoughts(text)),
            finish="length" if end is None else "stop",
            input_tokens=len(row.waiting.prompt),
            output_tokens=len(body) + (end is not None),
            raw=clean_text(text),
        )


def _sampler(rows: Sequence[_Row]) -> Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]:
    """Makes the likeliest token a draw at each row's temperature, from each row's generator.

    The largest of logits / temperature + Gumbel noise is a draw from their softmax.
    """
    import torch

    generators = [torch.Generator().manual_seed(row.seed) for row in rows]

    def draw(_: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        noisy = scores.float()
        if noisy.isnan().any():
            raise IntegrityError("llm.model: gives numbers that are none; its weights are damaged")
        for number, row in enumerate(rows):
            temperature = row.waiting.request.temperature
            if temperature > 0:
                noise = torch.empty(scores.shape[1]).exponential_(generator=generators[number])
                gumbel = -torch.log(noise).to(scores.device)
                noisy[number] = noisy[number] / temperature + gumbel
        return noisy

    return draw


def _seed(name: str, request: ChatRequest) -> int:
    content = {
        "model": name, "system": request.system, "user": request.user,
        "temperature": request.temperature, "attempt": request.attempt}  # fmt: skip
    return int(content_key(content)[:15], 16)


async def _in_thread(work: Callable[[], Any]) -> Any:  # whatever ``work`` gives
    """As ``asyncio.to_thread``, in a thread that does not hold up the end of the program."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def tell(set_outcome: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            set_outcome(outcome)

    def target() -> None:
        try:
            outcome, error = work(), None
        except Exception as raised:  # goes to whoever awaits the future
            outcome, error = None, raised
        if not loop.is_closed():
            if error is None:
                loop.call_soon_threadsafe(tell, future.set_result, outcome)
            else:
                loop.call_soon_threadsafe(tell, future.set_exception, error)

    threading.Thread(target=target, name="embedtune-local-chat", daemon=True).start()
    return await future


# ---- names to folders


@dataclass(frozen=True, slots=True)
class FoundModel:
    """Where a model is; ``folder`` is None for one that is at the hub only."""

    name: str
    folder: Path | None
    revision: str  # changes with the files that shape its answers


def find_model(name: str) -> FoundModel:
    """A local folder, else what the caches of Hugging Face and ModelScope hold, else at the hub.

    Raises:
        ConfigError: No place that could be asked knows it.
        ServiceError: It is not here, and the hub cannot be reached or is switched off.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file() or not _has_weights(folder):
            raise ConfigError(
                f"llm.model: {visible(name)}: no model folder; it needs config.json and weights "
                "(*.safetensors)"
            )
        return FoundModel(folder.resolve().name, folder, _revision(folder))
    if folder.exists() or name.startswith((".", "/", "~", "\\")) or name.count("/") > 1:
        raise ConfigError(f"llm.model: {visible(name)}: no such folder")
    modelscope = Path(os.environ.get("MODELSCOPE_CACHE") or Path.home() / ".cache" / "modelscope")
    for middle in ("hub/models", "models", "hub"):
        for written in dict.fromkeys((name, name.replace(".", "___"))):  # as ModelScope writes it
            folder = modelscope / middle / written
            if _has_weights(folder):
                return FoundModel(name, folder, _revision(folder))
    return _at_hub(name, f"{visible(name)}: not in the caches of Hugging Face and {modelscope}")


def _at_hub(name: str, missing: str) -> FoundModel:
    """In the hub's cache, or at the hub."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        cached = Path(snapshot_download(name, local_files_only=True))
        if _has_weights(cached):
            return FoundModel(name, cached, cached.name)  # a folder a commit
    except HFValidationError as error:
        raise ConfigError(f"llm.model: {visible(name)}: neither a folder nor a name") from error
    except LocalEntryNotFoundError:
        pass
    if constants.HF_HUB_OFFLINE:
        raise ServiceError(
            f"llm.model: {missing}, and the hub is switched off (HF_HUB_OFFLINE); copy the model "
            "into a folder and give its path"
        )
    try:
        return FoundModel(name, None, HfApi().model_info(name, timeout=HUB_SECONDS).sha or "main")
    except GatedRepoError as error:
        raise ConfigError(
            f"llm.model: {visible(name)} is gated: accept its terms at the hub and set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigError(f"llm.model: {missing}, and the hub has no such model") from error
    except Exception as error:  # whatever the transport below raises
        raise ServiceError(
            f"llm.model: {missing}, and {constants.ENDPOINT} cannot be reached "
            f"({type(error).__name__}); copy the model into a folder and give its path"
        ) from error


def fetched(found: FoundModel) -> Path:
    """The model's folder, after it was fetched where it is at the hub only.

    Raises:
        ServiceError: It cannot be fetched.
    """
    if found.folder is not None:
        return found.folder
    from huggingface_hub import snapshot_download

    logger.info("fetching %s from the hub", found.name)
    unused = ["*.gguf", "*.pth", "*.h5", "*.msgpack", "onnx/*", "original/*"]
    try:
        return Path(snapshot_download(found.name, ignore_patterns=unused))
    except Exception as error:  # whatever the transport below raises
        raise ServiceError(
            f"llm.model: {found.name}: cannot be fetched ({type(error).__name__}: "
            f"{visible(error, 200)}); run the same command again"
        ) from error


def _has_weights(folder: Path) -> bool:
    return any(any(folder.glob(f"*{suffix}")) for suffix in WEIGHTS)


def _revision(folder: Path) -> str:
    """SHA-256 over what shapes the answers; of weights only size and ends, which are read fast."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in WEIGHTS:
            size = path.stat().st_size
            with path.open("rb") as file:
                ends = file.read(EDGE)
                file.seek(max(0, size - EDGE))
                ends += file.read(EDGE)
            total.update(f"{path.name}\0{size}\0{hashlib.sha256(ends).hexdigest()}\n".encode())
        elif path.suffix in (".json", ".jinja", ".txt", ".model"):
            total.update(f"{path.name}\0{sha256_of(path)}\n".encode())
    return total.hexdigest()
