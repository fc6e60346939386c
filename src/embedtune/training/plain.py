"""The engine: SentenceTransformerTrainer, with its silent faults caught."""

import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from embedtune.errors import ConfigError, IntegrityError
from embedtune.files import read_json, write_json
from embedtune.records import Pair, Progress
from embedtune.training.checkpoints import seal
from embedtune.training.losses import (
    Excluded,
    batches,
    negative_columns,
    steps_per_epoch,
)
from embedtune.training.plan import Plan, TrainingSettings

log = logging.getLogger(__name__)

NO_NEGATIVE = "-"  # where a pair has fewer than others; masked, so it only must have a vector


def validate_trainer_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The ``trainer:`` pass-through with values of the types the library declares.

    Raises:
        ConfigError: Unknown fields, fields that embedtune sets itself, or unfit values.
    """
    import dataclasses
    import difflib

    from pydantic import TypeAdapter, ValidationError
    from sentence_transformers import SentenceTransformerTrainingArguments

    declared = {
        field.name: field for field in dataclasses.fields(SentenceTransformerTrainingArguments)
    }
    faults, values = [], {}
    for name, value in fields.items():
        if name in OWN_ARGUMENTS:
            faults.append(f"training.trainer.{name}: set it through {OWN_ARGUMENTS[name]}")
            continue
        if name not in declared:
            near = difflib.get_close_matches(name, declared, 1)
            faults.append(
                f"training.trainer.{name}: SentenceTransformerTrainingArguments has no such field"
                + (f"; did you mean {near[0]}?" if near else "")
            )
            continue
        annotation = declared[name].type
        try:
            values[name] = _parsed(value, annotation, TypeAdapter)
        except (ValidationError, ValueError) as error:
            problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            faults.append(f"training.trainer.{name}: {value!r}: {problem}")
    if faults:
        raise ConfigError(faults)
    return values


# arguments with a setting of ours, so that a value has one home
OWN_ARGUMENTS = {
    "output_dir": "--out",
    "num_train_epochs": "training.epochs",
    "max_steps": "training.max_steps",
    "learning_rate": "training.learning_rate",
    "per_device_train_batch_size": "training.batch_size",
    "warmup_ratio": "training.warmup",
    "warmup_steps": "training.warmup",
    "lr_scheduler_type": "training.scheduler",
    "weight_decay": "training.weight_decay",
    "eval_steps": "training.evaluate_every",
    "save_steps": "training.evaluate_every",
    "logging_steps": "training.log_every",
    "seed": "training.seed",
    "bf16": "training.precision",
    "fp16": "training.precision",
    "use_cpu": "training.device",
    "batch_sampler": "training.sampler",
    "load_best_model_at_end": "the metric of evaluation.metric",
    "metric_for_best_model": "evaluation.metric",
    "logging_nan_inf_filter": "nothing: it would hide a broken training",
}


def _parsed(value: Any, annotation: Any, adapter: Any) -> Any:  # values of any declared type
    if isinstance(annotation, str) or annotation is Any:  # not resolvable: plain YAML scalars
        import yaml

        return yaml.safe_load(value) if isinstance(value, str) else value
    return adapter(annotation).validate_python(value)


def _drop_attention_dropout(model: Any) -> None:
    """Switch off dropout of attention probabilities; the saved configuration is not changed."""
    import torch

    for name, module in model.named_modules():
        inner = name.lower()
        if isinstance(module, torch.nn.Dropout) and (
            "attention.self" in inner or inner.endswith(("attn.dropout", "attention.dropout"))
        ):
            module.p = 0.0


def _arguments(
    settings: TrainingSettings,
    plan: Plan,
    checkpoints: Path,
    model: Any,
    columns: Sequence[str],  # of passages
) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    prompts = {column: model.prompts.get("document") for column in columns}
    prompts["anchor"] = model.prompts.get("query")
    values: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "num_train_epochs": plan.epochs,
        "max_steps": plan.steps,
        "per_device_train_batch_size": plan.batch_size,
        "learning_rate": plan.learning_rate,
        "warmup_steps": math.ceil(settings.warmup * plan.steps),
        "lr_scheduler_type": settings.scheduler,
        "weight_decay": settings.weight_decay,
        "eval_strategy": "steps",
        "eval_steps": plan.evaluate_every,
        "save_strategy": "steps",
        "save_steps": plan.evaluate_every,
        "save_total_limit": 2,
        "logging_steps": plan.log_every,
        "logging_nan_inf_filter": False,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "bf16": plan.precision == "bf16",
        "fp16": plan.precision == "fp16",
        "use_cpu": plan.device == "cpu",
        "prompts": {column: text for column, text in prompts.items() if text} or None,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": plan.device.startswith("cuda"),
    }
    return SentenceTransformerTrainingArguments(
        **{**values, **validate_trainer_fields(settings.trainer)} if settings.trainer else values
    )


def fit(
    model: Any,  # SentenceTransformer
    loss: Any,
    pairs: Sequence[Pair],
    excluded: Excluded,
    score: Callable[[Any], float],
    settings: TrainingSettings,
    plan: Plan,
    *,
    checkpoints: Path,
    best: Path,
    resume: Path | None,
    progress: Progress,
) -> list[dict[str, float]]:
    """Train ``model`` in place; leave the best checkpoint's model in ``best`` (see ``BestModel``).

    Returns:
        The history: rows with step, epoch and either loss and learning_rate, or dev.

    Raises:
        IntegrityError: Loss, score or weights are not finite, or the loss is 0 from the start.
    """
    from transformers import PrinterCallback

    from datasets import Dataset

    dataset = Dataset.from_dict(
        {
            "anchor": [pair.anchor for pair in pairs],
            "positive": [pair.positive for pair in pairs],
            **{
                name: [
                    pair.negatives[n][1] if n < len(pair.negatives) else NO_NEGATIVE
                    for pair in pairs
                ]
                for n, name in enumerate(negative_columns(pairs))
            },
            "label": list(range(len(pairs))),
        }
    )
    if not settings.attention_dropout:
        _drop_attention_dropout(model)
    trainer = _trainer_class()(
        model=model,
        args=_arguments(settings, plan, checkpoints, model, ("positive", *negative_columns(pairs))),
        train_dataset=dataset,
        loss=loss,
        evaluator=[BestModel(best, score)],
        callbacks=[_callback_class()(best, settings.patience, progress)],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to standard output
    trainer.make_batches = _sampler_class(
        pairs, excluded, avoid_conflicts=settings.sampler == "conflict_free"
    )
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return _history(trainer.state.log_history)


class BestModel:
    """Called by the trainer at each evaluation: scores the model, keeps the best on disk.

    ``folder/score.json`` names step, score and the subfolder that holds the model; it is
    replaced after the new model is whole, so that a kill leaves the old or the new best.
    """

    def __init__(self, folder: Path, score: Callable[[Any], float]) -> None:
        self.folder, self.score = folder, score

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: float = -1, steps: int = -1
    ) -> dict[str, float]:
        value = float(self.score(model))
        model.train()
        if not math.isfinite(value):
            raise IntegrityError(f"step {steps}: the model's dev score is {value}")
        if value > best_so_far(self.folder)["score"]:
            name = f"step-{steps}"
            shutil.rmtree(self.folder / name, ignore_errors=True)
            model.save(str(self.folder / name), create_model_card=False)
            write_json(self.folder / "score.json", {"step": steps, "score": value, "folder": name})
            for other in self.folder.glob("step-*"):
                if other.name != name:
                    shutil.rmtree(other)
        return {"dev": value}


def best_so_far(folder: Path) -> dict[str, Any]:
    """Step, score and folder name of the best model; score -1 when there is none yet."""
    path = folder / "score.json"
    return read_json(path) if path.exists() else {"step": 0, "score": -1.0, "folder": ""}


def _callback_class() -> Any:
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):
        """Evaluates and saves at the last step too, seals checkpoints, stops early."""

        def __init__(self, best: Path, patience: int | None, progress: Progress) -> None:
            self.best, self.patience, self.progress = best, patience, progress

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.progress(state.global_step, state.max_steps)
            if state.global_step >= state.max_steps:
                control.should_evaluate = control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.patience is None:
                return
            best_step = best_so_far(self.best)["step"]
            worse = sum("eval_dev" in row and row["step"] > best_step for row in state.log_history)
            if worse >= self.patience:
                log.warning("no better dev score for %d evaluations: stopping early", worse)
                control.should_training_stop = True

    return Keeper


def _sampler_class(pairs: Sequence[Pair], excluded: Excluded, *, avoid_conflicts: bool) -> Any:
    from sentence_transformers.base.sampler import DefaultBatchSampler

    class Batches(DefaultBatchSampler):
        def __iter__(self) -> Any:
            return batches(pairs, excluded, size=self.batch_size, seed=self.seed,
                           epoch=self.epoch, avoid_conflicts=avoid_conflicts)  # fmt: skip

        def __len__(self) -> int:
            return steps_per_epoch(len(pairs), self.batch_size)

    return Batches


def _trainer_class() -> Any:
    import torch
    from sentence_transformers import SentenceTransformerTrainer

    class Trainer(SentenceTransformerTrainer):
        dull_steps = 0
        make_batches: Any  # not an argument: those are pickled into every checkpoint

        def get_batch_sampler(self, dataset: Any, **kwargs: Any) -> Any:
            return self.make_batches(dataset, **kwargs)

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            value, step = float(loss), self.state.global_step + 1
            if not math.isfinite(value):
                raise IntegrityError(
                    f"step {step}: the loss is {value}; nothing is published. Lower "
                    f"training.learning_rate (now {self.args.learning_rate:g})"
                )
            self.dull_steps = self.dull_steps + 1 if abs(value) < 1e-9 else 0
            if self.dull_steps >= 3:
                raise IntegrityError(
                    f"step {step}: the loss has been 0 for 3 steps, so nothing is learnt: all "
                    "passages of a batch answer each of its queries (copies?), or the weights "
                    "are frozen"
                )
            return loss

        def add_model_card_callback(self, default_args_dict: Any) -> None:
            """No card of the trainer's: embedtune writes its own from the run's facts."""

        def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
            for name, weights in self.model.state_dict().items():
                if not bool(torch.isfinite(weights).all()):
                    raise IntegrityError(
                        f"step {self.state.global_step}: weights of {name} are not finite; "
                        "nothing is published. Lower training.learning_rate"
                    )
            super()._save(output_dir, state_dict)

    return Trainer


def _history(log_history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    rows = []
    for row in log_history:
        entry = {"step": row["step"], "epoch": round(row["epoch"], 4)}
        if "eval_dev" in row:
            rows.append({**entry, "dev": row["eval_dev"]})
        elif "loss" in row:
            rows.append({**entry, "loss": row["loss"], "learning_rate": row["learning_rate"]})
    return rows
