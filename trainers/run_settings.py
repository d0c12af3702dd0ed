"""What a run was asked to do, resolved: its stages, and the settings of each."""
from __future__ import annotations

from nnmiss.errors import NnmissError

from .settings import common_settings, resolve_settings, stage_epochs
from .stages import find_stage


class RunSettings:
    """Resolves `arguments` for the stages of `trainer_class`; a part of RunBase, which reads `plans` and `modalities`."""

    def resolve(self) -> None:
        """Sets `stages` and `settings`, or refuses what was asked."""
        arguments, cls = self.arguments, self.trainer_class
        for key in arguments.assignments:
            if "." in key and key.rpartition(".")[2] in cls.shared_settings():
                raise NnmissError(f"--set {key}: all stages share it, so set {key.rpartition('.')[2]} without a stage")
            if key.rpartition(".")[2] in cls.unused:
                raise NnmissError(f"--set {key}: {cls.method} does not use it, so it would change nothing: leave it out")
        # what the plan chose for the method's network is the default
        known = {**cls.known_settings(), **{k: v for k, v in self.block.items() if k in cls.network_settings}}
        asked = (known, cls.presets, arguments.preset, arguments.assignments)
        allowed = (cls.all_limits(), cls.all_choices())
        self.stages = cls.stages_of(self.modalities, common_settings(*asked, *allowed))
        every = {stage.name for stage in cls.stages}
        left_out = every - set(self.stage_names) if every >= set(self.stage_names) else set()
        named = [key.rpartition(".")[0] for key in arguments.assignments]
        for stage in [*left_out.intersection(named), *([arguments.stage] if arguments.stage is not None else [])]:
            find_stage(self.stages, stage, left_out)
        self.settings = resolve_settings(*asked, self.stage_names, *allowed)
        for stage in self.stage_names:
            cls.check_settings(self.settings[stage])
        self._refuse_without_effect(known)
        self._share_epochs()

    def _refuse_without_effect(self, known: dict) -> None:
        """Raises NnmissError for what was set to another value than its default, and changes nothing in any stage."""
        for key in self.arguments.assignments:
            stage, _, name = key.rpartition(".")
            settings = [self.settings[s] for s in ([stage] if stage else self.stage_names)]
            needs = [self.trainer_class.without_effect(s).get(name) for s in settings]
            if all(needs) and any(s[name] != known[name] for s in settings):
                raise NnmissError(f"--set {key}={self.arguments.assignments[key]}: it changes nothing without {needs[0]}: "
                                  "set that too, or leave it out")

    def _share_epochs(self) -> None:
        """Shares `num_epochs` among the stages; what was given for a stage comes off the total."""
        layers = {**self.trainer_class.presets[self.arguments.preset], **self.arguments.assignments}
        total = int(layers.get("num_epochs", self.trainer_class.known_settings()["num_epochs"]))
        given = {name: self.settings[name]["num_epochs"] for name in self.stage_names if f"{name}.num_epochs" in layers}
        published = {stage.name: stage.epochs for stage in self.stages}
        for name, epochs in stage_epochs(total, published, given).items():
            self.settings[name]["num_epochs"] = epochs

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The stages of this run in order."""
        return tuple(stage.name for stage in self.stages)

    @property
    def configuration(self) -> dict:
        """This run's configuration in its plans."""
        return self.plans["configurations"][self.arguments.configuration]

    @property
    def block(self) -> dict:
        """The configuration's "nnmiss" block."""
        return self.configuration.setdefault("nnmiss", {})
