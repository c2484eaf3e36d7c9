"""The Trainer trains for real; rows are what plain hooks saw, and the weights those of a training without recording."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import lamina
from lamina.errors import LaminaWarning, RecordingError
from tests.faults import broken
from tests.integrations.truth import Truth, column, hooks, rows, same, weights

transformers = pytest.importorskip("transformers", exc_type=ImportError)
pytest.importorskip("accelerate", exc_type=ImportError)
from lamina.recording.integrations.transformers import LaminaCallback  # noqa: E402

SITES = ["blocks.*.hook_resid_post", "transformer.h.0.mlp.output", "transformer.h.0.mlp.c_fc.weight.grad"]
LENGTH = 6


def data(*, named: bool = True, count: int = 32) -> list[dict[str, Any]]:
    """Return sentences of which the last positions are padding."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for index in range(count):
        ids = torch.randint(0, 32, (LENGTH,), generator=generator)
        mask = torch.arange(LENGTH) < 3 + index % 4
        one = {"input_ids": ids, "labels": ids.where(mask, -100), "attention_mask": mask.long()}
        made.append(one | ({"example": 100 + index} if named else {}))
    return made


def model() -> Any:
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=32, n_positions=8, n_layer=2, n_embd=16, n_head=2, pad_token_id=0)
    return transformers.GPT2LMHeadModel(config)


class Trainer(transformers.Trainer):
    """Keeps one gradient before and after it is clipped; fails if it is told to."""

    fails_at: int | None = None

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == self.fails_at:
            raise ZeroDivisionError
        return super().training_step(*args, **kwargs)

    def _clip_grad_norm(self, model: Any) -> Any:
        self.raw = [*getattr(self, "raw", []), self._gradient()]
        norm = super()._clip_grad_norm(model)
        self.clipped = [*getattr(self, "clipped", []), self._gradient()]
        return norm

    def _gradient(self) -> torch.Tensor:
        return self.model.transformer.h[0].mlp.c_fc.weight.grad.clone()


def trainer(tmp_path: Any, trained: Any, callback: Any = None, *, named: bool = True, **options: Any) -> Trainer:
    given: dict[str, Any] = {
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "max_steps": 4, "logging_steps": 1,
        "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "no", "max_grad_norm": 0.01,
    }  # fmt: skip
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none", disable_tqdm=True,
        remove_unused_columns=False, dataloader_pin_memory=False, **given | options,
    )  # fmt: skip
    made = Trainer(
        trained, args, data_collator=transformers.default_data_collator, train_dataset=data(named=named),
        eval_dataset=data(named=False, count=8), callbacks=[] if callback is None else [callback],
    )  # fmt: skip
    made.remove_callback(transformers.PrinterCallback)
    return made


def kept(example: int) -> int:
    return 3 + (example - 100) % 4


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Any:
    """The weights of the training without recording."""
    trained = model()
    torch.set_num_threads(1)
    trainer(tmp_path_factory.mktemp("plain"), trained, named=False).train()
    return weights(trained)


def test_a_training_is_recorded_and_goes_on_as_without(run, tmp_path, plain):
    trained = model()
    truth = Truth(trained, ["transformer.h.1.output", "transformer.h.0.mlp.output"])
    before = hooks(trained)
    probe = [{"input_ids": torch.arange(6).reshape(1, 6), "example": [7]}]
    callback = LaminaCallback(
        run, sites=SITES, columns=["example"], checkpoint_every=2, probes={"probe": lamina.Probe(probe, every=2)}
    )
    made = trainer(tmp_path, trained, callback)
    made.train()
    assert same(weights(trained), plain)
    assert hooks(trained) == before

    assert run.refresh().status.state == "finished"
    mask = torch.stack([one["attention_mask"].bool() for one in data()])
    for site, seen in (
        ("blocks.1.hook_resid_post", truth.seen["transformer.h.1.output"]),
        ("transformer.h.0.mlp.output", truth.seen["transformer.h.0.mlp.output"]),
    ):
        assert len(seen) == 8
        examples = column(run, site, "example")
        assert sorted(set(examples)) == list(range(100, 132))
        assert all(examples.count(example) == kept(example) for example in examples)
        # Batches in the order of training, without what is padding in them.
        batches = torch.tensor(list(dict.fromkeys(examples))).reshape(8, 4) - 100
        expected = torch.cat([one[mask[batch]] for one, batch in zip(seen, batches, strict=True)])
        assert torch.equal(rows(run, site), expected)
    assert torch.equal(rows(run, "transformer.h.0.mlp.c_fc.weight.grad"), torch.cat(made.clipped))
    micro = dict.fromkeys(zip(column(run, SITES[1], "step"), column(run, SITES[1], "micro"), strict=True))
    assert set(micro) >= {(step, number) for step in range(4) for number in (None, 1)}
    assert run.checkpoints().select("step").collect()["step"].unique().to_list() == [0, 2, 4]


def test_gradients_are_taken_before_they_are_clipped_if_asked(run, tmp_path):
    made = trainer(tmp_path, model(), LaminaCallback(run, sites=SITES[2:], raw_gradients=True, columns=["example"]))
    made.train()
    assert not same(made.raw, made.clipped)
    assert torch.equal(rows(run.refresh(), SITES[2]), torch.cat(made.raw))


def test_gradients_that_are_taken_late_are_noticed(run, tmp_path):
    with broken("trainer_gradients_are_taken_late"), pytest.raises(AssertionError):
        test_gradients_are_taken_before_they_are_clipped_if_asked(run, tmp_path)


def test_what_the_trainer_logs_is_recorded(run, tmp_path):
    made = trainer(tmp_path, model(), LaminaCallback(run, sites=[], columns=["example"]))
    made.train()
    recorded = run.refresh().metrics().select("step", "name", "value").collect().rows()
    logged = [
        (entry["step"], name, pytest.approx(value))
        for entry in made.state.log_history
        for name, value in entry.items()
        if name != "step"
    ]
    assert sorted(recorded) == sorted(logged)


