"""The one way in: a bundle and a patient's scans, oldest first, give a `Result` and its saliency maps.

What depends on one scan only (its volume in the model's space, its features) is computed once and kept under a name
made of everything it depends on; a new time point then costs one scan's work. The head runs on every prefix of the
features, which gives the risk as it stood after each scan.

Where the bundle says so, a run that cannot be trusted abstains: a scan unlike those of calibration, or a conformal set
that holds both answers or neither. An abstention has a reason and neither number nor saliency map: a map of where the
model looked would be read as an answer.

On a CPU scans are encoded one by one and prefixes are answered without padding, so that a run gives the same bits
whether its features were cached or not (for one library build and number of threads). On CUDA the missing scans of a
run are encoded as one batch in bfloat16; cached and fresh features may then differ in the last bits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from inference.answer import age_flags, output, time_line_flags
from inference.doubts import abstain, conformal_doubts, novelty_doubts, remarks
from inference.feature_cache import Features, cache_key, recall, recall_or_compute, remember
from inference.geometry import GeometryError
from inference.novelty import block_means
from inference.preprocess import (
    Preprocessed,
    PreprocessError,
    load_template,
    preprocess,
    to_native,
    volume_key,
)
from inference.results import PrefixRisk, QualityFlag, Result, SaliencyMap
from inference.saliency import attribute, method_at, methods_told, to_map
from inference.volume import Volume, VolumeError, read_series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import date, datetime
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from inference.bundle import Bundle
    from inference.doubts import Doubt
    from inference.results import Output


class PredictorError(ValueError):
    """The request cannot be answered: wrong device, missing role, or scans out of order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """One time point: when it was acquired, the DICOM files of one series per role, and a digest of that content."""

    acquired: datetime
    series: Mapping[str, tuple[Path, ...]]
    digest: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class PreparedScan:
    """A time point as the network sees it: the scan in the model's space and its features (D,)."""

    preprocessed: Preprocessed
    features: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Prediction:
    """An answer, and where the model looked, one map per time point asked for."""

    result: Result
    saliency: tuple[SaliencyMap, ...]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class _Line:
    """A time line as the heads read it: features (T, D) and days (T,) of its scans, oldest first."""

    features: Tensor
    days: Tensor

    def first(self, n_scans: int) -> _Line:
        """Return the time line as it was after so many scans."""
        return _Line(features=self.features[:n_scans], days=self.days[:n_scans])


def _silent(_message: str) -> None:
    """Report progress to nobody."""


