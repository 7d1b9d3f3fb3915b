"""How each vendor words its headers: series names, sequence names, image types. A table and one small choice.

Shapes follow public headers of Siemens, GE and Philips scanners; the text varies on purpose, for series selection has
to live with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from inference.phantom.signal import Contrast

if TYPE_CHECKING:
    from inference.phantom.signal import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What a vendor writes about one series."""

    description: str
    protocol: str
    sequence_name: str  # SequenceName at Siemens, PulseSequenceName in enhanced objects
    scanning_sequence: tuple[str, ...]
    sequence_variant: tuple[str, ...]
    scan_options: tuple[str, ...]
    image_type: tuple[str, ...]


# (vendor, role, 3D?) -> (SeriesDescription, SequenceName)
_NAMES: dict[tuple[str, str, bool], tuple[str, str]] = {
    ("siemens", "T1", False): ("t1_se_tra", "*se2d1"),
    ("siemens", "T1c", False): ("t1_se_tra_KM", "*se2d1"),
    ("siemens", "T2", False): ("t2_tse_tra", "*tse2d1_15"),
    ("siemens", "FLAIR", False): ("t2_tirm_tra_dark-fluid", "*tir2d1_17"),
    ("siemens", "T1", True): ("t1_mprage_sag_p2_iso", "*tfl3d1_ns"),
    ("siemens", "T1c", True): ("t1_mprage_sag_p2_iso_KM", "*tfl3d1_ns"),
    ("siemens", "T2", True): ("t2_space_sag_p2_iso", "*spc_282ns"),
    ("siemens", "FLAIR", True): ("t2_space_dark-fluid_sag_p2_iso", "*spcir_192ns"),
    ("ge", "T1", False): ("Ax T1 SE", "SE"),
    ("ge", "T1c", False): ("Ax T1 SE +C", "SE"),
    ("ge", "T2", False): ("Ax T2 FSE", "FSE-XL"),
    ("ge", "FLAIR", False): ("Ax T2 FLAIR", "T2FLAIR"),
    ("ge", "T1", True): ("3D T1 BRAVO", "BRAVO"),
    ("ge", "T1c", True): ("3D T1 BRAVO +C", "BRAVO"),
    ("ge", "T2", True): ("3D T2 CUBE", "CUBE T2"),
    ("ge", "FLAIR", True): ("3D CUBE T2 FLAIR", "CUBE FLAIR"),
    ("philips", "T1", False): ("T1W_SE", "SE"),
    ("philips", "T1c", False): ("T1W_SE_GD", "SE"),
    ("philips", "T2", False): ("T2W_TSE", "TSE"),
    ("philips", "FLAIR", False): ("FLAIR_longTR", "TSE"),
    ("philips", "T1", True): ("3D_T1W_TFE", "TFE"),
    ("philips", "T1c", True): ("3D_T1W_TFE_GD", "TFE"),
    ("philips", "T2", True): ("VISTA_T2", "TSE"),
    ("philips", "FLAIR", True): ("VISTA_FLAIR", "TSE"),
    ("hitachi", "T1", False): ("T1 SE AX", "SE"),
    ("hitachi", "T1c", False): ("T1 SE AX CE", "SE"),
    ("hitachi", "T2", False): ("T2 FSE AX", "FSE"),
    ("hitachi", "FLAIR", False): ("FLAIR AX", "FIR"),
    ("hitachi", "T1", True): ("T1 3D MPRAGE", "RSSG"),
    ("hitachi", "T1c", True): ("T1 3D MPRAGE CE", "RSSG"),
    ("hitachi", "T2", True): ("T2 isoFSE", "FSE"),
    ("hitachi", "FLAIR", True): ("FLAIR isoFSE", "FIR"),
}
_IMAGE_TYPES = {
    "siemens": ("ORIGINAL", "PRIMARY", "M", "ND", "NORM"),
    "ge": ("ORIGINAL", "PRIMARY", "OTHER"),
    "philips": ("ORIGINAL", "PRIMARY", "M_SE", "M", "SE"),
    "hitachi": ("ORIGINAL", "PRIMARY", "OTHER"),
}
_SCAN_OPTIONS = {"siemens": ("PFP",), "ge": ("FAST_GEMS", "FC_SLICE_AX_GEMS"), "philips": ("FS",), "hitachi": ("PFF",)}
AGENT = {"siemens": "Gadovist", "ge": "GADAVIST", "philips": "DOTAREM", "hitachi": "Gadovist"}


def wording(vendor: str, role: str, sequence: Sequence, *, volumetric: bool) -> Wording:
    """Return a vendor's words for one series.

    Raises:
        KeyError: if vendor or role is unknown.
    """
    description, name = _NAMES[vendor, role, volumetric]
    scanning: tuple[str, ...] = ("SE",)
    variant: tuple[str, ...] = ("SK",) if sequence.echo_train > 1 else ("NONE",)
    if sequence.contrast is Contrast.PREPARED_GRADIENT_ECHO:
        scanning, variant = ("GR", "IR"), ("SK", "SP", "MP")
    elif sequence.contrast is Contrast.INVERSION_RECOVERY:
        scanning, variant = ("SE", "IR"), ("SK", "SP", "MP") if vendor == "siemens" else ("SK",)
    image_type = _IMAGE_TYPES[vendor]
    if vendor == "philips" and "GR" in scanning:
        image_type = ("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE")
    return Wording(
        description=description,
        protocol=description,
        sequence_name=name,
        scanning_sequence=scanning,
        sequence_variant=variant,
        scan_options=_SCAN_OPTIONS[vendor],
        image_type=image_type,
    )