def test_a_training_that_fails_leaves_what_was_recorded(run, tmp_path):
    trained = model()
    before = hooks(trained)
    callback = LaminaCallback(run, sites=SITES[:2], columns=["example"])
    made = trainer(tmp_path, trained, callback)
    made.fails_at = 2
    with pytest.raises(ZeroDivisionError), callback:
        made.train()
    assert run.refresh().status.state == "failed"
    assert run.steps() == [0, 1]
    assert hooks(trained) == before


def test_a_training_that_begins_anew_after_it_failed_takes_its_place(run, tmp_path):
    made = trainer(tmp_path, model(), LaminaCallback(run, sites=SITES[1], columns=["example"]))
    made.fails_at = 2
    with pytest.raises(ZeroDivisionError):
        made.train()
    made.fails_at = None
    with pytest.warns(LaminaWarning, match="rewound to step 0"):
        made.train()
    assert run.refresh().steps() == [0, 1, 2, 3]
    assert len(rows(run, SITES[1])) == sum(map(kept, range(100, 132)))


def test_a_training_that_resumes_goes_on_in_its_run(run, tmp_path, plain):
    options: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    first = trainer(tmp_path, model(), LaminaCallback(run, sites=SITES[1], columns=["example"]), **options)
    first.train()
    again = model()
    with pytest.warns(LaminaWarning, match="rewound to step 2"):
        trainer(tmp_path, again, LaminaCallback(run, sites=SITES[1], columns=["example"]), **options).train(
            resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2")
        )
    assert same(weights(again), plain)
    assert run.refresh().steps() == [0, 1, 2, 3]
    assert len(rows(run, SITES[1])) == sum(map(kept, range(100, 132)))


def test_a_column_that_the_trainer_drops_is_missed(run, tmp_path):
    callback = LaminaCallback(run, sites=SITES[1], columns=["example"])
    with pytest.raises(RecordingError, match=r"no entry 'example'.*remove_unused_columns=False"):
        trainer(tmp_path, model(), callback, named=False).train()


def test_a_second_training_in_the_same_run_raises(run, tmp_path):
    trainer(tmp_path, model(), LaminaCallback(run, sites=SITES[1], columns=["example"]), max_steps=1).train()
    with pytest.raises(RecordingError, match="holds rows of a training already"):
        trainer(tmp_path, model(), LaminaCallback(run, sites=SITES[1], columns=["example"]), max_steps=1).train()


def test_a_compute_loss_that_goes_around_the_model_is_noticed(run, tmp_path):
    class Around(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return model.transformer(inputs["input_ids"]).last_hidden_state.square().mean()

    made = trainer(tmp_path, model(), LaminaCallback(run, sites=SITES[1]))
    made.__class__ = Around
    with pytest.raises(RecordingError, match="never called the model itself"):
        made.train()


def test_the_end_of_the_backward_pass_is_behind_the_averaging_of_ranks(tmp_path):
    from torch import distributed
    from torch.autograd.graph import register_multi_grad_hook
    from torch.nn.parallel import DistributedDataParallel

    from lamina.recording.autograd import behind_backward

    def double(state, bucket):
        doubled = torch.futures.Future()
        doubled.set_result(2 * bucket.buffer())
        return doubled

    layer, seen = torch.nn.Linear(2, 1), []
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    try:
        ranks: Any = DistributedDataParallel(layer)
        ranks.register_comm_hook(None, double)
        output = ranks(torch.tensor([[3.0, 5.0]]))

        def keep() -> None:
            assert layer.weight.grad is not None
            seen.append(layer.weight.grad.clone())

        register_multi_grad_hook([output], lambda _: behind_backward(keep), mode="any")
        output.sum().backward()
    finally:
        distributed.destroy_process_group()
    assert [one.tolist() for one in seen] == [[[6.0, 10.0]]]


@pytest.mark.parametrize("raw", [False, True])
def test_in_float16_gradients_are_unscaled_and_raw_ones_are_not(run, tmp_path, raw):
    callback = LaminaCallback(run, sites=SITES[2:], raw_gradients=raw, columns=["example"])
    made = trainer(tmp_path, model(), callback, fp16=True, max_steps=3, eval_strategy="no")
    # On a CPU the Trainer leaves the scaler out.
    made.accelerator.scaler, made.accelerator.native_amp = torch.amp.GradScaler("cpu", init_scale=1024.0), True
    made.train()
    # What is kept before it is clipped is not unscaled yet.
    assert torch.cat(made.raw).abs().max() > 100 * torch.cat(made.clipped).abs().max()
    assert torch.equal(rows(run.refresh(), SITES[2]), torch.cat(made.raw if raw else made.clipped))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_a_compiled_model_is_recorded(run, tmp_path):
    trained = model()
    truth = torch.stack([one["attention_mask"].bool() for one in data()])
    callback = LaminaCallback(run, sites=SITES, columns=["example"], raw_gradients=True)
    options: dict[str, Any] = {
        "torch_compile": True,
        "torch_compile_backend": "eager",
        "gradient_accumulation_steps": 1,
        "max_steps": 2,
    }
    made = trainer(tmp_path, trained, callback, eval_strategy="no", **options)
    made.train()
    torch.compiler.reset()
    assert run.refresh().steps() == [0, 1]
    examples = torch.tensor(list(dict.fromkeys(column(run, SITES[1], "example")))) - 100
    assert len(rows(run, "blocks.1.hook_resid_post")) == truth[examples].sum()
    assert torch.equal(rows(run, SITES[2]), torch.cat(made.raw))