class Predictor:
    """A bundle on a device, with a cache of what it computed per time point."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        device: str = "auto",
        precision: str = "auto",
        cache: Path | None = None,
        template: Path | None = None,
    ) -> None:
        """Put the network on its device and load the template.

        Args:
            bundle: the loaded bundle; its network is moved to the device.
            device: "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:N".
            precision: "auto" (bfloat16 on CUDA, float32 elsewhere), "float32" or "bfloat16".
            cache: folder for preprocessed volumes and features; None keeps nothing.
            template: folder with another template; None is nilearn's MNI152.

        Raises:
            PredictorError: if device or precision are unknown or not available.
            TemplateError: if the template cannot be used.
        """
        self.bundle = bundle
        self.device = _device(device)
        self.precision = _precision(precision, self.device)
        self.cache = cache
        self.template = load_template(template)
        self.network = bundle.network.to(self.device)

    def prepare(self, scan: Scan) -> PreparedScan:
        """Preprocess and encode one time point, or recall it.

        Raises:
            PredictorError: if the role that the model needs is missing.
            GeometryError, VolumeError, PreprocessError: if the series cannot be used; role and date stand in front.
        """
        return self._prepare([scan], _silent)[0]

    def predict(
        self,
        task: str,
        scans: Sequence[Scan],
        *,
        saliency_for: Sequence[int] = (-1,),
        asked_on: date | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Prediction:
        """Answer for the scans, oldest first; of more than the model knows, the newest are used.

        Args:
            task: the task's name, for the result.
            scans: at least one, in strictly ascending order of acquisition.
            saliency_for: indices into `scans`; negative ones count from the newest. Ignored if the run abstains.
            asked_on: the day of the question, to tell an old newest scan by; None does not ask.
            progress: called with one short sentence before each step.

        Raises:
            PredictorError: if there is no scan, the order is wrong, a role is missing or a saliency index is not used.
            GeometryError, VolumeError, PreprocessError: if a series cannot be used; role and date stand in front.
        """
        tell = progress or _silent
        _check_order(scans)
        skipped = max(0, len(scans) - self.bundle.metadata.most_scans)
        used = scans[skipped:]
        wanted = _saliency_indices(saliency_for, len(scans), skipped)
        prepared = self._prepare(used, tell)
        tell("reading the time line")
        features = torch.from_numpy(np.stack([each.features for each in prepared])).to(self.device)  # (T, D)
        acquired = [each.acquired.date() for each in used]
        line = _Line(features=features, days=_days(acquired).to(self.device))
        gap_days = self.bundle.metadata.training_ranges.gap_days
        flags = [
            *_scan_flags(prepared, skipped),
            *time_line_flags([each.acquired for each in used], skipped, gap_days),
            *age_flags(acquired[-1], asked_on, gap_days),
        ]
        result = self._answer(task, acquired, line, beyond=self._beyond(prepared), skipped=skipped)
        result = replace(result, flags=(*flags, *result.flags))
        if result.abstention is not None:
            return Prediction(result=result, saliency=())
        maps = []
        for place in (index - skipped for index in wanted):
            tell(f"explaining scan {skipped + place + 1} of {len(scans)}")
            values = self._explain(prepared, line, place=place)
            maps.append(self._on_own_slices(values, used[place], prepared[place].preprocessed, skipped + place))
        methods = [method_at(self.bundle.metadata.saliency, index - skipped) for index in wanted]
        return Prediction(result=replace(result, saliency_method=methods_told(methods, wanted)), saliency=tuple(maps))

    def _answer(
        self, task: str, acquired: Sequence[date], line: _Line, *, beyond: Sequence[float], skipped: int
    ) -> Result:
        """Return the outputs of all scans and the primary risk after each; or why there are none."""
        metadata = self.bundle.metadata
        prefixes = [self._member_logits(line.first(n + 1)) for n in range(len(acquired))]
        outputs = tuple(
            output(definition, prefixes[-1][:, number], n_scans=len(acquired))
            for number, definition in enumerate(metadata.outputs)
        )
        doubts = self._doubts(outputs[0], beyond, skipped)
        abstention = abstain(doubts)
        result = Result(
            task=task,
            model=self.bundle.card,
            horizon_days=metadata.horizon_days,
            outputs=outputs,
            trajectory=tuple(
                PrefixRisk(n_scans=n, acquired=day, probability=self._primary(logits, n))
                for n, (day, logits) in enumerate(zip(acquired, prefixes, strict=True), start=1)
            ),
            flags=tuple(remarks(doubts)),
            novelty=tuple(beyond),
        )
        return result if abstention is None else replace(result, outputs=(), trajectory=(), abstention=abstention)

    def _doubts(self, primary: Output, beyond: Sequence[float], skipped: int) -> list[Doubt]:
        """Return what speaks against trusting the primary answer."""
        novelty, conformal = self.bundle.metadata.novelty, self.bundle.metadata.outputs[0].conformal
        strange = [] if novelty is None else novelty_doubts(beyond, novelty.rule, skipped=skipped)
        return [*strange, *conformal_doubts(primary, conformal)]

    def _beyond(self, prepared: Sequence[PreparedScan]) -> list[float]:
        """Return how far each scan lies from those of calibration, in limits; empty where nobody knows."""
        known, novelty = self.bundle.known, self.bundle.metadata.novelty
        if known is None or novelty is None:
            return []
        features = np.stack([each.features for each in prepared])
        blocks = block_means(np.stack([each.preprocessed.array for each in prepared]))
        return [float(each) for each in known.beyond(novelty, features, blocks)]

    def _prepare(self, scans: Sequence[Scan], tell: Callable[[str], None]) -> list[PreparedScan]:
        """Recall or compute volumes and features; missing features are encoded together."""
        volumes: list[Preprocessed] = []
        for number, scan in enumerate(scans, start=1):
            tell(f"preparing scan {number} of {len(scans)}")
            volumes.append(self._preprocessed(scan))
        keys = [self._feature_key(scan) for scan in scans]
        found = [recall(self.cache, key, Features) for key in keys]
        missing = [place for place, each in enumerate(found) if each is None]
        if missing:
            tell(f"encoding {len(missing)} of {len(scans)} scans")
            encoded = self._encode([volumes[place].array for place in missing])
            for place, values in zip(missing, encoded, strict=True):
                found[place] = Features(values=values)
                remember(self.cache, keys[place], Features(values=values))
        return [
            PreparedScan(preprocessed=volume, features=each.values)
            for volume, each in zip(volumes, found, strict=True)
            if each is not None
        ]

    def _preprocessed(self, scan: Scan) -> Preprocessed:
        """Recall or compute one scan in the model's space."""
        return recall_or_compute(
            self.cache,
            self._volume_key(scan),
            Preprocessed,
            lambda: self._preprocess(scan),
        )

    def _preprocess(self, scan: Scan) -> Preprocessed:
        """Read and preprocess the series of one scan, naming role and date in whatever goes wrong."""
        volume = self._read(scan)
        try:
            return preprocess(volume, self.template, shape=self.bundle.metadata.input_shape)
        except PreprocessError as error:
            raise PreprocessError(f"{self._where(scan)}: {error}") from error

    def _read(self, scan: Scan) -> Volume:
        """Read the one series that the model needs."""
        role = self.bundle.metadata.roles[0]
        if not scan.series.get(role):
            raise PredictorError(f"{self._where(scan)}: expected a series of this role, found {sorted(scan.series)}")
        try:
            return read_series(scan.series[role])
        except GeometryError as error:
            raise GeometryError(error.defect, f"{self._where(scan)}: {error}") from error
        except VolumeError as error:
            raise VolumeError(f"{self._where(scan)}: {error}") from error

    def _where(self, scan: Scan) -> str:
        return f"{self.bundle.metadata.roles[0]} of {scan.acquired.date().isoformat()}"

    def _volume_key(self, scan: Scan) -> str:
        metadata = self.bundle.metadata
        return volume_key(scan.digest, metadata.roles[0], self.template, metadata.input_shape)

    def _feature_key(self, scan: Scan) -> str:
        return cache_key("features", self._volume_key(scan), self.bundle.digest, self.device.type, self.precision)

    def _autocast(self) -> AbstractContextManager[None]:
        """Return the context that a network pass runs in."""
        if self.precision == "float32":
            return nullcontext()
        autocast: AbstractContextManager[None] = torch.autocast(self.device.type, dtype=torch.bfloat16)
        return autocast

    def _encode(self, arrays: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Return the features (D,) of volumes (Z, Y, X): one batch on CUDA, one by one on a CPU."""
        volumes = torch.from_numpy(np.stack(arrays))[:, None]  # (N, C, Z, Y, X)
        batches = torch.split(volumes, len(arrays) if self.device.type == "cuda" else 1)
        with torch.no_grad(), self._autocast():
            encoded = [self.network.encode(batch.to(self.device)).float().cpu() for batch in batches]
        return list(torch.cat(encoded).numpy())

    def _member_logits(self, line: _Line) -> NDArray[np.float64]:
        """Return logits (members, outputs) for one prefix; always float32."""
        with torch.no_grad():
            logits = self.network.head(line.features[None], torch.tensor([len(line.features)]), line.days[None])[:, 0]
        return np.asarray(logits.cpu().numpy(), dtype=np.float64)

    def _primary(self, logits: NDArray[np.float64], n_scans: int) -> float:
        """Return the calibrated primary probability of member logits (members, outputs) on a number of scans."""
        return output(self.bundle.metadata.outputs[0], logits[:, 0], n_scans=n_scans).probability

    def _explain(self, prepared: Sequence[PreparedScan], line: _Line, *, place: int) -> NDArray[np.float32]:
        """Return the map (Z, Y, X) of one of the used scans, in the model's space."""
        volume, older = (
            torch.from_numpy(prepared[each].preprocessed.array)[None].to(self.device)  # (C, Z, Y, X)
            for each in (place, max(0, place - 1))
        )
        method = method_at(self.bundle.metadata.saliency, place)
        found = attribute(self.network, volume, line.features, place, method=method, older=older, days=line.days)
        return to_map(found.cpu().numpy())

    def _on_own_slices(
        self, values: NDArray[np.float32], scan: Scan, preprocessed: Preprocessed, time_point: int
    ) -> SaliencyMap:
        """Return a map (Z, Y, X) of the model's space on the slices of its scan."""
        source = self._read(scan)
        return SaliencyMap(
            time_point=time_point,
            series_instance_uid=source.series_instance_uid,
            frame_of_reference_uid=source.frame_of_reference_uid,
            values=to_native(values, preprocessed, source),
            anatomy=source.array,
            affine=source.affine,
            slices=source.slices,
        )


def _days(acquired: Sequence[date]) -> Tensor:
    """Return the days of scans (T,) from the newest: 0, before it negative, as in training."""
    return torch.tensor([(each - acquired[-1]).days for each in acquired], dtype=torch.float32)


def _device(name: str) -> torch.device:
    """Return the device that a name means here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise PredictorError(f"device: expected auto, cpu or cuda, found {name!r}") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and not torch.cuda.is_available()):
        raise PredictorError(f"device {name!r}: not available here")
    return device


def _precision(name: str, device: torch.device) -> str:
    """Return the precision that a name means on a device."""
    if name not in ("auto", "float32", "bfloat16"):
        raise PredictorError(f"precision: expected auto, float32 or bfloat16, found {name!r}")
    if name == "auto":
        return "bfloat16" if device.type == "cuda" else "float32"
    return name


def _check_order(scans: Sequence[Scan]) -> None:
    """Refuse an empty or unordered time line."""
    if not scans:
        raise PredictorError("scans: expected at least one, found none")
    for number, (older, newer) in enumerate(pairwise(scans)):
        if not older.acquired < newer.acquired:
            raise PredictorError(f"scans {number} and {number + 1}: expected ascending acquisition times")


def _scan_flags(prepared: Sequence[PreparedScan], skipped: int) -> list[QualityFlag]:
    """Return what preprocessing remarked on each scan, with the scan's place in the whole time line."""
    return [
        replace(flag, time_point=skipped + place)
        for place, each in enumerate(prepared)
        for flag in each.preprocessed.quality.flags
    ]


def _saliency_indices(wanted: Sequence[int], n_scans: int, skipped: int) -> tuple[int, ...]:
    """Return the scans to explain, each once, counted from the oldest."""
    indices = sorted({index + n_scans if index < 0 else index for index in wanted})
    if any(not skipped <= index < n_scans for index in indices):
        raise PredictorError(f"saliency_for: expected scans {skipped} to {n_scans - 1}, found {list(wanted)}")
    return tuple(indices)
