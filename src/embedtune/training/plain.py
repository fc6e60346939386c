"""The engine: SentenceTransformerTrainer, with its silent faults caught."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, count, islice
from pathlib import Path
from typing import Any

from embedtune.errors import ConfigError
from embedtune.records import Progress
from embedtune.training.best import (
    BestModel,
    Health,
    History,
    check_finite,
    patience_is_over,
)
from embedtune.training.checkpoints import seal
from embedtune.training.examples import Order, Task, role_of
from embedtune.training.lora import has_adapters
from embedtune.training.memory import told_when_full
from embedtune.training.plan import Plan, TrainingSettings
from embedtune.training.ranks import group

ADAPTED = "adapted.pt"  # in a checkpoint: all weights, adapters among them
OF_LOSSES = "losses.pt"  # in a checkpoint: weights of the losses' own; the library forgets them


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
    "gradient_checkpointing": "training.gradient_checkpointing",
    "batch_sampler": "training.sampler",
    "multi_dataset_batch_sampler": "training.sampler",
    "report_to": "training.report_to",
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
    tasks: Sequence[Task],
) -> Any:
    from sentence_transformers import SentenceTransformerTrainingArguments

    prompts = {
        column: model.prompts.get(role_of(column))
        for task in tasks
        for column in task.examples.columns
    }
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
    tasks: Sequence[Task],
    order: Order,
    keep_best: BestModel,
    settings: TrainingSettings,
    plan: Plan,
    *,
    checkpoints: Path,
    resume: Path | None,
    history: Path,
    progress: Progress,
) -> list[Mapping[str, float]]:
    """Train ``model`` in place; the best checkpoint's model is left where ``keep_best`` has it.

    Returns:
        The history, also in the file ``history``: see ``History``.

    Raises:
        ConfigError: Several processes were started.
        IntegrityError: Loss, gradient, score or weights are not finite, or the loss is 0 from the
            start.
        ResourceError: The disk is full.
    """
    from transformers import PrinterCallback

    if group().size > 1:
        raise ConfigError(
            "several processes were started, and only the flat forward shares a training among "
            "them; it does not know this model, or not with these settings (--debug says why). "
            "Start one process"
        )

    sets = {f"set{number}": _data_set(task) for number, task in enumerate(tasks)}
    losses = {name: task.loss for name, task in zip(sets, tasks, strict=True)}
    several = len(tasks) > 1
    if not settings.attention_dropout:
        _drop_attention_dropout(model)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    written = History(history, trackers=settings.report_to)
    trainer = _trainer_class()(
        model=model,
        args=_arguments(settings, plan, checkpoints, model, tasks),
        train_dataset=_data_sets(sets) if several else sets["set0"],
        loss=losses if several else tasks[0].loss,
        evaluator=[keep_best],
        callbacks=[_callback_class()(keep_best.folder, settings.patience, written, progress)],
    )
    trainer.remove_callback(PrinterCallback)  # it prints to standard output
    begun = int(resume.name.rpartition("-")[2]) if resume else 0
    trainer.health = Health(plan.learning_rate, begun)
    trainer.order = order
    trainer.first_rows = list(accumulate((len(task.examples) for task in tasks), initial=0))
    with told_when_full(checkpoints, model):
        trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    return written.rows


def _data_set(task: Task) -> Any:
    from datasets import Dataset

    columns = {name: list(texts) for name, texts in task.examples.columns.items()}
    return Dataset.from_dict({**columns, "label": list(task.labels)})


def _data_sets(sets: Mapping[str, Any]) -> Any:
    from datasets import DatasetDict

    return DatasetDict(sets)


def _callback_class() -> Any:
    from transformers import TrainerCallback

    class Keeper(TrainerCallback):
        """Evaluates and saves at the last step too, seals checkpoints, stops early."""

        def __init__(
            self, best: Path, patience: int | None, written: History, progress: Progress
        ) -> None:
            self.best, self.patience, self.progress = best, patience, progress
            self.written = written

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.written.rows[:] = _history(state.log_history)  # of the checkpoint it goes on from

        def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            for row in _history(state.log_history)[len(self.written.rows) :]:
                self.written.add(row)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.progress(state.global_step, state.max_steps)
            if state.global_step >= state.max_steps:
                control.should_evaluate = control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            seal(Path(args.output_dir) / f"checkpoint-{state.global_step}")

        def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if patience_is_over(self.patience, self.best, self.written.evaluated):
                control.should_training_stop = True

    return Keeper


def _trainer_class() -> Any:
    import torch
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers.base.sampler import DefaultBatchSampler

    class Batches(DefaultBatchSampler):
        """Ours, as places in all data sets one after the other."""

        order: Order
        first_rows: Sequence[int]

        def __iter__(self) -> Iterator[list[int]]:
            for number, rows in self.order(self.epoch):
                yield [self.first_rows[number] + row for row in rows]

        def __len__(self) -> int:
            return sum(1 for _ in self.order(0))

    class Trainer(SentenceTransformerTrainer):
        health: Health
        order: Order  # not an argument: those are pickled into every checkpoint
        first_rows: Sequence[int]

        def get_batch_sampler(self, dataset: Any, **kwargs: Any) -> Any:
            sampler = Batches(dataset, **kwargs)
            sampler.order, sampler.first_rows = self.order, self.first_rows
            return sampler

        def get_multi_dataset_batch_sampler(
            self, dataset: Any, batch_samplers: Any, generator: Any = None, seed: int = 0
        ) -> Any:
            return self.get_batch_sampler(
                dataset, batch_size=1, drop_last=False, generator=generator, seed=seed
            )

        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            rows = () if math.isfinite(loss) else self._rows()
            self.health.check(self.state.global_step + 1, float(loss), rows)
            return loss

        def _clip_grad_norm(self, model: Any) -> Any:
            norm = super()._clip_grad_norm(model)
            if math.isfinite(norm) or not self.args.fp16:  # there its scaling skips such steps
                rows = () if math.isfinite(norm) else self._rows()
                self.health.check_gradient(self.state.global_step + 1, float(norm), rows)
            return norm

        def _rows(self) -> Sequence[int]:
            """Places in its data set of the batch that is trained on; where several batches make
            a step they are not known."""
            if self.args.gradient_accumulation_steps > 1:
                return ()
            batches = chain.from_iterable(map(self.order, count()))
            return next(islice(batches, self.state.global_step, None))[1]

        def _weights_of_losses(self) -> dict[str, Any]:
            losses = self.loss.values() if isinstance(self.loss, dict) else [self.loss]
            of_model = {id(own) for own in self.model.parameters()}
            return {
                f"{number}.{name}": own
                for number, loss in enumerate(losses)
                for name, own in loss.named_parameters()
                if id(own) not in of_model
            }

        def add_model_card_callback(self, default_args_dict: Any) -> None:
            """No card of the trainer's: embedtune writes its own from the run's facts."""

        def _save(self, output_dir: Any = None, state_dict: Any = None) -> None:
            check_finite(self.model, self.state.global_step)
            if has_adapters(self.model):  # the library cannot load what it would save
                Path(output_dir).mkdir(parents=True, exist_ok=True)
                torch.save(self.model.state_dict(), Path(output_dir) / ADAPTED)
            else:
                super()._save(output_dir, state_dict)
            if own := self._weights_of_losses():
                torch.save(
                    {name: weights.detach() for name, weights in own.items()},
                    Path(output_dir) / OF_LOSSES,
                )

        def _load_from_checkpoint(self, checkpoint_path: str) -> None:
            adapted = Path(checkpoint_path) / ADAPTED
            if adapted.is_file():
                weights = torch.load(adapted, map_location="cpu", weights_only=True)
                self.model.load_state_dict(weights)
            else:
                super()._load_from_checkpoint(checkpoint_path)
            if own := self._weights_of_losses():
                kept = torch.load(Path(checkpoint_path) / OF_LOSSES, weights_only=True)
                with torch.no_grad():
                    for name, weights in own.items():
                        weights.copy_(kept[name])

    return Trainer


def _history(log_history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    rows = []
    for row in log_history:
        entry = {"step": row["step"], "epoch": round(row["epoch"], 4)}
        if "eval_dev" in row:
            own = ("dev", "mean_cosine", "effective_rank")
            rows.append({**entry, **{name: row[f"eval_{name}"] for name in own}})
        elif "loss" in row:
            rows.append({**entry, "loss": row["loss"], "learning_rate": row["learning_rate"]})
    return rows
