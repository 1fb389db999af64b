"""Recipes: fine-tuning schedules as validated data, read from ``configs/recipes/*.yaml``."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ajpq.methods import METHODS, MethodSpec, make_method

Mode = Literal["float", "psg", "straight_through"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Distillation(_Frozen):
    """Imitate the uncompressed network (Hinton et al., arXiv 1503.02531).

    The loss is ``weight * T**2 * KL(teacher || student) + (1 - weight) * cross entropy``.
    """

    weight: float = Field(default=1.0, ge=0, le=1)
    temperature: float = Field(default=3.0, gt=0)


SELF_DISTILLATION = Distillation(weight=1.0, temperature=4.0)
"""Imitate the network that the compression starts from, and nothing else (SQAKD, AISTATS 2024)."""


class PSGSettings(_Frozen):
    """Strength and form of the gradient scaling, see :mod:`ajpq.finetune.psg`.

    Attributes:
        sparsity: share of the weights, or of the channels inside residual blocks, that a sparse
            form prunes when the stage ends, see :mod:`ajpq.methods.psg`.
    """

    lambda_s: float = Field(default=150.0, gt=0)
    eps: float = Field(default=1e-4, ge=0)
    scaling: Literal["separable", "normalised"] = "separable"
    form: Literal["multi_target", "sparse", "sparse_channels"] = "multi_target"
    sparsity: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> PSGSettings:
        if self.sparsity and self.form == "multi_target":
            raise ValueError(f"only the sparse forms prune, got {self.form!r}")
        return self


_LENGTH = ("epochs", "steps", "warmup_steps", "milestones", "batch_size", "cutout", "distillation")
_RATES = ("learning_rate", "momentum", "nesterov", "weight_decay")


class Stage(_Frozen):
    """One uninterrupted training.

    Attributes:
        mode: ``float`` trains the plain network, ``psg`` trains the full-precision weights
            towards their grids, ``straight_through`` trains the compressed network itself.
        epochs, steps: length; exactly one of them. A step is one batch.
        activations: what a ``straight_through`` stage computes with. ``real`` leaves 8-bit
            activations unrounded, which is a third faster; their rounding is too small to learn
            from. Narrower ones are rounded all the same, on the grids that calibration found;
            with ``learned`` the method finds their grids along with the weights.
        grids: ``fitted`` to the weights at the start of every epoch, or ``learned`` along with
            them (``straight_through`` only); short for the methods ``straight_through`` and
            ``lsq``.
        method: how a ``straight_through`` stage quantizes what it trains, in place of ``grids``.
        cutout: side in pixels of the square that every training image loses.
        learning_rate: at the start, after ``warmup_steps`` linear steps; falls to zero along a
            cosine, or by ``milestones``.
        milestones: epochs of the stage after which the learning rate is divided by ten; with none
            in the list it stays as it is.
    """

    mode: Mode
    epochs: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    activations: Literal["quantized", "real", "learned"] = "quantized"
    grids: Literal["fitted", "learned"] = "fitted"
    method: MethodSpec | None = None
    batch_size: int = Field(default=128, ge=1)
    cutout: int = Field(default=0, ge=0)
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=0.01, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    milestones: tuple[int, ...] | None = None
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=1e-4, ge=0)
    psg: PSGSettings = PSGSettings()
    distillation: Distillation | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(f"give either epochs or steps, got {self.epochs=}, {self.steps=}")
        if self.grids == "learned" and self.mode != "straight_through":
            raise ValueError(f"only a straight_through stage learns its grids, not {self.mode!r}")
        if self.activations == "learned" and self.mode != "straight_through":
            raise ValueError(f"only a straight_through stage learns activations, not {self.mode!r}")
        if self.method is not None and self.mode != "straight_through":
            raise ValueError(f"only a straight_through stage has a method, not {self.mode!r}")
        return self

    @field_validator("method")
    @classmethod
    def _known(cls, method: MethodSpec | None) -> MethodSpec | None:
        if method is not None:
            make_method(method)
        return method

    @property
    def undone_by_others(self) -> str | None:
        """Its kind, if it ends with single weights that another kind of training would move."""
        if self.mode == "straight_through":
            name = self.trainer.name
            return name if METHODS[name].undone_by_others else None
        prunes_weights = self.mode == "psg" and self.psg.form == "sparse" and self.psg.sparsity
        return "sparse psg" if prunes_weights else None

    @property
    def trainer(self) -> MethodSpec:
        """The method of a ``straight_through`` stage."""
        short = {"fitted": "straight_through", "learned": "lsq"}
        return self.method or MethodSpec(name=short[self.grids])

    def keeping_widths(self) -> Stage | None:
        """The stage such that it trains every channel at the width that the policy gives it.

        None where it cannot.
        """
        if self.mode != "straight_through":
            return None if self.mode == "psg" and self.psg.form == "sparse_channels" else self
        method = make_method(self.trainer)
        found = method.keeping_widths()
        if found is None:
            return None
        if found == method:
            return self
        spec = MethodSpec(name=self.trainer.name, params=found.model_dump(exclude_defaults=True))
        return self.model_copy(update={"method": spec})

    def in_place_of(self, other: Stage) -> Stage:
        """This training, as long as ``other``, on its batches, with its schedule and its loss.

        Its rates too, unless their optimizers differ: one of Adam means nothing to SGD.
        """
        taken = _LENGTH if self.optimizer != other.optimizer else (*_LENGTH, *_RATES)
        return self.model_copy(update={name: getattr(other, name) for name in taken})

    def total_steps(self, train_images: int) -> int:
        """Optimizer steps of the whole stage; a trailing partial batch is not trained on."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.epochs * self.steps_per_epoch(train_images)

    def steps_per_epoch(self, train_images: int) -> int:
        """Full batches in one pass over the training images, at least one."""
        return max(train_images // self.batch_size, 1)


class Calibration(_Frozen):
    """How the compressed mode gets its own BatchNorm statistics and activation ranges.

    Attributes:
        control_batches: of BatchNorm statistics of the uncompressed network, by which those over
            ``batchnorm_batches`` are corrected (:mod:`ajpq.simulation.control_variates`); 0 for no
            correction. For weights that are still near the uncompressed ones.
    """

    batchnorm_batches: int = Field(default=8, ge=0)
    range_batches: int = Field(default=2, ge=1)
    batch_size: int = Field(default=128, ge=1)
    control_batches: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _more_control(self) -> Calibration:
        if self.control_batches and not 0 < self.batchnorm_batches < self.control_batches:
            raise ValueError(
                f"control_batches: expected 0, or more than the batchnorm_batches that they "
                f"correct, at least one: got {self.control_batches} and {self.batchnorm_batches}"
            )
        return self

    @property
    def batches(self) -> int:
        """That a compressed network is shown."""
        return max(self.batchnorm_batches, self.range_batches)

    def control_images(self, train_images: int) -> int:
        """That the uncompressed network is shown for the correction, of so many at most."""
        size = max(min(self.batch_size, train_images), 1)
        return min(self.control_batches, train_images // size) * size


class Recipe(_Frozen):
    """Stages in order, then the calibration of the compressed mode."""

    name: str
    stages: tuple[Stage, ...] = ()
    calibration: Calibration = Calibration()

    @model_validator(mode="after")
    def _nothing_undone(self) -> Recipe:
        for stage, following in pairwise(self.stages):
            kind = stage.undone_by_others
            if kind is not None and following.undone_by_others != kind:
                raise ValueError(
                    f"what a {kind} stage ends with would be undone by the next, "
                    f"{following.mode!r}: it must be the last, or followed by another {kind} stage"
                )
        return self

    @property
    def narrow_only(self) -> tuple[str, ...]:
        """The methods of its stages that leave rows of 8 bits to the quantizer."""
        names = (s.trainer.name for s in self.stages if s.mode == "straight_through")
        return tuple(name for name in names if METHODS[name].narrow_only)

    @property
    def keeps_full_precision(self) -> bool:
        """Does one set of weights serve both modes at the end?"""
        return all(stage.mode != "straight_through" for stage in self.stages)

    @property
    def methods(self) -> tuple[str, ...]:
        """What the stages compress by, in order, each once."""
        names = (s.trainer.name if s.mode == "straight_through" else s.mode for s in self.stages)
        return tuple(dict.fromkeys(name for name in names if name != "float"))

    def trained_by(self, stage: Stage, method: str) -> Recipe:
        """The recipe with ``stage``, which is named after a ``method``, wherever the compressed
        network itself trains, see :meth:`Stage.in_place_of`.

        Raises:
            ValueError: a later stage would undo what it ends with.
        """
        stages = tuple(
            stage.in_place_of(own) if own.mode == "straight_through" else own for own in self.stages
        )
        name = f"{self.name}, {method}"
        return Recipe(name=name, stages=stages, calibration=self.calibration)

    def imitating(self, distillation: Distillation) -> Recipe:
        """The recipe with this distillation in every stage."""
        stages = tuple(s.model_copy(update={"distillation": distillation}) for s in self.stages)
        return self.model_copy(update={"stages": stages})

    def lasting(self, epochs: int) -> Recipe:
        """The recipe with another length of its last stage, the one that counts."""
        last = self.stages[-1:]
        changed = tuple(s.model_copy(update={"epochs": epochs, "steps": None}) for s in last)
        return self.model_copy(update={"stages": (*self.stages[:-1], *changed)})

    def steps(self, train_images: int, stages: int | None = None) -> int:
        """Optimizer steps of the first so many stages, or of all."""
        return sum(stage.total_steps(train_images) for stage in self.stages[:stages])
