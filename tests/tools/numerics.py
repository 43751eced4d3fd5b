"""Other arithmetic on the same machine: the environment in which torch, oneDNN, MKL and NumPy compute as on an older processor.

Processors with AVX2, AVX-512 or AMX sum in different orders and round differently, and a training magnifies the last bits.
A lesson whose claims hold natively and under another of these profiles does not owe them to the processor it was written on.
`numerics.py` prints what this machine is and which profile is the other one.
"""
import getpass
import os
import platform
import sys
import tempfile
from pathlib import Path

PROFILES: dict[str, dict[str, str]] = {
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"},
}


def is_x86() -> bool:
    """Whether the profiles mean anything here; elsewhere the seeds alone are shifted."""
    return platform.machine().lower() in ("x86_64", "amd64")


def capability() -> str:
    """What torch computes with here: `avx512`, `avx2` or `default`, by the environment or else the processor; `other` elsewhere."""
    if not is_x86():
        return "other"
    if chosen := os.environ.get("ATEN_CPU_CAPABILITY"):
        return chosen
    from numpy._core._multiarray_umath import __cpu_features__ as features
    return "avx512" if features.get("AVX512F") else "avx2" if features.get("AVX2") else "default"


def other() -> str:
    """The profile that computes differently from this machine, at the least cost."""
    return {"avx512": "avx2", "avx2": "default", "default": "avx2"}.get(capability(), "native")


def environment(profile: str) -> dict[str, str]:
    """The environment variables of a profile; `other` names the one that `other()` chooses."""
    profile = other() if profile == "other" else profile
    found = dict(PROFILES[profile]) if is_x86() else {}
    if found:
        from numpy._core._multiarray_umath import __cpu_dispatch__ as dispatch
        from numpy._core._multiarray_umath import __cpu_features__ as features
        off = [name for name in dispatch if features.get(name) and (profile == "default" or "512" in name or name == "X86_V4")]
        off = os.environ.get("NPY_DISABLE_CPU_FEATURES", "").split() + off
        found |= {"NPY_DISABLE_CPU_FEATURES": " ".join(off)} if off else {}
        found["TORCHINDUCTOR_CACHE_DIR"] = compiled_code(profile)
    return found


def compiled_code(profile: str | None = None) -> str:
    """The folder where torch.compile keeps the code it made: one for each profile, or it would try code of another one."""
    return str(Path(tempfile.gettempdir()) / f"torchinductor-{getpass.getuser()}-{profile or capability()}")


def main() -> int:
    """Print what this machine computes with, and the profiles."""
    print(f"this machine: {capability()}; other numerics: {other()}")
    for profile in PROFILES:
        print(profile, " ".join(f"{name}={value!r}" for name, value in environment(profile).items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
