"""What a device could do at best, by its name: the bound that speeds are compared with.

Dense tensor-core peaks in TFLOP/s, bf16 with fp32 accumulation, no sparsity, at the boost clock of the
maker's data sheet. GeForce cards of the 30, 40 and 50 series accumulate in fp32 at half their advertised
rate; the half is listed. Cards before Ampere have no bf16: fp16 is listed.
"""

from collections.abc import Mapping

PEAK_TFLOPS: Mapping[str, float] = {
    # the longest name that is part of the device's name counts
    "B200": 2250.0,
    "GH200": 989.4,
    "H200": 989.4,
    "H100": 989.4,  # SXM
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "A100": 312.0,
    "A10": 125.0,
    "A40": 149.7,
    "L4": 121.0,
    "L40": 181.0,
    "L40S": 362.0,
    "V100": 125.0,
    "T4": 65.0,
    "RTX A4000": 76.7,
    "RTX A5000": 111.1,
    "RTX A6000": 154.8,
    "RTX 6000 Ada": 364.2,
    "GeForce RTX 3060": 25.5,
    "GeForce RTX 3070": 40.6,
    "GeForce RTX 3080": 59.5,
    "GeForce RTX 3090": 71.0,
    "GeForce RTX 4070": 58.3,
    "GeForce RTX 4080": 97.5,
    "GeForce RTX 4090": 165.2,
    "GeForce RTX 5070": 61.7,
    "GeForce RTX 5080": 112.6,
    "GeForce RTX 5090": 209.5,
}
ATTAINABLE = 0.8  # of the peak, by large matrix products: 790 TFLOP/s of an H200
VARIANTS = {"Ti", "SUPER", "Laptop", "D"}  # other chips under a listed name: their peaks are not those


def attainable_flop_per_s(device_name: str) -> float | None:
    """What a device reaches at best in 16 bits, operations per second (multiply and add are two).

    Args:
        device_name: as `torch.cuda.get_device_name` says it, such as "NVIDIA H100 80GB HBM3".

    Returns: None for a device that is not listed, and for a slice of one (MIG).
    """
    words = device_name.replace("-", " ").split()
    name = max((name for name in PEAK_TFLOPS if _holds(words, name.split())), key=len, default=None)
    if name is None or "MIG" in words or (name.startswith("GeForce") and VARIANTS & set(words)):
        return None
    return PEAK_TFLOPS[name] * 1e12 * ATTAINABLE


def _holds(words: list[str], name: list[str]) -> bool:
    return any(words[start : start + len(name)] == name for start in range(len(words)))
