"""How large the experiment is: for a test, for two CPU cores and at most two hours, for a real GPU.

Patients of all populations come from disjoint ranges of seeds, fixed in the phantom's protocol before any training;
demonstrations use seeds below 100000, so that no weight has seen them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from inference.phantom import INTERNAL, SHIFTED, Dials, Population
from inference.phantom.protocol import SEEDS
from inference.training.arms import Effort

MAIN_GROWTH = Dials().slope_mean_per_year
_GROWTH_STRIDE = 30_000  # three purposes of 10,000 seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomGroup:
    """Phantoms of one purpose: `patients` seeds from `first_seed` on."""

    name: str
    first_seed: int
    patients: int
    dials: Dials = field(default_factory=Dials)
    population: Population = INTERNAL

    @property
    def seeds(self) -> range:
        """Return the seeds of its patients."""
        return range(self.first_seed, self.first_seed + self.patients)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Every number of patients, seeds and trials; equal presets give equal experiments on one machine."""

    name: str
    time: str  # that it takes, for whoever starts it
    effort: Effort
    seeds: int  # members of every arm; each leaves out another fold of the training patients
    encoder_rates: tuple[float, ...]  # tuning trials, on validation, with the first seed
    train: int
    validation: int
    calibration: int
    test: int
    shifted: int
    growths: tuple[float, ...]  # mean growths, the main one among them: all are trained on as many patients
    growth_train: int
    growth_validation: int
    growth_test: int
    confound_patients: int
    saliency_patients: int
    resamples: int = 2000

    def population(self, name: str) -> PhantomGroup:
        """Return one of train, validation, calibration, test and shifted.

        Raises:
            AttributeError: if there is none of that name.
        """
        patients: int = getattr(self, name)
        return PhantomGroup(
            name=name,
            first_seed=SEEDS[name][0],
            patients=patients,
            population=SHIFTED if name == "shifted" else INTERNAL,
        )

    def growth_population(self, growth: float, purpose: str) -> PhantomGroup:
        """Return the train, validation or test patients with another mean growth."""
        sizes = {"train": self.growth_train, "validation": self.growth_validation, "test": self.growth_test}
        start = SEEDS["growth"][0] + self.growths.index(growth) * _GROWTH_STRIDE + list(sizes).index(purpose) * 10_000
        return PhantomGroup(
            name=f"growth-{growth:g}-{purpose}",
            first_seed=start,
            patients=sizes[purpose],
            dials=replace(Dials(), slope_mean_per_year=growth),
        )


PRESETS = {
    "smoke": Preset(
        name="smoke",
        time="a minute on 2 cores; its figures mean nothing",
        effort=Effort(width=1, heads_epochs=1),
        seeds=2,
        encoder_rates=(1e-3,),
        train=24,
        validation=12,
        calibration=14,
        test=12,
        shifted=10,
        growths=(0.0,),
        growth_train=8,
        growth_validation=8,
        growth_test=10,
        confound_patients=4,
        saliency_patients=1,
        resamples=100,
    ),
    "cpu": Preset(
        name="cpu",
        time="2 h 20 min on 2 cores that had other work beside it; the goal is 2 h on idle ones",
        effort=Effort(width=8, pretext_epochs=1, recurrence_epochs=2),
        seeds=3,
        encoder_rates=(1e-3, 2e-3),
        train=1800,
        validation=300,
        calibration=600,
        test=1000,
        shifted=300,
        growths=(0.0, MAIN_GROWTH, 1.2),
        growth_train=600,
        growth_validation=120,
        growth_test=500,
        confound_patients=300,
        saliency_patients=40,
    ),
    "gpu": Preset(
        name="gpu",
        time="never run; for one GPU and a day",
        effort=Effort(size="published", pretext_epochs=4, recurrence_epochs=8, batch_patients=16),
        seeds=5,
        encoder_rates=(1e-4, 3e-4, 1e-3),
        train=4000,
        validation=600,
        calibration=1000,
        test=2000,
        shifted=1000,
        growths=(0.0, MAIN_GROWTH, 1.2),
        growth_train=2000,
        growth_validation=300,
        growth_test=1000,
        confound_patients=1000,
        saliency_patients=100,
    ),
}
