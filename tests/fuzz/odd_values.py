"""Values that have broken readers of DICOM, by what they are put in the place of."""

from __future__ import annotations

from typing import Final

NUMBERS: Final = (
    b"", b"0", b"-0", b"-1", b"1", b"nan", b"inf", b"-inf", b"1e308", b"1e999", b"-1e-320", b"1_000", b"0x10", b"1,5",
    b"+.5E+0", b"9" * 17, b"9" * 400, b"2147483648", b"-2147483649", b"18446744073709551616", b" 1", b"1\0",
    b"\xd9\xa1", b"1\\2", b"\\", b"\\\\\\\\\\", b"1\\\\3", b"0\\0\\0", b"1\\0\\0\\0\\1\\0", b"0\\0\\0\\0\\0\\0",
    b"nan\\0\\0", b"1e200\\1e200\\1e200", b"1e-200\\1e-200", b"-1\\-1", b"\\".join([b"1"] * 20_000),
)  # fmt: skip
TEXTS: Final = (
    b"", b" ", b"\0", b"*", b"?", b"\\", b"A\\B", b"../../etc/passwd", b"%s%n{0}", b"\x1b$B\x1b(B", b"\x1b$)C\xb1",
    b"\xff\xfe\xfd", b"\xed\xa0\x80", b"\xf0\x9f\x92\x80", b"A" * 64, b"A" * 65, b"A" * 65534, b"=" * 40, b"^" * 40,
    b"\r\n\x0c", b"<script>", b"'; DROP TABLE patient;--", b"\xe2\x80\xae", b"DERIVED\\SECONDARY", b"MOSAIC",
)  # fmt: skip
UIDS: Final = (
    b"", b"1", b"1.2", b"1..2", b".1", b"1.", b"01.2", b"1.02", b"1.2\0", b"1.2\0\0", b"1.2 ", b"1." + b"2" * 62,
    b"1." + b"2" * 63, b"9" * 200, b"1.2\\1.3", b"../1", b"1.2.x", b"1.2.840.10008.1.2", b"\xff",
    b"1.2.840.10008.5.1.4.1.1.4", b"1.2.840.10008.5.1.4.1.1.4.1", b"1.2.840.10008.5.1.4.1.1.2",
    b"1.2.840.10008.5.1.4.1.1.88.59", b"1.2.840.10008.5.1.4.1.1.88.34", b"1.2.840.10008.1.3.10",
)  # fmt: skip
DATES: Final = (
    b"", b"0", b"00000000", b"99999999", b"20250230", b"2025", b"202506", b"20250602\\20250603", b"2025.06.02",
    b"20250602-20250603", b"-0250602", b"20250602101500.999999+9999", b"20250602101500-2401", b"00010101000000+1400",
    b"99991231235959.999999-1200", b"20250602250000", b"20250602235960", b"\xb2\xb0250602", b"2025060 ",
)  # fmt: skip
TIMES: Final = (
    b"", b"0", b"24", b"235960", b"246060", b"10:15:00", b"101500.1234567", b"101500.", b".5", b"-1", b"1015-1030",
    b"101500+0100", b"\xb9\xb9",
)  # fmt: skip
CHARACTER_SETS: Final = (
    b"", b"\\", b"ISO_IR 192", b"ISO 2022 IR 6\\ISO 2022 IR 87", b"ISO 2022 IR 149\\ISO 2022 IR 149", b"GB18030",
    b"GBK", b"ISO_IR 999", b"utf-8", b"utf_16", b"idna", b"punycode", b"rot13", b"hex", b"zlib", b"unicode_escape",
    b"mbcs", b"\\ISO 2022 IR 159", b"ISO_IR 13", b"ISO_IR 166", b"A" * 1000,
)  # fmt: skip
TRANSFER_SYNTAXES: Final = (
    b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.2",
    b"1.2.840.10008.1.2.4.50", b"1.2.840.10008.1.2.4.51", b"1.2.840.10008.1.2.4.57", b"1.2.840.10008.1.2.4.70",
    b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.81", b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.91",
    b"1.2.840.10008.1.2.4.201", b"1.2.840.10008.1.2.5", b"1.2.840.113619.5.2", b"1.2.3", b"", b"x",
)  # fmt: skip
VRS: Final = (
    *tuple(
        b"AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
    ),
    b"??",
    b"\x00\x00",
    b"ox",
    b"  ",
    b"\xff\xff",
)
LENGTHS: Final = (0, 1, 2, 3, 7, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
SHORTS: Final = (0, 1, 2, 3, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 64, 255, 256, 1024, 32767, 32768, 65535)
EXTREME_DOUBLES: Final = (0.0, -0.0, 1e308, -1e308, 5e-324, float("inf"), float("-inf"), float("nan"), 2.0**63)
BY_VR: Final = {
    b"DS": NUMBERS, b"IS": NUMBERS, b"UI": UIDS, b"DA": DATES, b"DT": DATES, b"TM": TIMES,
    b"PN": TEXTS, b"LO": TEXTS, b"SH": TEXTS, b"CS": TEXTS, b"LT": TEXTS, b"ST": TEXTS, b"UT": TEXTS, b"AS": TEXTS,
}  # fmt: skip
